//! What holds of the cache whatever it is made of: each behaviour on every combination, as a test of its own.

mod behaviours;
mod ledger;
mod stage;

pub(super) use self::ledger::Ledger;
use self::stage::{Combination, Stage};

macro_rules! on {
    ($module:ident, $combination:ident, $($behaviour:ident)*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $behaviour() {
                    let stage = super::Stage::start(super::Combination::$combination).await;
                    super::behaviours::$behaviour(&stage).await;
                }
            )*
        }
    };
}

macro_rules! on_every_combination {
    ($($behaviour:ident)*) => {
        on!(off, Off, $($behaviour)*);
        on!(only_memory, L1, $($behaviour)*);
        on!(only_redis, L2, $($behaviour)*);
        on!(both_tiers, Both, $($behaviour)*);
        on!(both_tiers_and_a_bus_that_is_cut_again_and_again, Cut, $($behaviour)*);
        on!(both_tiers_and_a_bus_that_loses_messages, Lossy, $($behaviour)*);
        on!(the_journal_instead_of_redis, Journal, $($behaviour)*);
    };
}

on_every_combination! {
    a_node_never_shows_less_than_it_has_acknowledged
    with_the_token_of_a_write_the_other_node_shows_it_at_once
    without_a_token_the_other_node_shows_a_write_within_the_bound
    what_was_absent_is_found_once_it_is_there_and_gone_once_it_is_not
    an_error_is_told_and_not_kept
    what_is_there_is_loaded_once
    readers_who_come_together_share_a_load
    a_tag_that_only_the_load_knows_ends_an_entry
    invalidating_everything_ends_every_entry
    a_pattern_takes_out_what_it_matches_and_spares_the_rest
    an_entry_ends_with_its_time
    a_batch_says_what_single_reads_say
    a_token_that_nobody_knows_leads_to_the_database
    a_load_that_straddles_an_invalidation_is_not_kept
    a_reader_who_comes_after_a_write_gets_nothing_from_before_it
}
