//! Limits over all instances: exact, all or nothing, cheap, and bounded while Redis is away.

mod login;
mod outage;
mod reference;

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::support::{Client, Cluster, Reply, eventually};

/// Sends many requests at once, in turn to all instances; how many got each status.
async fn at_once(
    cluster: &Cluster,
    client: &Client,
    count: usize,
    send: impl AsyncFn(&Client) -> Reply,
) -> (usize, usize) {
    let clients: Vec<_> = cluster.instances.iter().map(|instance| client.at(instance)).collect();
    let sending = (0..count).map(|index| send(&clients[index % clients.len()]));
    let (mut admitted, mut refused) = (0, 0);
    for reply in futures_util::future::join_all(sending).await {
        match reply.status {
            200 | 201 => admitted += 1,
            429 => {
                reply.expect_problem(429, "rate_limited");
                refused += 1;
            }
            _ => panic!("{reply:?}"),
        }
    }
    (admitted, refused)
}

/// Waits until the limits of all instances are asked in Redis, at no cost to the user.
async fn connected(cluster: &Cluster, client: &Client) {
    for instance in &cluster.instances {
        let client = client.at(instance);
        eventually("limits are shared", Duration::from_secs(5), async || {
            let policies = client.get("/v1/rate-limit").await.expect(200).json()["policies"].clone();
            let policies = policies.as_array().unwrap().clone();
            policies.iter().all(|policy| policy["remaining"] == policy["limit"]).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_five_hundred_requests_at_once_on_three_instances_exactly_sixty_pass_and_sixty_more_in_the_next_window()
 {
    let cluster = Cluster::start_with(3, &[("RATE_LIMIT_BURST", "60/15s")]).await;
    let ada = cluster.instances[0].client().register("ada").await;
    connected(&cluster, &ada).await;
    let read = async |client: &Client| client.get("/v1/users/me").await;
    assert_eq!(at_once(&cluster, &ada, 500, read).await, (60, 440));
    let refused = ada.get("/v1/users/me").await.expect_problem(429, "rate_limited");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=16).contains(&wait), "{wait}");
    // What was charged ahead counts from the end of its second.
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert_eq!(at_once(&cluster, &ada, 500, read).await, (60, 440));
    // Whoever asks in bursts is granted some ahead, whoever is refused is not asked for again.
    let decided = async |source: &str| {
        let mut count = 0.0;
        for instance in &cluster.instances {
            let labels = ["subject=\"u\"", &format!("source=\"{source}\"")];
            count += instance.metric("lockstep_rate_limit_decisions_total", &labels).await;
        }
        count
    };
    assert!(decided("denial").await > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_in_bursts_is_granted_some_ahead_and_what_he_does_not_use_comes_back() {
    let cluster = Cluster::start_with(2, &[("RATE_LIMIT_BURST", "200/min")]).await;
    let ada = cluster.instances[0].client().register("ada").await;
    connected(&cluster, &ada).await;
    for _ in 0..60 {
        ada.get("/v1/users/me").await.expect(200);
    }
    let labels = ["subject=\"u\"", "source=\"lease\""];
    let leased = cluster.instances[0].metric("lockstep_rate_limit_decisions_total", &labels).await;
    assert!(leased >= 30.0, "{leased}");
    eventually("what was not used is back", Duration::from_secs(3), async || {
        let limits = ada.at(&cluster.instances[1]).get("/v1/rate-limit").await.expect(200).json();
        (limits["policies"][0]["remaining"] == 140).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_messages_at_once_exactly_thirty_are_sent_and_other_requests_still_pass() {
    let cluster =
        Cluster::start_with(3, &[("RATE_LIMIT_MESSAGE", "30/min"), ("RATE_LIMIT_BURST", "100/min")]).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let workspace = ada.create_workspace("Home").await;
    let channels = format!("/v1/workspaces/{workspace}/channels");
    let channel = ada.post(&channels, json!({"name": "general"})).await.expect(201).field("/id");
    let messages = format!("{channels}/{channel}/messages");
    let send = async |client: &Client| client.post(&messages, json!({"content": "hello"})).await;
    assert_eq!(at_once(&cluster, &ada, 200, send).await, (30, 170));
    let refused = send(&ada).await.expect_problem(429, "rate_limited");
    assert_eq!(refused.json()["violated-policies"], json!(["message"]));
    assert!(refused.field("/type").ends_with("#quota-exceeded"), "{refused:?}");
    // A refused one was charged to nothing: 2 were made, 30 sent, and this one.
    let read = ada.get(&messages).await.expect(200);
    assert!(read.header("ratelimit").starts_with("\"burst\";r=67;"), "{read:?}");
    assert_eq!(read.json()["data"].as_array().unwrap().len(), 30);
    // However the path is spelled.
    let spelled = messages.replace("/messages", "/%6dessages");
    assert_ne!(ada.post(&spelled, json!({"content": "x"})).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_where_the_caller_stands_and_asking_for_it_is_free() {
    let settings = [
        ("RATE_LIMIT_BURST", "5/3s"),
        ("RATE_LIMIT_SUSTAINED", "1000/hour"),
        ("RATE_LIMIT_MESSAGE", "30/min"),
    ];
    let cluster = Cluster::start_with(2, &settings).await;
    let ada = cluster.instances[0].client().register("ada").await;
    connected(&cluster, &ada).await;
    for round in 0..3 {
        let limits = ada.at(&cluster.instances[round % 2]).get("/v1/rate-limit").await.expect(200);
        assert_eq!(limits.header("cache-control"), "no-store");
        let policies = limits.json()["policies"].clone();
        assert_eq!(
            policies[0],
            json!({"name": "burst", "limit": 5, "window": 3, "remaining": 5, "reset": 0})
        );
        assert_eq!((&policies[1]["name"], &policies[2]["name"]), (&json!("sustained"), &json!("message")));
    }
    let head = ada.head("/v1/users/me").await.expect(200);
    assert_eq!(head.header("ratelimit-policy"), "\"burst\";q=5;w=3, \"sustained\";q=1000;w=3600");
    // What is not there, or not changed, is charged like anything else.
    let missing =
        ada.at(&cluster.instances[1]).get("/v1/workspaces/1").await.expect_problem(404, "not_found");
    assert!(missing.header("ratelimit").starts_with("\"burst\";r=3;t="), "{missing:?}");
    let me = ada.get("/v1/users/me").await.expect(200);
    let again = ada.request(Method::GET, "/v1/users/me").header("if-none-match", me.header("etag"));
    let not_modified = ada.send(again).await.expect(304);
    assert!(not_modified.header("ratelimit").starts_with("\"burst\";r=1;t="), "{not_modified:?}");
    ada.patch("/v1/users/me", json!({"status_text": "here"})).await.expect(200);

    let refused =
        ada.patch("/v1/users/me", json!({"status_text": "there"})).await.expect_problem(429, "rate_limited");
    assert!(refused.header("ratelimit").starts_with("\"burst\";r=0;t="), "{refused:?}");
    assert_eq!(refused.header("x-ratelimit-resource"), "burst");
    assert_eq!((refused.header("x-ratelimit-limit"), refused.header("x-ratelimit-remaining")), ("5", "0"));
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=3).contains(&wait), "{wait}");
    ada.get("/v1/rate-limit").await.expect(200);
    // Neither credentials nor a body that is none are looked at before or after: first who, then how much, then what.
    let garbage = ada.request(Method::PATCH, "/v1/users/me").header("content-type", "text/plain").body("x");
    ada.send(garbage).await.expect_problem(429, "rate_limited");
    cluster.instances[0].client().get("/v1/users/me").await.expect_problem(401, "unauthenticated");
    tokio::time::sleep(Duration::from_secs(wait)).await;
    ada.get("/v1/users/me").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_one_process_counts_exactly_by_itself() {
    let settings = [("REDIS_URL", ""), ("RATE_LIMIT_BURST", "20/min"), ("RATE_LIMIT_MESSAGE", "5/min")];
    let cluster = Cluster::start_with(1, &settings).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let read = async |client: &Client| client.get("/v1/users/me").await;
    assert_eq!(at_once(&cluster, &ada, 100, read).await, (20, 80));
    let limits = ada.get("/v1/rate-limit").await.expect(200).json();
    assert_eq!(
        (&limits["policies"][0]["remaining"], &limits["policies"][1]["remaining"]),
        (&json!(0), &json!(5))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_off_limits_nothing_and_says_nothing() {
    let cluster = Cluster::start(1).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let me = ada.get("/v1/users/me").await.expect(200);
    assert_eq!((me.header("ratelimit"), me.header("ratelimit-policy")), ("", ""));
    assert_eq!(ada.get("/v1/rate-limit").await.expect(200).json()["policies"], json!([]));
}
