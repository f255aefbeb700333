//! The view cache, by an endpoint that uses it: a version of a document.

use reqwest::Method;
use serde_json::json;

use crate::support::{Cluster, Reply};

fn is_hit(reply: &Reply) -> bool {
    reply.header("cache-status").contains("; hit")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_kept_under_its_route_and_path_whatever_the_query_says_that_nobody_asks_for() {
    let cluster = Cluster::start(2).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let documents = format!("/v1/workspaces/{}/documents", ada.create_workspace("Home").await);
    let made = ada.post(&documents, json!({"title": "Plan", "content": "x"})).await.expect(201);
    let version = format!("{documents}/{}/versions/1", made.field("/id"));
    let get = async |query: &str| ada.get(&format!("{version}{query}")).await.expect(200);

    assert!(!is_hit(&get("?a=1&b=two+words").await));
    for same in ["?a=1&b=two+words", "?b=two%20words&a=1", "?%61=%31&&b=two+words&"] {
        let reply = get(same).await;
        assert!(is_hit(&reply), "{same}: {reply:?}");
    }
    assert!(is_hit(&get("?what-nobody-asked-for").await));
    let of_b = ada.at(&cluster.instances[1]).get(&format!("{version}?b=two+words&a=1")).await.expect(200);
    assert!(is_hit(&of_b) && of_b.header("cache-status").starts_with("redis; hit"), "{of_b:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn head_and_if_none_match_are_answered_from_it_and_only_answers_are_kept() {
    let cluster = Cluster::start(1).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let documents = format!("/v1/workspaces/{}/documents", ada.create_workspace("Home").await);
    let made = ada.post(&documents, json!({"title": "Plan", "content": "x"})).await.expect(201);
    let version = format!("{documents}/{}/versions/1", made.field("/id"));

    let got = ada.get(&version).await.expect(200);
    let head = ada.send(ada.request(Method::HEAD, &version)).await.expect(200);
    assert!(is_hit(&head) && head.text.is_empty() && head.header("etag") == got.header("etag"), "{head:?}");
    let conditional = ada.request(Method::GET, &version).header("if-none-match", got.header("etag"));
    assert!(is_hit(&ada.send(conditional).await.expect(304)));

    // That there is none is known for a while, and ends when there is one.
    let second = format!("{documents}/{}/versions/2", made.field("/id"));
    ada.get(&second).await.expect_problem(404, "not_found");
    let edit = ada.request(Method::PATCH, &format!("{documents}/{}", made.field("/id")));
    ada.send(edit.header("if-match", "*").json(&json!({"content": "y"}))).await.expect(200);
    assert_eq!(ada.get(&second).await.expect(200).field("/content"), "y");

    // It is shown to whoever may see it, and to nobody else, however well it is known.
    let ben = cluster.instances[0].client().register("ben").await;
    ben.get(&version).await.expect_problem(404, "not_found");
}
