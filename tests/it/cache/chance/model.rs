//! What was written when, and what a reader must see at least.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lockstep::cache::Token;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

/// How old a read on another node may be.
pub const BOUND: Duration = Duration::from_millis(1500);
/// Which versions of a row say that it is not there.
const ABSENT_EVERY: u64 = 5;

/// A row, whose versions are numbers that grow.
#[derive(Default)]
struct Row {
    turn: Arc<Turn<()>>,
    /// What is in the database.
    version: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The last version that each node has acknowledged.
    by_node: [u64; 2],
    /// Versions, and when they were acknowledged.
    acknowledged: Vec<(u64, Instant)>,
    token: Option<(u64, Token)>,
}

/// The rows.
pub struct Model {
    rows: Vec<Row>,
    /// The longest time in milliseconds for which this process has stood still: that proves nothing.
    standstill_ms: AtomicU64,
}

/// A write under way.
pub struct Writing {
    row: u128,
    version: u64,
    _turn: OwnedMutexGuard<()>,
}

impl Model {
    pub fn new(rows: u128) -> Self {
        Self { rows: (0..rows).map(|_| Row::default()).collect(), standstill_ms: AtomicU64::new(0) }
    }

    /// Notes when the machine has better things to do.
    pub fn watch_the_clock(self: &Arc<Self>, stop: &CancellationToken) {
        let (model, stop) = (Arc::clone(self), stop.clone());
        tokio::spawn(async move {
            const TICK: Duration = Duration::from_millis(10);
            while !stop.is_cancelled() {
                let begun = Instant::now();
                tokio::time::sleep(TICK).await;
                let late = u64::try_from((begun.elapsed() - TICK).as_millis()).unwrap();
                model.standstill_ms.fetch_max(late, Ordering::SeqCst);
            }
        });
    }

    fn row(&self, row: u128) -> &Row {
        &self.rows[usize::try_from(row).unwrap()]
    }

    /// What the database says.
    pub fn look(&self, row: u128) -> Option<u64> {
        let version = self.row(row).version.load(Ordering::SeqCst);
        (!version.is_multiple_of(ABSENT_EVERY)).then_some(version)
    }

    pub async fn begin_write(&self, row: u128) -> Writing {
        let turn = Arc::clone(&self.row(row).turn).lock_owned().await;
        Writing { row, version: self.row(row).version.load(Ordering::SeqCst) + 1, _turn: turn }
    }

    pub fn commit(&self, writing: &Writing) {
        self.row(writing.row).version.store(writing.version, Ordering::SeqCst);
    }

    pub fn acknowledge(&self, writing: Writing, node: usize, token: Token) {
        let mut known = self.row(writing.row).known.lock().unwrap();
        known.by_node[node] = writing.version;
        known.acknowledged.push((writing.version, Instant::now()));
        known.token = Some((writing.version, token));
    }

    /// The last write's token, and what was written.
    pub fn token(&self, row: u128) -> Option<(u64, Token)> {
        self.row(row).known.lock().unwrap().token
    }
}

/// A reader, and what was known when he came.
pub struct Observer {
    node: usize,
    row: u128,
    begun: Instant,
    by_node: u64,
    by_token: Option<u64>,
}

impl Observer {
    pub fn begin(model: &Model, node: usize, row: u128, token: Option<&(u64, Token)>) -> Self {
        let by_node = model.row(row).known.lock().unwrap().by_node[node];
        Self { node, row, begun: Instant::now(), by_node, by_token: token.map(|(version, _)| *version) }
    }

    /// Whether this may be what he has seen.
    pub fn judge(&self, model: &Model, seen: Option<u64>) -> Result<(), String> {
        let row = model.row(self.row);
        let newest = row.version.load(Ordering::SeqCst);
        let bound = BOUND + Duration::from_millis(model.standstill_ms.load(Ordering::SeqCst));
        let known = row.known.lock().unwrap();
        let old_enough = known.acknowledged.iter().rev().find(|(_, at)| *at + bound <= self.begun);
        let by_time = old_enough.map_or(0, |(version, _)| *version);
        let least = by_time.max(self.by_node).max(self.by_token.unwrap_or_default());
        let is_right = match seen {
            Some(version) => (least..=newest).contains(&version),
            None => (least..=newest).any(|version| version.is_multiple_of(ABSENT_EVERY)),
        };
        if is_right {
            return Ok(());
        }
        let Self { node, row, by_node, by_token, .. } = self;
        Err(format!(
            "row {row} at node {node}: {seen:?} after it had acknowledged {by_node}, with a token of {by_token:?}, \
             {by_time} being {bound:?} ago, {newest} the newest"
        ))
    }
}

/// What a task that has panicked had to say.
pub fn told(err: tokio::task::JoinError) -> String {
    let said = err.into_panic();
    said.downcast_ref::<String>().cloned().unwrap_or_else(|| "it panicked".to_owned())
}
