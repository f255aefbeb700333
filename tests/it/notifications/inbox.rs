//! A user's notifications: listed, counted, marked.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::all;
use crate::support::{Client, Cluster, Reply};

const LIST: &str = "/v1/notifications";
const COUNT: &str = "/v1/notifications/unread-count";
const READ_ALL: &str = "/v1/notifications/read-all";

/// Ada has named Bob so often; Bob's notifications, oldest first. The first says that he was added.
async fn named(cluster: &Cluster, times: usize) -> (Client, Client, Vec<Value>) {
    let nobody = cluster.instances[0].client();
    let (ada, bob) = (nobody.register("ada").await, nobody.register("bob").await);
    let workspace = ada.create_workspace("Team").await;
    ada.add_member(&workspace, &bob, "member").await;
    let channel = ada.create_channel(&workspace, "General", false).await;
    for _ in 0..times {
        ada.say(&channel, "@bob").await;
    }
    let mut told = all(&bob).await;
    told.reverse();
    assert_eq!(told.len(), times + 1);
    (ada, bob, told)
}

fn id(notification: &Value) -> &str {
    notification["id"].as_str().unwrap()
}

async fn mark(user: &Client, notification: &Value, patch: Value) -> Reply {
    user.patch(&format!("{LIST}/{}", id(notification)), patch).await
}

/// Which of them are unread, from the list and from the count.
async fn unread(user: &Client, told: &[Value]) -> Vec<usize> {
    let listed = user.walk(&format!("{LIST}?unread=true")).await.concat();
    let reply = user.get(COUNT).await.expect(200);
    assert_eq!(reply.json(), json!({"object": "unread_count", "unread_count": listed.len()}));
    let read = user.walk(&format!("{LIST}?unread=false")).await.concat();
    assert_eq!(read.len() + listed.len(), told.len());
    let ids: HashSet<_> = listed.iter().map(id).collect();
    (0..told.len()).filter(|index| ids.contains(id(&told[*index]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_the_callers_own_newest_first_and_nobody_keeps_it() {
    let cluster = Cluster::start(2).await;
    let (ada, bob, told) = named(&cluster, 10).await;
    let at_b = bob.at(&cluster.instances[1]);
    for read in [2, 3, 5] {
        mark(&bob, &told[read], json!({"read": true})).await.expect(200);
    }
    for (query, expected) in [
        ("limit=4", vec![10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        ("limit=3&unread=true", vec![10, 9, 8, 7, 6, 4, 1, 0]),
        ("unread=false&limit=2", vec![5, 3, 2]),
        ("unread=1&limit=100", vec![10, 9, 8, 7, 6, 4, 1, 0]),
        ("unread=0", vec![5, 3, 2]),
    ] {
        for client in [&bob, &at_b] {
            let pages = client.walk(&format!("{LIST}?{query}")).await;
            let walked: Vec<_> = pages.iter().flatten().map(id).collect();
            let expected: Vec<_> = expected.iter().map(|index| id(&told[*index])).collect();
            assert_eq!(walked, expected, "{query}");
        }
    }
    for path in [LIST, COUNT] {
        for client in [&bob, &at_b] {
            for reply in [client.get(path).await.expect(200), client.head(path).await.expect(200)] {
                assert_eq!(
                    (reply.header("cache-control"), reply.header("etag")),
                    ("no-store", ""),
                    "{reply:?}"
                );
                assert_eq!(reply.header("cache-status"), "");
            }
        }
        cluster.instances[0].client().get(path).await.expect_problem(401, "unauthenticated");
    }
    assert_eq!(ada.get(LIST).await.expect(200).json()["data"], json!([]));
    // A cursor is good for its list.
    let cursor = bob.get(&format!("{LIST}?limit=2")).await.field("/next_cursor");
    let unread = bob.get(&format!("{LIST}?limit=2&unread=true")).await.field("/next_cursor");
    at_b.get(&format!("{LIST}?cursor={cursor}")).await.expect(200);
    for (user, wrong) in [
        (&ada, format!("{LIST}?cursor={cursor}")),
        (&bob, format!("{LIST}?unread=true&cursor={cursor}")),
        (&bob, format!("{LIST}?unread=false&cursor={unread}")),
        (&bob, format!("{LIST}?cursor={unread}")),
    ] {
        user.get(&wrong).await.expect_problem(400, "invalid_cursor");
    }
    for (wrong, parameter) in [("unread=yes", "unread"), ("unread=", "unread"), ("limit=0", "limit")] {
        let reply = bob.get(&format!("{LIST}?{wrong}")).await.expect_problem(422, "validation_error");
        assert_eq!(reply.field("/errors/0/parameter"), parameter);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_is_marked_both_ways_by_the_one_it_is_for() {
    let cluster = Cluster::start(2).await;
    let (ada, bob, told) = named(&cluster, 2).await;
    let one = &told[1];
    assert_eq!(unread(&bob, &told).await, [0, 1, 2]);
    let read = mark(&bob, one, json!({"read": true})).await.expect(200);
    assert_eq!(read.header("cache-control"), "no-store");
    assert!(!read.header("consistency-token").is_empty());
    assert_eq!((&read.json()["read"], &read.json()["version"]), (&json!(true), &json!(2)));
    assert!(read.json()["read_at"].is_string());
    assert_eq!((&read.json()["id"], &read.json()["actor"]), (&one["id"], &one["actor"]));
    for same in [json!({"read": true}), json!({})] {
        assert_eq!(mark(&bob, one, same).await.expect(200).text, read.text, "nothing has changed");
    }
    let at_b = bob.at(&cluster.instances[1]);
    assert_eq!(unread(&at_b, &told).await, [0, 2]);
    assert_eq!(all(&at_b).await[1], read.json());
    let back = mark(&at_b, one, json!({"read": false})).await.expect(200);
    assert_eq!((&back.json()["read"], &back.json()["read_at"]), (&json!(false), &Value::Null));
    assert_eq!(back.json()["version"], 3);
    assert_eq!(unread(&bob, &told).await, [0, 1, 2]);

    for user in [&ada, &ada.at(&cluster.instances[1])] {
        mark(user, one, json!({"read": true})).await.expect_problem(404, "not_found");
        mark(user, one, json!({})).await.expect_problem(404, "not_found");
    }
    for wrong in [json!({"id": "x"}), json!({"id": uuid::Uuid::now_v7().to_string()})] {
        mark(&bob, &wrong, json!({"read": true})).await.expect_problem(404, "not_found");
    }
    for patch in
        [json!({"read": null}), json!({"read": 1}), json!({"read": "true"}), json!({"kind": "reply"})]
    {
        mark(&bob, one, patch).await.expect_problem(422, "validation_error");
    }
    assert_eq!(unread(&bob, &told).await, [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_are_marked_at_once_or_those_before_a_notification_or_a_time() {
    let cluster = Cluster::start(1).await;
    let (ada, bob, told) = named(&cluster, 6).await;
    let time = |index: usize| told[index]["created_at"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    let version_of_first = async || all(&bob).await.last().unwrap()["version"].clone();
    let berlin = time(4).with_timezone(&chrono::FixedOffset::east_opt(7200).unwrap()).to_rfc3339();
    let steps: [(Option<Value>, &[usize]); 8] = [
        (Some(json!({"before": told[0]["id"]})), &[0, 1, 2, 3, 4, 5, 6]),
        (Some(json!({"before": "2001-02-03T04:05:06Z"})), &[0, 1, 2, 3, 4, 5, 6]),
        (Some(json!({"before": told[2]["id"]})), &[2, 3, 4, 5, 6]),
        (Some(json!({"before": told[3]["created_at"]})), &[3, 4, 5, 6]),
        (Some(json!({ "before": berlin })), &[4, 5, 6]),
        (Some(json!({"before": (Utc::now() - TimeDelta::days(1)).to_rfc3339()})), &[4, 5, 6]),
        (None, &[]),
        (Some(json!({})), &[]),
    ];
    for (body, expected) in steps {
        let mut request = bob.request(reqwest::Method::POST, READ_ALL);
        if let Some(body) = &body {
            request = request.json(body);
        }
        let reply = bob.send(request).await.expect(204);
        assert_eq!(reply.header("cache-control"), "no-store");
        assert!(!reply.header("consistency-token").is_empty());
        assert_eq!(unread(&bob, &told).await, expected, "{body:?}");
    }
    assert_eq!(version_of_first().await, 2, "what is read is not read again");

    mark(&bob, &told[5], json!({"read": false})).await.expect(200);
    for before in [json!(5), json!("yesterday"), json!(""), json!("2001-02-03"), json!(["x"])] {
        let reply = bob.post(READ_ALL, json!({ "before": before })).await;
        let reply = reply.expect_problem(422, "validation_error");
        assert_eq!(reply.field("/errors/0/pointer"), "#/before", "{before}");
    }
    bob.post(READ_ALL, json!({"after": told[5]["id"]})).await.expect_problem(422, "validation_error");
    bob.post(READ_ALL, json!([])).await.expect_problem(422, "validation_error");
    // Those of others stay.
    ada.send(ada.request(reqwest::Method::POST, READ_ALL)).await.expect(204);
    assert_eq!(unread(&bob, &told).await, [5]);
    bob.post(READ_ALL, json!({})).await.expect(204);
    assert_eq!(unread(&bob, &told).await, [0; 0]);
}
