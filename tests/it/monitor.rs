//! The monitor, which compares a sample of the cache with the database while it works.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use diesel_async::SimpleAsyncConnection as _;
use futures_util::future::join_all;
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

#[tokio::test(flavor = "multi_thread")]
async fn however_many_instances_there_are_they_compare_no_more_often_than_one_may() {
    const INSTANCES: usize = 3;
    const WORKSPACES: usize = 8;
    let cluster = Cluster::start(INSTANCES).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let mut paths = Vec::new();
    for index in 0..WORKSPACES {
        paths.push(format!("/v1/workspaces/{}", ada.create_workspace(&format!("Home {index}")).await));
    }
    let clients: Vec<_> = cluster.instances.iter().map(|instance| ada.at(instance)).collect();
    let compared = async || {
        let counts = cluster.instances.iter().map(|instance| instance.metric(COMPARED, &[]));
        join_all(counts).await
    };

    let (before, begun, rounds) = (compared().await, Instant::now(), AtomicUsize::new(0));
    let counts =
        eventually("each has compared, and all have for a while", Duration::from_secs(60), async || {
            let round = rounds.fetch_add(1, Ordering::Relaxed);
            for path in &paths {
                // Each instance has it anew, and watches it.
                clients[0].patch(path, json!({"name": format!("busy {round}")})).await.expect(200);
                join_all(clients.iter().map(|client| client.get(path))).await;
            }
            let counts: Vec<_> =
                compared().await.iter().zip(&before).map(|(now, before)| now - before).collect();
            (begun.elapsed() > Duration::from_secs(6) && counts.iter().all(|count| *count > 0.0))
                .then_some(counts)
        })
        .await;
    // One begins in each quarter of a second.
    let most = begun.elapsed().as_secs_f64() * 4.0 + 1.0;
    let all: f64 = counts.iter().sum();
    assert!(all <= most, "{counts:?} are more than {most}");
}
