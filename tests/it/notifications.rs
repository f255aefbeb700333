//! Notifications: who is told of what, once, and only if it happened.

mod inbox;

use std::time::Duration;

use diesel::sql_query;
use diesel_async::{RunQueryDsl as _, SimpleAsyncConnection as _};
use serde_json::{Value, json};

use crate::support::{Client, Cluster, Reply, eventually};

/// Somebody's notifications, newest first.
pub(crate) async fn all(user: &Client) -> Vec<Value> {
    user.walk("/v1/notifications").await.concat()
}

/// The kinds of somebody's notifications, newest first.
async fn kinds(user: &Client) -> Vec<String> {
    all(user).await.iter().map(|one| one["kind"].as_str().unwrap().to_owned()).collect()
}

/// How many notifications everybody has got since the last time.
struct Watch<'a>(Vec<(&'a Client, usize)>);

impl<'a> Watch<'a> {
    async fn begin(users: impl IntoIterator<Item = &'a Client>) -> Self {
        let mut counts = Vec::new();
        for user in users {
            counts.push((user, all(user).await.len()));
        }
        Self(counts)
    }

    async fn expect(&mut self, expected: &[usize], what: &str) {
        let mut new = Vec::new();
        for (user, count) in &mut self.0 {
            let now = all(user).await.len();
            new.push(now - *count);
            *count = now;
        }
        assert_eq!(new, expected, "{what}");
    }
}

/// People with names that begin alike, in one workspace.
struct People {
    workspace: String,
    ada: Client,
    bob: Client,
    dylan: Client,
    guest: Client,
    stranger: Client,
}

impl People {
    async fn gather(cluster: &Cluster) -> Self {
        let nobody = cluster.instances[0].client();
        let ada = nobody.register("ada").await;
        let people = Self {
            workspace: ada.create_workspace("Team").await,
            ada,
            bob: nobody.register("bob").await,
            dylan: nobody.register("dylan").await,
            guest: nobody.register("guest").await,
            stranger: nobody.register("stranger").await,
        };
        people.dylan.patch("/v1/users/me", json!({"name": "Bob Dylan"})).await.expect(200);
        for (user, role) in [(&people.bob, "member"), (&people.dylan, "member"), (&people.guest, "guest")] {
            people.ada.add_member(&people.workspace, user, role).await;
        }
        people
    }

    async fn watch(&self) -> Watch<'_> {
        Watch::begin([&self.ada, &self.bob, &self.dylan, &self.guest, &self.stranger]).await
    }
}

/// What is said, and how often it calls Ada, Bob, Bob Dylan, a guest and a stranger if Ada says it.
const CALLS: [(&str, [usize; 5]); 14] = [
    ("hello @bob", [0, 1, 0, 0, 0]),
    ("@BOB, @bob and @Bob!", [0, 1, 0, 0, 0]),
    ("(@bob) @guest", [0, 1, 0, 1, 0]),
    ("@bob dylan", [0, 0, 1, 0, 0]),
    ("@Bob Dylan @bob", [0, 1, 1, 0, 0]),
    ("@bob\ndylan", [0, 1, 0, 0, 0]),
    ("@bob dylans", [0, 1, 0, 0, 0]),
    ("@ada", [0, 0, 0, 0, 0]),
    ("@stranger", [0, 0, 0, 0, 0]),
    ("bob@example.com x@bob", [0, 0, 0, 0, 0]),
    ("@bobby @bob_ @ bob bob @", [0, 0, 0, 0, 0]),
    ("@everybody @channel @%", [0, 0, 0, 0, 0]),
    ("@@bob", [0, 1, 0, 0, 0]),
    ("nobody", [0, 0, 0, 0, 0]),
];

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_named_in_a_message_is_told_once_and_never_its_author() {
    let cluster = Cluster::start(2).await;
    let people = People::gather(&cluster).await;
    let People { workspace, ada, bob, stranger, .. } = &people;
    let channel = ada.create_channel(workspace, "General", false).await;
    let mut watch = people.watch().await;
    for (text, expected) in CALLS {
        ada.say(&channel, text).await;
        watch.expect(&expected, text).await;
    }
    let said = ada.say(&channel, "@bob").await;
    let told = all(&bob.at(&cluster.instances[1])).await.remove(0);
    assert_eq!((&told["object"], &told["kind"]), (&json!("notification"), &json!("mention")));
    assert_eq!((&told["workspace_id"], &told["message_id"]), (&json!(workspace), &said.json()["id"]));
    assert_eq!((&told["channel_id"], &told["document_id"]), (&said.json()["channel_id"], &Value::Null));
    assert_eq!((&told["read"], &told["read_at"], &told["version"]), (&json!(false), &Value::Null, &json!(1)));
    let person = json!({"id": ada.user_id, "name": "ada", "display_name": "ada", "avatar_url": null});
    assert_eq!(told["actor"], person);
    assert_eq!(all(stranger).await, [Value::Null; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_named_in_a_document_is_told_once_for_each_time_he_is_newly_named() {
    let cluster = Cluster::start(1).await;
    let people = People::gather(&cluster).await;
    let People { workspace, ada, bob, .. } = &people;
    let documents = format!("/v1/workspaces/{workspace}/documents");
    let mut watch = people.watch().await;
    for (text, expected) in CALLS {
        ada.post(&documents, json!({"title": "@bob", "content": text})).await.expect(201);
        watch.expect(&expected, text).await;
    }
    let made = ada.post(&documents, json!({"title": "Plan", "content": "@bob"})).await.expect(201);
    watch.expect(&[0, 1, 0, 0, 0], "made").await;
    let path = format!("{documents}/{}", made.field("/id"));
    let told = all(bob).await.remove(0);
    assert_eq!((&told["kind"], &told["document_id"]), (&json!("mention"), &made.json()["id"]));
    assert_eq!((&told["channel_id"], &told["message_id"]), (&Value::Null, &Value::Null));
    let edits = [
        (json!({"content": "@bob and @guest"}), [0, 0, 0, 1, 0]),
        (json!({"content": "@bob dylan"}), [0, 0, 1, 0, 0]),
        (json!({"title": "@bob"}), [0; 5]),
        (json!({"content": "@bob"}), [0, 1, 0, 0, 0]),
        (json!({"content": "@bob", "title": "Plan"}), [0; 5]),
    ];
    for (patch, expected) in edits {
        let request = ada.request(reqwest::Method::PATCH, &path).header("if-match", "*");
        ada.send(request.json(&patch)).await.expect(200);
        watch.expect(&expected, &patch.to_string()).await;
    }
    // Whoever edits it names himself in vain, and others in his own name.
    let request = bob.request(reqwest::Method::PATCH, &path).header("if-match", "*");
    bob.send(request.json(&json!({"content": "@bob @ada"}))).await.expect(200);
    watch.expect(&[1, 0, 0, 0, 0], "by Bob").await;
    assert_eq!(all(ada).await[0]["actor"]["name"], "bob");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_private_channel_only_those_in_it_are_told() {
    let cluster = Cluster::start(1).await;
    let people = People::gather(&cluster).await;
    let People { workspace, ada, bob, guest, .. } = &people;
    let mut watch = people.watch().await;
    let secret = ada.create_channel(workspace, "secret", true).await;
    let public = ada.create_channel(workspace, "public", false).await;
    let seat = |channel: &str, user: &Client| format!("{channel}/members/{}", user.user_id);
    watch.expect(&[0; 5], "who makes a channel knows").await;
    ada.say(&secret, "@bob @guest @ada").await;
    watch.expect(&[0; 5], "nobody reads it").await;

    // Whoever is let in is told, once; who takes a seat in a public channel, or is given one, has read it before.
    ada.put(&seat(&secret, bob)).await.expect(201);
    watch.expect(&[0, 1, 0, 0, 0], "let in").await;
    let told = all(bob).await.remove(0);
    assert_eq!((&told["kind"], &told["message_id"]), (&json!("channel_added"), &Value::Null));
    assert!(secret.ends_with(told["channel_id"].as_str().unwrap()));
    ada.put(&seat(&secret, bob)).await.expect(200);
    ada.put(&seat(&secret, ada)).await.expect(200);
    for user in [bob, guest] {
        ada.put(&seat(&public, user)).await.expect(201);
    }
    watch.expect(&[0; 5], "no news").await;
    ada.say(&secret, "@bob @guest @ada @bob dylan").await;
    watch.expect(&[0, 1, 0, 0, 0], "in it").await;
    ada.delete(&seat(&secret, bob)).await.expect(204);
    ada.say(&secret, "@bob").await;
    watch.expect(&[0; 5], "out again").await;
    ada.put(&seat(&secret, bob)).await.expect(201);
    watch.expect(&[0, 1, 0, 0, 0], "and in").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_tells_the_one_who_is_answered_unless_it_names_him() {
    let cluster = Cluster::start(1).await;
    let people = People::gather(&cluster).await;
    let People { workspace, ada, bob, guest, .. } = &people;
    let channel = ada.create_channel(workspace, "General", false).await;
    let messages = format!("{channel}/messages");
    let answer = async |user: &Client, answered: &Reply, text: &str| {
        user.post(&messages, json!({"content": text, "reply_to": answered.field("/id")})).await.expect(201)
    };
    let question = bob.say(&channel, "when?").await;
    let mut watch = people.watch().await;
    let said = answer(ada, &question, "now").await;
    watch.expect(&[0, 1, 0, 0, 0], "answered").await;
    let told = all(bob).await.remove(0);
    assert_eq!((&told["kind"], &told["message_id"]), (&json!("reply"), &said.json()["id"]));
    answer(bob, &question, "when indeed?").await;
    watch.expect(&[0; 5], "by himself").await;
    answer(ada, &question, "now, @bob, and @guest").await;
    watch.expect(&[0, 1, 0, 1, 0], "answered and named").await;
    assert_eq!(kinds(bob).await[..2], ["mention", "reply"]);
    answer(guest, &said, "@bob").await;
    watch.expect(&[1, 1, 0, 0, 0], "another is named").await;
    // Who does not read it any more hears nothing of it.
    ada.patch(&channel, json!({"is_private": true})).await.expect(200);
    answer(ada, &question, "soon").await;
    watch.expect(&[0; 5], "shut out").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_added_to_a_workspace_is_told_and_who_leaves_keeps_nothing_of_it() {
    let cluster = Cluster::start(1).await;
    let nobody = cluster.instances[0].client();
    let (ada, bob) = (nobody.register("ada").await, nobody.register("bob").await);
    let (team, other) = (ada.create_workspace("Team").await, ada.create_workspace("Other").await);
    assert_eq!(all(&ada).await.len(), 0, "who makes a workspace knows");
    for workspace in [&team, &other] {
        ada.add_member(workspace, &bob, "member").await;
        let told = all(&bob).await.remove(0);
        assert_eq!((&told["kind"], &told["workspace_id"]), (&json!("workspace_added"), &json!(workspace)));
        assert_eq!((&told["actor"]["name"], &told["channel_id"]), (&json!("ada"), &Value::Null));
        let channel = ada.create_channel(workspace, "General", false).await;
        ada.say(&channel, "@bob").await;
        bob.say(&channel, "@ada").await;
    }
    assert_eq!(kinds(&bob).await, ["mention", "workspace_added"].repeat(2));
    let membership = format!("/v1/workspaces/{team}/members/{}", bob.user_id);
    bob.delete(&membership).await.expect(204);
    let left = all(&bob).await;
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|one| one["workspace_id"] == json!(other)), "{left:?}");
    assert_eq!(bob.get("/v1/notifications/unread-count").await.json()["unread_count"], 2);
    assert_eq!(all(&ada).await.len(), 2, "what Bob has caused stays");
    ada.add_member(&team, &bob, "guest").await;
    assert_eq!(all(&bob).await.len(), 3);
    for workspace in [&team, &other] {
        ada.delete(&format!("/v1/workspaces/{workspace}")).await.expect(204);
    }
    for user in [&ada, &bob] {
        assert_eq!(all(user).await, [Value::Null; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_message_tells_only_those_newly_named() {
    let cluster = Cluster::start(1).await;
    let people = People::gather(&cluster).await;
    let People { workspace, ada, .. } = &people;
    let channel = ada.create_channel(workspace, "General", false).await;
    let path = format!("{channel}/messages/{}", ada.say(&channel, "@bob").await.field("/id"));
    let mut watch = people.watch().await;
    for (text, expected) in [
        ("@bob and @bob", [0; 5]),
        ("@BOB and @guest", [0, 0, 0, 1, 0]),
        ("@bob dylan and @guest", [0, 0, 1, 0, 0]),
        ("nobody", [0; 5]),
        ("@bob, @ada", [0, 1, 0, 0, 0]),
    ] {
        ada.patch(&path, json!({ "content": text })).await.expect(200);
        watch.expect(&expected, text).await;
    }
    ada.delete(&path).await.expect(204);
    watch.expect(&[0; 5], "deleted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_or_repeated_request_tells_nobody() {
    let cluster = Cluster::start(1).await;
    let people = People::gather(&cluster).await;
    let People { workspace, ada, bob, guest, stranger, .. } = &people;
    let channel = ada.create_channel(workspace, "General", false).await;
    let secret = ada.create_channel(workspace, "secret", true).await;
    let (messages, documents) =
        (format!("{channel}/messages"), format!("/v1/workspaces/{workspace}/documents"));
    let said = json!({"content": "@bob", "client_msg_id": "m-1"});
    let path = format!("{messages}/{}", ada.post(&messages, said.clone()).await.expect(201).field("/id"));
    let made = ada.post(&documents, json!({"title": "Plan"})).await.expect(201);
    let document = format!("{documents}/{}", made.field("/id"));
    let mut watch = people.watch().await;

    let missing = uuid::Uuid::now_v7();
    ada.post(&messages, said).await.expect(200);
    ada.post(&messages, json!({"content": "@bob", "reply_to": missing})).await.expect(422);
    ada.post(&format!("{channel}x/messages"), json!({"content": "@bob"})).await.expect(404);
    stranger.post(&messages, json!({"content": "@bob"})).await.expect(404);
    bob.post(&format!("{secret}/messages"), json!({"content": "@ada"})).await.expect(404);
    guest.patch(&path, json!({"content": "@bob @bob dylan"})).await.expect(403);
    guest.post(&documents, json!({"title": "x", "content": "@bob"})).await.expect(403);
    ada.post(&documents, json!({"title": "x", "content": "@bob", "parent_id": missing})).await.expect(422);
    let stale = ada.request(reqwest::Method::PATCH, &document).header("if-match", "\"7-0\"");
    ada.send(stale.json(&json!({"content": "@bob"}))).await.expect(412);
    let members = format!("/v1/workspaces/{workspace}/members");
    ada.post(&members, json!({"user_id": bob.user_id})).await.expect(409);
    bob.post(&members, json!({"user_id": stranger.user_id})).await.expect(403);
    ada.put(&format!("{secret}/members/{}", stranger.user_id)).await.expect(404);
    bob.put(&format!("{secret}/members/{}", guest.user_id)).await.expect(404);
    watch.expect(&[0; 5], "refused").await;

    // Made in the same transaction: what cannot be told has not happened.
    let mut psql = cluster.database.connect().await;
    let broken = "ALTER TABLE notifications ADD CONSTRAINT broken CHECK (false) NOT VALID";
    psql.batch_execute(broken).await.unwrap();
    ada.post(&messages, json!({"content": "lost @bob"})).await.expect_problem(500, "internal");
    ada.put(&format!("{secret}/members/{}", bob.user_id)).await.expect_problem(500, "internal");
    psql.batch_execute("ALTER TABLE notifications DROP CONSTRAINT broken").await.unwrap();
    watch.expect(&[0; 5], "rolled back").await;
    bob.get(&secret).await.expect_problem(404, "not_found");
    assert_eq!(ada.walk(&messages).await[0].len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_at_the_moment_he_is_named_is_passed_over() {
    let cluster = Cluster::start(1).await;
    let people = People::gather(&cluster).await;
    let People { workspace, ada, bob, .. } = &people;
    let channel = ada.create_channel(workspace, "General", false).await;
    let secret = ada.create_channel(workspace, "secret", true).await;
    let path = format!("/v1/workspaces/{workspace}/documents");
    let channels = format!("/v1/workspaces/{workspace}/channels");
    let seat = format!("{secret}/members/{}", bob.user_id);
    let question = bob.say(&channel, "when?").await.field("/id");
    let messages = format!("{channel}/messages");
    let leave = format!("BEGIN; DELETE FROM members WHERE user_id = '{}'", bob.user_id);
    let mine = bob.create_channel(workspace, "mine", false).await;
    bob.delete(&format!("{mine}/members/{}", bob.user_id)).await.expect(204);
    for write in 0..6 {
        let mut psql = cluster.database.connect().await;
        psql.batch_execute(&leave).await.unwrap();
        let request = async {
            match write {
                0 => ada.post(&messages, json!({"content": "hello @bob"})).await,
                1 => ada.post(&messages, json!({"content": "now", "reply_to": question})).await,
                2 => ada.post(&path, json!({"title": "Plan", "content": "@bob"})).await,
                3 => ada.put(&seat).await,
                // He himself, into what he makes or closes.
                4 => bob.post(&channels, json!({"name": "x"})).await,
                _ => bob.patch(&mine, json!({"is_private": true})).await,
            }
        };
        let waiting = async {
            waits(&cluster).await;
            psql.batch_execute("COMMIT").await.unwrap();
        };
        let (reply, ()) = tokio::join!(request, waiting);
        assert_eq!(reply.status, if write < 3 { 201 } else { 404 }, "{write}: {reply:?}");
        ada.add_member(workspace, bob, "member").await;
        assert_eq!(kinds(bob).await, ["workspace_added"]);
    }
}

/// Until a request waits for the one who is leaving.
async fn waits(cluster: &Cluster) {
    let psql = tokio::sync::Mutex::new(cluster.database.connect().await);
    let waiting =
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("the request waits", Duration::from_secs(5), async || {
        let rows = sql_query(waiting).execute(&mut *psql.lock().await).await.unwrap();
        (rows > 0).then_some(())
    })
    .await;
}
