//! A search shows what the caller may see, at the moment he asks.

use std::time::Duration;

use serde_json::json;

use super::{found, search_for, write};
use crate::{
    messages::Talk,
    support::{Cluster, eventually},
};

#[tokio::test(flavor = "multi_thread")]
async fn everybody_finds_what_he_may_see_and_nothing_else() {
    let cluster = Cluster::start(2).await;
    let Talk { workspace, channel, ada, bob } = Talk::begin(&cluster).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    let (guest, stranger) = (a.client().register("guest").await, a.client().register("stranger").await);
    ada.add_member(&workspace, &guest, "guest").await;
    let (of_ada, of_bob) = (
        ada.create_channel(&workspace, "of ada", true).await,
        bob.create_channel(&workspace, "of bob", true).await,
    );
    ada.say(&channel, "harbour of all").await;
    ada.say(&of_ada, "harbour of ada").await;
    bob.say(&of_bob, "harbour of bob").await;
    write(&ada, &workspace, "harbour of the team", "").await;
    // The same words in another workspace, where Ada is too.
    let home = ada.create_workspace("Home").await;
    let at_home = ada.create_channel(&home, "General", false).await;
    ada.say(&at_home, "harbour at home").await;
    ada.say(&ada.create_channel(&home, "secret", true).await, "secret harbour at home").await;
    let written = write(&ada, &home, "harbour of my own", "").await;

    let (team, all) = ("harbour of the team", "harbour of all");
    for (user, expected) in [
        (&ada, vec![team, "harbour of ada", all]),
        (&bob, vec![team, "harbour of bob", all]),
        (&guest, vec![team, all]),
    ] {
        for user in [user, &user.at(b)] {
            assert_eq!(found(user, &workspace, "harbour").await, expected);
        }
    }
    let theirs = found(&ada, &home, "harbour").await;
    assert_eq!(theirs, ["harbour of my own", "harbour at home", "secret harbour at home"]);
    for user in [&bob, &guest, &stranger] {
        user.get(&search_for(&home, "harbour")).await.expect_problem(404, "not_found");
        user.get(&search_for(&home, "")).await.expect_problem(404, "not_found");
    }
    stranger.get(&search_for(&workspace, "harbour")).await.expect_problem(404, "not_found");
    a.client().get(&search_for(&workspace, "harbour")).await.expect_problem(401, "unauthenticated");

    // Let in, let out, removed: each shows at once.
    let seat = format!("{of_ada}/members/{}", bob.user_id);
    let put = ada.put(&seat).await.expect(201);
    for bob in [&bob, &bob.at(b).after(&put)] {
        let more = [team, "harbour of bob", "harbour of ada", all];
        assert_eq!(found(bob, &workspace, "harbour").await, more);
    }
    let out = ada.delete(&seat).await.expect(204);
    for bob in [&bob, &bob.at(b).after(&out)] {
        assert_eq!(found(bob, &workspace, "harbour").await, [team, "harbour of bob", all]);
    }
    let gone = ada.delete(&format!("/v1/workspaces/{workspace}/members/{}", bob.user_id)).await.expect(204);
    for bob in [&bob, &bob.at(b).after(&gone)] {
        bob.get(&search_for(&workspace, "harbour")).await.expect_problem(404, "not_found");
    }
    // Who comes back is not in the private channel, and what he finds is what a guest finds.
    let back = ada.add_member(&workspace, &bob, "member").await;
    for bob in [&bob, &bob.at(b).after(&back)] {
        assert_eq!(found(bob, &workspace, "harbour").await, [team, all]);
    }
    ada.delete(&format!("/v1/workspaces/{home}")).await.expect(204);
    ada.get(&search_for(&home, "harbour")).await.expect_problem(404, "not_found");
    ada.get(&written).await.expect_problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_in_a_channel_that_becomes_private_or_goes_is_not_found_any_more() {
    let cluster = Cluster::start(2).await;
    let Talk { workspace, channel, ada, bob } = Talk::begin(&cluster).await;
    let b = &cluster.instances[1];
    let path = search_for(&workspace, "harbour");
    ada.say(&channel, "harbour").await;
    for told in [true, false] {
        for user in [&ada, &bob, &ada.at(b), &bob.at(b)] {
            assert_eq!(user.get_cached(&path).await.field("/data/0/object/content"), "harbour");
        }
        let closed = ada.patch(&channel, json!({"is_private": true})).await.expect(200);
        let at_b = if told { bob.at(b).after(&closed) } else { bob.at(b) };
        if !told {
            eventually("it is found no more", Duration::from_secs(1), async || {
                (at_b.get(&path).await.json()["data"] == json!([])).then_some(())
            })
            .await;
        }
        for user in [&bob, &at_b] {
            assert_eq!(found(user, &workspace, "harbour").await, [""; 0]);
        }
        for user in [&ada, &ada.at(b).after(&closed)] {
            assert_eq!(found(user, &workspace, "harbour").await, ["harbour"]);
        }
        let opened = ada.patch(&channel, json!({"is_private": false})).await.expect(200);
        for user in [&bob, &bob.at(b).after(&opened)] {
            assert_eq!(found(user, &workspace, "harbour").await, ["harbour"]);
        }
    }
    let gone = ada.delete(&channel).await.expect(204);
    for user in [&ada, &bob.at(b).after(&gone)] {
        assert_eq!(found(user, &workspace, "harbour").await, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_or_says_something_else_by_now_is_not_found() {
    let cluster = Cluster::start(1).await;
    let Talk { workspace, channel, ada, .. } = Talk::begin(&cluster).await;
    let message = format!("{channel}/messages/{}", ada.say(&channel, "harbour").await.field("/id"));
    let document = write(&ada, &workspace, "harbour master", "").await;
    assert_eq!(found(&ada, &workspace, "harbour").await, ["harbour master", "harbour"]);
    let edit = async |patch: serde_json::Value| {
        let request = ada.request(reqwest::Method::PATCH, &document).header("if-match", "*");
        ada.send(request.json(&patch)).await.expect(200)
    };
    // What was asked before is answered as before for a minute: so each question is a new one.
    ada.patch(&message, json!({"content": "lighthouse"})).await.expect(200);
    edit(json!({"title": "master", "content": "harbour"})).await;
    assert_eq!(found(&ada, &workspace, "harbour or edited").await, ["master"]);
    assert_eq!(found(&ada, &workspace, "lighthouse").await, ["lighthouse"]);
    edit(json!({"content": "pier"})).await;
    assert_eq!(found(&ada, &workspace, "harbour or again").await, [""; 0]);
    ada.delete(&message).await.expect(204);
    let remove = ada.request(reqwest::Method::DELETE, &document).header("if-match", "*");
    ada.send(remove).await.expect(204);
    assert_eq!(found(&ada, &workspace, "harbour or lighthouse or master or pier").await, [""; 0]);
    assert_eq!(found(&ada, &workspace, "-nothing").await, [""; 0], "nor by what it does not say");
}
