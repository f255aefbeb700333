//! The protocol of `docs/coherence.md` as a model of which every interleaving is looked at.
//!
//! Tests of the program meet some orders of events. Here are all of them, within bounds: one row, one tag, two instances
//! on one Redis, one or two writes, and one or two faults ([`Bounds`]; each constant below is explored to its end). Steps
//! ([`steps::Step`]) are what is atomic in the program: a commit, a script in Redis, a message, one statement of a load, a
//! change of generation. Faults come whenever they like, and everything may take any time.
//!
//! What has to hold in every state is in [`promise`]:
//!
//! 1. Nothing that either tier would serve is older than what the instance *owes*: writes that it has acknowledged,
//!    invalidations that it has heard, and whatever had been announced when the proof of its lease was asked for. L2
//!    serves nothing older than the last announcement in its Redis. A reader who shares a load gets nothing older than
//!    what was owed when he came.
//! 2. With a token, nothing older than its write, on either instance.
//! 3. Once nothing is left to be announced or heard, what is served is the row.
//!
//! There is no clock. A lease that has ended, and an entry whose time is up, only mean fewer answers from L1; that the
//! bounds in seconds are kept is for the tests in `tests/it`. Also left out: more than one tag for an entry, the lock
//! between instances, the fail-safe, searches, and in which order rows of the journal become visible.
//!
//! The model is not the program. What ties them is that each [`Rule`] taken out of the model makes it fail, and that the
//! same words stand in both. Who changes the protocol changes the model first.
#![expect(clippy::indexing_slicing, reason = "a test that fails may panic")]

mod alike;
mod outages;
mod promise;
mod readers;
mod rules;
mod state;
mod steps;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::rules::{Bounds, Rule};

/// The protocol within bounds, perhaps without one of its rules.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Protocol {
    bounds: Bounds,
    without: Option<Rule>,
}

impl Protocol {
    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }
}

/// Nothing goes wrong.
const HEALTHY: Bounds = Bounds {
    writes: [1, 0],
    flights: [1, 1],
    losses: 0,
    deaths: 0,
    evictions: 0,
    cuts: [0, 0],
    failovers: 0,
    snapshots: 0,
    restarts: 0,
    split: false,
    slow: false,
    journal_mode: false,
    tokens: false,
    sharing: false,
};
const DEATH: Bounds = Bounds { writes: [2, 0], deaths: 1, ..HEALTHY };
const LOSS: Bounds = Bounds { losses: 1, deaths: 1, ..HEALTHY };
const TWO_WRITES_AND_A_LOSS: Bounds = Bounds { writes: [2, 0], flights: [0, 1], losses: 1, ..HEALTHY };
const BOTH_WRITE: Bounds = Bounds { writes: [1, 1], flights: [0, 1], ..HEALTHY };
const EVICTION: Bounds = Bounds { writes: [2, 0], evictions: 1, ..HEALTHY };
const SLOW: Bounds = Bounds { slow: true, ..HEALTHY };
const SLOW_WITH_TWO_WRITES: Bounds = Bounds { slow: true, writes: [2, 0], flights: [0, 1], ..HEALTHY };

const WRITER_CUT_OFF: Bounds = Bounds { cuts: [1, 0], journal_mode: true, ..HEALTHY };
const READER_CUT_OFF: Bounds = Bounds { cuts: [0, 1], journal_mode: true, ..HEALTHY };
const BOTH_CUT_OFF: Bounds = Bounds { cuts: [1, 1], flights: [0, 1], journal_mode: true, ..HEALTHY };
const READER_CUT_OFF_OVER_TWO_WRITES: Bounds = Bounds { writes: [2, 0], flights: [0, 1], ..READER_CUT_OFF };
const SLOW_WRITER_CUT_OFF: Bounds = Bounds { slow: true, flights: [1, 0], ..WRITER_CUT_OFF };
const SLOW_READER_CUT_OFF: Bounds = Bounds { slow: true, flights: [0, 1], ..READER_CUT_OFF };
const NO_JOURNAL_MODE: Bounds = Bounds { writes: [2, 0], cuts: [1, 0], flights: [1, 0], ..HEALTHY };
const RESTART: Bounds = Bounds { restarts: 1, flights: [0, 1], ..WRITER_CUT_OFF };

const FAILOVER: Bounds = Bounds { failovers: 1, snapshots: 1, flights: [1, 0], ..HEALTHY };
const FAILOVER_UNDER_LOAD: Bounds = Bounds { failovers: 1, ..HEALTHY };
const SPLIT: Bounds = Bounds { failovers: 1, split: true, flights: [0, 1], ..HEALTHY };
const SPLIT_AND_RESTART: Bounds = Bounds { restarts: 1, ..SPLIT };

const TOKENS: Bounds = Bounds { tokens: true, losses: 1, ..HEALTHY };
const TOKENS_AND_FAILOVER: Bounds = Bounds { tokens: true, failovers: 1, flights: [0, 1], ..HEALTHY };
const TOKENS_FROM_THE_JOURNAL: Bounds = Bounds { tokens: true, flights: [0, 1], ..WRITER_CUT_OFF };
const TOKENS_TO_THE_JOURNAL: Bounds = Bounds { tokens: true, flights: [0, 1], ..READER_CUT_OFF };

const SHARING: Bounds = Bounds { sharing: true, flights: [2, 0], losses: 1, ..HEALTHY };
const SHARING_WITH_TOKENS: Bounds =
    Bounds { sharing: true, tokens: true, writes: [2, 0], flights: [0, 2], ..HEALTHY };

/// Looks at all there is within these bounds.
fn holds(name: &str, bounds: Bounds) {
    let checker = Protocol { bounds, without: None }.checker().threads(2).spawn_bfs().join();
    println!("{name}: {} states, {} steps", checker.unique_state_count(), checker.state_count());
    checker.assert_properties();
}

/// Looks until something is served that must not be.
fn fails(bounds: Bounds, without: Option<Rule>) {
    let checker = Protocol { bounds, without }
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let always = checker.model().properties().into_iter().filter(|p| p.expectation == Expectation::Always);
    let broken =
        always.filter_map(|property| checker.discovery(property.name).map(|path| (property.name, path)));
    let shortest = broken.min_by_key(|(_, path)| path.clone().into_actions().len());
    let (promise, path) = shortest.unwrap_or_else(|| {
        panic!("without {without:?}, nothing goes wrong in {} states", checker.unique_state_count())
    });
    let what = without.map_or_else(|| "as it is".to_owned(), |rule| format!("without {rule:?}"));
    println!("{what}, it is not true that {promise}: {:?}", path.into_actions());
}

macro_rules! holds {
    ($($name:ident: $bounds:expr,)*) => { $(
        #[test]
        fn $name() {
            holds(stringify!($name), $bounds);
        }
    )* };
}

macro_rules! fails {
    ($($name:ident: $rule:ident, $bounds:expr;)*) => { $(
        #[test]
        fn $name() {
            fails($bounds, Some(Rule::$rule));
        }
    )* };
}

holds! {
    no_interleaving_serves_a_read_older_than_promised: HEALTHY,
    nor_does_a_writer_that_dies_before_it_announces: DEATH,
    nor_does_a_lost_message_or_a_lost_answer: LOSS,
    nor_does_a_lost_message_between_two_writes: TWO_WRITES_AND_A_LOSS,
    nor_do_two_who_write_at_once: BOTH_WRITE,
    nor_does_a_redis_that_forgets_versions_and_entries: EVICTION,
    nor_does_a_step_that_comes_in_the_middle_of_another: SLOW,
    nor_does_an_answer_that_comes_after_the_next_write: SLOW_WITH_TWO_WRITES,
    the_journal_keeps_the_promise_for_a_writer_without_redis: WRITER_CUT_OFF,
    the_journal_keeps_the_promise_for_a_reader_without_redis: READER_CUT_OFF,
    the_journal_keeps_the_promise_where_nobody_has_redis: BOTH_CUT_OFF,
    the_journal_keeps_the_promise_over_two_writes: READER_CUT_OFF_OVER_TWO_WRITES,
    a_writer_comes_back_to_redis_in_any_order: SLOW_WRITER_CUT_OFF,
    a_reader_comes_back_to_redis_in_any_order: SLOW_READER_CUT_OFF,
    the_promise_holds_where_nobody_reads_the_journal_meanwhile: NO_JOURNAL_MODE,
    a_process_may_end_and_forget_what_it_had_to_announce: RESTART,
    redis_may_come_back_empty_or_as_it_was_or_as_it_had_been: FAILOVER,
    redis_may_be_replaced_while_everybody_loads: FAILOVER_UNDER_LOAD,
    a_replaced_redis_may_go_on_serving_those_who_have_not_noticed: SPLIT,
    who_has_announced_to_a_former_redis_may_end: SPLIT_AND_RESTART,
    with_a_token_nothing_is_older_than_its_write: TOKENS,
    with_a_token_nothing_is_older_after_a_failover: TOKENS_AND_FAILOVER,
    with_a_token_nothing_is_older_where_its_writer_had_no_redis: TOKENS_FROM_THE_JOURNAL,
    with_a_token_nothing_is_older_where_its_reader_has_no_redis: TOKENS_TO_THE_JOURNAL,
    who_shares_a_load_gets_nothing_older_than_he_would_alone: SHARING,
    who_shares_a_load_and_has_a_token_gets_nothing_older: SHARING_WITH_TOKENS,
}

fails! {
    deleting_l1_answers_is_undone_by_a_load_under_way: StampsInL1, HEALTHY;
    deleting_l2_answers_is_undone_by_a_load_under_way: StampsInL2, HEALTHY;
    a_stamp_from_after_the_load_makes_an_old_row_new: StampBeforeLoad, SLOW;
    a_snapshot_older_than_the_stamp_makes_an_old_row_new: SnapshotAfterStamp, HEALTHY;
    a_load_of_a_former_generation_brings_back_what_was_given_up: GenerationOfLoads, LOSS;
    without_the_journal_a_dead_writer_leaves_the_old_row_for_ever: Journal, DEATH;
    without_the_sequence_a_lost_message_is_not_noticed: Sequence, LOSS;
    a_lease_from_the_answer_vouches_for_what_happened_meanwhile: LeaseFromQuestion, SLOW_WITH_TWO_WRITES;
    a_write_acknowledged_before_it_is_heard_is_not_seen_by_its_writer: HeardBeforeAcknowledged, HEALTHY;
    a_forgotten_version_is_no_proof_of_anything: MissingVersionIsPresent, EVICTION;
    a_load_shared_without_judging_it_is_older_than_its_reader: FlightsJudged, SHARING;
    rows_of_an_outage_left_unannounced_make_l2_stale: AnnouncedBeforeUse, READER_CUT_OFF;
    own_writes_left_unannounced_make_l2_stale_for_their_writer: OwnAnnouncedFirst, SLOW_WRITER_CUT_OFF;
    what_the_journal_has_told_left_unannounced_makes_l2_older: HeardAnnouncedFirst, SLOW_READER_CUT_OFF;
    a_redis_that_others_have_left_is_never_told_of_their_writes: ElsewhereAnnouncedHere, SPLIT;
    a_mark_for_what_was_only_heard_at_home_leaves_the_others_stale: OnlyAnnouncedIsMarked, RESTART;
    entries_of_another_life_of_redis_are_stale: Epoch, FAILOVER;
    a_token_that_is_not_looked_at_is_no_help: Token, TOKENS;
}
