//! A message that is sent again under the name that its client has given it is still one message.

use diesel::{QueryableByName, sql_query, sql_types::BigInt};
use diesel_async::RunQueryDsl as _;
use futures_util::future::join_all;
use serde_json::json;

use super::{Talk, messages_of};
use crate::support::Cluster;

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

async fn rows(cluster: &Cluster) -> i64 {
    let mut connection = cluster.database.connect().await;
    let rows = sql_query("SELECT count(*) AS count FROM messages");
    rows.get_result::<Count>(&mut connection).await.unwrap().count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_sent_again_is_the_one_that_is_there() {
    let cluster = Cluster::start(2).await;
    let Talk { workspace, channel, ada, bob } = Talk::begin(&cluster).await;
    let at_b = ada.at(&cluster.instances[1]);
    let messages = messages_of(&channel);
    let body = json!({"content": "hello @bob", "client_msg_id": "m-1"});
    let first = ada.post(&messages, body.clone()).await.expect(201);
    for client in [&ada, &at_b] {
        let again = client.post(&messages, body.clone()).await.expect(200);
        assert_eq!((&again.text, again.header("etag")), (&first.text, first.header("etag")));
        assert_eq!(again.header("location").rsplit('/').next(), Some(first.field("/id").as_str()));
        assert!(!again.header("consistency-token").is_empty());
        // What it says now does not count.
        let other = json!({"content": "something else", "client_msg_id": "m-1"});
        assert_eq!(client.post(&messages, other).await.expect(200).text, first.text);
    }
    let edited = ada.patch(&format!("{messages}/{}", first.field("/id")), json!({"content": "edited"})).await;
    assert_eq!(at_b.post(&messages, body.clone()).await.expect(200).text, edited.text, "as it is now");
    assert_eq!(rows(&cluster).await, 1);
    let notified = bob.get("/v1/notifications").await.expect(200).json();
    let mentions = notified["data"].as_array().unwrap().iter().filter(|one| one["kind"] == "mention").count();
    assert_eq!(mentions, 1);

    // The name is this author's in this channel, in this case; and without a name each is another.
    let other = ada.create_channel(&workspace, "Other", false).await;
    let upper = json!({"content": "hello", "client_msg_id": "M-1"});
    let others = [
        bob.post(&messages, body.clone()).await.expect(201),
        ada.post(&messages_of(&other), body.clone()).await.expect(201),
        ada.post(&messages, upper).await.expect(201),
        ada.say(&channel, "hello").await,
        ada.say(&channel, "hello").await,
    ];
    let mut ids: Vec<_> = others.iter().chain([&first]).map(|reply| reply.field("/id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), rows(&cluster).await), (6, 6));
    bob.post(&messages, json!({"content": "", "client_msg_id": "m-1"})).await.expect(422);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_at_once_under_one_name_are_one_message() {
    let cluster = Cluster::start(2).await;
    let Talk { channel, ada, .. } = Talk::begin(&cluster).await;
    let (messages, at_b) = (messages_of(&channel), ada.at(&cluster.instances[1]));
    for round in 0..3 {
        let send = |number: usize| {
            let body = json!({"content": number.to_string(), "client_msg_id": round.to_string()});
            [&ada, &at_b][number % 2].post(&messages, body)
        };
        let replies = join_all((0..20).map(send)).await;
        let made: Vec<_> = replies.iter().filter(|reply| reply.status == 201).collect();
        assert_eq!(made.len(), 1);
        for reply in &replies {
            assert!([200, 201].contains(&reply.status), "{reply:?}");
            assert_eq!(reply.text, made[0].text);
        }
        assert_eq!(rows(&cluster).await, round + 1);
        let page = at_b.after(made[0]).get(&messages).await.expect(200).json();
        assert_eq!(page["data"].as_array().unwrap().len(), usize::try_from(round + 1).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_gets_the_first_answer_and_the_name_the_message() {
    let cluster = Cluster::start(1).await;
    let Talk { channel, ada, .. } = Talk::begin(&cluster).await;
    let messages = messages_of(&channel);
    let send = async |key: &str, content: &str| {
        let request = ada.request(reqwest::Method::POST, &messages).header("idempotency-key", key);
        ada.send(request.json(&json!({"content": content, "client_msg_id": "m-1"}))).await
    };
    let first = send("one", "hello").await.expect(201);
    let replayed = send("one", "hello").await.expect(201);
    assert_eq!((replayed.header("idempotency-replayed"), &replayed.text), ("true", &first.text));
    send("one", "other").await.expect_problem(422, "idempotency_key_reused");
    let other_key = send("two", "hello").await.expect(200);
    assert_eq!((other_key.header("idempotency-replayed"), &other_key.text), ("", &first.text));
    assert_eq!(rows(&cluster).await, 1);
}
