//! Documents: what is written, by whom, and what it was before.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, Cluster, Reply};

/// Changes a document as somebody who has seen the state that `etag` names.
async fn edit(client: &Client, path: &str, etag: &str, patch: Value) -> Reply {
    let request = client.request(Method::PATCH, path).header("if-match", etag);
    client.send(request.json(&patch)).await
}

async fn remove(client: &Client, path: &str, etag: &str) -> Reply {
    client.send(client.request(Method::DELETE, path).header("if-match", etag)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_written_read_changed_and_remembered() {
    let cluster = Cluster::start(2).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let bob = cluster.instances[1].client().register("bob").await;
    let workspace = ada.create_workspace("Research").await;
    ada.add_member(&workspace, &bob, "member").await;
    let documents = format!("/v1/workspaces/{workspace}/documents");

    let made = ada.post(&documents, json!({"title": "Plan", "content": "one\ntwo"})).await.expect(201);
    let path = format!("{documents}/{}", made.field("/id"));
    assert!(made.header("location").ends_with(&path));
    assert_eq!((made.field("/object"), made.field("/version")), ("document".to_owned(), "1".to_owned()));
    assert_eq!(
        (made.field("/author/name"), made.field("/last_edited_by/name")),
        ("ada".to_owned(), "ada".to_owned())
    );
    assert_eq!(made.json()["parent_id"], Value::Null);
    let read = bob.after(&made).get(&path).await.expect(200);
    assert_eq!((read.field("/content"), read.header("etag")), ("one\ntwo".to_owned(), made.header("etag")));

    let changed = edit(&bob, &path, read.header("etag"), json!({"content": "three"})).await.expect(200);
    assert_eq!((changed.field("/version"), changed.field("/title")), ("2".to_owned(), "Plan".to_owned()));
    assert_eq!(
        (changed.field("/author/name"), changed.field("/last_edited_by/name")),
        ("ada".to_owned(), "bob".to_owned())
    );
    let same = edit(&bob, &path, changed.header("etag"), json!({})).await.expect(200);
    assert_eq!(same.field("/version"), "2");

    let list = ada.after(&changed).get(&documents).await.expect(200).json();
    assert_eq!((&list["data"][0]["version"], &list["data"][0]["content"]), (&json!(2), &Value::Null));
    let versions = ada.after(&changed).get(&format!("{path}/versions")).await.expect(200).json();
    let numbers: Vec<_> =
        versions["data"].as_array().unwrap().iter().map(|version| &version["version"]).collect();
    assert_eq!(numbers, [&json!(2), &json!(1)]);
    assert_eq!(versions["data"][0]["content"], Value::Null);
    for (number, content, editor) in [(1, "one\ntwo", "ada"), (2, "three", "bob")] {
        let version = ada.get(&format!("{path}/versions/{number}")).await.expect(200);
        assert_eq!(
            (version.field("/content"), version.field("/edited_by/name")),
            (content.to_owned(), editor.to_owned())
        );
    }
    for wrong in ["3", "0", "-1", "x"] {
        ada.get(&format!("{path}/versions/{wrong}")).await.expect_problem(404, "not_found");
    }

    let gone = remove(&ada, &path, changed.header("etag")).await.expect(204);
    for client in [&ada, &bob.after(&gone)] {
        client.get(&path).await.expect_problem(404, "not_found");
        client.get(&format!("{path}/versions/1")).await.expect_problem(404, "not_found");
        assert_eq!(client.get(&documents).await.json()["data"], json!([]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_writes_has_to_have_seen_what_he_changes() {
    let cluster = Cluster::start(2).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let at_b = ada.at(&cluster.instances[1]);
    let workspace = ada.create_workspace("Research").await;
    let documents = format!("/v1/workspaces/{workspace}/documents");
    let made = ada.post(&documents, json!({"title": "Plan"})).await.expect(201);
    let path = format!("{documents}/{}", made.field("/id"));

    ada.patch(&path, json!({"title": "x"})).await.expect_problem(428, "precondition_required");
    ada.delete(&path).await.expect_problem(428, "precondition_required");
    for etag in ["\"7-000000000000\"", "\"x\"", "garbage", "W/\"2-0\""] {
        let refused = edit(&ada, &path, etag, json!({"title": "x"})).await;
        assert_eq!(refused.header("etag"), made.header("etag"));
        refused.expect_problem(412, "precondition_failed");
        remove(&ada, &path, etag).await.expect_problem(412, "precondition_failed");
    }
    // A new name of the author changes what is shown, and is no reason to refuse an edit.
    let renamed = ada.patch("/v1/users/me", json!({"name": "Ada Lovelace"})).await.expect(200);
    for client in [&ada, &at_b.after(&renamed)] {
        let read = client.get(&path).await.expect(200);
        assert_eq!(read.field("/author/name"), "Ada Lovelace");
        assert_ne!(read.header("etag"), made.header("etag"));
        let conditional = client.request(Method::GET, &path).header("if-none-match", made.header("etag"));
        client.send(conditional).await.expect(200);
        let listed = client.get(&documents).await.expect(200).json();
        assert_eq!(listed["data"][0]["author"]["name"], "Ada Lovelace");
    }
    let weak = format!("W/{}", made.header("etag"));
    let changed = edit(&ada, &path, &weak, json!({"title": "Plan B"})).await.expect(200);
    edit(&ada, &path, "*", json!({"title": "Plan C"})).await.expect(200);

    // Of two who have seen the same, one is too late.
    let seen = ada.get(&path).await.expect(200).header("etag").to_owned();
    let (one, other) = tokio::join!(
        edit(&ada, &path, &seen, json!({"content": "one"})),
        edit(&at_b, &path, &seen, json!({"content": "other"})),
    );
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412]);
    assert_ne!(changed.header("etag"), seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_read_documents_members_write_them_and_strangers_know_of_none() {
    let cluster = Cluster::start(1).await;
    let nobody = cluster.instances[0].client();
    let (ada, guest) = (nobody.register("ada").await, nobody.register("guest").await);
    let stranger = nobody.register("stranger").await;
    let workspace = ada.create_workspace("Research").await;
    ada.add_member(&workspace, &guest, "guest").await;
    let documents = format!("/v1/workspaces/{workspace}/documents");
    let made = ada.post(&documents, json!({"title": "Plan"})).await.expect(201);
    let path = format!("{documents}/{}", made.field("/id"));
    // The same document under another path, where the stranger is at home.
    let elsewhere =
        format!("/v1/workspaces/{}/documents/{}", stranger.create_workspace("Own").await, made.field("/id"));

    for path in [&documents, &path, &format!("{path}/versions"), &format!("{path}/versions/1")] {
        guest.get(path).await.expect(200);
        stranger.get(path).await.expect_problem(404, "not_found");
        nobody.get(path).await.expect_problem(401, "unauthenticated");
    }
    guest.post(&documents, json!({"title": "x"})).await.expect_problem(403, "forbidden");
    edit(&guest, &path, made.header("etag"), json!({"title": "x"})).await.expect_problem(403, "forbidden");
    remove(&guest, &path, made.header("etag")).await.expect_problem(403, "forbidden");
    stranger.post(&documents, json!({"title": "x"})).await.expect_problem(404, "not_found");
    for path in [&path, &elsewhere] {
        edit(&stranger, path, "*", json!({"title": "x"})).await.expect_problem(404, "not_found");
        remove(&stranger, path, "*").await.expect_problem(404, "not_found");
    }
    stranger.get(&elsewhere).await.expect_problem(404, "not_found");
    stranger.get(&format!("{elsewhere}/versions/1")).await.expect_problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_lie_below_one_another_but_never_in_a_circle() {
    let cluster = Cluster::start(1).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let workspace = ada.create_workspace("Research").await;
    let documents = format!("/v1/workspaces/{workspace}/documents");
    let mut ids: Vec<String> = Vec::new();
    for title in ["a", "b", "c"] {
        let body = json!({"title": title, "parent_id": ids.last()});
        ids.push(ada.post(&documents, body).await.expect(201).field("/id"));
    }
    let at = |index: usize| format!("{documents}/{}", ids[index]);
    let other = ada.create_workspace("Other").await;
    let foreign =
        ada.post(&format!("/v1/workspaces/{other}/documents"), json!({"title": "f"})).await.expect(201);
    for (document, parent) in
        [(0, &ids[2]), (0, &ids[0]), (1, &foreign.field("/id")), (1, &uuid::Uuid::nil().to_string())]
    {
        let refused = edit(&ada, &at(document), "*", json!({"parent_id": parent})).await;
        assert_eq!(refused.field("/errors/0/pointer"), "#/parent_id");
        refused.expect_problem(422, "validation_error");
    }
    let moved = edit(&ada, &at(2), "*", json!({"parent_id": null})).await.expect(200);
    assert_eq!(moved.json()["parent_id"], Value::Null);
    edit(&ada, &at(0), "*", json!({"parent_id": ids[2]})).await.expect(200);
    // What lay below a deleted one moves to the top, and nobody is shown otherwise.
    ada.get(&at(1)).await.expect(200);
    remove(&ada, &at(0), "*").await.expect(204);
    assert_eq!(ada.get(&at(1)).await.expect(200).json()["parent_id"], Value::Null);
    for bad in
        [json!({"title": ""}), json!({"title": "x".repeat(201)}), json!({"content": "x".repeat(100_001)})]
    {
        edit(&ada, &at(1), "*", bad).await.expect_problem(422, "validation_error");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_spares_what_it_does_not_touch_and_a_deleted_workspace_takes_its_documents_along() {
    let cluster = Cluster::start(2).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let at_b = ada.at(&cluster.instances[1]);
    let workspace = ada.create_workspace("Research").await;
    let home = format!("/v1/workspaces/{workspace}");
    let documents = format!("{home}/documents");
    let mut paths = Vec::new();
    for title in ["one", "other"] {
        let made = ada.post(&documents, json!({"title": title})).await.expect(201);
        paths.push(format!("{documents}/{}", made.field("/id")));
    }
    crate::support::client::announced(&cluster.database).await;
    for path in [&home, &documents, &paths[0], &paths[1]] {
        assert!(ada.get(path).await.header("cache-status").starts_with("redis; fwd="));
        assert!(ada.get(path).await.is_l1_hit());
        assert!(at_b.get(path).await.header("cache-status").starts_with("redis; hit"));
        assert!(at_b.get(path).await.is_l1_hit());
    }
    let edited = edit(&ada, &paths[0], "*", json!({"title": "changed"})).await.expect(200);
    for client in [&ada, &at_b.after(&edited)] {
        for path in [&home, &paths[1]] {
            assert!(client.get(path).await.is_l1_hit(), "{path}");
        }
        for path in [&documents, &paths[0]] {
            let read = client.get(path).await.expect(200);
            assert!(read.text.contains("changed") && !read.is_l1_hit(), "{path}: {read:?}");
        }
    }
    let deleted = ada.delete(&home).await.expect(204);
    for client in [&ada, &at_b.after(&deleted)] {
        client.get(&paths[0]).await.expect_problem(404, "not_found");
    }
}
