//! The state of the whole system: one row of the database, one tag, Redis, and two instances.
//!
//! The row's value is the number of its last commit, so that older is less. What is marked *ghost* is known to nobody in
//! the system; it is what promises are measured by.

use crate::rules::Bounds;

/// More invalidations than any bounds lead to.
pub(crate) const SEQUENCES: usize = 16;

/// What is cached, in either tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) value: u8,
    /// The stamp.
    pub(crate) as_of: u8,
    pub(crate) epoch: u8,
}

/// One life of the data in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Redis {
    pub(crate) epoch: u8,
    pub(crate) sequence: u8,
    /// `None`: never invalidated, or forgotten.
    pub(crate) version: Option<u8>,
    pub(crate) entry: Option<Entry>,
    /// Ghost: the row as it was when each number was given out.
    pub(crate) announced: [u8; SEQUENCES],
}

impl Redis {
    /// Empty; the row was `row` by then.
    pub(crate) const fn empty(epoch: u8, row: u8) -> Self {
        Self { epoch, sequence: 0, version: None, entry: None, announced: [row; SEQUENCES] }
    }

    /// Ghost: the newest row that was announced.
    pub(crate) fn newest(&self) -> u8 {
        self.announced[usize::from(self.sequence)]
    }

    /// The script that gives out the next number.
    pub(crate) fn bump(&mut self, row: u8) -> u8 {
        self.sequence += 1;
        self.version = Some(self.sequence);
        // What comes later is not known yet: equal states look alike.
        self.announced[usize::from(self.sequence)..].fill(row);
        self.sequence
    }
}

/// Where an instance's numbers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    Untrusted,
    /// The journal.
    Local,
    /// Redis.
    Shared,
}

/// How far a connection to Redis has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Link {
    None,
    /// Subscribed, and the epoch is known.
    Open,
    /// What was left unannounced is announced.
    Relayed,
    /// The sequence was asked for, to begin with.
    Asked(u8),
    /// A shared generation has begun.
    InUse,
}

/// How far a load has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    None,
    /// Interest in the tag is taken.
    Begun,
    /// L2 had nothing; there is a stamp.
    Stamped,
    /// The row is read.
    Loaded,
    /// L2 is filled, or is where the value came from.
    Ready,
}

/// A load under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Flight {
    pub(crate) phase: Phase,
    /// The generation in which it began is the present one.
    pub(crate) current: bool,
    /// Whoever comes finds this one.
    pub(crate) newest: bool,
    /// It does not believe L2.
    pub(crate) deep: bool,
    /// What was heard of the tag when it began.
    pub(crate) interest: u8,
    /// The epoch of its connection; 0: there is none.
    pub(crate) epoch: u8,
    pub(crate) as_of: u8,
    pub(crate) value: u8,
}

impl Flight {
    pub(crate) const NONE: Self = Self {
        phase: Phase::None,
        current: false,
        newest: false,
        deep: false,
        interest: 0,
        epoch: 0,
        as_of: 0,
        value: 0,
    };
}

/// A reader who shares a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Waiter {
    pub(crate) slot: u8,
    /// The token is for this write; 0: there is none.
    pub(crate) token: u8,
    /// When he came, L1 would have done.
    pub(crate) anything: bool,
    /// It is the second one that he shares.
    pub(crate) again: bool,
    /// Ghost: what he must not be given less than.
    pub(crate) floor: u8,
}

/// How far a write has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Write {
    None,
    Committed(u8),
    /// The script has run; the answer is under way.
    Announced {
        row: u8,
        sequence: u8,
        /// The generation is still the one in which it was announced.
        current: bool,
    },
}

/// What a write's token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Token {
    /// None was given out.
    None,
    Shared {
        epoch: u8,
        sequence: u8,
    },
    /// Of this instance's own numbers.
    Local(u8),
    /// Only the database is sure to know the write.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Instance {
    pub(crate) source: Source,
    pub(crate) link: Link,
    /// The epoch of the connection; 0: there is none.
    pub(crate) epoch: u8,
    /// The epoch of the last connection; 0 before the first.
    pub(crate) known_epoch: u8,
    pub(crate) reachable: bool,
    /// Everything up to here was heard in this generation.
    pub(crate) applied: u8,
    /// The highest number heard of the tag in this generation.
    pub(crate) heard: u8,
    /// Only of this generation: what is older never counts.
    pub(crate) l1: Option<Entry>,
    /// Messages that are under way to it: bit n is number n.
    pub(crate) bus: u16,
    /// A number of Redis that it does not know yet whether it has reached, and (ghost) the row at that time.
    pub(crate) asked: Option<(u8, u8)>,
    /// The journal was read up to this row.
    pub(crate) journal: u8,
    /// Rows that it has heard of by writing them: bit n is row n.
    pub(crate) own: u8,
    pub(crate) unannounced: bool,
    /// Rows that were announced elsewhere and, by this process, here: bit n is row n.
    pub(crate) repeated: u8,
    pub(crate) flights: [Flight; 2],
    pub(crate) waiter: Option<Waiter>,
    pub(crate) write: Write,
    /// Ghost: no read here may be older.
    pub(crate) owed: u8,
    /// Ghost: no read from L1 may be older; heard by way of the journal.
    pub(crate) told: u8,
}

impl Instance {
    /// As a process begins. What it owed, it goes on owing.
    pub(crate) const fn new(owed: u8, reachable: bool) -> Self {
        Self {
            source: Source::Untrusted,
            link: Link::None,
            epoch: 0,
            known_epoch: 0,
            reachable,
            applied: 0,
            heard: 0,
            l1: None,
            bus: 0,
            asked: None,
            journal: 0,
            own: 0,
            unannounced: false,
            repeated: 0,
            flights: [Flight::NONE; 2],
            waiter: None,
            write: Write::None,
            owed,
            told: 0,
        }
    }

    /// In touch with the first Redis, of which nothing is known yet.
    pub(crate) const fn connected() -> Self {
        Self { source: Source::Shared, link: Link::InUse, epoch: 1, known_epoch: 1, ..Self::new(0, true) }
    }

    /// Another generation begins: nothing of the old one counts.
    pub(crate) fn begin(&mut self, source: Source, applied: u8) {
        (self.source, self.applied, self.heard) = (source, applied, 0);
        (self.l1, self.asked, self.own, self.told) = (None, None, 0, 0);
        for flight in &mut self.flights {
            flight.current = false;
        }
        if let Write::Announced { current, .. } = &mut self.write {
            *current = false;
        }
    }

    /// Trust and the connection are given up.
    pub(crate) fn distrust(&mut self) {
        self.begin(Source::Untrusted, 0);
        self.give_up();
    }

    pub(crate) fn give_up(&mut self) {
        (self.link, self.epoch, self.bus) = (Link::None, 0, 0);
    }

    pub(crate) fn owes(&mut self, row: u8) {
        self.owed = self.owed.max(row);
    }

    /// An invalidation of this process's own numbers.
    pub(crate) fn hear_local(&mut self) {
        self.applied += 1;
        self.heard = self.applied;
    }

    /// The load that a reader finds on coming.
    pub(crate) fn newest_flight(&self) -> Option<usize> {
        self.flights.iter().position(|flight| flight.phase != Phase::None && flight.newest)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// The row in the database.
    pub(crate) row: u8,
    /// Rows of the journal that are not marked: bit n is row n.
    pub(crate) unrelayed: u8,
    /// By row: in which life of Redis it was announced; 0: it is not marked.
    pub(crate) relayed_in: [u8; 4],
    pub(crate) redis: Redis,
    /// A Redis that was replaced, for those who have not noticed.
    pub(crate) former: Option<Redis>,
    pub(crate) snapshot: Option<Redis>,
    pub(crate) instances: [Instance; 2],
    /// By row.
    pub(crate) tokens: [Token; 4],
    /// What may still happen.
    pub(crate) left: Bounds,
    /// Ghost: somebody was given something older than he had to get.
    pub(crate) broken: bool,
}

impl State {
    pub(crate) fn new(left: Bounds) -> Self {
        Self {
            row: 0,
            unrelayed: 0,
            relayed_in: [0; 4],
            redis: Redis::empty(1, 0),
            former: None,
            snapshot: None,
            instances: [Instance::connected(); 2],
            tokens: [Token::None; 4],
            left,
            broken: false,
        }
    }

    /// Marks rows as announced in this life of Redis.
    pub(crate) fn mark(&mut self, rows: u8, epoch: u8) {
        for (row, relayed_in) in self.relayed_in.iter_mut().enumerate() {
            // Nobody asks, unless there is more than one life at a time.
            if self.left.split && self.unrelayed & rows & (1 << row) != 0 {
                *relayed_in = epoch;
            }
        }
        self.unrelayed &= !rows;
    }

    /// Rows that were announced in another life of Redis than that of an instance, and not by it in its own.
    pub(crate) fn elsewhere(&self, i: usize) -> u8 {
        let at = &self.instances[i];
        let rows = self.relayed_in.iter().enumerate();
        let elsewhere = rows.filter(|(_, relayed_in)| **relayed_in != 0 && **relayed_in != at.epoch);
        elsewhere.fold(0, |rows, (row, _)| rows | 1 << row) & !at.repeated
    }

    /// The Redis behind an epoch's connections, if this instance can still reach it.
    pub(crate) fn redis_of(&mut self, i: usize, epoch: u8) -> Option<&mut Redis> {
        if epoch == 0 || !self.instances[i].reachable {
            return None;
        }
        if self.redis.epoch == epoch {
            return Some(&mut self.redis);
        }
        self.former.as_mut().filter(|former| former.epoch == epoch)
    }

    /// The Redis that this instance is connected to, if it still answers.
    pub(crate) fn redis_at(&mut self, i: usize) -> Option<&mut Redis> {
        self.redis_of(i, self.instances[i].epoch)
    }
}
