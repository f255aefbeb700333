//! Messages: who sends, edits and deletes them, and who sees that at once.

mod paging;
mod resending;

use serde_json::{Value, json};

use crate::support::{Client, Cluster, Reply, client::announced};

pub(crate) fn messages_of(channel: &str) -> String {
    format!("{channel}/messages")
}

/// Two users in a workspace, Ada as its owner, with a channel.
pub(crate) struct Talk {
    pub(crate) workspace: String,
    pub(crate) channel: String,
    pub(crate) ada: Client,
    pub(crate) bob: Client,
}

impl Talk {
    pub(crate) async fn begin(cluster: &Cluster) -> Self {
        let nobody = cluster.instances[0].client();
        let (ada, bob) = (nobody.register("ada").await, nobody.register("bob").await);
        let workspace = ada.create_workspace("Team").await;
        ada.add_member(&workspace, &bob, "member").await;
        let channel = ada.create_channel(&workspace, "General", false).await;
        Self { workspace, channel, ada, bob }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_sent_read_and_edited() {
    let cluster = Cluster::start(2).await;
    let Talk { workspace, channel, ada, bob } = Talk::begin(&cluster).await;
    let bob = bob.at(&cluster.instances[1]);
    let messages = messages_of(&channel);

    let sent =
        ada.post(&messages, json!({"content": " first\nline ", "client_msg_id": "m-1"})).await.expect(201);
    let path = format!("{messages}/{}", sent.field("/id"));
    assert!(sent.header("location").ends_with(&path));
    assert!(!sent.header("consistency-token").is_empty());
    let message = sent.json();
    assert_eq!((&message["object"], &message["version"]), (&json!("message"), &json!(1)));
    assert_eq!((&message["content"], &message["client_msg_id"]), (&json!(" first\nline "), &json!("m-1")));
    assert_eq!(message["workspace_id"], json!(workspace));
    assert!(channel.ends_with(message["channel_id"].as_str().unwrap()));
    let person = json!({"id": ada.user_id, "name": "ada", "display_name": "ada", "avatar_url": null});
    assert_eq!(message["author"], person);
    for absent in ["reply_to", "edited_at", "deleted_at"] {
        assert_eq!(message[absent], Value::Null, "{absent}");
    }
    let read = bob.after(&sent).get(&path).await.expect(200);
    assert_eq!((read.json(), read.header("etag")), (message.clone(), sent.header("etag")));

    let edited = ada.patch(&path, json!({"content": "second"})).await.expect(200);
    assert_eq!((edited.field("/content"), edited.field("/version")), ("second".to_owned(), "2".to_owned()));
    assert_eq!(edited.json()["edited_at"], edited.json()["updated_at"]);
    assert_eq!(edited.json()["created_at"], message["created_at"]);
    for same in [json!({}), json!({"content": "second"})] {
        let unchanged = ada.patch(&path, same).await.expect(200);
        assert_eq!((&unchanged.text, unchanged.header("etag")), (&edited.text, edited.header("etag")));
    }
    for client in [&ada, &bob.after(&edited)] {
        assert_eq!(client.get(&path).await.expect(200).text, edited.text);
        assert_eq!(client.get(&messages).await.expect(200).json()["data"], json!([edited.json()]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_its_authors_to_edit_and_its_authors_and_every_admins_to_delete() {
    let cluster = Cluster::start(1).await;
    let Talk { workspace, channel, ada, bob } = Talk::begin(&cluster).await;
    let nobody = cluster.instances[0].client();
    let (admin, guest) = (nobody.register("admin").await, nobody.register("guest").await);
    ada.add_member(&workspace, &admin, "admin").await;
    ada.add_member(&workspace, &guest, "guest").await;
    let of = |sent: &Reply| format!("{}/{}", messages_of(&channel), sent.field("/id"));
    for author in [&bob, &guest, &ada] {
        let one = of(&author.say(&channel, "one").await);
        let other = of(&author.say(&channel, "other").await);
        for user in [&ada, &bob, &admin, &guest].into_iter().filter(|user| user.user_id != author.user_id) {
            for patch in [json!({"content": "x"}), json!({"content": "one"}), json!({})] {
                user.patch(&one, patch).await.expect_problem(403, "forbidden");
            }
            if [&bob, &guest].iter().any(|mere| mere.user_id == user.user_id) {
                user.delete(&one).await.expect_problem(403, "forbidden");
            }
        }
        author.patch(&one, json!({"content": "two"})).await.expect(200);
        author.delete(&one).await.expect(204);
        admin.delete(&other).await.expect(204);
        assert_eq!(author.get(&other).await.expect(200).json()["content"], Value::Null);
    }
    // Who wrote it may be shut out of where it stands.
    let secret = ada.create_channel(&workspace, "secret", true).await;
    let seat = format!("{secret}/members/{}", bob.user_id);
    ada.put(&seat).await.expect(201);
    let said = format!("{secret}/messages/{}", bob.say(&secret, "hello").await.field("/id"));
    ada.delete(&seat).await.expect(204);
    bob.patch(&said, json!({"content": "x"})).await.expect_problem(404, "not_found");
    bob.delete(&said).await.expect_problem(404, "not_found");
    admin.delete(&said).await.expect_problem(404, "not_found");
    assert_eq!(ada.get(&said).await.expect(200).field("/content"), "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_message_leaves_a_tombstone() {
    let cluster = Cluster::start(2).await;
    let Talk { channel, ada, bob, .. } = Talk::begin(&cluster).await;
    let at_b = bob.at(&cluster.instances[1]);
    let messages = messages_of(&channel);
    let sent = bob.post(&messages, json!({"content": "hello", "client_msg_id": "m-1"})).await.expect(201);
    let path = format!("{messages}/{}", sent.field("/id"));
    let answer = json!({"content": "hello too", "reply_to": sent.field("/id")});
    let answer = ada.post(&messages, answer).await.expect(201);
    at_b.after(&answer).get_cached(&messages).await;

    let deleted = bob.delete(&path).await.expect(204);
    assert!(deleted.text.is_empty() && !deleted.header("consistency-token").is_empty());
    let tombstone = ada.get(&path).await.expect(200);
    assert_eq!((&tombstone.json()["content"], &tombstone.json()["version"]), (&Value::Null, &json!(2)));
    assert_eq!(tombstone.json()["deleted_at"], tombstone.json()["updated_at"]);
    assert!(tombstone.json()["deleted_at"].is_string());
    assert_eq!(tombstone.json()["author"]["name"], "bob");
    for client in [&ada, &at_b.after(&deleted)] {
        let page = client.get(&messages).await.expect(200).json();
        assert_eq!(page["data"], json!([answer.json(), tombstone.json()]), "in its place");
    }
    // It stays as it is.
    for user in [&bob, &ada, &at_b] {
        user.delete(&path).await.expect(204);
    }
    for patch in [json!({"content": "again"}), json!({"content": ""}), json!({})] {
        let reply = bob.patch(&path, patch.clone()).await;
        assert_eq!(reply.status, if patch["content"] == "" { 422 } else { 409 }, "{reply:?}");
    }
    ada.patch(&path, json!({"content": "again"})).await.expect_problem(403, "forbidden");
    assert_eq!(ada.get(&path).await.expect(200).text, tombstone.text);
    // Sent again it is still the one that was deleted.
    let again = bob.post(&messages, json!({"content": "hello", "client_msg_id": "m-1"})).await.expect(200);
    assert_eq!(again.text, tombstone.text);
    // It can be answered: who answers may not have heard.
    let late = json!({"content": "what?", "reply_to": sent.field("/id")});
    at_b.post(&messages, late).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_message_is_said() {
    let cluster = Cluster::start(1).await;
    let Talk { workspace, channel, ada, .. } = Talk::begin(&cluster).await;
    let messages = messages_of(&channel);
    let path = format!("{messages}/{}", ada.say(&channel, "hello").await.field("/id"));
    let other = ada.create_channel(&workspace, "Other", false).await;
    let elsewhere = ada.say(&other, "hello").await.field("/id");
    let contents =
        [json!(""), json!(" \n\t "), json!("ä".repeat(10_001)), json!("a\u{0}b"), json!("a\u{1}b"), json!(5)];
    for content in contents {
        for reply in [
            ada.post(&messages, json!({ "content": content })).await,
            ada.patch(&path, json!({ "content": content })).await,
        ] {
            let reply = reply.expect_problem(422, "validation_error");
            assert_eq!(reply.field("/errors/0/pointer"), "#/content", "{reply:?}");
        }
    }
    ada.patch(&path, json!({"content": null})).await.expect_problem(422, "validation_error");
    ada.patch(&path, json!({"client_msg_id": "x"})).await.expect_problem(422, "validation_error");
    ada.post(&messages, json!({})).await.expect_problem(422, "validation_error");
    for name in ["", "two words", "ä", "a\u{0}b", &"x".repeat(256)] {
        let reply = ada.post(&messages, json!({"content": "x", "client_msg_id": name})).await;
        let reply = reply.expect_problem(422, "validation_error");
        assert_eq!(reply.field("/errors/0/pointer"), "#/client_msg_id", "{reply:?}");
    }
    // One answers what stands in the same channel.
    let missing = uuid::Uuid::now_v7().to_string();
    for answered in [&elsewhere, &missing, &workspace] {
        let reply = ada.post(&messages, json!({"content": "x", "reply_to": answered})).await;
        let reply = reply.expect_problem(422, "validation_error");
        assert_eq!(reply.field("/errors/0/pointer"), "#/reply_to", "{reply:?}");
    }
    assert_eq!(ada.walk(&messages).await[0].len(), 1);
    let fits = json!({"content": "ä".repeat(10_000), "client_msg_id": "x".repeat(255), "reply_to": null});
    ada.post(&messages, fits).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_found_in_its_own_channel_only() {
    let cluster = Cluster::start(1).await;
    let Talk { workspace, channel, ada, .. } = Talk::begin(&cluster).await;
    let other = ada.create_channel(&workspace, "Other", false).await;
    let message = ada.say(&channel, "hello").await.field("/id");
    let secret = ada.create_channel(&workspace, "secret", true).await;
    let home = ada.create_workspace("Home").await;
    for wrong in [&other, &secret, &channel.replace(&workspace, &home)] {
        let path = format!("{wrong}/messages/{message}");
        ada.get(&path).await.expect_problem(404, "not_found");
        ada.patch(&path, json!({"content": "x"})).await.expect_problem(404, "not_found");
        ada.delete(&path).await.expect_problem(404, "not_found");
    }
    ada.get(&format!("{channel}/messages/x")).await.expect_problem(404, "not_found");
    assert_eq!(ada.get(&format!("{channel}/messages/{message}")).await.expect(200).field("/version"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_renews_the_pages_of_its_channel_and_spares_those_of_others() {
    let cluster = Cluster::start(2).await;
    let Talk { workspace, channel, ada, bob } = Talk::begin(&cluster).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    let other = bob.create_channel(&workspace, "Other", false).await;
    let spared = [
        messages_of(&other),
        format!("{}?limit=1", messages_of(&other)),
        format!("{}/{}", messages_of(&other), bob.say(&other, "hello").await.field("/id")),
        other.clone(),
        channel.clone(),
        format!("{channel}/members"),
    ];
    let message = format!("{}/{}", messages_of(&channel), ada.say(&channel, "zero").await.field("/id"));
    let pages = [messages_of(&channel), format!("{}?limit=1", messages_of(&channel)), message.clone()];

    let writes = ["said", "edited", "answered", "deleted", "renamed"];
    for what in writes {
        announced(&cluster.database).await;
        for client in [&ada.at(a), &bob.at(a), &ada.at(b), &bob.at(b)] {
            for path in pages.iter().chain(&spared) {
                client.get_cached(path).await;
            }
        }
        let (write, shown) = match what {
            "said" => (ada.say(&channel, "hello").await, "hello"),
            "edited" => (ada.patch(&message, json!({"content": "one"})).await.expect(200), "\"one\""),
            "answered" => {
                let answer = json!({"content": "two", "reply_to": message.rsplit('/').next()});
                (bob.post(&messages_of(&channel), answer).await.expect(201), "\"two\"")
            }
            "deleted" => (ada.delete(&message).await.expect(204), "\"content\":null"),
            _ => {
                let name = json!({"display_name": "Countess"});
                (ada.patch("/v1/users/me", name).await.expect(200), "Countess")
            }
        };
        for client in [&bob.at(a), &bob.at(b).after(&write)] {
            let page = client.get(&pages[0]).await.expect(200);
            assert!(page.text.contains(shown) && !page.is_l1_hit(), "{what}: {page:?}");
            for page in &pages[1..] {
                let page = client.get(page).await.expect(200);
                // The newest message is Bob's by then.
                assert!(!page.is_l1_hit() || what == "renamed", "{what}: {page:?}");
            }
            for path in &spared[..3] {
                assert!(client.get(path).await.is_l1_hit(), "{what}: {path}");
            }
            for path in &spared[3..] {
                assert!(client.get(path).await.is_l1_hit() || what == "renamed", "{what}: {path}");
            }
        }
    }
    let one = bob.get(&message).await.expect(200).json();
    assert_eq!((&one["author"]["display_name"], &one["version"]), (&json!("Countess"), &json!(3)));
}
