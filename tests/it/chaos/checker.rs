//! Whether a [`History`] keeps the promise. Knows nothing of processes, and takes time linear in the history, but for
//! sorting it.
//!
//! For each read and each row of the promise there is a version that it must at least have seen:
//!
//! | | the newest version |
//! |---|---|
//! | with a `Consistency-Token` | of that write |
//! | on the instance that wrote | acknowledged there before the read began |
//! | anywhere | known to be committed [`BOUND`] before the read began |
//!
//! What other programs have committed is heard through the journal, in PostgreSQL: for that, time in which PostgreSQL is
//! away does not count.
//!
//! Both ends are measured by the one who asks: a write counts from when its answer has arrived, a read from when it was
//! about to be sent. A slow network or a busy test can only hide staleness in that, never invent any. For the same reason
//! no read is excused because its instance stood still: it is judged by when it was asked for, and a value that was
//! replaced long before that is too old whenever it comes.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use super::history::{Excuses, Failure, FailureKind, Final, GONE, History, Read, Write};

/// How far a read may be behind, wherever nothing better is promised.
pub const BOUND: Duration = Duration::from_millis(1500);
/// How long after PostgreSQL is back its connections may take to be new.
const RECONNECTING: Duration = Duration::from_millis(500);

/// What is wrong with a history, and what is not.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Reads that were older than they may be.
    pub stale: Vec<String>,
    /// Writes that are not there although they were acknowledged, and contents that contradict each other.
    pub lost: Vec<String>,
    /// Failures that nothing explains.
    pub failed: Vec<String>,
    /// Failures that something explains.
    pub excused: usize,
    /// The longest time for which something newer than what a read showed had been acknowledged when it began.
    pub longest: Duration,
    /// The same of what was committed, whether acknowledged or not: by another program, or by one that died.
    pub longest_unacknowledged: Duration,
}

impl Judgement {
    /// Everything that is wrong.
    pub fn findings(&self) -> impl Iterator<Item = &String> {
        self.stale.iter().chain(&self.lost).chain(&self.failed)
    }
}

/// Judges a history. Times in what it says are relative to `origin`.
pub fn judge(history: &History, excuses: &Excuses, origin: Instant) -> Judgement {
    let mut judgement = Judgement::default();
    let ledgers = ledgers(&history.writes, excuses);
    let since = |at: Instant| at.saturating_duration_since(origin).as_secs_f64();
    for read in &history.reads {
        let Some(ledger) = ledgers.get(&read.register) else { continue };
        let seen = ledger.version_seen(read);
        let behind = ledger.committed.behind(seen, read.started);
        judgement.longest = judgement.longest.max(ledger.acknowledged.behind(seen, read.started));
        judgement.longest_unacknowledged = judgement.longest_unacknowledged.max(behind);
        for (rule, least) in ledger.required(read) {
            if seen < least {
                judgement.stale.push(format!(
                    "{:.3} to {:.3} s: register {} read as {seen} at {}, {rule} {least} (known {}); behind by \
                     {behind:?}; {}",
                    since(read.started),
                    since(read.ended),
                    read.register,
                    read.by,
                    known_of(&history.writes, read.register, least, since),
                    read.how,
                ));
                break;
            }
        }
    }
    find_lost(history, &ledgers, &mut judgement);
    let mut cut = excuses.requests_cut;
    for failure in &history.failures {
        if excused(failure, excuses, &mut cut) {
            judgement.excused += 1;
        } else {
            judgement.failed.push(format!(
                "{:.3} to {:.3} s: {:?}, asked {:?}: {}",
                since(failure.started),
                since(failure.ended),
                failure.kind,
                failure.asked,
                failure.detail
            ));
        }
    }
    judgement
}

/// When and from whom a version was known, in words.
fn known_of(writes: &[Write], register: usize, version: i64, since: impl Fn(Instant) -> f64) -> String {
    let all = writes.iter().filter(|write| write.register == register && write.version == version);
    let words = all.map(|write| format!("{:.3} s by {:?}", since(write.known), write.by.as_deref()));
    words.collect::<Vec<_>>().join(", ")
}

/// What is known of one register's writes.
#[derive(Debug, Default)]
struct Ledger {
    /// What has to be seen anywhere, by time: the newest version so far.
    anywhere: Known,
    /// The same of what each instance has acknowledged, there.
    by: HashMap<String, Known>,
    acknowledged: Superseded,
    committed: Superseded,
    /// When its deletion began.
    deleted: Option<Instant>,
}

/// The newest version that has to be seen at a time.
#[derive(Debug, Default)]
struct Known(Vec<(Instant, i64)>);

impl Known {
    fn sort(&mut self) {
        self.0.sort_unstable();
        let mut newest = i64::MIN;
        for (_, version) in &mut self.0 {
            newest = newest.max(*version);
            *version = newest;
        }
    }

    fn at(&self, time: Instant) -> Option<i64> {
        let later = self.0.partition_point(|(known, _)| *known <= time);
        self.0.get(later.checked_sub(1)?).map(|(_, version)| *version)
    }
}

/// When a write has to be seen anywhere.
fn due(write: &Write, excuses: &Excuses) -> Instant {
    let due = write.known + BOUND;
    let away = |(from, to): &&(Instant, Instant)| write.by.is_none() && write.known <= *to && due >= *from;
    excuses.postgres_away.iter().filter(away).map(|(_, to)| *to + BOUND).max().unwrap_or(due)
}

fn ledgers(writes: &[Write], excuses: &Excuses) -> HashMap<usize, Ledger> {
    let mut ledgers: HashMap<usize, Ledger> = HashMap::new();
    for write in writes {
        let ledger = ledgers.entry(write.register).or_default();
        ledger.anywhere.0.push((due(write, excuses), write.version));
        ledger.committed.0.push((write.version, write.known));
        if let Some(by) = &write.by {
            ledger.acknowledged.0.push((write.version, write.known));
            ledger.by.entry(by.clone()).or_default().0.push((write.known, write.version));
        }
        if write.version == GONE {
            ledger.deleted = Some(write.started);
        }
    }
    for ledger in ledgers.values_mut() {
        ledger.anywhere.sort();
        ledger.by.values_mut().for_each(Known::sort);
        ledger.acknowledged.sort();
        ledger.committed.sort();
    }
    ledgers
}

/// By version: when it or a later one was first known.
#[derive(Debug, Default)]
struct Superseded(Vec<(i64, Instant)>);

impl Superseded {
    fn sort(&mut self) {
        self.0.sort_unstable();
        let mut first = None;
        for (_, known) in self.0.iter_mut().rev() {
            *known = first.map_or(*known, |first: Instant| first.min(*known));
            first = Some(*known);
        }
    }

    /// For how long something newer had been known.
    fn behind(&self, seen: i64, started: Instant) -> Duration {
        let next = self.0.partition_point(|(version, _)| *version <= seen);
        self.0.get(next).map_or(Duration::ZERO, |(_, known)| started.saturating_duration_since(*known))
    }
}

impl Ledger {
    /// Nothing there is the state after the deletion if that had begun, else the one before the first write.
    fn version_seen(&self, read: &Read) -> i64 {
        match read.seen {
            Some((version, _)) => version,
            None if self.deleted.is_some_and(|deleted| deleted <= read.ended) => GONE,
            None => 0,
        }
    }

    fn required(&self, read: &Read) -> impl Iterator<Item = (&'static str, i64)> {
        let anywhere = self.anywhere.at(read.started);
        let here = self.by.get(&read.by).and_then(|known| known.at(read.started));
        let rules = [
            ("although sent with the token of", read.token),
            ("although it had acknowledged", here),
            ("although the bound ago there was", anywhere),
        ];
        rules.into_iter().filter_map(|(rule, version)| Some((rule, version?)))
    }
}

/// Two writes cannot have made the same version, and the row at the end is no older than any of them.
fn find_lost(history: &History, ledgers: &HashMap<usize, Ledger>, judgement: &mut Judgement) {
    let written =
        history.writes.iter().filter_map(|write| Some((write.register, write.version, write.number?)));
    let read =
        history.reads.iter().filter_map(|read| read.seen.map(|(v, number)| (read.register, v, number)));
    let last = history.finals.iter().filter_map(|row| row.row.map(|(v, number)| (row.register, v, number)));
    let mut contents: BTreeMap<(usize, i64), u64> = BTreeMap::new();
    for (register, version, number) in written.chain(last).chain(read) {
        let known = *contents.entry((register, version)).or_insert(number);
        if known != number {
            judgement
                .lost
                .push(format!("version {version} of register {register} is both {known} and {number}"));
        }
    }
    for Final { register, row } in &history.finals {
        let newest = ledgers.get(register).and_then(|ledger| ledger.committed.0.last());
        let Some((newest, _)) = newest else { continue };
        match row {
            Some((version, _)) if version < newest => judgement
                .lost
                .push(format!("register {register} ends as {version}, although {newest} was acknowledged")),
            None if *newest != GONE => {
                judgement
                    .lost
                    .push(format!("register {register} is gone, although {newest} was acknowledged"));
            }
            _ => {}
        }
    }
}

fn excused(failure: &Failure, excuses: &Excuses, cut: &mut usize) -> bool {
    let during = |from: Instant, to: Instant| failure.started <= to && failure.ended >= from;
    let asked = |instance| failure.asked.is_none_or(|asked| asked == instance);
    let within = |windows: &[(usize, Instant, Instant)]| {
        windows.iter().any(|(instance, from, to)| asked(*instance) && during(*from, *to))
    };
    match failure.kind {
        // One that starts says so. One that stood still has no time left for what it was at.
        FailureKind::Refused if within(&excuses.instance_away) || within(&excuses.instance_paused) => true,
        FailureKind::Refused => {
            if excuses.postgres_away.iter().any(|(from, to)| during(*from, *to + RECONNECTING)) {
                return true;
            }
            let left = cut.checked_sub(1);
            *cut = left.unwrap_or_default();
            left.is_some()
        }
        FailureKind::Gateway | FailureKind::Silence => within(&excuses.instance_away),
        FailureKind::Wrong => false,
    }
}
