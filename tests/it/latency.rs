//! How soon a write is seen elsewhere while everything is healthy. A program of its own, so that no other test takes the
//! processor's time meanwhile.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails may panic")]
#![expect(
    unreachable_pub,
    dead_code,
    unused_imports,
    reason = "most of the harness is for the other test program"
)]

mod support;

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_seen_on_another_instance_within_50_ms_a_thousand_times_in_a_row() {
    let cluster = Cluster::start(2).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    let ada = a.client().register("ada").await;
    let workspace = ada.create_workspace("0").await;
    let path = format!("/v1/workspaces/{workspace}");
    let at_b = ada.at(b);
    at_b.get(&path).await.expect(200);

    let (mut l1_hits, mut longest) = (0, Duration::ZERO);
    for round in 1..=1000 {
        let name = round.to_string();
        ada.patch(&path, json!({ "name": name })).await.expect(200);
        let written = Instant::now();
        loop {
            let asked_after = written.elapsed();
            if at_b.get(&path).await.expect(200).field("/name") == name {
                break;
            }
            assert!(
                asked_after < Duration::from_millis(50),
                "round {round}: the old name {asked_after:?} after the write"
            );
            longest = longest.max(asked_after);
            // Reading without pause would take from Redis the processor that it needs to send the message.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let again = at_b.get(&path).await.expect(200);
        assert_eq!(again.field("/name"), name);
        l1_hits += usize::from(again.header("cache-status").starts_with("moka; hit"));
    }
    println!(
        "latest read of an old name {longest:?} after the write, L1 hits between writes {l1_hits} of 1000"
    );
    assert!(l1_hits >= 950, "only {l1_hits} of 1000 reads between writes were L1 hits");
}
