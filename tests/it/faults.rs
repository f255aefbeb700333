//! What holds while things go wrong, in a program of its own: nothing else may run at the same time. `scripts/chaos`
//! runs the same for longer.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails may panic")]
#![expect(
    unreachable_pub,
    dead_code,
    unused_imports,
    reason = "most of the harness is for the other test program"
)]

mod chaos;
mod support;

use tokio::sync::Mutex;

/// Held by the test that is running.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_no_read_is_older_than_promised_and_no_acknowledged_write_is_lost() {
    let _alone = ALONE.lock().await;
    chaos::run(chaos::Plan::from_environment()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_does_not_hear_the_others_and_has_no_journal_is_found_out() {
    let _alone = ALONE.lock().await;
    // It uses its memory also where a busy machine has Redis answer late.
    let odd = [("CACHE_NAMESPACE", "elsewhere"), ("REDIS_TIMEOUT", "2s")];
    assert!(chaos::stale_reads_with(&odd).await > 0);
}
