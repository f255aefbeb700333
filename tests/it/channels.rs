//! Channels: who makes, changes and reads them.

mod privacy;
mod seats;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Client, Cluster, client::announced};

pub(crate) fn channels_of(workspace: &str) -> String {
    format!("/v1/workspaces/{workspace}/channels")
}

/// Somebody's place in the channel with this path.
pub(crate) fn seat(channel: &str, user: &Client) -> String {
    format!("{channel}/members/{}", user.user_id)
}

/// The names of the channels that somebody is shown.
pub(crate) async fn names(viewer: &Client, workspace: &str) -> Vec<String> {
    let pages = viewer.walk(&channels_of(workspace)).await;
    pages.iter().flatten().map(|channel| channel["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_made_read_changed_and_deleted() {
    let cluster = Cluster::start(2).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let bob = cluster.instances[1].client().register("bob").await;
    let workspace = ada.create_workspace("Team").await;
    ada.add_member(&workspace, &bob, "member").await;
    let channels = channels_of(&workspace);

    let made = ada.post(&channels, json!({"name": " General ", "topic": "Talk"})).await.expect(201);
    let path = format!("{channels}/{}", made.field("/id"));
    assert!(made.header("location").ends_with(&path));
    let channel = made.json();
    assert_eq!((&channel["object"], &channel["version"]), (&json!("channel"), &json!(1)));
    assert_eq!((&channel["name"], &channel["topic"]), (&json!("General"), &json!("Talk")));
    assert_eq!((&channel["is_private"], &channel["workspace_id"]), (&json!(false), &json!(workspace)));
    let person = json!({"id": ada.user_id, "name": "ada", "display_name": "ada", "avatar_url": null});
    assert_eq!(channel["created_by"], person);
    let read = bob.after(&made).get(&path).await.expect(200);
    assert_eq!((read.json(), read.header("etag")), (channel, made.header("etag")));

    let changed = bob.patch(&path, json!({"topic": "Small talk"})).await.expect(200);
    assert_eq!(
        (changed.field("/version"), changed.field("/topic"), changed.field("/name")),
        ("2".to_owned(), "Small talk".to_owned(), "General".to_owned())
    );
    let empty = bob.patch(&path, json!({})).await.expect(200);
    assert_eq!((&empty.text, empty.header("etag")), (&changed.text, changed.header("etag")));
    for client in [&bob, &ada.after(&changed)] {
        assert_eq!(client.get(&path).await.expect(200).text, changed.text);
        assert_eq!(client.get(&channels).await.expect(200).json()["data"], json!([changed.json()]));
    }

    // Together with what was said there, answers included.
    let said = ada.say(&path, "hello @bob").await;
    let answer = json!({"content": "hello", "reply_to": said.field("/id")});
    bob.post(&format!("{path}/messages"), answer).await.expect(201);
    bob.delete(&path).await.expect_problem(403, "forbidden");
    let gone = ada.delete(&path).await.expect(204);
    for client in [&ada, &bob.after(&gone)] {
        for path in [&path, &format!("{path}/members"), &format!("{path}/messages"), &seat(&path, &ada)] {
            client.get(path).await.expect_problem(404, "not_found");
        }
        assert_eq!(client.get(&channels).await.expect(200).json()["data"], json!([]));
    }
    ada.delete(&path).await.expect_problem(404, "not_found");
    // Its name is free again.
    ada.create_channel(&workspace, "General", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_taken_once_in_a_workspace_whatever_its_case() {
    let cluster = Cluster::start(2).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let at_b = ada.at(&cluster.instances[1]);
    let workspace = ada.create_workspace("Team").await;
    let other = ada.create_workspace("Other").await;
    let general = ada.create_channel(&workspace, "General", false).await;
    let random = ada.create_channel(&workspace, "random", true).await;
    for taken in ["General", "gEnErAl", " general ", "RANDOM"] {
        let reply = at_b.post(&channels_of(&workspace), json!({ "name": taken })).await;
        reply.expect_problem(409, "conflict");
    }
    ada.patch(&random, json!({"name": "GENERAL"})).await.expect_problem(409, "conflict");
    assert_eq!(names(&at_b, &workspace).await, ["General", "random"]);
    // Of its own name a channel may change the case, and elsewhere it is another name.
    let renamed = ada.patch(&general, json!({"name": "GENERAL"})).await.expect(200);
    assert_eq!(renamed.field("/name"), "GENERAL");
    ada.create_channel(&other, "General", false).await;

    let path = channels_of(&workspace);
    let requests = (0..20).map(|number| [&ada, &at_b][number % 2].post(&path, json!({"name": "at once"})));
    let mut statuses: Vec<_> = join_all(requests).await.iter().map(|reply| reply.status).collect();
    statuses.sort_unstable();
    assert_eq!((statuses[0], &statuses[1..]), (201, &[409; 19][..]));

    let once = ada.request(reqwest::Method::POST, &path).header("idempotency-key", "key");
    let once = once.json(&json!({"name": "once"}));
    let (first, again) = (once.try_clone().unwrap(), once);
    let first = ada.send(first).await.expect(201);
    let again = at_b.send(again).await.expect(201);
    assert_eq!((again.header("idempotency-replayed"), &again.text), ("true", &first.text));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_channel_is_said() {
    let cluster = Cluster::start(1).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let workspace = ada.create_workspace("Team").await;
    let path = ada.create_channel(&workspace, "General", false).await;
    let long = |count: usize| "ä".repeat(count);
    for (body, pointer) in [
        (json!({"name": ""}), "#/name"),
        (json!({"name": " \n "}), "#/name"),
        (json!({"name": long(81)}), "#/name"),
        (json!({"name": "a\u{0}b"}), "#/name"),
        (json!({"name": "a\nb"}), "#/name"),
        (json!({"name": 5}), "#/name"),
        (json!({"name": "x", "topic": long(251)}), "#/topic"),
        (json!({"name": "x", "topic": "a\nb"}), "#/topic"),
        (json!({"name": "x", "is_private": "yes"}), "#/is_private"),
        (json!({"name": "x", "is_private": null}), "#/is_private"),
    ] {
        for reply in
            [ada.post(&channels_of(&workspace), body.clone()).await, ada.patch(&path, body.clone()).await]
        {
            let reply = reply.expect_problem(422, "validation_error");
            assert_eq!(reply.field("/errors/0/pointer"), pointer, "{body}: {reply:?}");
        }
    }
    for patch in
        [json!({"name": null}), json!({"topic": null}), json!({"created_by": ada.user_id}), json!([])]
    {
        ada.patch(&path, patch).await.expect_problem(422, "validation_error");
    }
    let both = ada.post(&channels_of(&workspace), json!({"name": "", "topic": long(251)})).await;
    assert_eq!(both.json()["errors"].as_array().unwrap().len(), 2, "{both:?}");
    let fits = json!({"name": long(80), "topic": long(250), "is_private": true});
    ada.post(&channels_of(&workspace), fits).await.expect(201);
    assert_eq!(ada.get(&path).await.expect(200).json()["version"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_read_and_write_in_channels_but_neither_make_nor_change_them() {
    let cluster = Cluster::start(1).await;
    let nobody = cluster.instances[0].client();
    let (ada, guest) = (nobody.register("ada").await, nobody.register("guest").await);
    let stranger = nobody.register("stranger").await;
    let workspace = ada.create_workspace("Team").await;
    ada.add_member(&workspace, &guest, "guest").await;
    let path = ada.create_channel(&workspace, "General", false).await;
    let message = ada.say(&path, "hello").await.field("/id");
    let channels = channels_of(&workspace);

    let paths = [
        channels.clone(),
        path.clone(),
        format!("{path}/members"),
        seat(&path, &ada),
        format!("{path}/messages"),
        format!("{path}/messages/{message}"),
    ];
    for path in &paths {
        guest.get(path).await.expect(200);
        guest.head(path).await.expect(200);
        stranger.get(path).await.expect_problem(404, "not_found");
        nobody.get(path).await.expect_problem(401, "unauthenticated");
    }
    guest.post(&channels, json!({"name": "x"})).await.expect_problem(403, "forbidden");
    for patch in [json!({"name": "x"}), json!({"is_private": true}), json!({})] {
        guest.patch(&path, patch).await.expect_problem(403, "forbidden");
    }
    guest.delete(&path).await.expect_problem(403, "forbidden");
    guest.say(&path, "hello too").await;
    stranger.post(&channels, json!({"name": "x"})).await.expect_problem(404, "not_found");
    stranger.patch(&path, json!({"name": "x"})).await.expect_problem(404, "not_found");
    stranger.delete(&path).await.expect_problem(404, "not_found");
    assert_eq!(ada.get(&path).await.expect(200).json()["version"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_found_in_its_own_workspace_only() {
    let cluster = Cluster::start(1).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let (home, other) = (ada.create_workspace("Home").await, ada.create_workspace("Other").await);
    let path = ada.create_channel(&home, "General", false).await;
    let message = ada.say(&path, "hello").await.field("/id");
    let elsewhere = path.replace(&home, &other);
    for wrong in [&elsewhere, &format!("{}/x", channels_of(&home))] {
        for path in [
            wrong.clone(),
            format!("{wrong}/members"),
            seat(wrong, &ada),
            format!("{wrong}/messages"),
            format!("{wrong}/messages/{message}"),
        ] {
            ada.get(&path).await.expect_problem(404, "not_found");
        }
        ada.patch(wrong, json!({"name": "x"})).await.expect_problem(404, "not_found");
        ada.delete(wrong).await.expect_problem(404, "not_found");
        ada.put(&seat(wrong, &ada)).await.expect_problem(404, "not_found");
        ada.delete(&seat(wrong, &ada)).await.expect_problem(404, "not_found");
        let messages = format!("{wrong}/messages");
        ada.post(&messages, json!({"content": "x"})).await.expect_problem(404, "not_found");
    }
    assert_eq!(names(&ada, &other).await, [""; 0]);
    ada.get(&path).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_shows_each_caller_the_channels_that_he_reads() {
    let cluster = Cluster::start(2).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    let ada = a.client().register("ada").await;
    let bob = a.client().register("bob").await;
    let workspace = ada.create_workspace("Team").await;
    ada.add_member(&workspace, &bob, "member").await;
    for number in 0..7 {
        let maker = if number % 3 == 0 { &bob } else { &ada };
        maker.create_channel(&workspace, &number.to_string(), number % 2 == 0).await;
    }
    // The even ones are private: 0 and 6 are Bob's.
    let of_ada = ["1", "2", "3", "4", "5"];
    let of_bob = ["0", "1", "3", "5", "6"];
    assert_eq!(names(&ada, &workspace).await, of_ada);
    assert_eq!(names(&bob, &workspace).await, of_bob);
    for (user, all) in [(&ada, of_ada), (&bob, of_bob)] {
        let pages = user.walk(&format!("{}?limit=2", channels_of(&workspace))).await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
        let walked: Vec<_> = pages.iter().flatten().map(|channel| channel["name"].clone()).collect();
        assert_eq!(walked, all.map(Value::from));
    }
    let page = ada.get(&format!("{}?limit=2", channels_of(&workspace))).await.field("/next_cursor");
    let other = ada.create_workspace("Other").await;
    let elsewhere = format!("{}?cursor={page}", channels_of(&other));
    ada.get(&elsewhere).await.expect_problem(400, "invalid_cursor");

    // Each caller's list is cached, and spared what does not show in it.
    let channels = channels_of(&workspace);
    let path = ada.create_channel(&workspace, "last", false).await;
    announced(&cluster.database).await;
    for client in [&ada, &bob, &ada.at(b), &bob.at(b)] {
        client.get_cached(&channels).await;
    }
    let said = ada.say(&path, "hello").await;
    for client in [&ada, &bob, &ada.at(b).after(&said), &bob.at(b).after(&said)] {
        assert!(client.get(&channels).await.is_l1_hit());
    }
    let renamed = ada.patch(&path, json!({"name": "renamed"})).await.expect(200);
    for client in [&ada, &bob, &ada.at(b).after(&renamed), &bob.at(b).after(&renamed)] {
        let list = client.get(&channels).await.expect(200);
        assert!(list.text.contains("renamed") && !list.is_l1_hit(), "{list:?}");
    }
    let profile = ada.patch("/v1/users/me", json!({"display_name": "Countess"})).await.expect(200);
    for client in [&ada, &bob.at(b).after(&profile)] {
        for path in [&channels, &path] {
            assert!(client.get(path).await.expect(200).text.contains("Countess"));
        }
    }
    let deleted = ada.delete(&format!("/v1/workspaces/{workspace}")).await.expect(204);
    for client in [&ada, &bob, &bob.at(b).after(&deleted)] {
        client.get(&channels).await.expect_problem(404, "not_found");
        client.get(&path).await.expect_problem(404, "not_found");
        client.get(&format!("{path}/messages")).await.expect_problem(404, "not_found");
    }
}
