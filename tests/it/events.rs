//! The stream of events: who is told what, and that nothing is lost or told twice.

mod resuming;

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, Cluster, EventStream, eventually};

const SOON: Duration = Duration::from_secs(5);

/// Two people in a workspace with a channel, each at another instance.
struct Scene {
    cluster: Cluster,
    ada: Client,
    bob: Client,
    workspace: String,
    /// The path of the channel.
    channel: String,
}

impl Scene {
    async fn new(instances: usize) -> Self {
        let cluster = Cluster::start(instances).await;
        let ada = cluster.instances[0].client().register("ada").await;
        let bob = cluster.instances[instances - 1].client().register("bob").await;
        let workspace = ada.create_workspace("Research").await;
        ada.add_member(&workspace, &bob, "member").await;
        let channel = create_channel(&ada, &workspace, json!({"name": "general"})).await;
        Self { cluster, ada, bob, workspace, channel }
    }

    async fn say(&self, content: &str) -> String {
        say(&self.ada, &self.channel, content).await
    }
}

async fn create_channel(client: &Client, workspace: &str, new: Value) -> String {
    let channels = format!("/v1/workspaces/{workspace}/channels");
    let made = client.post(&channels, new).await.expect(201);
    format!("{channels}/{}", made.field("/id"))
}

/// Sends a message; returns its id.
async fn say(client: &Client, channel: &str, content: &str) -> String {
    let sent = client.post(&format!("{channel}/messages"), json!({ "content": content })).await;
    sent.expect(201).field("/id")
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_on_one_instance_is_told_on_another_to_those_it_concerns() {
    let scene = Scene::new(2).await;
    let Scene { ada, bob, workspace, channel, .. } = &scene;
    let mut stream = EventStream::open(bob, None).await;

    let message = scene.say("hello @bob").await;
    let created = stream.expect("message.created").await;
    assert_eq!(created.json["workspace_id"], json!(workspace));
    assert_eq!(created.json["data"]["id"], json!(message));
    assert_eq!(created.json["data"]["content"], "hello @bob");
    assert_eq!(created.json["data"]["author"]["name"], "ada");
    let notified = stream.expect("notification.created").await;
    assert_eq!(notified.json["data"]["kind"], "mention");
    assert_eq!(notified.json["data"]["message_id"], json!(message));

    let message = format!("{channel}/messages/{message}");
    ada.patch(&message, json!({"content": "good night"})).await.expect(200);
    assert_eq!(stream.expect("message.updated").await.json["data"]["content"], "good night");
    ada.delete(&message).await.expect(204);
    let deleted = stream.expect("message.deleted").await;
    assert_eq!(deleted.json["data"]["content"], Value::Null);
    assert!(deleted.json["data"]["deleted_at"].is_string());

    let documents = format!("/v1/workspaces/{workspace}/documents");
    let made = ada.post(&documents, json!({"title": "Plan"})).await.expect(201);
    let document = format!("{documents}/{}", made.field("/id"));
    let patch = ada.request(Method::PATCH, &document).header("if-match", "*");
    ada.send(patch.json(&json!({"content": "new"}))).await.expect(200);
    let updated = stream.expect("document.updated").await;
    assert_eq!(
        (&updated.json["data"]["version"], &updated.json["data"]["content"]),
        (&json!(2), &Value::Null)
    );

    let cleo = scene.cluster.instances[0].client().register("cleo").await;
    ada.add_member(workspace, &cleo, "guest").await;
    assert_eq!(stream.expect("member.added").await.json["data"]["user"]["name"], "cleo");
    ada.delete(&format!("/v1/workspaces/{workspace}/members/{}", cleo.user_id)).await.expect(204);
    assert_eq!(stream.expect("member.removed").await.json["data"]["id"], json!(cleo.user_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_what_he_may_not_see() {
    let scene = Scene::new(2).await;
    let Scene { ada, bob, workspace, .. } = &scene;
    let stranger = scene.cluster.instances[1].client().register("cleo").await;
    let private = create_channel(ada, workspace, json!({"name": "secret", "is_private": true})).await;
    let mut of_bob = EventStream::open(bob, None).await;
    let mut of_stranger = EventStream::open(&stranger, None).await;
    let start = of_bob.last_id.clone();

    say(ada, &private, "between us").await;
    scene.say("for all").await;
    assert_eq!(of_bob.expect("message.created").await.json["data"]["content"], "for all");
    ada.send(ada.request(Method::PUT, &format!("{private}/members/{}", bob.user_id))).await.expect(201);
    assert_eq!(of_bob.expect("notification.created").await.json["data"]["kind"], "channel_added");
    say(ada, &private, "now with you").await;
    assert_eq!(of_bob.expect("message.created").await.json["data"]["content"], "now with you");
    // What is replayed is judged by what he may see now.
    let mut resumed = EventStream::open(&bob.at(&scene.cluster.instances[0]), Some(&start)).await;
    for content in ["between us", "for all"] {
        assert_eq!(resumed.expect("message.created").await.json["data"]["content"], content);
    }

    // The first thing that concerns the stranger is that he is no stranger any more.
    ada.add_member(workspace, &stranger, "member").await;
    of_stranger.expect("member.added").await;
    of_stranger.expect("notification.created").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_removed_is_told_so_and_nothing_after_that() {
    let scene = Scene::new(2).await;
    let Scene { ada, bob, workspace, .. } = &scene;
    let mut of_ada = EventStream::open(&ada.at(&scene.cluster.instances[1]), None).await;
    for round in 0..20 {
        let mut stream = EventStream::open(bob, None).await;
        ada.delete(&format!("/v1/workspaces/{workspace}/members/{}", bob.user_id)).await.expect(204);
        let without = format!("without bob {round}");
        scene.say(&without).await;
        // Whoever may see it is looked up when it is read, which by now it has been: bob listens at the same instance.
        while of_ada.expect_any().await.json["data"]["content"] != without {}
        ada.add_member(workspace, bob, "member").await;
        scene.say(&format!("with bob {round}")).await;
        assert_eq!(stream.expect("member.removed").await.json["data"]["id"], json!(bob.user_id));
        let mut next = stream.expect_any().await;
        assert_eq!(next.kind, "member.added", "{next:?}");
        // All of it, so that nothing is left for the next round.
        while next.json["data"]["content"] != format!("with bob {round}") {
            next = stream.expect_any().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_session_and_lasts_as_long_as_that() {
    let scene = Scene::new(2).await;
    let at_a = &scene.cluster.instances[0];
    let other_session = at_a.client().log_in("bob").await;
    let mut stream = EventStream::open(&scene.bob, None).await;
    let mut other = EventStream::open(&other_session.at(&scene.cluster.instances[1]), None).await;

    let refresh_token = json!({"refresh_token": other_session.refresh_token});
    at_a.client().post("/v1/auth/logout", refresh_token).await.expect(204);
    other.expect_end(SOON).await;
    scene.say("still there?").await;
    stream.expect("message.created").await;

    scene.bob.at(at_a).post("/v1/auth/logout-all", json!({})).await.expect(204);
    stream.expect_end(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_lets_a_browser_in_once_on_any_instance() {
    let scene = Scene::new(2).await;
    let (bob, at_a) = (&scene.bob, &scene.cluster.instances[0]);
    let issued = bob.post("/v1/events/ticket", json!({})).await.expect(201);
    assert_eq!((issued.header("cache-control"), issued.field("/expires_in")), ("no-store", "60".to_owned()));
    let path = format!("/v1/events?ticket={}", issued.field("/ticket"));
    let nobody = at_a.client();
    let mut stream = EventStream::send(nobody.request(Method::GET, &path)).await;
    scene.say("one").await;
    let event = stream.expect("message.created").await;
    nobody.get(&path).await.expect_problem(401, "unauthenticated");
    nobody.get("/v1/events?ticket=lst_x").await.expect_problem(401, "unauthenticated");
    nobody.get("/v1/events").await.expect_problem(401, "unauthenticated");

    // A browser that comes again says in the URL where it was, too.
    scene.say("two").await;
    let ticket = bob.post("/v1/events/ticket", json!({})).await.expect(201).field("/ticket");
    let path = format!("/v1/events?ticket={ticket}&last_event_id={}", event.id);
    let mut resumed = EventStream::send(nobody.request(Method::GET, &path)).await;
    assert_eq!(resumed.expect("message.created").await.json["data"]["content"], "two");

    // It is worth no more than the session it came from.
    let ticket = bob.post("/v1/events/ticket", json!({})).await.expect(201).field("/ticket");
    let ended = bob.post("/v1/auth/logout-all", json!({})).await.expect(204);
    let path = format!("/v1/events?ticket={ticket}");
    bob.after(&ended).get(&path).await.expect_problem(401, "unauthenticated");
    let head = nobody.head("/v1/events").await;
    assert_eq!((head.status, &*head.text), (401, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_dropped_and_nobody_waits_for_it() {
    let scene = Scene::new(1).await;
    let instance = &scene.cluster.instances[0];
    let idle = EventStream::open(&scene.bob, None).await;
    let long = "x".repeat(9_000);
    let dropped = async || instance.metric("lockstep_sse_dropped_total", &[]).await > 0.0;
    let mut sent = 0;
    while !dropped().await {
        assert!(sent < 4_000, "nobody was dropped");
        let (path, body) = (format!("{}/messages", scene.channel), json!({ "content": long }));
        let burst = (0..50).map(|_| scene.ada.post(&path, body.clone()));
        for reply in futures_util::future::join_all(burst).await {
            reply.expect(201);
        }
        sent += 50;
    }
    assert_eq!(instance.metric("lockstep_sse_connections", &[]).await, 0.0);
    // What it has received lets it resume.
    let mut idle = idle;
    let mut received = 0;
    while idle.next().await.is_some() {
        received += 1;
    }
    let mut resumed = EventStream::open(&scene.bob, Some(&idle.last_id)).await;
    while received < sent {
        resumed.expect("message.created").await;
        received += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_stream_shows_signs_of_life_and_ends_when_the_instance_leaves() {
    let scene = Scene::new(1).await;
    let mut stream = EventStream::open(&scene.bob, None).await;
    let at_start = stream.last_id.clone();
    let waiting = async {
        assert!(stream.next().await.is_none());
        (stream.comments, stream.last_id)
    };
    let leaving = async {
        // One is due within 15 s.
        tokio::time::sleep(Duration::from_secs(16)).await;
        scene.cluster.instances[0].signal("TERM");
    };
    let ((comments, last_id), ()) = tokio::join!(waiting, leaving);
    assert!((1..=2).contains(&comments), "{comments}");
    assert_ne!(last_id, at_start, "a client that hears nothing would fall behind what is kept");
    eventually("the instance is gone", SOON, async || {
        tokio::net::TcpStream::connect(scene.cluster.instances[0].url.trim_start_matches("http://"))
            .await
            .is_err()
            .then_some(())
    })
    .await;
}
