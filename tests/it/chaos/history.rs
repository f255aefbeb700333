//! What was done and seen, with the times of one monotonic clock.
//!
//! The thing that is written and read is a **register**: a workspace or a document, whose row has a `version` that each
//! update raises, in PostgreSQL, while it holds the row's lock. That number is the order of all writes, whoever made them
//! and however late they arrived: no answer that was lost and no instance that stood still can confuse it. The name or
//! title is the number of the attempt, which no other attempt has, so that a version can be told from its content.

use std::{collections::HashMap, time::Instant};

/// The version of a register whose row was deleted.
pub const GONE: i64 = i64::MAX;

/// A version that is known to be committed.
#[derive(Debug, Clone)]
pub struct Write {
    pub register: usize,
    pub version: i64,
    /// The attempt that made it, if it made one that can be read.
    pub number: Option<u64>,
    pub started: Instant,
    /// When its commit was known: its acknowledgement had come, or its row was seen in PostgreSQL.
    pub known: Instant,
    /// The instance that acknowledged it.
    pub by: Option<String>,
}

/// What a read showed of one register.
#[derive(Debug, Clone)]
pub struct Read {
    pub register: usize,
    /// Version and number; `None`: there is no such thing.
    pub seen: Option<(i64, u64)>,
    pub started: Instant,
    pub ended: Instant,
    /// The instance that answered.
    pub by: String,
    /// The version whose token was sent along.
    pub token: Option<i64>,
    /// How the answer was had, for whoever has to find out why it was wrong.
    pub how: String,
}

/// An answer to a read, whatever it showed.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    pub started: Instant,
    pub l1_hit: bool,
}

/// A request that did not do what it should.
#[derive(Debug, Clone)]
pub struct Failure {
    pub kind: FailureKind,
    pub started: Instant,
    pub ended: Instant,
    /// The place of the instance that answered or was asked; `None`: the balancer was asked, and no instance answered.
    pub asked: Option<usize>,
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// An instance answered 5xx.
    Refused,
    /// The balancer answered 5xx by itself.
    Gateway,
    /// No answer.
    Silence,
    /// An answer that nothing explains.
    Wrong,
}

/// A row as it is in PostgreSQL at the end.
#[derive(Debug, Clone, Copy)]
pub struct Final {
    pub register: usize,
    /// `None`: there is none.
    pub row: Option<(i64, u64)>,
}

/// Everything that happened while one thing went wrong.
#[derive(Debug, Default)]
pub struct History {
    pub writes: Vec<Write>,
    pub reads: Vec<Read>,
    pub answers: Vec<Answer>,
    pub failures: Vec<Failure>,
    pub finals: Vec<Final>,
}

impl History {
    /// What another task has recorded, too.
    pub fn merge(&mut self, other: Self) {
        self.writes.extend(other.writes);
        self.reads.extend(other.reads);
        self.answers.extend(other.answers);
        self.failures.extend(other.failures);
        self.finals.extend(other.finals);
    }

    /// What the next history has to begin with: the newest version of each register.
    pub fn newest(&self) -> Vec<Write> {
        let mut newest: HashMap<usize, &Write> = HashMap::new();
        for write in &self.writes {
            let known = newest.entry(write.register).or_insert(write);
            if (write.version, write.by.is_some()) > (known.version, known.by.is_some()) {
                *known = write;
            }
        }
        newest.into_values().cloned().collect()
    }
}

/// What explains failures.
#[derive(Debug, Default)]
pub struct Excuses {
    /// When PostgreSQL did not serve.
    pub postgres_away: Vec<(Instant, Instant)>,
    /// When an instance was dead or starting, by its place.
    pub instance_away: Vec<(usize, Instant, Instant)>,
    /// When an instance stood still, by its place.
    pub instance_paused: Vec<(usize, Instant, Instant)>,
    /// Connections to PostgreSQL that were cut under a request.
    pub requests_cut: usize,
}
