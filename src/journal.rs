//! The journal: what triggers recorded of every write, and the guarantee that every instance hears of it.
//!
//! * **Relay** (with Redis, on every instance): rows that their writer has not announced within a short grace are
//!   announced by whoever claims them first. A writer that dies after its commit, and a row changed by another program,
//!   are covered by this. At least once: announcing twice costs a miss.
//! * **Marks**: a writer that has announced its rows says so, and in which life of Redis, in batches and late. Who is
//!   connected to another one announces them there: a Redis that was replaced may go on serving some.
//! * **Journal as the bus** (a server, but no Redis, or none that can be reached): every instance reads new rows several
//!   times a second and renews its lease from that. So L1 goes on shielding PostgreSQL.
//!
//! It has connections of its own, so that requests cannot hold it up, and gives up any that does not answer.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use diesel_async::{AnsiTransactionManager, TransactionManager};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    cache::{Cache, Tag, bus::Hearing, l2::Link},
    db::{Db, DbError, snapshot::Snapshot},
    models::{
        events::{Event, EventTicket},
        idempotency_keys::IdempotencyKey,
        journal::JournalRow,
    },
    queries::tags::tags_of_all,
    realtime::KEEP_MINUTES as KEEP_MINUTES_OF_EVENTS,
    telemetry::Chain,
};

/// How long a writer has to announce its own rows.
const GRACE: Duration = Duration::from_millis(300);
/// A row that was claimed and is still not announced after this is announced by everybody.
const OVERDUE: Duration = Duration::from_millis(800);
/// How long what was announced in one life of Redis is looked for by those in another.
const LATELY: Duration = Duration::from_secs(10);
/// How long a reader of the journal remembers which rows it has written itself.
const OWN: Duration = Duration::from_secs(60);
/// How often rows that are due are looked for.
const RELAY_EVERY: Duration = Duration::from_millis(250);
/// Rows that are claimed at once.
const CLAIM: i64 = 500;
/// How often marks are written, and how many at once.
const MARK_EVERY: Duration = Duration::from_millis(100);
const MARKS: usize = 1000;
/// How often the journal is read when it is the bus. Several times per lease.
const READ_EVERY: Duration = Duration::from_millis(200);
/// How often it is looked whether it has to be.
const STAND_IN_EVERY: Duration = Duration::from_millis(50);
/// How long rows are kept; those that nobody could announce, for longer than an outage of Redis lasts.
const KEEP_MINUTES: i64 = 15;
const KEEP_UNRELAYED_MINUTES: i64 = 24 * 60;
/// How long a request may be repeated under its `Idempotency-Key`.
const KEEP_ANSWERS_HOURS: i64 = 24;
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Rows that their writer has announced.
#[derive(Debug)]
pub struct Announced {
    /// Their numbers.
    pub ids: Vec<i64>,
    /// The life of Redis in which they were.
    pub epoch: u64,
}

/// Where that is told.
pub type Marks = mpsc::UnboundedSender<Announced>;

/// The tasks around the journal.
pub struct Journal {
    /// Where it is.
    pub db: Db,
    /// Who has to hear of it.
    pub cache: Arc<Cache>,
}

impl Journal {
    /// Announces what its writers have not, until stopped.
    pub async fn relay(&self, stop: CancellationToken) {
        let repeated = tokio::sync::Mutex::new(HashMap::new());
        let work = || async {
            let relayed = self.relay_once(&mut *repeated.lock().await).await;
            self.db.note_reachable(relayed.is_ok());
            relayed.map(|count| count > 0)
        };
        repeat("relaying the journal", RELAY_EVERY, stop, work).await;
    }

    /// Announces the rows that are due. Returns how many it was. `repeated`: rows that were announced elsewhere and, by
    /// this process, here.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn relay_once(&self, repeated: &mut HashMap<(i64, u64), Instant>) -> Result<usize, DbError> {
        let Some(epoch) = self.cache.relay_epoch() else {
            // It stays asked whether the database is there.
            self.db.journal(async |db| JournalRow::list_due(db, 0, 0).await).await?;
            return Ok(0);
        };
        let claimed = self.db.journal(async |db| {
            AnsiTransactionManager::begin_transaction(db).await?;
            let rows = JournalRow::claim(db, milliseconds(GRACE), CLAIM).await?;
            if !rows.is_empty()
                && let Some(epoch) = self.cache.relay(&tags_of_rows(&rows)).await
            {
                JournalRow::mark(db, &ids(&rows), epoch).await?;
                AnsiTransactionManager::commit_transaction(db).await?;
                return Ok(rows.len());
            }
            AnsiTransactionManager::rollback_transaction(db).await?;
            Ok(0)
        });
        let claimed = claimed.await?;
        // Whoever has claimed these does not get on with it: he may be paused.
        let overdue =
            self.db.journal(async |db| JournalRow::list_due(db, milliseconds(OVERDUE), CLAIM).await).await?;
        if !overdue.is_empty()
            && let Some(epoch) = self.cache.relay(&tags_of_rows(&overdue)).await
        {
            self.db.journal(async |db| JournalRow::mark(db, &ids(&overdue), epoch).await).await?;
        }
        self.relay_elsewhere(epoch, repeated).await?;
        Ok(claimed)
    }

    /// Announces here what was announced in another life of Redis. While a Redis that was replaced goes on serving some
    /// instances, each side has to hear of the other's writes.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn relay_elsewhere(
        &self,
        epoch: u64,
        repeated: &mut HashMap<(i64, u64), Instant>,
    ) -> Result<(), DbError> {
        let lately = milliseconds(LATELY);
        let rows =
            self.db.journal(async |db| JournalRow::list_relayed_elsewhere(db, epoch, lately, CLAIM).await);
        let mut rows = rows.await?;
        let all_are_named = are_all(&rows);
        rows.retain(|row| !repeated.contains_key(&(row.id, epoch)));
        repeated.retain(|_, at| at.elapsed() < 2 * LATELY);
        let tags = if all_are_named { tags_of_rows(&rows) } else { vec![Tag::all()] };
        if !rows.is_empty()
            && let Some(announced_in) = self.cache.relay(&tags).await
        {
            repeated.extend(rows.iter().map(|row| ((row.id, announced_in), Instant::now())));
        }
        Ok(())
    }

    /// Writes the marks that arrive, until stopped.
    pub async fn mark(&self, mut marks: mpsc::UnboundedReceiver<Announced>, stop: CancellationToken) {
        let mut batch = Vec::new();
        while let Some(Some(first)) = stop.run_until_cancelled(marks.recv()).await {
            batch.push(first);
            if stop.run_until_cancelled(tokio::time::sleep(MARK_EVERY)).await.is_none() {
                break;
            }
            while batch.len() < MARKS
                && let Ok(more) = marks.try_recv()
            {
                batch.push(more);
            }
            self.write_marks(std::mem::take(&mut batch)).await;
        }
        marks.close();
        while let Ok(more) = marks.try_recv() {
            batch.push(more);
        }
        self.write_marks(batch).await;
    }

    async fn write_marks(&self, mut batch: Vec<Announced>) {
        // One statement for each life of Redis: nearly always it is one.
        while let Some(Announced { mut ids, epoch }) = batch.pop() {
            for same in batch.extract_if(.., |other| other.epoch == epoch) {
                ids.extend(same.ids);
            }
            let marked = self.db.journal(async |db| JournalRow::mark(db, &ids, epoch).await);
            if let Err(err) = marked.await {
                log::warn!("error.chain":% = Chain(&err); "journal rows were not marked; the relay will announce them again");
            }
        }
    }

    /// Hears of every change by reading the journal, until stopped: there is no Redis. `own`: rows that this process has
    /// heard of by writing them.
    pub async fn listen(&self, mut own: mpsc::UnboundedReceiver<Announced>, stop: CancellationToken) {
        self.read_along(Some(&mut own), &stop).await;
    }

    /// Hears of every change by reading the journal whenever nothing else tells of them, until stopped: Redis is away.
    pub async fn stand_in(&self, stop: CancellationToken) {
        loop {
            if self.cache.needs_journal() {
                self.read_along(None, &stop).await;
            }
            if stop.run_until_cancelled(tokio::time::sleep(STAND_IN_EVERY)).await.is_none() {
                return;
            }
        }
    }

    /// Reads the journal until stopped or not needed any more.
    async fn read_along(
        &self,
        mut own: Option<&mut mpsc::UnboundedReceiver<Announced>>,
        stop: &CancellationToken,
    ) {
        let mut seen: Option<Snapshot> = None;
        let mut written = HashMap::new();
        let mut hearing: Option<Hearing<'_>> = None;
        let mut lost = false;
        while !hearing.as_ref().is_some_and(Hearing::is_over) {
            let asked = Instant::now();
            let read = self.db.journal(async |db| JournalRow::list_since(db, seen.as_ref()).await).await;
            self.db.note_reachable(read.is_ok());
            match read {
                Ok((present, _)) if seen.as_ref().is_some_and(|seen| present.horizon() < seen.horizon()) => {
                    // Another server, or this one restored from a backup: what was read says nothing about it.
                    log::warn!(horizon = present.horizon(); "the journal has gone back; starting anew");
                    hearing.take().inspect(Hearing::give_up);
                    seen = None;
                    continue;
                }
                Ok((present, rows)) => {
                    while let Some(announced) = own.as_mut().and_then(|own| own.try_recv().ok()) {
                        written.extend(announced.ids.into_iter().map(|id| (id, asked)));
                    }
                    let news = rows.iter().filter(|row| !written.contains_key(&row.id));
                    let changes: Vec<_> = news.flat_map(|row| row.changes.clone()).collect();
                    written.retain(|_, heard| heard.elapsed() < OWN);
                    // Begun after the first reading: what is loaded from now on has seen all that came before it.
                    hearing = hearing.or_else(|| self.cache.trust_journal());
                    let Some(hearing) = &hearing else { return };
                    if !changes.is_empty() {
                        hearing.heard(&tags_of_all(&changes));
                    }
                    hearing.caught_up(asked, u64::try_from(present.horizon()).unwrap_or_default());
                    seen = Some(present);
                    lost = false;
                }
                Err(err) if !lost => {
                    lost = true;
                    log::warn!("error.chain":% = Chain(&err); "the journal cannot be read; L1 is not used");
                }
                Err(_still_lost) => {}
            }
            if stop.run_until_cancelled(tokio::time::sleep(READ_EVERY)).await.is_none() {
                return;
            }
        }
    }

    /// Deletes old rows, old answers to repeated requests, and old events, until stopped.
    pub async fn prune(&self, stop: CancellationToken) {
        let work = || async {
            // An embedded database has no others who would have to hear of it.
            let keep_unrelayed = if self.db.is_embedded() { KEEP_MINUTES } else { KEEP_UNRELAYED_MINUTES };
            self.db.journal(async |db| JournalRow::prune(db, KEEP_MINUTES, keep_unrelayed).await).await?;
            self.db.journal(async |db| IdempotencyKey::prune(db, KEEP_ANSWERS_HOURS).await).await?;
            self.db.journal(async |db| Event::prune(db, KEEP_MINUTES_OF_EVENTS).await).await?;
            self.db.journal(async |db| EventTicket::prune(db).await).await?;
            Ok(false)
        };
        repeat("pruning", PRUNE_EVERY, stop, work).await;
    }
}

/// Announces through a connection that is not in use yet what could not be announced before, whoever has claimed it.
/// Returns the position below which everything was announced by then.
///
/// # Errors
/// When the database does not answer, or Redis does not confirm.
pub async fn relay_before_use(db: &Db, link: &Link) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    // The horizon first: whatever is below it is seen by the reading that follows.
    let due = db.journal(async |db| {
        let horizon = JournalRow::horizon(db).await?;
        let rows = JournalRow::list_due(db, 0, CLAIM).await?;
        Ok((horizon, rows, JournalRow::was_relayed_elsewhere(db, link.epoch()).await?))
    });
    let (horizon, rows, elsewhere) = due.await?;
    if rows.is_empty() && !elsewhere {
        return Ok(horizon);
    }
    // The relay marks the rest. What was announced in another life of Redis may be news to this one; who announced it there may be gone.
    let tags = if are_all(&rows) && !elsewhere { tags_of_rows(&rows) } else { vec![Tag::all()] };
    link.announce(&tags).await?;
    link.delete_named(&tags).await;
    db.journal(async |db| JournalRow::mark(db, &ids(&rows), link.epoch()).await).await?;
    Ok(horizon)
}

fn tags_of_rows(rows: &[JournalRow]) -> Vec<Tag> {
    let changes: Vec<_> = rows.iter().flat_map(|row| row.changes.clone()).collect();
    tags_of_all(&changes)
}

/// Whether there are no more than these. If there may be, everything is announced.
fn are_all(rows: &[JournalRow]) -> bool {
    i64::try_from(rows.len()).is_ok_and(|count| count < CLAIM)
}

fn ids(rows: &[JournalRow]) -> Vec<i64> {
    rows.iter().map(|row| row.id).collect()
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Does something again and again; at once when it says that there is more. Complains once per outage.
async fn repeat<W>(what: &str, every: Duration, stop: CancellationToken, work: impl Fn() -> W)
where
    W: Future<Output = Result<bool, DbError>>,
{
    let mut failing = false;
    loop {
        let more = match work().await {
            Ok(more) => {
                failing = false;
                more
            }
            Err(err) => {
                if !failing {
                    log::warn!("error.chain":% = Chain(&err), task = what; "background task failed; trying again");
                }
                failing = true;
                false
            }
        };
        let pause = if more { Duration::ZERO } else { every };
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}
