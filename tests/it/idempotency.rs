//! Requests that are repeated.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Client, Cluster, Reply};

async fn create(client: &Client, key: &str, body: Value) -> Reply {
    let request = client.request(reqwest::Method::POST, "/v1/workspaces").header("idempotency-key", key);
    client.send(request.json(&body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_gets_the_first_answer_on_any_instance() {
    let cluster = Cluster::start(2).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let at_b = ada.at(&cluster.instances[1]);
    let first = create(&ada, "\"key-1\"", json!({"name": "Once"})).await.expect(201);
    assert_eq!(first.header("idempotency-replayed"), "");
    // Unquoted it is the same key.
    for client in [&ada, &at_b] {
        let again = create(client, "key-1", json!({"name": "Once"})).await.expect(201);
        assert_eq!((&again.text, again.header("etag")), (&first.text, first.header("etag")));
        assert!(again.header("location").ends_with(&format!("/v1/workspaces/{}", first.field("/id"))));
        assert_eq!(again.header("idempotency-replayed"), "true");
        assert!(!again.header("consistency-token").is_empty());
    }
    let workspaces = ada.get("/v1/workspaces").await.json();
    assert_eq!(workspaces["data"].as_array().unwrap().len(), 1);

    let other = create(&ada, "key-1", json!({"name": "Another"})).await.expect(422);
    assert_eq!(other.field("/code"), "idempotency_key_reused");
    for malformed in ["", "two words", &"x".repeat(300)] {
        let reply = create(&ada, malformed, json!({"name": "Once"})).await.expect(400);
        assert_eq!(reply.header("content-type"), "application/problem+json");
    }
    // Keys belong to their user and to what they were sent to.
    let bob = cluster.instances[0].client().register("bob").await;
    create(&bob, "key-1", json!({"name": "Bob's"})).await.expect(201);
    let path = format!("/v1/workspaces/{}/members", first.field("/id"));
    let request = ada.request(reqwest::Method::POST, &path).header("idempotency-key", "key-1");
    ada.send(request.json(&json!({"user_id": bob.user_id, "role": "guest"}))).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_equal_requests_at_once_make_one_thing() {
    let cluster = Cluster::start(2).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let at_b = ada.at(&cluster.instances[1]);
    let requests = (0..20).map(|number| create([&ada, &at_b][number % 2], "key", json!({"name": "Once"})));
    let replies = join_all(requests).await;
    let made: Vec<_> = replies.iter().filter(|reply| reply.status == 201).collect();
    assert!(!made.is_empty());
    assert!(made.iter().all(|reply| reply.text == made[0].text));
    for reply in replies.iter().filter(|reply| reply.status != 201) {
        assert_eq!((reply.status, reply.field("/code").as_str()), (409, "request_in_progress"));
    }
    let workspaces = at_b.after(made[0]).get("/v1/workspaces").await.json();
    assert_eq!(workspaces["data"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_failed_may_be_repeated() {
    let cluster = Cluster::start(1).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let taken = json!({"name": "One", "slug": "the-slug"});
    let first = ada.post("/v1/workspaces", taken.clone()).await.expect(201);
    create(&ada, "key", taken.clone()).await.expect(409);
    ada.delete(&format!("/v1/workspaces/{}", first.field("/id"))).await.expect(204);
    create(&ada, "key", taken).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_repeats_a_request_sees_what_it_made_although_its_maker_may_not_have_told_yet() {
    let cluster = Cluster::start(1).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let make = async || {
        let request = ada.request(reqwest::Method::POST, "/v1/workspaces").header("idempotency-key", "once");
        ada.send(request.json(&serde_json::json!({"name": "Home"}))).await.expect(201)
    };
    let (first, again) = (make().await, make().await);
    assert_eq!(again.header("idempotency-replayed"), "true");
    let path = format!("/v1/workspaces/{}", first.field("/id"));
    ada.get_cached(&path).await;
    assert!(ada.after(&first).get(&path).await.expect(200).is_l1_hit());
    assert!(!ada.after(&again).get(&path).await.expect(200).is_l1_hit(), "only the database is sure to know");
}
