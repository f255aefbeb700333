//! The monitor, which compares a sample of the cache with the database while it works.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use diesel_async::SimpleAsyncConnection as _;
use serde_json::json;

use crate::support::{Client, Cluster, eventually};

const COMPARED: &str = "lockstep_cache_comparisons_total";
const INCONSISTENT: &str = "lockstep_cache_inconsistent_total";

/// Reads and writes a workspace, so that the monitor has something to look at.
async fn keep_busy(ada: &Client, path: &str, round: usize) {
    ada.get(path).await.expect(200);
    ada.patch(path, json!({"name": format!("busy {round}")})).await.expect(200);
    ada.get(path).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_as_it_should_be_is_found_to_be_so() {
    let cluster = Cluster::start(2).await;
    let [a, b] = [0, 1].map(|index| &cluster.instances[index]);
    let ada = a.client().register("ada").await;
    let path = format!("/v1/workspaces/{}", ada.create_workspace("Home").await);
    let rounds = AtomicUsize::new(0);
    for (instance, who) in [(a, &ada), (b, &ada.at(b))] {
        eventually("it has been compared", Duration::from_secs(20), async || {
            keep_busy(who, &path, rounds.fetch_add(1, Ordering::Relaxed)).await;
            (instance.metric(COMPARED, &["kind=\"workspace\"", "result=\"consistent\""]).await > 0.0)
                .then_some(())
        })
        .await;
        assert!(instance.metric(INCONSISTENT, &[]).await.abs() < f64::EPSILON);
        let shown = instance.client().get("/metrics").await.text;
        assert!(shown.contains(INCONSISTENT), "it is shown although it is nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_behind_everybodys_back_is_found_with_its_history() {
    let cluster = Cluster::start(1).await;
    let instance = &cluster.instances[0];
    let ada = instance.client().register("ada").await;
    let path = format!("/v1/workspaces/{}", ada.create_workspace("Home").await);
    let rounds = AtomicUsize::new(0);
    eventually("it is found", Duration::from_secs(30), async || {
        let round = rounds.fetch_add(1, Ordering::Relaxed);
        keep_busy(&ada, &path, round).await;
        // As some ways of restoring do: no trigger fires, so nobody is told.
        let silently = format!(
            "SET session_replication_role = replica; UPDATE workspaces SET name = 'silent {round}'; \
             SET session_replication_role = origin"
        );
        cluster.database.connect().await.batch_execute(&silently).await.unwrap();
        for _ in 0..20 {
            if instance.metric(INCONSISTENT, &["kind=\"workspace\""]).await > 0.0 {
                return Some(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        None
    })
    .await;
    let log = instance.log();
    let line = log.lines().find(|line| line.contains("answers otherwise than the database")).unwrap();
    for part in ["cache.key", "cache.epoch", "sequence", "generation", "as_of", "origin"] {
        assert!(line.contains(part), "no {part} in {line}");
    }
}
