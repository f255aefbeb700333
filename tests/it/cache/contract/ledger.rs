//! What a server that runs the cache has besides: the journal in PostgreSQL, and the tasks around it.

use std::{collections::HashSet, sync::Arc};

use diesel_async::AsyncPgConnection;
use lockstep::{
    cache::{Cache, Tag, Token, bus::BeforeUse},
    db::Db,
    domain::Change,
    journal::{Announced, Journal, relay_before_use},
    models::journal::JournalRow,
};
use tokio::{
    runtime::Handle,
    sync::{Mutex, mpsc},
};
use tokio_util::sync::CancellationToken;

use crate::support::TestDatabase;

/// One node's way to the journal, put together as the program does it.
pub struct Ledger {
    db: Db,
    writer: Mutex<AsyncPgConnection>,
    own: mpsc::UnboundedSender<Announced>,
}

impl Ledger {
    /// Where to record, and what arrives of one's own.
    pub async fn open(database: &TestDatabase) -> (Self, mpsc::UnboundedReceiver<Announced>) {
        let db = Db::connect(&database.url, 2, Handle::current(), Arc::new(|_| unreachable!())).unwrap();
        let (own, marks) = mpsc::unbounded_channel();
        (Self { db, writer: Mutex::new(database.connect().await), own }, marks)
    }

    /// What a bus has to do before it is used.
    pub fn before_use(&self) -> BeforeUse {
        let db = self.db.clone();
        Box::new(move |link| {
            let db = db.clone();
            Box::pin(async move { relay_before_use(&db, &link).await })
        })
    }

    /// Runs what is around the journal where there is Redis.
    pub fn relay(
        &self,
        cache: &Arc<Cache>,
        marks: mpsc::UnboundedReceiver<Announced>,
        stop: &CancellationToken,
    ) {
        let journal = Arc::new(Journal { db: self.db.clone(), cache: Arc::clone(cache) });
        let [relaying, standing_in, marking] = [0; 3].map(|_| Arc::clone(&journal));
        let [one, two, three] = [0; 3].map(|_| stop.clone());
        tokio::spawn(async move { relaying.relay(one).await });
        tokio::spawn(async move { standing_in.stand_in(two).await });
        tokio::spawn(async move { marking.mark(marks, three).await });
    }

    /// Runs what is around it where there is none.
    pub fn listen(
        &self,
        cache: &Arc<Cache>,
        own: mpsc::UnboundedReceiver<Announced>,
        stop: &CancellationToken,
    ) {
        let journal = Journal { db: self.db.clone(), cache: Arc::clone(cache) };
        let stop = stop.clone();
        tokio::spawn(async move { journal.listen(own, stop).await });
    }

    /// Records and announces, as a commit does. `commit` makes it so: nobody may see it later than the journal.
    pub async fn write(&self, cache: &Cache, tags: &[Tag], commit: impl FnOnce()) -> Token {
        let changes: HashSet<_> = tags.iter().map(|tag| Change::Tag { name: tag.to_string() }).collect();
        let changes: Vec<_> = changes.into_iter().collect();
        let mut writer = self.writer.lock().await;
        commit();
        let JournalRow { id, position, .. } = JournalRow::record(&mut writer, &changes).await.unwrap();
        drop(writer);
        let invalidated = cache.invalidate_recorded(tags, Some(position), "test").await;
        if invalidated.announced {
            let _ = self.own.send(Announced { ids: vec![id], epoch: invalidated.epoch });
        }
        invalidated.token
    }
}
