//! A private channel exists only for those who are in it.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{channels_of, names, seat};
use crate::support::{Client, Cluster, eventually};

/// Everything that can be asked of a channel and of what is in it.
fn requests(channel: &str, user: &Client, message: &str) -> Vec<(Method, String, Option<Value>)> {
    let messages = format!("{channel}/messages");
    let one = format!("{messages}/{message}");
    vec![
        (Method::GET, channel.to_owned(), None),
        (Method::PATCH, channel.to_owned(), Some(json!({"name": "x"}))),
        (Method::PATCH, channel.to_owned(), Some(json!({"is_private": false}))),
        (Method::PATCH, channel.to_owned(), Some(json!({}))),
        (Method::DELETE, channel.to_owned(), None),
        (Method::GET, format!("{channel}/members"), None),
        (Method::GET, seat(channel, user), None),
        (Method::PUT, seat(channel, user), None),
        (Method::DELETE, seat(channel, user), None),
        (Method::GET, messages.clone(), None),
        (Method::POST, messages, Some(json!({"content": "x"}))),
        (Method::GET, one.clone(), None),
        (Method::PATCH, one.clone(), Some(json!({"content": "x"}))),
        (Method::DELETE, one, None),
    ]
}

/// To this user, the channel is what a channel is that never was.
async fn knows_nothing_of(user: &Client, channel: &str, message: &str) {
    let missing = "/v1/workspaces/0197c0de-0000-7000-8000-000000000000";
    let unknown = user.get(missing).await.expect_problem(404, "not_found").without_instance();
    for (method, path, body) in requests(channel, user, message) {
        let mut request = user.request(method, &path);
        if let Some(body) = &body {
            request = request.json(body);
        }
        let reply = user.send(request).await.expect_problem(404, "not_found");
        assert_eq!(reply.without_instance(), unknown, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_channel_exists_only_for_those_in_it_be_they_owners_of_the_workspace_or_not() {
    let cluster = Cluster::start(2).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    let nobody = a.client();
    let (ada, bob) = (nobody.register("ada").await, nobody.register("bob").await);
    let (cleo, guest) = (nobody.register("cleo").await, nobody.register("guest").await);
    let workspace = ada.create_workspace("Team").await;
    for (user, role) in [(&bob, "member"), (&cleo, "admin"), (&guest, "guest")] {
        ada.add_member(&workspace, user, role).await;
    }
    let secret = bob.create_channel(&workspace, "secret", true).await;
    let message = bob.say(&secret, "hush").await.field("/id");
    let stranger = nobody.register("stranger").await;
    for user in [&ada, &cleo, &guest, &stranger] {
        for user in [user, &user.at(b)] {
            knows_nothing_of(user, &secret, &message).await;
        }
    }
    assert_eq!(names(&ada, &workspace).await, [""; 0]);
    assert_eq!(names(&bob, &workspace).await, ["secret"]);
    let untouched = bob.get(&secret).await.expect(200);
    assert_eq!((untouched.field("/version"), untouched.field("/name")), ("1".into(), "secret".into()));

    // Let in, and out again, both at once.
    for (user, may_change) in [(&ada, true), (&cleo, true), (&guest, false)] {
        let put = bob.put(&seat(&secret, user)).await.expect(201);
        for user in [user, &user.at(b).after(&put)] {
            user.get(&secret).await.expect(200);
            user.get(&format!("{secret}/messages/{message}")).await.expect(200);
            assert_eq!(
                user.get(&format!("{secret}/messages")).await.expect(200).field("/data/0/content"),
                "hush"
            );
            assert_eq!(names(user, &workspace).await, ["secret"]);
            let changed = user.patch(&secret, json!({"topic": user.user_id})).await;
            assert_eq!(changed.status, if may_change { 200 } else { 403 }, "{changed:?}");
        }
        let taken = bob.delete(&seat(&secret, user)).await.expect(204);
        for user in [user, &user.at(b).after(&taken)] {
            knows_nothing_of(user, &secret, &message).await;
            assert_eq!(names(user, &workspace).await, [""; 0]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn turning_a_channel_private_keeps_inside_who_does_it_and_shuts_out_all_others_at_once() {
    let cluster = Cluster::start(2).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    let nobody = a.client();
    let (ada, bob, cleo) =
        (nobody.register("ada").await, nobody.register("bob").await, nobody.register("cleo").await);
    let workspace = ada.create_workspace("Team").await;
    for user in [&bob, &cleo] {
        ada.add_member(&workspace, user, "member").await;
    }
    // Whoever makes a channel is in it; Bob is not.
    let path = ada.create_channel(&workspace, "plans", false).await;
    let message = ada.say(&path, "hush").await.field("/id");
    bob.get(&seat(&path, &bob)).await.expect_problem(404, "not_found");
    for told in [true, false] {
        for client in [&cleo, &cleo.at(b)] {
            client.get(&path).await.expect(200);
            client.get(&format!("{path}/messages")).await.expect(200);
            assert_eq!(names(client, &workspace).await, ["plans"]);
        }
        let closed = bob.patch(&path, json!({"is_private": true})).await.expect(200);
        assert_eq!(closed.json()["is_private"], true);
        let at_b = if told {
            cleo.at(b).after(&closed)
        } else {
            let at_b = cleo.at(b);
            eventually("the channel is closed", Duration::from_secs(1), async || {
                let list = at_b.get(&channels_of(&workspace)).await.json();
                (at_b.get(&path).await.status == 404 && list["data"] == json!([])).then_some(())
            })
            .await;
            at_b
        };
        for client in [&cleo, &at_b] {
            knows_nothing_of(client, &path, &message).await;
            assert_eq!(names(client, &workspace).await, [""; 0]);
        }
        for client in [&ada, &bob, &ada.at(b).after(&closed), &bob.at(b).after(&closed)] {
            client.get(&format!("{path}/messages")).await.expect(200);
            client.get(&seat(&path, &bob)).await.expect(200);
            assert_eq!(names(client, &workspace).await, ["plans"]);
        }
        let opened = bob.patch(&path, json!({"is_private": false})).await.expect(200);
        for client in [&cleo, &cleo.at(b).after(&opened)] {
            client.get(&format!("{path}/messages/{message}")).await.expect(200);
            assert_eq!(names(client, &workspace).await, ["plans"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_removed_from_a_workspace_loses_its_channels_and_does_not_get_them_back_by_returning() {
    let cluster = Cluster::start(2).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    let (ada, bob) = (a.client().register("ada").await, a.client().register("bob").await);
    let workspace = ada.create_workspace("Team").await;
    let public = ada.create_channel(&workspace, "public", false).await;
    let secret = ada.create_channel(&workspace, "secret", true).await;
    let message = ada.say(&secret, "hush").await.field("/id");
    for told in [true, false] {
        ada.add_member(&workspace, &bob, "member").await;
        for channel in [&public, &secret] {
            ada.put(&seat(channel, &bob)).await.expect(201);
        }
        let ready = ada.patch(&public, json!({"topic": told.to_string()})).await.expect(200);
        for channel in [&public, &secret] {
            for client in [&bob, &bob.at(b).after(&ready), &ada, &ada.at(b).after(&ready)] {
                client.get(&format!("{channel}/messages")).await.expect(200);
                let members = client.get(&format!("{channel}/members")).await.expect(200);
                assert_eq!(members.json()["data"].as_array().unwrap().len(), 2);
                client.get(&seat(channel, &bob)).await.expect(200);
            }
        }
        let gone =
            ada.delete(&format!("/v1/workspaces/{workspace}/members/{}", bob.user_id)).await.expect(204);
        if !told {
            eventually("the channels are gone", Duration::from_secs(1), async || {
                (bob.at(b).get(&secret).await.status == 404).then_some(())
            })
            .await;
        }
        for bob in [&bob, &if told { bob.at(b).after(&gone) } else { bob.at(b) }] {
            for channel in [&public, &secret] {
                knows_nothing_of(bob, channel, &message).await;
            }
        }
        for ada in [&ada, &ada.at(b).after(&gone)] {
            for channel in [&public, &secret] {
                let members = ada.get(&format!("{channel}/members")).await.expect(200);
                assert_eq!(members.json()["data"].as_array().unwrap().len(), 1, "{members:?}");
                ada.get(&seat(channel, &bob)).await.expect_problem(404, "not_found");
            }
        }

        let back = ada.add_member(&workspace, &bob, "member").await;
        for bob in [&bob, &bob.at(b).after(&back)] {
            bob.get(&public).await.expect(200);
            bob.get(&seat(&public, bob)).await.expect_problem(404, "not_found");
            knows_nothing_of(bob, &secret, &message).await;
            assert_eq!(names(bob, &workspace).await, ["public"]);
        }
        ada.delete(&format!("/v1/workspaces/{workspace}/members/{}", bob.user_id)).await.expect(204);
    }
}
