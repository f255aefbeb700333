//! The checker finds what it is there for: histories that are made up, and whether they keep the promise.

use std::time::{Duration, Instant};

use super::{BOUND, Judgement, judge};
use crate::chaos::history::{Excuses, Failure, FailureKind, Final, GONE, History, Read, Write};

/// A history whose times are milliseconds.
struct Story {
    origin: Instant,
    history: History,
    excuses: Excuses,
}

impl Story {
    fn new() -> Self {
        Self { origin: Instant::now(), history: History::default(), excuses: Excuses::default() }
    }

    fn at(&self, ms: u64) -> Instant {
        self.origin + Duration::from_millis(ms)
    }

    /// `version` of register 0, by `by`, acknowledged at `known`.
    fn write(mut self, by: &str, version: i64, known: u64) -> Self {
        let (started, known) = (self.at(known - 5), self.at(known));
        let number = (version != GONE).then_some(version.unsigned_abs());
        let by = (!by.is_empty()).then(|| by.to_owned());
        self.history.writes.push(Write { register: 0, version, number, started, known, by });
        self
    }

    fn read_of(mut self, by: &str, version: Option<i64>, started: u64, token: Option<i64>) -> Self {
        let (started, ended) = (self.at(started), self.at(started + 2));
        let seen = version.map(|version| (version, version.unsigned_abs()));
        let (by, how) = (by.to_owned(), String::new());
        self.history.reads.push(Read { register: 0, seen, started, ended, by, token, how });
        self
    }

    fn read(self, by: &str, version: i64, started: u64) -> Self {
        self.read_of(by, Some(version), started, None)
    }

    fn ends_as(mut self, row: Option<(i64, u64)>) -> Self {
        self.history.finals.push(Final { register: 0, row });
        self
    }

    fn fails(mut self, kind: FailureKind, asked: Option<usize>, started: u64) -> Self {
        let (started, ended) = (self.at(started), self.at(started + 2));
        self.history.failures.push(Failure { kind, started, ended, asked, detail: String::new() });
        self
    }

    fn judged(&self) -> Judgement {
        judge(&self.history, &self.excuses, self.origin)
    }

    #[track_caller]
    fn kept(self) -> Judgement {
        let judgement = self.judged();
        assert_eq!(judgement.findings().collect::<Vec<_>>(), Vec::<&String>::new());
        judgement
    }

    #[track_caller]
    fn stale(self) {
        let judgement = self.judged();
        assert_eq!((judgement.stale.len(), judgement.findings().count()), (1, 1), "{judgement:?}");
    }

    #[track_caller]
    fn lost(self) {
        let judgement = self.judged();
        assert_eq!((judgement.lost.len(), judgement.findings().count()), (1, 1), "{judgement:?}");
    }

    #[track_caller]
    fn failed(self) {
        let judgement = self.judged();
        assert_eq!((judgement.failed.len(), judgement.findings().count()), (1, 1), "{judgement:?}");
    }
}

const BOUND_MS: u64 = BOUND.as_millis() as u64;

#[test]
fn elsewhere_a_read_may_be_behind_by_the_bound_and_not_by_more() {
    let story = || Story::new().write("a", 1, 10).write("a", 2, 100);
    let kept = story().read("b", 1, 100 + BOUND_MS - 1).kept();
    assert_eq!(kept.longest, BOUND - Duration::from_millis(1));
    story().read("b", 1, 100 + BOUND_MS).stale();
    story().read("b", 2, 9000).kept();
}

#[test]
fn staleness_counts_from_the_first_write_that_a_read_did_not_show() {
    let story = || Story::new().write("a", 1, 10).write("a", 2, 100).write("a", 3, 4000);
    assert_eq!(story().read("b", 1, 1000).kept().longest, Duration::from_millis(900));
    story().read("b", 1, 4001).stale();
    assert_eq!(story().read("b", 2, 4500).kept().longest, Duration::from_millis(500));
}

#[test]
fn staleness_is_told_apart_by_whether_anybody_was_told_of_the_write() {
    let kept = Story::new().write("a", 1, 10).write("", 2, 100).write("a", 3, 400).read("b", 1, 1000).kept();
    assert_eq!(kept.longest, Duration::from_millis(600));
    assert_eq!(kept.longest_unacknowledged, Duration::from_millis(900));
}

#[test]
fn the_instance_that_wrote_is_never_behind_itself() {
    let story = || Story::new().write("a", 1, 10).write("a", 2, 100);
    story().read("a", 1, 99).kept();
    story().read("a", 1, 100).stale();
    // What was acknowledged by others does not count as written here.
    story().write("b", 3, 200).read("a", 2, 201).kept();
    // A newer instance in the place of one that was killed has written nothing.
    story().read("a.1", 1, 101).kept();
}

#[test]
fn with_a_token_no_read_is_behind_that_write_at_any_time() {
    let story = || Story::new().write("a", 1, 10).write("a", 2, 100);
    story().read_of("b", Some(1), 101, Some(2)).stale();
    story().read_of("b", None, 101, Some(2)).stale();
    story().read_of("b", Some(2), 101, Some(2)).kept();
    story().read_of("b", Some(1), 101, Some(1)).kept();
}

#[test]
fn what_was_only_seen_in_postgresql_is_seen_everywhere_after_the_bound() {
    let story = || Story::new().write("a", 1, 10).write("", 2, 100);
    story().read("a", 1, 100 + BOUND_MS - 1).kept();
    story().read("a", 1, 100 + BOUND_MS).stale();
}

#[test]
fn what_others_commit_just_before_postgresql_goes_away_is_seen_within_the_bound_after_it_is_back() {
    let away = |by: &str| {
        let mut story = Story::new().write("a", 1, 10).write(by, 2, 900);
        story.excuses.postgres_away.push((story.at(1000), story.at(4000)));
        story
    };
    away("").read("b", 1, 4000 + BOUND_MS - 1).kept();
    away("").read("b", 1, 4000 + BOUND_MS).stale();
    // What the service has acknowledged, it has announced.
    away("a").read("b", 1, 900 + BOUND_MS).stale();
}

#[test]
fn a_write_that_was_acknowledged_late_counts_from_when_it_was_first_known() {
    Story::new().write("a", 1, 10).write("", 2, 100).write("a", 2, 5000).read("b", 1, 4000).stale();
}

#[test]
fn an_instance_that_stood_still_is_judged_by_when_it_was_asked() {
    let story = || Story::new().write("a", 1, 10).write("a", 2, 1000);
    // Asked before the write, answered long after it.
    let mut early = story().read("b", 1, 900);
    early.history.reads[0].ended = early.at(9000);
    early.kept();
    // Asked while it stood still.
    let mut late = story().read("b", 1, 1000 + BOUND_MS);
    late.history.reads[0].ended = late.at(9000);
    late.stale();
}

#[test]
fn what_comes_and_goes_is_there_in_between() {
    let story = || Story::new().write("", 1, 1000).write("", GONE, 5000);
    story().read_of("a", None, 2000, None).kept();
    story().read_of("a", None, 1000 + BOUND_MS, None).stale();
    story().read("a", 1, 5000 + BOUND_MS - 1).kept();
    story().read("a", 1, 5000 + BOUND_MS).stale();
    story().read_of("a", None, 5000 + BOUND_MS, None).kept();
}

#[test]
fn an_acknowledged_write_that_is_not_there_at_the_end_is_lost() {
    let story = || Story::new().write("a", 1, 10).write("a", 2, 100);
    story().ends_as(Some((1, 1))).lost();
    story().ends_as(None).lost();
    story().ends_as(Some((2, 2))).kept();
    // A later one whose acknowledgement never came.
    story().ends_as(Some((3, 3))).kept();
    story().write("", GONE, 200).ends_as(None).kept();
    story().write("", GONE, 200).ends_as(Some((2, 2))).lost();
}

#[test]
fn a_version_that_was_made_twice_has_lost_a_write() {
    let mut twice = Story::new().write("a", 1, 10).write("b", 1, 20);
    twice.history.writes[1].number = Some(7);
    twice.lost();
    // The same, seen at the end and by a reader.
    Story::new().write("a", 1, 10).ends_as(Some((1, 7))).lost();
    let mut torn = Story::new().write("a", 1, 10).read("b", 1, 20);
    torn.history.reads[0].seen = Some((1, 7));
    torn.lost();
}

#[test]
fn an_instance_may_refuse_only_while_postgresql_is_away_and_a_moment_after() {
    let away = || {
        let mut story = Story::new();
        story.excuses.postgres_away.push((story.at(1000), story.at(2000)));
        story
    };
    assert_eq!(away().fails(FailureKind::Refused, Some(0), 999).kept().excused, 1);
    away().fails(FailureKind::Refused, None, 2500).kept();
    away().fails(FailureKind::Refused, Some(0), 990).failed();
    away().fails(FailureKind::Refused, Some(0), 2501).failed();
    Story::new().fails(FailureKind::Refused, Some(0), 10).failed();
    // It is no excuse for silence, nor for answers that are wrong.
    away().fails(FailureKind::Silence, Some(0), 1500).failed();
    away().fails(FailureKind::Wrong, Some(0), 1500).failed();
}

#[test]
fn of_the_requests_whose_connections_were_cut_each_may_fail_once() {
    let mut story = Story::new().fails(FailureKind::Refused, Some(0), 10);
    story.excuses.requests_cut = 1;
    story.fails(FailureKind::Refused, Some(0), 20).failed();
}

#[test]
fn nobody_answers_only_where_an_instance_was_dead() {
    let dead = || {
        let mut story = Story::new();
        story.excuses.instance_away.push((1, story.at(1000), story.at(2000)));
        story
    };
    dead().fails(FailureKind::Silence, Some(1), 1500).kept();
    dead().fails(FailureKind::Gateway, None, 1500).kept();
    dead().fails(FailureKind::Silence, Some(0), 1500).failed();
    dead().fails(FailureKind::Silence, Some(1), 2001).failed();
    // In its place one starts, which says so.
    dead().fails(FailureKind::Refused, Some(1), 1500).kept();
    dead().fails(FailureKind::Refused, Some(0), 1500).failed();
}

#[test]
fn an_instance_that_stood_still_may_give_up_what_it_was_at() {
    let paused = || {
        let mut story = Story::new();
        story.excuses.instance_paused.push((1, story.at(1000), story.at(2000)));
        story
    };
    paused().fails(FailureKind::Refused, Some(1), 999).kept();
    paused().fails(FailureKind::Refused, Some(1), 2001).failed();
    paused().fails(FailureKind::Refused, Some(0), 1500).failed();
    paused().fails(FailureKind::Silence, Some(1), 1500).failed();
}
