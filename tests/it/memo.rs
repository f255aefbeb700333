//! Requests that come again are answered from what was read for the last one like them. Nobody can tell but by the numbers.

use std::{collections::BTreeSet, time::Duration};

use reqwest::Method;
use serde_json::json;

use crate::support::{Client, Cluster, Instance, Reply, client::announced, eventually};

/// Somebody who has just signed up, and the path of a workspace of hers.
async fn ada_and_her_workspace(instance: &Instance) -> (Client, String) {
    let ada = instance.client().register("ada").await;
    let path = format!("/v1/workspaces/{}", ada.create_workspace("Analytical Engine").await);
    (ada, path)
}

async fn repeats(instance: &Instance) -> f64 {
    instance.metric("http_server_repeats_total", &[]).await
}

/// Asks for something until that is answered like the request before. Returns this answer.
async fn repeated(instance: &Instance, client: &Client, path: &str) -> Reply {
    eventually("an answer is repeated", Duration::from_secs(20), async || {
        let before = repeats(instance).await;
        let reply = client.get(path).await.expect(200);
        (repeats(instance).await > before).then_some(reply)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_answer_is_like_the_first_and_has_its_own_id() {
    let cluster = Cluster::start(1).await;
    let instance = &cluster.instances[0];
    let (ada, path) = ada_and_her_workspace(instance).await;
    let first = ada.get(&path).await.expect(200);
    let again = repeated(instance, &ada, &path).await;
    assert_eq!(again.text, first.text);
    let names = |reply: &Reply| reply.headers.keys().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!(names(&again), names(&first));
    for name in ["etag", "cache-control", "vary", "content-type", "x-served-by", "x-content-type-options"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    assert_ne!(again.header("x-request-id"), first.header("x-request-id"));
    assert!(again.is_l1_hit(), "{again:?}");
    // What the client has it need not be sent, and may be sent all the same.
    for (known, status) in [(first.header("etag"), 304), ("\"another\"", 200)] {
        eventually("an answer is repeated", Duration::from_secs(20), async || {
            let before = repeats(instance).await;
            let request = ada.request(Method::GET, &path).header("if-none-match", known);
            let reply = ada.send(request).await.expect(status);
            assert_eq!(reply.header("etag"), first.header("etag"));
            (repeats(instance).await > before).then_some(())
        })
        .await;
    }
    let head = ada.head(&path).await.expect(200);
    assert_eq!((head.header("etag"), &*head.text), (first.header("etag"), ""));
    // The page is another one with another query.
    let members = format!("{path}/members");
    repeated(instance, &ada, &members).await;
    assert_eq!(ada.get(&format!("{members}?limit=0")).await.status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_seen_at_once_by_whoever_asks_again() {
    let cluster = Cluster::start(1).await;
    let instance = &cluster.instances[0];
    let (ada, path) = ada_and_her_workspace(instance).await;
    for round in 0..5 {
        repeated(instance, &ada, &path).await;
        let name = format!("Engine {round}");
        ada.patch(&path, json!({ "name": name })).await.expect(200);
        assert_eq!(ada.get(&path).await.expect(200).field("/name"), name);
    }
    repeated(instance, &ada, &path).await;
    ada.delete(&path).await.expect(204);
    ada.get(&path).await.expect_problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_ask_any_more_is_told_so_at_once() {
    let cluster = Cluster::start(1).await;
    let instance = &cluster.instances[0];
    let (ada, eve) = (instance.client().register("ada").await, instance.client().register("eve").await);
    let workspace = ada.create_workspace("Analytical Engine").await;
    let path = format!("/v1/workspaces/{workspace}");
    repeated(instance, &ada, &path).await;
    eve.get(&path).await.expect_problem(404, "not_found");
    instance.client().get(&path).await.expect_problem(401, "unauthenticated");

    ada.add_member(&workspace, &eve, "member").await;
    repeated(instance, &eve, &path).await;
    ada.delete(&format!("{path}/members/{}", eve.user_id)).await.expect(204);
    eve.get(&path).await.expect_problem(404, "not_found");

    repeated(instance, &ada, &path).await;
    ada.post("/v1/auth/logout-all", json!({})).await.expect(204);
    ada.get(&path).await.expect_problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consistency_token_is_read_also_where_the_same_was_asked_for_without() {
    let cluster = Cluster::start(1).await;
    let instance = &cluster.instances[0];
    let (ada, path) = ada_and_her_workspace(instance).await;
    repeated(instance, &ada, &path).await;
    let garbage = ada.with_token(Some("garbage".to_owned()));
    assert_eq!(garbage.get(&path).await.status, 400);
    let before = repeats(instance).await;
    let written = ada.patch(&path, json!({"name": "Difference Engine"})).await.expect(200);
    for _ in 0..5 {
        assert_eq!(ada.after(&written).get(&path).await.expect(200).field("/name"), "Difference Engine");
    }
    assert_eq!(repeats(instance).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_answers_are_charged_like_any_others() {
    let settings = [("RATE_LIMIT_SUSTAINED", "200/h")];
    let cluster = Cluster::start_with(1, &settings).await;
    let instance = &cluster.instances[0];
    let (ada, path) = ada_and_her_workspace(instance).await;
    // The making of the workspace was the first.
    let (mut passed, before) = (1, repeats(instance).await);
    let refused = loop {
        let reply = ada.get(&path).await;
        assert!(!reply.header("ratelimit").is_empty(), "{reply:?}");
        if reply.status == 429 {
            break reply;
        }
        reply.expect(200);
        passed += 1;
    };
    assert_eq!(passed, 200);
    assert_eq!(refused.expect_problem(429, "rate_limited").header("x-ratelimit-remaining"), "0");
    assert!(repeats(instance).await > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_answers_are_counted_and_logged_like_any_others() {
    let settings = [("RUST_LOG", "info")];
    let cluster = Cluster::start_with(1, &settings).await;
    let instance = &cluster.instances[0];
    let (ada, path) = ada_and_her_workspace(instance).await;
    let route = "/v1/workspaces/{workspace}";
    // Or it might be announced once more, and be loaded once more.
    announced(&cluster.database).await;
    let count = async || {
        let labels = [&*format!("http_route=\"{route}\""), "\"GET\"", "\"200\""];
        instance.metric("http_server_request_duration_seconds_count", &labels).await
    };
    let mut asked = 0.0;
    let before = repeats(instance).await;
    while repeats(instance).await == before {
        ada.get(&path).await.expect(200);
        asked += 1.0;
    }
    assert_eq!(count().await, asked);
    let hits =
        instance.metric("lockstep_cache_requests_total", &["\"workspace\"", "\"l1\"", "\"hit\""]).await;
    assert_eq!(hits, asked - 1.0);
    eventually("each has a line in the log", Duration::from_secs(5), async || {
        let log = instance.log();
        let is_of_it = |line: &&str| line.contains(&format!("route={route} ")) && line.contains("method=GET");
        (log.lines().filter(is_of_it).count() as f64 == asked).then_some(())
    })
    .await;
}
