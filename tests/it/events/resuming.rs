//! Going on where one was, at another instance.

use std::{collections::HashSet, time::Duration};

use diesel_async::SimpleAsyncConnection as _;
use serde_json::json;

use super::{Scene, say};
use crate::support::EventStream;

/// Events that are told while instances die.
const EVENTS: usize = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_loses_his_instance_in_the_middle_of_ten_thousand_events_resumes_on_another_without_gap_or_double()
 {
    let mut scene = Scene::new(3).await;
    // Before the first of them, so that he is told of all.
    let mut stream = EventStream::open(&scene.bob, None).await;
    let (ada, channel) = (scene.ada.clone(), scene.channel.clone());
    let writing = tokio::spawn(async move {
        let writers = (0..20).map(|writer| {
            let (ada, channel) = (&ada, &channel);
            async move {
                let mut ids = Vec::new();
                for number in 0..EVENTS / 2 / 20 {
                    // Of each he is told twice: as a message, and as a mention.
                    ids.push(say(ada, channel, &format!("@bob {writer} {number}")).await);
                }
                ids
            }
        });
        futures_util::future::join_all(writers).await.concat()
    });
    let mut received = Vec::new();
    while received.len() < EVENTS {
        match tokio::time::timeout(Duration::from_secs(20), stream.next()).await.unwrap() {
            Some(event) => {
                let data = &event.json["data"];
                let message = if event.kind == "message.created" { &data["id"] } else { &data["message_id"] };
                received.push((event.kind, message.as_str().unwrap().to_owned()));
            }
            None => {
                let bob = scene.bob.at(scene.cluster.instances.last().unwrap());
                stream = EventStream::open(&bob, Some(&stream.last_id)).await;
            }
        }
        // The instance that is listened to; killed when dropped, with what it had not sent yet.
        let left = match received.len() * 4 / EVENTS {
            0 => 3,
            1 => 2,
            _ => 1,
        };
        scene.cluster.instances.truncate(left);
    }
    let of_kind = |kind: &'static str| move |id: &String| (kind.to_owned(), id.clone());
    let messages = writing.await.unwrap();
    let told = messages.iter().map(of_kind("message.created"));
    let sent: HashSet<_> = told.chain(messages.iter().map(of_kind("notification.created"))).collect();
    let distinct: HashSet<_> = received.iter().cloned().collect();
    assert_eq!(distinct.len(), received.len(), "something came twice");
    assert!(distinct == sent, "{} sent, {} received", sent.len(), distinct.len());
    assert_eq!(scene.cluster.instances.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_a_place_to_go_on_from_whatever_was_committed_in_which_order() {
    let scene = Scene::new(2).await;
    let mut database = scene.cluster.database.connect().await;
    let mut stream = EventStream::open(&scene.bob, None).await;
    let start = stream.last_id.clone();
    // Number 1 begins first and is committed last: whoever goes by numbers misses it.
    let insert = |name: &str| {
        let workspace = &scene.workspace;
        format!(
            "INSERT INTO events (kind, audience, workspace_id, data) \
             VALUES ('document.updated', 'workspace', '{workspace}', '{{\"title\": \"{name}\"}}')"
        )
    };
    database.batch_execute(&format!("BEGIN; {}", insert("slow"))).await.unwrap();
    for number in 0..3 {
        scene.say(&format!("fast {number}")).await;
    }
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(stream.expect("message.created").await.id);
    }
    database.batch_execute("COMMIT").await.unwrap();
    assert_eq!(stream.expect("document.updated").await.json["data"]["title"], "slow");

    // Several become visible at once, and each is a place to go on from.
    let batch: Vec<_> = (0..5).map(|number| insert(&number.to_string())).collect();
    database.batch_execute(&format!("BEGIN; {}; COMMIT", batch.join(";"))).await.unwrap();
    let mut last = Vec::new();
    for _ in 0..5 {
        last.push(stream.expect("document.updated").await.id);
    }
    let elsewhere = scene.bob.at(&scene.cluster.instances[0]);
    let kinds_after = async |id: &str, count: usize| {
        let mut resumed = EventStream::open(&elsewhere, Some(id)).await;
        let mut names = Vec::new();
        for _ in 0..count {
            let data = resumed.expect_any().await.json["data"].take();
            names.push(data["title"].as_str().or(data["content"].as_str()).unwrap().to_owned());
        }
        names
    };
    assert_eq!(kinds_after(&start, 9).await, ["slow", "fast 0", "fast 1", "fast 2", "0", "1", "2", "3", "4"]);
    assert_eq!(kinds_after(&ids[0], 8).await, ["slow", "fast 1", "fast 2", "0", "1", "2", "3", "4"]);
    assert_eq!(kinds_after(&ids[2], 6).await, ["slow", "0", "1", "2", "3", "4"]);
    for (index, id) in last.iter().enumerate().take(4) {
        let left: Vec<_> = (index + 1..5).map(|number| number.to_string()).collect();
        assert_eq!(kinds_after(id, left.len()).await, left);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_too_old_or_made_up_begins_anew_and_says_so() {
    let scene = Scene::new(1).await;
    scene.say("one").await;
    let stream = EventStream::open(&scene.bob, None).await;
    // `1.AT.SEEN`
    let words: Vec<_> = stream.last_id.split('.').collect();
    let at: i64 = words[1].parse().unwrap();
    let age = |minutes: i64| format!("1.{}.{}", at - minutes * 60_000, words[2]);
    let ahead = format!("1.{at}.9000000000:9000000001:");
    for place in
        [age(61), age(24 * 60), age(-24 * 60), ahead, "1".to_owned(), "x.y".to_owned(), "7".to_owned()]
    {
        let mut stream = EventStream::open(&scene.bob, Some(&place)).await;
        assert_eq!(stream.expect("reset").await.json, json!({"type": "reset"}), "{place}");
        assert_ne!(stream.last_id, place);
        scene.say("two").await;
        assert_eq!(stream.expect("message.created").await.json["data"]["content"], "two");
    }
    let mut resumed = EventStream::open(&scene.bob, Some(&age(30))).await;
    resumed.expect("message.created").await;
}
