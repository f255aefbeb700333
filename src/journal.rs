//! The journal: what triggers recorded of every write, and the guarantee that every instance hears of it.
//!
//! * **Relay** (with Redis, on every instance): rows that their writer has not announced within a short grace are
//!   announced by whoever claims them first. A writer that dies after its commit, and a row changed by another program,
//!   are covered by this. At least once: announcing twice costs a miss.
//! * **Marks**: a writer that has announced its rows says so, in batches and late.
//! * **Journal as the bus** (a server, but no Redis): every instance reads new rows several times a second and renews
//!   its lease from that.
//!
//! It never keeps a connection while it waits.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use diesel_async::{AnsiTransactionManager, TransactionManager};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    cache::{Cache, Tag, l2::Link},
    db::{Db, DbError},
    domain::Change,
    models::{idempotency_keys::IdempotencyKey, journal::JournalRow},
    queries::tags::tags_of_all,
    telemetry::Chain,
};

/// How long a writer has to announce its own rows.
const GRACE: Duration = Duration::from_millis(300);
/// How often rows that are due are looked for.
const RELAY_EVERY: Duration = Duration::from_millis(250);
/// Rows that are claimed at once.
const CLAIM: i64 = 500;
/// How often marks are written, and how many at once.
const MARK_EVERY: Duration = Duration::from_millis(100);
const MARKS: usize = 1000;
/// How often the journal is read when it is the bus. Several times per lease.
const READ_EVERY: Duration = Duration::from_millis(200);
/// How long rows are kept; those that nobody could announce, longer than any entry may live in L2 by its settings.
const KEEP_MINUTES: i64 = 15;
const KEEP_UNRELAYED_MINUTES: i64 = 31 * 24 * 60;
/// How long a request may be repeated under its `Idempotency-Key`.
const KEEP_ANSWERS_HOURS: i64 = 24;
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Rows that their writer has announced.
pub type Marks = mpsc::UnboundedSender<Vec<i64>>;

/// The tasks around the journal.
pub struct Journal {
    /// Where it is.
    pub db: Db,
    /// Who has to hear of it.
    pub cache: Arc<Cache>,
    /// Rows are announced through Redis, and kept until they were.
    pub relays: bool,
}

impl Journal {
    /// Announces what its writers have not, until stopped.
    pub async fn relay(&self, stop: CancellationToken) {
        let work = || async {
            let relayed = self.relay_once(GRACE).await;
            self.db.note_reachable(relayed.is_ok());
            relayed.map(|count| count > 0)
        };
        repeat("relaying the journal", RELAY_EVERY, stop, work).await;
    }

    /// Announces the rows that are due. Returns how many it was.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn relay_once(&self, grace: Duration) -> Result<usize, DbError> {
        relay_rows(&self.db, grace, async |tags| self.cache.relay(tags).await).await
    }

    /// Writes the marks that arrive, until stopped.
    pub async fn mark(&self, mut marks: mpsc::UnboundedReceiver<Vec<i64>>, stop: CancellationToken) {
        let mut batch = Vec::new();
        while let Some(Some(first)) = stop.run_until_cancelled(marks.recv()).await {
            batch.extend(first);
            if stop.run_until_cancelled(tokio::time::sleep(MARK_EVERY)).await.is_none() {
                break;
            }
            while batch.len() < MARKS
                && let Ok(more) = marks.try_recv()
            {
                batch.extend(more);
            }
            self.write_marks(&batch).await;
            batch.clear();
        }
        marks.close();
        while let Ok(more) = marks.try_recv() {
            batch.extend(more);
        }
        self.write_marks(&batch).await;
    }

    async fn write_marks(&self, ids: &[i64]) {
        if ids.is_empty() {
            return;
        }
        let marked = async {
            let mut connection = self.db.journal_connection().await?;
            Ok::<_, DbError>(JournalRow::mark(&mut connection, ids).await?)
        };
        if let Err(err) = marked.await {
            log::warn!("error.chain":% = Chain(&err); "journal rows were not marked; the relay will announce them again");
        }
    }

    /// Hears of every change by reading the journal, until stopped. `own`: rows that this process has heard of by
    /// writing them.
    pub async fn listen(&self, mut own: mpsc::UnboundedReceiver<Vec<i64>>, stop: CancellationToken) {
        let mut reading = Reading::default();
        let mut hearing = None;
        let mut lost = false;
        loop {
            let asked = Instant::now();
            let read = self.read(reading.horizon).await;
            self.db.note_reachable(read.is_ok());
            match read {
                Ok((horizon, _)) if reading.horizon.is_some_and(|before| horizon < before) => {
                    // Another server, or this one restored from a backup: nothing that was read says anything about it.
                    log::warn!(horizon; "the journal has gone back; starting anew");
                    (reading, hearing) = (Reading::default(), None);
                    continue;
                }
                Ok((horizon, rows)) => {
                    while let Ok(ids) = own.try_recv() {
                        reading.own.extend(ids);
                    }
                    let changes = reading.news(horizon, &rows);
                    // Begun after the first reading: what is loaded from now on has seen all that came before it.
                    let hearing = hearing.get_or_insert_with(|| self.cache.trust_journal());
                    if !changes.is_empty() {
                        hearing.heard(&tags_of_all(&changes));
                    }
                    hearing.caught_up(asked);
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

    async fn read(&self, horizon: Option<i64>) -> Result<(i64, Vec<JournalRow>), DbError> {
        let mut connection = self.db.journal_connection().await?;
        // No transaction has the highest number: the first reading finds the horizon only.
        Ok(JournalRow::list_since(&mut connection, horizon.unwrap_or(i64::MAX)).await?)
    }

    /// Deletes old rows, and old answers to repeated requests, until stopped.
    pub async fn prune(&self, stop: CancellationToken) {
        let work = || async {
            let mut connection = self.db.journal_connection().await?;
            let keep_unrelayed = if self.relays { KEEP_UNRELAYED_MINUTES } else { KEEP_MINUTES };
            JournalRow::prune(&mut connection, KEEP_MINUTES, keep_unrelayed).await?;
            IdempotencyKey::prune(&mut connection, KEEP_ANSWERS_HOURS).await?;
            Ok(false)
        };
        repeat("pruning", PRUNE_EVERY, stop, work).await;
    }
}

/// How far the journal has been read.
#[derive(Default)]
struct Reading {
    /// Every transaction below this number has been read. `None`: nothing has.
    horizon: Option<i64>,
    /// Rows above the horizon that were read; they are found again until it has passed them.
    seen: HashSet<i64>,
    /// Rows that this process has written and heard of then; forgotten once they are seen.
    own: HashSet<i64>,
}

impl Reading {
    /// Changes that were not heard of before.
    fn news(&mut self, horizon: i64, rows: &[JournalRow]) -> Vec<Change> {
        let is_new = |row: &&JournalRow| !self.seen.contains(&row.id) && !self.own.contains(&row.id);
        let changes = rows.iter().filter(is_new).flat_map(|row| row.changes.clone()).collect();
        self.seen = rows.iter().map(|row| row.id).collect();
        self.own.retain(|id| !self.seen.contains(id));
        self.horizon = Some(horizon);
        changes
    }
}

/// Announces through a connection that is not in use yet what could not be announced before.
///
/// # Errors
/// When the database does not answer, or Redis does not confirm.
pub async fn relay_before_use(db: &Db, link: &Link) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    loop {
        let mut failure = None;
        let relayed = relay_rows(db, Duration::ZERO, async |tags: &[Tag]| match link.announce(tags).await {
            Ok(()) => true,
            Err(err) => {
                failure = Some(err);
                false
            }
        });
        let relayed = relayed.await?;
        if let Some(err) = failure {
            return Err(err.into());
        }
        if relayed < usize::try_from(CLAIM).unwrap_or(usize::MAX) {
            return Ok(());
        }
    }
}

/// Claims rows, has them announced, and marks them if they were.
async fn relay_rows(
    db: &Db,
    grace: Duration,
    announce: impl AsyncFnOnce(&[Tag]) -> bool,
) -> Result<usize, DbError> {
    let mut connection = db.journal_connection().await?;
    AnsiTransactionManager::begin_transaction(&mut *connection).await?;
    let grace_ms = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
    let rows = JournalRow::claim(&mut connection, grace_ms, CLAIM).await?;
    if rows.is_empty() {
        AnsiTransactionManager::rollback_transaction(&mut *connection).await?;
        return Ok(0);
    }
    let changes: Vec<_> = rows.iter().flat_map(|row| row.changes.clone()).collect();
    if !announce(&tags_of_all(&changes)).await {
        AnsiTransactionManager::rollback_transaction(&mut *connection).await?;
        return Ok(0);
    }
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    JournalRow::mark(&mut connection, &ids).await?;
    AnsiTransactionManager::commit_transaction(&mut *connection).await?;
    Ok(ids.len())
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
