//! Several instances, one truth.

mod soak;

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn with_the_consistency_token_the_other_instance_never_shows_the_old_name_without_any_wait() {
    let cluster = Cluster::start(2).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    let ada = a.client().register("ada").await;
    let workspace = ada.create_workspace("0").await;
    let path = format!("/v1/workspaces/{workspace}");
    let at_b = ada.at(b);
    for round in 1..=1000 {
        let name = round.to_string();
        at_b.get(&path).await.expect(200);
        let write = ada.patch(&path, json!({ "name": name })).await.expect(200);
        assert_eq!(at_b.after(&write).get(&path).await.expect(200).field("/name"), name);
        assert_eq!(ada.get(&path).await.expect(200).field("/name"), name, "on the instance that wrote");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_requests_at_once_for_one_cold_workspace_on_two_instances_load_it_once() {
    let cluster = Cluster::start(2).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let workspace = ada.create_workspace("Cold").await;
    let path = format!("/v1/workspaces/{workspace}");
    // Both instances know the caller and the membership; the workspace itself is cold on both.
    let members = format!("{path}/members");
    for instance in &cluster.instances {
        ada.at(instance).get(&members).await.expect(200);
    }
    let clients: Vec<_> = cluster.instances.iter().map(|instance| ada.at(instance)).collect();
    let replies = join_all((0..200).map(|number| clients[number % 2].get(&path))).await;
    assert!(replies.iter().all(|reply| reply.status == 200 && reply.field("/name") == "Cold"));
    let mut loads = 0.0;
    for instance in &cluster.instances {
        loads += instance.metric("lockstep_cache_loads_total", &["kind=\"workspace\""]).await;
    }
    assert!((loads - 1.0).abs() < f64::EPSILON, "{loads} loads");
    let collapsed = replies.iter().filter(|reply| reply.header("cache-status").contains("collapsed")).count();
    println!("{collapsed} of 200 waited for the load of another request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_goes_from_miss_to_l1_hit_to_l2_hit_elsewhere_and_a_write_spares_what_it_does_not_touch() {
    let cluster = Cluster::start(2).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let at_b = ada.at(&cluster.instances[1]);
    let (one, other) = (ada.create_workspace("One").await, ada.create_workspace("Other").await);
    let (one, other) = (format!("/v1/workspaces/{one}"), format!("/v1/workspaces/{other}"));
    for path in [&one, &other, &format!("{one}/members"), &format!("{other}/members")] {
        let status = ada.get(path).await.expect(200);
        assert_eq!(status.header("cache-status"), "redis; fwd=uri-miss; stored, moka; fwd=uri-miss; stored");
        let status = ada.get(path).await.expect(200);
        assert!(status.header("cache-status").starts_with("moka; hit; ttl="), "{status:?}");
        let status = at_b.get(path).await.expect(200);
        let status = status.header("cache-status");
        assert!(
            status.starts_with("redis; hit; ttl=") && status.ends_with(", moka; fwd=uri-miss; stored"),
            "{status}"
        );
    }
    let write = ada.patch(&one, json!({"name": "One more"})).await.expect(200);
    eventually("B has heard of it", Duration::from_secs(1), async || {
        (at_b.get(&one).await.field("/name") == "One more").then_some(())
    })
    .await;
    let status = ada.get(&one).await.expect(200);
    assert_eq!(status.field("/name"), "One more");
    for path in [&other, &format!("{one}/members"), &format!("{other}/members")] {
        for client in [&ada, &at_b.after(&write)] {
            let status = client.get(path).await.expect(200);
            assert!(status.header("cache-status").starts_with("moka; hit; ttl="), "{path}: {status:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_journal_keeps_instances_coherent() {
    let cluster = Cluster::start_with(2, &[("REDIS_URL", "")]).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    let ada = a.client().register("ada").await;
    let workspace = ada.create_workspace("0").await;
    let path = format!("/v1/workspaces/{workspace}");
    let at_b = ada.at(b);
    for round in 1..=10 {
        let name = round.to_string();
        eventually("B answers from memory", Duration::from_secs(10), async || {
            at_b.get(&path).await.expect(200).header("cache-status").starts_with("moka; hit").then_some(())
        })
        .await;
        let write = ada.patch(&path, json!({ "name": name })).await.expect(200);
        assert_eq!(ada.get(&path).await.field("/name"), name, "on the instance that wrote");
        assert_eq!(at_b.after(&write).get(&path).await.field("/name"), name, "with the token");
        eventually("B has heard of it", Duration::from_millis(1500), async || {
            (at_b.get(&path).await.field("/name") == name).then_some(())
        })
        .await;
    }
}
