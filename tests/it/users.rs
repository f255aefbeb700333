//! Profiles: who sees them, how they change, and where else they show.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Client, Cluster, Reply,
    client::{announced, email},
    eventually,
};

const ME: &str = "/v1/users/me";

fn profile_of(user: &Client) -> String {
    format!("/v1/users/{}", user.user_id)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_shown_to_its_owner_only() {
    let cluster = Cluster::start(1).await;
    let nobody = cluster.instances[0].client();
    let (ada, bob) = (nobody.register("ada").await, nobody.register("bob").await);
    let workspace = ada.create_workspace("Home").await;
    ada.add_member(&workspace, &bob, "guest").await;

    let own = ada.get(ME).await.expect(200);
    assert_eq!(own.json()["email"], email("ada"));
    let seen = bob.get(&profile_of(&ada)).await.expect(200);
    assert_eq!(seen.json().get("email"), None);
    assert!(!seen.text.contains('@'), "{seen:?}");
    let mut without_address = own.json();
    without_address.as_object_mut().unwrap().remove("email");
    assert_eq!(seen.json(), without_address);
    let members =
        ["object", "id", "name", "display_name", "avatar_url", "timezone", "status_text", "created_at"];
    for name in members.into_iter().chain(["updated_at", "version"]) {
        assert!(seen.json().get(name).is_some(), "{name} in {seen:?}");
    }
    // Nor does it show where the person appears in something else.
    let everywhere = [
        format!("/v1/workspaces/{workspace}"),
        format!("/v1/workspaces/{workspace}/members"),
        format!("/v1/workspaces/{workspace}/members/{}", ada.user_id),
        "/v1/workspaces".to_owned(),
    ];
    for path in everywhere {
        let reply = bob.get(&path).await.expect(200);
        assert!(reply.text.contains(&ada.user_id) && !reply.text.contains('@'), "{reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_see_each_other_only_while_they_share_a_workspace() {
    let cluster = Cluster::start(2).await;
    let nobody = cluster.instances[0].client();
    let (ada, bob) = (nobody.register("ada").await, nobody.register("bob").await);
    let unknown = ada.get("/v1/users/0197c0de-0000-7000-8000-000000000000").await;
    let unknown = unknown.expect_problem(404, "not_found").without_instance();
    let no_id = ada.get("/v1/users/ada").await.expect_problem(404, "not_found");
    assert_eq!(no_id.without_instance(), unknown);

    let expect = async |write: Option<&Reply>, status: u16| {
        for instance in &cluster.instances {
            for (viewer, other) in [(&ada, &bob), (&bob, &ada)] {
                let viewer = viewer.at(instance);
                let viewer = write.map_or_else(|| viewer.clone(), |write| viewer.after(write));
                let reply = viewer.get(&profile_of(other)).await.expect(status);
                if status == 404 {
                    let reply = reply.expect_problem(404, "not_found");
                    assert_eq!(reply.without_instance(), unknown);
                }
                viewer.get(&profile_of(&viewer)).await.expect(200);
            }
        }
    };
    // Without a token too, so that each answer is in the L1 of both when the next write comes.
    expect(None, 404).await;
    let (home, work) = (ada.create_workspace("Home").await, bob.create_workspace("Work").await);
    expect(None, 404).await;
    let write = ada.add_member(&home, &bob, "guest").await;
    expect(Some(&write), 200).await;
    let write = bob.add_member(&work, &ada, "guest").await;
    expect(Some(&write), 200).await;
    let membership = format!("/v1/workspaces/{home}/members/{}", bob.user_id);
    let write = bob.delete(&membership).await.expect(204);
    expect(Some(&write), 200).await;
    expect(None, 200).await;
    let write = bob.delete(&format!("/v1/workspaces/{work}")).await.expect(204);
    expect(Some(&write), 404).await;
    expect(None, 404).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_patch_changes_what_it_names_and_nothing_else() {
    let cluster = Cluster::start(1).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let registered = ada.get(ME).await.expect(200).json();
    assert_eq!(registered["version"], 1);
    assert_eq!(registered["display_name"], "ada");

    let patched = async |patch: Value| {
        let reply = ada.patch(ME, patch).await.expect(200);
        assert!(!reply.header("consistency-token").is_empty());
        assert_eq!(reply.header("cache-control"), "private, no-cache");
        // What a write answers is what the next read shows.
        let read = ada.after(&reply).get(ME).await.expect(200);
        assert_eq!(read.json(), reply.json());
        assert_eq!(read.header("etag"), reply.header("etag"));
        assert_eq!(reply.header("etag").split('-').next(), Some(&*format!("\"{}", reply.json()["version"])));
        reply.json()
    };
    let all = json!({
        "name": "Ada Lovelace", "display_name": "Ada", "timezone": "Europe/London",
        "avatar_url": "https://example.com/ada.png", "status_text": "thinking",
    });
    let full = patched(all.clone()).await;
    assert_eq!(full["version"], 2);
    for (name, value) in all.as_object().unwrap() {
        assert_eq!(&full[name], value);
    }
    assert!(full["updated_at"].as_str() > registered["updated_at"].as_str());
    for name in ["id", "email", "created_at", "object"] {
        assert_eq!(full[name], registered[name]);
    }
    // Absent keeps, null removes.
    let less = patched(json!({"status_text": null})).await;
    assert_eq!((&less["status_text"], &less["version"]), (&Value::Null, &json!(3)));
    assert_eq!((&less["display_name"], &less["avatar_url"]), (&full["display_name"], &full["avatar_url"]));
    let least = patched(json!({"avatar_url": null, "display_name": null})).await;
    assert_eq!(least["avatar_url"], Value::Null);
    assert_eq!(least["display_name"], "Ada Lovelace", "without a name to show, the name is shown");
    assert_eq!(patched(json!({})).await, least, "an empty patch changes nothing");
    // Under the name of RFC 7396, too.
    let merge_patch = ada.request(Method::PATCH, ME).header("content-type", "application/merge-patch+json");
    let reply = ada.send(merge_patch.body(r#"{"timezone": "UTC"}"#)).await.expect(200);
    assert_eq!((&reply.json()["timezone"], &reply.json()["version"]), (&json!("UTC"), &json!(5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_that_breaks_a_rule_changes_nothing_and_says_which() {
    let cluster = Cluster::start(1).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let before = ada.get(ME).await.expect(200);
    let refused = [
        (json!({"name": null}), "#/name"),
        (json!({"name": ""}), "#/name"),
        (json!({"name": "  "}), "#/name"),
        (json!({"name": 5}), "#/name"),
        (json!({"name": ["x"]}), "#/name"),
        (json!({"name": "x".repeat(101)}), "#/name"),
        (json!({"name": "two\nlines"}), "#/name"),
        (json!({"name": "n\u{0}l"}), "#/name"),
        (json!({"display_name": ""}), "#/display_name"),
        (json!({"display_name": true}), "#/display_name"),
        (json!({"avatar_url": "javascript:alert(1)"}), "#/avatar_url"),
        (json!({"avatar_url": {"href": "https://example.com"}}), "#/avatar_url"),
        (json!({"timezone": null}), "#/timezone"),
        (json!({"timezone": "Europe Berlin"}), "#/timezone"),
        (json!({"status_text": "x".repeat(141)}), "#/status_text"),
        (json!({"status_text": "a\u{0}b"}), "#/status_text"),
        (json!([]), "#"),
        (json!(["Eve", "Eve"]), "#"),
        (json!("name"), "#"),
        (json!(null), "#"),
    ];
    for (patch, pointer) in refused {
        let reply = ada.patch(ME, patch.clone()).await.expect_problem(422, "validation_error");
        assert_eq!(reply.field("/errors/0/pointer"), pointer, "{patch}: {reply:?}");
        assert!(!reply.field("/errors/0/detail").is_empty());
        assert_eq!(reply.header("consistency-token"), "");
    }
    for unknown in ["email", "id", "version", "is_staff", "token_epoch", "password", "nmae"] {
        let reply = ada.patch(ME, json!({"name": "Eve", unknown: "x"})).await;
        let reply = reply.expect_problem(422, "validation_error");
        assert!(reply.field("/errors/0/detail").contains(unknown), "{reply:?}");
    }
    // All that is wrong is told at once, and nothing of it is done.
    let patch = json!({"name": "", "timezone": "?", "status_text": "fine"});
    let reply = ada.patch(ME, patch).await.expect_problem(422, "validation_error");
    let pointers: Vec<_> =
        reply.json()["errors"].as_array().unwrap().iter().map(|fault| fault["pointer"].clone()).collect();
    assert_eq!(pointers, ["#/name", "#/timezone"]);
    let after = ada.after(&ada.patch(ME, json!({})).await).get(ME).await.expect(200);
    assert_eq!(after.json(), before.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_name_shows_at_once_wherever_the_person_does_and_costs_nobody_else_a_hit() {
    let cluster = Cluster::start(2).await;
    let a = &cluster.instances[0];
    let (ada, bob) = (a.client().register("ada").await, a.client().register("bob").await);
    let eve = a.client().register("eve").await;
    let (shared, bobs) = (ada.create_workspace("Shared").await, bob.create_workspace("Bob's").await);
    ada.add_member(&shared, &bob, "member").await;
    bob.add_member(&bobs, &ada, "guest").await;
    let (unrelated, of_eve) = (eve.create_workspace("Eve's").await, "/v1/workspaces".to_owned());

    // Where Ada shows to Bob, and under which pointer.
    let of_ada = [
        (format!("/v1/workspaces/{shared}"), "/owner/name"),
        (format!("/v1/workspaces/{shared}/members"), "/data/0/user/name"),
        (format!("/v1/workspaces/{shared}/members/{}", ada.user_id), "/user/name"),
        (format!("/v1/workspaces/{bobs}/members"), "/data/1/user/name"),
        ("/v1/workspaces".to_owned(), "/data/0/owner/name"),
        (profile_of(&ada), "/name"),
    ];
    let of_others = [
        (&eve, format!("/v1/workspaces/{unrelated}")),
        (&eve, format!("/v1/workspaces/{unrelated}/members")),
        (&eve, of_eve),
        (&eve, ME.to_owned()),
        // Ada is in there, but neither its owner nor shown.
        (&bob, format!("/v1/workspaces/{bobs}")),
        (&bob, ME.to_owned()),
    ];
    for (round, told) in [(1, true), (2, false), (3, true)] {
        announced(&cluster.database).await;
        let mut known = Vec::new();
        for instance in &cluster.instances {
            for (path, _) in &of_ada {
                known.push(bob.at(instance).get_cached(path).await.header("etag").to_owned());
            }
            for (who, path) in &of_others {
                who.at(instance).get_cached(path).await;
            }
        }

        let name = format!("Ada {round}");
        let write = ada.patch(ME, json!({ "name": name })).await.expect(200);
        let mut known = known.iter();
        for instance in &cluster.instances {
            for (path, pointer) in &of_ada {
                let etag = known.next().unwrap();
                let bob = if told { bob.at(instance).after(&write) } else { bob.at(instance) };
                let ask =
                    async || bob.send(bob.request(Method::GET, path).header("if-none-match", etag)).await;
                let reply = if told {
                    ask().await
                } else {
                    let new = async || Some(ask().await).filter(|reply| reply.status == 200);
                    eventually("the new name", Duration::from_secs(1), new).await
                };
                // Not a 304: what is shown is another thing, though no version of it was raised.
                assert_eq!(reply.expect(200).field(pointer), name, "{path}");
            }
            for (who, path) in &of_others {
                let reply = who.at(instance).get(path).await.expect(200);
                assert!(reply.is_l1_hit(), "{reply:?}");
            }
        }
    }
}
