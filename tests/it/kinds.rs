//! Each kind of cached data on two instances: loaded once, kept in both tiers of both, new on both after a write, and
//! only where the write matters.

use std::{collections::HashSet, sync::Mutex};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, Cluster, Reply, client::announced};

/// Two people who share everything, at two instances.
struct Scene {
    cluster: Cluster,
    /// The owner, at the first instance, through which everything is written.
    ada: Client,
    /// The same at the second instance.
    ada_at_b: Client,
    /// A member, at the first instance.
    bob: Client,
    workspace: String,
    /// Another workspace of both, whose entries nothing here should touch.
    other: String,
    /// What was read before.
    known: Mutex<HashSet<String>>,
}

fn missed_both_tiers(reply: &Reply) -> bool {
    let status = reply.header("cache-status");
    status.starts_with("redis; fwd=") && status.contains("moka; fwd=")
}

impl Scene {
    async fn new() -> Self {
        let cluster = Cluster::start(2).await;
        let ada = cluster.instances[0].client().register("ada").await;
        let bob = cluster.instances[0].client().register("bob").await;
        let ada_at_b = ada.at(&cluster.instances[1]);
        let mut workspaces = Vec::new();
        for name in ["Research", "Elsewhere"] {
            let id = ada.create_workspace(name).await;
            ada.add_member(&id, &bob, "member").await;
            workspaces.push(format!("/v1/workspaces/{id}"));
        }
        let [workspace, other] = <[String; 2]>::try_from(workspaces).unwrap();
        Self { cluster, ada, ada_at_b, bob, workspace, other, known: Mutex::default() }
    }

    async fn make(&self, path: &str, body: Value) -> String {
        format!("{path}/{}", self.ada.post(path, body).await.expect(201).field("/id"))
    }

    /// Reads `path` (a miss, then from memory), reads it at the other instance (from Redis, then from memory), writes, and
    /// reads `new` on both; the entries of `unrelated` stay where they were.
    async fn check(
        &self,
        path: &str,
        unrelated: &[&str],
        new: &str,
        write: impl AsyncFn(&Client, &Client) -> Reply,
    ) {
        announced(&self.cluster.database).await;
        let before = self.ada.get(path).await.expect(200);
        let is_first = self.known.lock().unwrap().insert(path.to_owned());
        assert!(!is_first || missed_both_tiers(&before), "{path}: {before:?}");
        assert!(!before.text.contains(new), "{path}: {before:?}");
        assert!(self.ada.get(path).await.is_l1_hit(), "{path}");
        let elsewhere = self.ada_at_b.get(path).await.expect(200);
        let from_redis = elsewhere.header("cache-status").starts_with("redis; hit");
        assert!(!is_first || from_redis, "{path}: {elsewhere:?}");
        assert_eq!((&elsewhere.text, elsewhere.header("etag")), (&before.text, before.header("etag")));
        assert!(self.ada_at_b.get(path).await.is_l1_hit(), "{path}");
        for path in unrelated {
            self.known.lock().unwrap().insert((*path).to_owned());
            self.ada.get_cached(path).await;
            self.ada_at_b.get_cached(path).await;
        }

        let written = write(&self.ada, &self.bob).await;
        for client in [&self.ada, &self.ada_at_b.after(&written)] {
            let after = client.get(path).await.expect(200);
            assert!(after.text.contains(new) && !after.is_l1_hit(), "{path}: {after:?}");
            assert_ne!(after.header("etag"), before.header("etag"), "{path}");
            for path in unrelated {
                let kept = client.get(path).await.expect(200);
                assert!(kept.is_l1_hit(), "{path} was not spared: {kept:?}");
            }
        }
    }
}

async fn rename(client: &Client, name: &str) -> Reply {
    client.patch("/v1/users/me", json!({ "display_name": name })).await.expect(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_is_invalidated_by_itself_its_members_and_its_owner() {
    let scene = Scene::new().await;
    let Scene { workspace, other, .. } = &scene;
    let documents = format!("{workspace}/documents");
    let unrelated = [other.as_str(), &documents];
    scene
        .check(workspace, &unrelated, "\"name\":\"Renamed\"", async |ada, _| {
            ada.patch(workspace, json!({"name": "Renamed"})).await.expect(200)
        })
        .await;
    let cleo = scene.cluster.instances[0].client().register("cleo").await;
    scene
        .check(workspace, &unrelated, "\"member_count\":3", async |ada, _| {
            let new = json!({"user_id": cleo.user_id, "role": "guest"});
            ada.post(&format!("{workspace}/members"), new).await.expect(201)
        })
        .await;
    // The owner shows in everything that is his; but in the list of documents, which is empty, he does not.
    scene.check(workspace, &[&documents], "Countess", async |ada, _| rename(ada, "Countess").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn member_lists_memberships_and_roles_are_invalidated_by_members_and_their_profiles() {
    let scene = Scene::new().await;
    let Scene { workspace, other, bob, .. } = &scene;
    let (members, of_bob) = (format!("{workspace}/members"), format!("{workspace}/members/{}", bob.user_id));
    let documents = format!("{workspace}/documents");
    let elsewhere = format!("{other}/members");
    let promote = async |role: &str| scene.ada.patch(&of_bob, json!({ "role": role })).await.expect(200);
    scene.check(&members, &[&elsewhere, &documents], "\"admin\"", async |_, _| promote("admin").await).await;
    scene.check(&of_bob, &[&elsewhere, &documents], "\"guest\"", async |_, _| promote("guest").await).await;
    for path in [&members, &of_bob] {
        let name = format!("Bob of {}", path.len());
        scene.check(path, &[&documents, other], &name, async |_, bob| rename(bob, &name).await).await;
    }
    // As what somebody may do something is a kind of data too.
    let bob_at_b = bob.at(&scene.cluster.instances[1]);
    bob_at_b.get_cached(workspace).await;
    let removed = scene.ada.delete(&of_bob).await.expect(204);
    bob_at_b.after(&removed).get(workspace).await.expect_problem(404, "not_found");
    bob_at_b.get(other).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_and_lists_of_them_are_invalidated_by_themselves_and_by_whom_they_show() {
    let scene = Scene::new().await;
    let Scene { workspace, other, .. } = &scene;
    let documents = format!("{workspace}/documents");
    let document = scene.make(&documents, json!({"title": "Plan", "content": "one"})).await;
    let sibling = scene.make(&documents, json!({"title": "Sibling"})).await;
    let elsewhere = format!("{other}/documents");
    let edit = async |patch: Value| {
        let request = scene.ada.request(Method::PATCH, &document).header("if-match", "*");
        scene.ada.send(request.json(&patch)).await.expect(200)
    };
    let unrelated = [sibling.as_str(), &elsewhere, workspace];
    scene.check(&document, &unrelated, "two", async |_, _| edit(json!({"content": "two"})).await).await;
    scene.check(&documents, &unrelated, "Second", async |_, _| edit(json!({"title": "Second"})).await).await;
    for path in [&document, &documents] {
        let name = format!("Ada of {}", path.len());
        scene.check(path, &[&elsewhere], &name, async |ada, _| rename(ada, &name).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_and_sign_in_states_are_invalidated_by_their_users() {
    let scene = Scene::new().await;
    let Scene { bob, workspace, .. } = &scene;
    let (profile, own) = (format!("/v1/users/{}", bob.user_id), format!("/v1/users/{}", scene.ada.user_id));
    let documents = format!("{workspace}/documents");
    scene
        .check(&profile, &[&own, "/v1/users/me", &documents], "out to lunch", async |_, bob| {
            bob.patch("/v1/users/me", json!({"status_text": "out to lunch"})).await.expect(200)
        })
        .await;
    let bob_at_b = bob.at(&scene.cluster.instances[1]);
    bob_at_b.get_cached("/v1/users/me").await;
    let ended = bob.post("/v1/auth/logout-all", json!({})).await.expect(204);
    bob_at_b.after(&ended).get("/v1/users/me").await.expect_problem(401, "unauthenticated");
    bob.get("/v1/users/me").await.expect_problem(401, "unauthenticated");
    assert!(scene.ada.get_cached(&own).await.is_l1_hit());
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_and_pages_of_messages_are_invalidated_by_themselves_and_by_whom_they_show() {
    let scene = Scene::new().await;
    let Scene { workspace, .. } = &scene;
    let channels = format!("{workspace}/channels");
    let channel = scene.make(&channels, json!({"name": "general"})).await;
    let quiet = scene.make(&channels, json!({"name": "quiet"})).await;
    let (messages, of_quiet) = (format!("{channel}/messages"), format!("{quiet}/messages"));
    let message = scene.make(&messages, json!({"content": "first"})).await;
    scene.make(&of_quiet, json!({"content": "shh"})).await;

    let topic = async |topic: &str| scene.ada.patch(&channel, json!({ "topic": topic })).await.expect(200);
    let unrelated = [quiet.as_str(), &of_quiet, &messages, workspace];
    scene.check(&channel, &unrelated, "news", async |_, _| topic("news").await).await;
    scene.check(&channels, &unrelated, "old news", async |_, _| topic("old news").await).await;
    let unrelated = [of_quiet.as_str(), &channel, &channels];
    scene
        .check(&messages, &unrelated, "second", async |ada, _| {
            ada.post(&messages, json!({"content": "second"})).await.expect(201)
        })
        .await;
    scene
        .check(&messages, &unrelated, "reworded", async |ada, _| {
            ada.patch(&message, json!({"content": "reworded"})).await.expect(200)
        })
        .await;
    scene
        .check(&message, &unrelated, "\"content\":null", async |ada, _| {
            ada.delete(&message).await.expect(204)
        })
        .await;
    let members = format!("{channel}/members");
    scene
        .check(&members, &[&messages, &of_quiet, &channels], "\"bob\"", async |_, bob| {
            bob.send(bob.request(Method::PUT, &format!("{members}/{}", bob.user_id))).await.expect(201)
        })
        .await;
    for path in [&channel, &channels, &messages, &members] {
        let name = format!("Ada of {}", path.len());
        let documents = format!("{workspace}/documents");
        scene.check(path, &[&documents], &name, async |ada, _| rename(ada, &name).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn search_results_end_with_their_time_alone_and_notifications_are_never_kept() {
    let scene = Scene::new().await;
    let Scene { workspace, ada, ada_at_b, bob, .. } = &scene;
    let documents = format!("{workspace}/documents");
    scene.make(&documents, json!({"title": "Roadmap"})).await;
    announced(&scene.cluster.database).await;
    let search = format!("{workspace}/search?q=roadmap");
    assert!(missed_both_tiers(&ada.get(&search).await.expect(200)));
    assert!(ada.get(&search).await.is_l1_hit());
    assert!(ada_at_b.get(&search).await.header("cache-status").starts_with("redis; hit"));
    assert!(ada_at_b.get(&search).await.is_l1_hit());
    let written = ada.post(&documents, json!({"title": "Another roadmap"})).await.expect(201);
    for client in [ada, ada_at_b] {
        let kept = client.get(&search).await.expect(200);
        assert!(kept.is_l1_hit() && !kept.text.contains("Another"), "{kept:?}");
    }
    // Whoever says what he must see sees it, and so does everybody after him.
    for client in [&ada_at_b.after(&written), ada_at_b] {
        let fresh = client.get(&search).await.expect(200);
        assert!(fresh.text.contains("Another"), "{fresh:?}");
    }

    let bob_at_b = bob.at(&scene.cluster.instances[1]);
    for count in 1..4 {
        scene.make(&documents, json!({"title": "Note", "content": "for @bob"})).await;
        for client in [bob, &bob_at_b] {
            let unread = client.get("/v1/notifications/unread-count").await.expect(200);
            // Two for being added to both workspaces.
            assert_eq!(unread.field("/unread_count"), (count + 2).to_string());
            for reply in [unread, client.get("/v1/notifications").await.expect(200)] {
                assert_eq!((reply.header("cache-control"), reply.header("cache-status")), ("no-store", ""));
                assert_eq!(reply.header("etag"), "");
            }
        }
    }
}
