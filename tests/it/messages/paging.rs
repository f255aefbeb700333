//! Pages of messages: from the newest back, and from any message on.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{Talk, messages_of};
use crate::support::Cluster;

fn contents(page: &[Value]) -> Vec<&str> {
    page.iter().map(|message| message["content"].as_str().unwrap()).collect()
}

fn ids<'a>(pages: impl IntoIterator<Item = &'a Vec<Value>>) -> Vec<String> {
    pages.into_iter().flatten().map(|message| message["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_the_newest_first_or_what_is_right_before_or_after_a_message() {
    let cluster = Cluster::start(1).await;
    let Talk { workspace, channel, ada, .. } = Talk::begin(&cluster).await;
    let messages = messages_of(&channel);
    assert_eq!(
        ada.get(&messages).await.expect(200).json(),
        json!({"data": [], "next_cursor": null, "has_more": false})
    );
    let mut sent = Vec::new();
    for number in 0..10 {
        sent.push(ada.say(&channel, &number.to_string()).await.field("/id"));
    }
    for (query, expected, has_more) in [
        (String::new(), vec!["9", "8", "7", "6", "5", "4", "3", "2", "1", "0"], false),
        ("?limit=3".to_owned(), vec!["9", "8", "7"], true),
        (format!("?before={}&limit=3", sent[5]), vec!["4", "3", "2"], true),
        (format!("?before={}&limit=3", sent[3]), vec!["2", "1", "0"], false),
        (format!("?before={}", sent[0]), vec![], false),
        (format!("?after={}&limit=3", sent[5]), vec!["8", "7", "6"], true),
        (format!("?after={}&limit=3", sent[6]), vec!["9", "8", "7"], false),
        (format!("?after={}", sent[9]), vec![], false),
        (format!("?after={workspace}&limit=2"), vec!["1", "0"], true),
    ] {
        let page = ada.get(&format!("{messages}{query}")).await.expect(200).json();
        assert_eq!(contents(page["data"].as_array().unwrap()), expected, "{query}");
        assert_eq!(page["has_more"], has_more, "{query}");
    }
    for (query, parameter) in [
        ("limit=0".to_owned(), "limit"),
        ("limit=101".to_owned(), "limit"),
        ("limit=x".to_owned(), "limit"),
        ("before=x".to_owned(), "before"),
        ("after=".to_owned(), "after"),
        (format!("before={0}&after={0}", sent[0]), "after"),
    ] {
        let reply = ada.get(&format!("{messages}?{query}")).await.expect_problem(422, "validation_error");
        assert_eq!(reply.field("/errors/0/parameter"), parameter, "{query}");
    }
    let cursor = ada.get(&format!("{messages}?limit=3")).await.field("/next_cursor");
    let other = messages_of(&ada.create_channel(&workspace, "Other", false).await);
    for wrong in [format!("{other}?cursor={cursor}"), format!("{messages}?cursor=x{cursor}")] {
        ada.get(&wrong).await.expect_problem(400, "invalid_cursor");
    }
    // A tombstone keeps its place, and one can begin there.
    ada.delete(&format!("{messages}/{}", sent[5])).await.expect(204);
    let around = ada.get(&format!("{messages}?after={}&limit=1", sent[5])).await.expect(200);
    assert_eq!(around.field("/data/0/content"), "6");
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_lead_both_ways_through_every_message_once() {
    let cluster = Cluster::start(2).await;
    let Talk { channel, ada, bob, .. } = Talk::begin(&cluster).await;
    let (messages, bob) = (messages_of(&channel), bob.at(&cluster.instances[1]));
    let mut sent = Vec::new();
    let mut last = None;
    for number in 0..25 {
        let reply = [&ada, &bob][number % 2].say(&channel, &number.to_string()).await;
        sent.push(reply.field("/id"));
        last = Some(reply);
    }
    let newest_first: Vec<_> = sent.iter().rev().cloned().collect();
    for client in [&ada.after(last.as_ref().unwrap()), &bob.after(last.as_ref().unwrap())] {
        let back = client.walk(&format!("{messages}?limit=10")).await;
        assert_eq!(back.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
        assert_eq!(ids(&back), newest_first);
        let back = client.walk(&format!("{messages}?before={}&limit=8", sent[20])).await;
        assert_eq!(ids(&back), newest_first[5..]);
        // Forward each page begins where the one before has ended, and shows its newest first.
        let forward = client.walk(&format!("{messages}?after={}&limit=10", sent[0])).await;
        assert_eq!(forward.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 4]);
        assert_eq!(ids(forward.iter().rev()), newest_first[..24]);
        assert_eq!(ids(&forward[..1]), newest_first[14..24]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_misses_nothing_and_doubles_nothing_while_more_is_said() {
    let cluster = Cluster::start(2).await;
    let Talk { channel, ada, bob, .. } = Talk::begin(&cluster).await;
    let (messages, at_b) = (messages_of(&channel), ada.at(&cluster.instances[1]));
    let mut sent = Vec::new();
    for number in 0..30 {
        sent.push(ada.say(&channel, &number.to_string()).await.field("/id"));
    }
    for (query, there) in [
        ("?limit=4".to_owned(), &sent[..]),
        (format!("?limit=4&after={}", sent[0]), &sent[1..]),
        (format!("?limit=4&before={}", sent[29]), &sent[..29]),
    ] {
        let forward = query.contains("after");
        let path = format!("{messages}{query}");
        let talking = async {
            for number in 0..12 {
                let said = bob.say(&channel, &format!("meanwhile {number}")).await;
                bob.delete(&format!("{messages}/{}", said.field("/id"))).await.expect(204);
            }
        };
        let (pages, other, ()) = tokio::join!(ada.walk(&path), at_b.walk(&path), talking);
        for pages in [pages, other] {
            let walked = if forward { ids(pages.iter().rev()) } else { ids(&pages) };
            let distinct: HashSet<_> = walked.iter().collect();
            assert_eq!(distinct.len(), walked.len(), "{query}");
            assert!(there.iter().all(|id| distinct.contains(id)), "{query}");
            assert!(walked.is_sorted_by(|newer, older| newer > older), "{query}");
        }
    }
}
