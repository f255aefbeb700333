//! Search: what is found, in which order, and by whom.

mod rights;

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::{
    messages::Talk,
    support::{Client, Cluster, client::announced},
};

/// The URL of a search.
pub(crate) fn search_for(workspace: &str, words: &str) -> String {
    let words: String = url::form_urlencoded::byte_serialize(words.as_bytes()).collect();
    format!("/v1/workspaces/{workspace}/search?q={words}")
}

/// What a result calls itself: a document's title, a message's content.
fn label(result: &Value) -> String {
    let object = &result["object"];
    let label = if result["type"] == "document" { &object["title"] } else { &object["content"] };
    label.as_str().unwrap().to_owned()
}

/// What somebody finds, best first.
pub(crate) async fn found(user: &Client, workspace: &str, words: &str) -> Vec<String> {
    user.walk(&search_for(workspace, words)).await.iter().flatten().map(label).collect()
}

pub(crate) async fn write(user: &Client, workspace: &str, title: &str, content: &str) -> String {
    let documents = format!("/v1/workspaces/{workspace}/documents");
    let made = user.post(&documents, json!({"title": title, "content": content})).await.expect(201);
    format!("{documents}/{}", made.field("/id"))
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_and_messages_are_found_by_their_words() {
    let cluster = Cluster::start(1).await;
    let Talk { workspace, channel, ada, .. } = Talk::begin(&cluster).await;
    write(&ada, &workspace, "Roadmap", "We are planning the harbour for the next year.").await;
    write(&ada, &workspace, "Minutes", "Nobody had plans. The state of the art was discussed at length.")
        .await;
    write(&ada, &workspace, "Zoë's notes", "Grüße aus Köln, naïve Ideen").await;
    ada.say(&channel, "who plans the lighthouse?").await;
    ada.say(&channel, "to be or not to be").await;
    ada.say(&channel, "see https://example.com/harbour-2026 and mail zoe@example.com about release 1.2.3")
        .await;
    let (roadmap, minutes, zoe) = ("Roadmap", "Minutes", "Zoë's notes");
    let (lighthouse, hamlet) = ("who plans the lighthouse?", "to be or not to be");
    let link = "see https://example.com/harbour-2026 and mail zoe@example.com about release 1.2.3";
    let cases: [(&str, &[&str]); 29] = [
        ("roadmap", &[roadmap]),
        ("ROADMAP", &[roadmap]),
        // Stems.
        ("planning", &[roadmap, minutes, lighthouse]),
        ("plans", &[roadmap, minutes, lighthouse]),
        ("Plan", &[roadmap, minutes, lighthouse]),
        ("lighthouses", &[lighthouse]),
        // All of several, in any order, wherever they stand in it.
        ("plan harbour", &[roadmap]),
        ("harbour roadmap", &[roadmap]),
        ("plan nothing", &[]),
        // Words that mean little.
        ("the plan for the lighthouse", &[lighthouse]),
        ("what is the roadmap", &[roadmap]),
        ("to be", &[hamlet]),
        ("nobody the", &[minutes]),
        // Phrases.
        ("\"next year\"", &[roadmap]),
        ("\"year next\"", &[]),
        ("\"state of the art\"", &[minutes]),
        ("\"to be or not to be\"", &[hamlet]),
        ("\"State  of the ART\" plans", &[minutes]),
        ("\"next year", &[roadmap]),
        // One or the other, and without.
        ("roadmap or lighthouse", &[roadmap, lighthouse]),
        ("plan -harbour", &[minutes, lighthouse]),
        ("plan -\"next year\" -lighthouse", &[minutes]),
        ("plan -minutes OR plan -harbour -lighthouse", &[roadmap, minutes, lighthouse]),
        ("minutes", &[minutes]),
        // Other alphabets, addresses.
        ("zoë", &[zoe]),
        ("GRÜSSE or grüße", &[zoe]),
        ("naïve köln", &[zoe]),
        ("zoe@example.com", &[link]),
        ("1.2.3", &[link]),
    ];
    for (words, expected) in cases {
        let mut found = found(&ada, &workspace, words).await;
        let mut expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_shows_what_was_found_and_where_it_matches() {
    let cluster = Cluster::start(1).await;
    let Talk { workspace, channel, ada, bob } = Talk::begin(&cluster).await;
    let path = write(&ada, &workspace, "Plan <A>", "something & anything").await;
    let document = ada.get(&path).await.expect(200).json();
    let hostile =
        "<script>alert('plan')</script> & \"plans\" <img src=x onerror=plan> 1 < 2 > 0 &lt;mark&gt;";
    let said = bob.say(&channel, hostile).await;
    let results = ada.get(&search_for(&workspace, "plan")).await.expect(200);
    assert_eq!(results.header("cache-control"), "private, no-cache");
    let results = results.json()["data"].as_array().unwrap().clone();
    assert_eq!(results.len(), 2);

    let mut listed = document;
    listed.as_object_mut().unwrap().remove("content");
    let mut shown = results[0]["object"].clone();
    shown.as_object_mut().unwrap().remove("content");
    assert_eq!((&results[0]["type"], &shown), (&json!("document"), &listed));
    assert_eq!(results[0]["object"].get("content").unwrap_or(&Value::Null), &Value::Null);
    assert_eq!((&results[1]["type"], &results[1]["object"]), (&json!("message"), &said.json()));
    assert_eq!(results[0]["highlight"], "<mark>Plan</mark>  \nsomething &amp; anything");
    for result in &results {
        assert!(result["score"].as_f64().unwrap() > 0.0);
        let highlight = result["highlight"].as_str().unwrap();
        assert!(
            highlight.contains("<mark>")
                && highlight.matches("<mark>").count() == highlight.matches("</mark>").count()
        );
        let rest = highlight.replace("<mark>", "").replace("</mark>", "");
        assert!(!rest.contains(['<', '>', '"', '\'']), "{highlight}");
        let entities = ["&lt;", "&gt;", "&amp;", "&quot;", "&#39;"].iter();
        let entities: usize = entities.map(|entity| rest.matches(entity).count()).sum();
        assert_eq!(rest.matches('&').count(), entities, "{highlight}");
    }
    assert!(results[1]["highlight"].as_str().unwrap().contains("<mark>plans</mark>&quot;"), "{results:?}");
    // Of a long text, the passages that match.
    let long = format!("{} the needle {}", "hay ".repeat(5000), "straw ".repeat(5000));
    write(&ada, &workspace, "Haystack", &long).await;
    let result = ada.get(&search_for(&workspace, "needle")).await.expect(200);
    let highlight = result.field("/data/0/highlight");
    assert!(highlight.contains("<mark>needle</mark>") && highlight.len() < 1000, "{highlight}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_title_counts_more_than_a_content_and_more_matches_more_than_one() {
    let cluster = Cluster::start(1).await;
    let Talk { workspace, channel, ada, .. } = Talk::begin(&cluster).await;
    write(&ada, &workspace, "content", "the harbour, say").await;
    ada.say(&channel, "a harbour is not far from here").await;
    write(&ada, &workspace, "harbour", "of that name").await;
    write(&ada, &workspace, "content twice", "harbour harbour").await;
    assert_eq!(
        found(&ada, &workspace, "harbour").await,
        ["harbour", "content twice", "content", "a harbour is not far from here"]
    );
    for (types, expected) in [
        ("document", vec!["harbour", "content twice", "content"]),
        ("message", vec!["a harbour is not far from here"]),
        ("message,document", vec!["harbour", "content twice", "content", "a harbour is not far from here"]),
        ("document, message", vec!["harbour", "content twice", "content", "a harbour is not far from here"]),
    ] {
        let path = format!("{}&type={}", search_for(&workspace, "harbour"), types.replace(' ', "%20"));
        let found: Vec<_> = ada.walk(&path).await.iter().flatten().map(label).collect();
        assert_eq!(found, expected, "{types}");
    }
    for types in ["", "channel", "Document", "document,", "document;message"] {
        let reply = ada.get(&format!("{}&type={types}", search_for(&workspace, "harbour"))).await;
        let reply = reply.expect_problem(422, "validation_error");
        assert_eq!(reply.field("/errors/0/parameter"), "type", "{types}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_words_are_only_words() {
    let cluster = Cluster::start(1).await;
    let Talk { workspace, channel, ada, .. } = Talk::begin(&cluster).await;
    ada.say(&channel, "drop the table").await;
    let nothing: &[&str] = &[];
    for (words, expected) in [
        ("'); DROP TABLE messages; --", nothing),
        ("'); DROP TABLE", &["drop the table"]),
        ("drop:* & !table | (x)", nothing),
        ("&|!:*<->()", nothing),
        ("drop <-> table", &["drop the table"]),
        ("\\", nothing),
        ("\"", nothing),
        ("\"\"", nothing),
        ("- - -", nothing),
        ("%", nothing),
        ("or or or", nothing),
        ("\u{2}drop\u{3}", &["drop the table"]),
        ("🦀 \u{202e}", nothing),
    ] {
        assert_eq!(found(&ada, &workspace, words).await, expected, "{words:?}");
    }
    for length in [199, 200] {
        let reply = ada.get(&search_for(&workspace, &"ä".repeat(length))).await.expect(200);
        assert_eq!(reply.json()["data"], json!([]));
    }
    for wrong in ["", " ", "\t\n\u{a0}", "a\0b", "\0", &"ä".repeat(201), &"a b ".repeat(200)] {
        let reply = ada.get(&search_for(&workspace, wrong)).await.expect_problem(422, "validation_error");
        assert_eq!(reply.field("/errors/0/parameter"), "q", "{wrong:?}");
    }
    let path = format!("/v1/workspaces/{workspace}/search");
    ada.get(&path).await.expect_problem(422, "validation_error");
    ada.get(&format!("{path}?q=a&q=b")).await.expect_problem(400, "malformed_body");
    ada.get(&format!("{path}?q=a&limit=101")).await.expect_problem(422, "validation_error");
    assert_eq!(found(&ada, &workspace, "table").await, ["drop the table"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_lead_through_all_results_once() {
    let cluster = Cluster::start(2).await;
    let Talk { workspace, channel, ada, .. } = Talk::begin(&cluster).await;
    // Many of one score, and both kinds among one another.
    for number in 0..12 {
        write(&ada, &workspace, "same", &"harbour ".repeat(number % 4)).await;
        ada.say(&channel, &format!("harbour {}", "and harbour ".repeat(number % 3))).await;
    }
    let path = search_for(&workspace, "harbour");
    let everything = ada.walk(&format!("{path}&limit=100")).await.concat();
    assert_eq!(everything.len(), 9 + 12);
    let order = |result: &Value| (result["score"].as_f64().unwrap(), result["object"]["id"].to_string());
    assert!(everything.is_sorted_by(|better, worse| order(better) > order(worse)), "{everything:?}");
    for limit in [1, 2, 5, 20, 21] {
        for client in [&ada, &ada.at(&cluster.instances[1])] {
            let pages = client.walk(&format!("{path}&limit={limit}")).await;
            assert_eq!(pages.concat(), everything, "{limit}");
            assert_eq!(pages.len(), 21_usize.div_ceil(limit));
        }
    }
    let ids: HashSet<_> = everything.iter().map(|result| result["object"]["id"].to_string()).collect();
    assert_eq!(ids.len(), 21);

    let cursor = ada.get(&format!("{path}&limit=2")).await.field("/next_cursor");
    // The same search may be spelled otherwise, and ask for pages of another length.
    let spelled = search_for(&workspace, "the  HARBOUR");
    let next = ada.get(&format!("{spelled}&limit=3&cursor={cursor}")).await.expect(200).json();
    assert_eq!(next["data"].as_array().unwrap()[..], everything[2..5]);
    let other = ada.create_workspace("Other").await;
    let messages = ada.get(&format!("{channel}/messages?limit=2")).await.field("/next_cursor");
    for wrong in [
        format!("{}&cursor={cursor}", search_for(&workspace, "harbours")),
        format!("{path}&type=message&cursor={cursor}"),
        format!("{}&cursor={cursor}", search_for(&other, "harbour")),
        format!("{path}&cursor={messages}"),
        format!("{path}&cursor=x"),
        format!("{channel}/messages?cursor={cursor}"),
    ] {
        ada.get(&wrong).await.expect_problem(400, "invalid_cursor");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_search_under_the_same_rights_is_done_once_whoever_asks_and_however_it_is_spelled() {
    let cluster = Cluster::start(2).await;
    let Talk { workspace, channel, ada, bob } = Talk::begin(&cluster).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    let cleo = a.client().register("cleo").await;
    ada.add_member(&workspace, &cleo, "guest").await;
    ada.create_channel(&workspace, "secret", true).await;
    ada.say(&channel, "plans for the harbour").await;
    announced(&cluster.database).await;
    let path = search_for(&workspace, "harbour plans");
    let first = bob.get_cached(&path).await;
    assert_eq!(first.json()["data"].as_array().unwrap().len(), 1);
    for words in ["harbour plans", " Harbour   PLANS", "the harbour and its plans", "harbour\tplans"] {
        for user in [&bob, &cleo] {
            let again = user.get(&search_for(&workspace, words)).await.expect(200);
            assert!(again.is_l1_hit(), "{words}: {again:?}");
            assert_eq!((&again.text, again.header("etag")), (&first.text, first.header("etag")));
        }
    }
    let elsewhere = cleo.at(b).get(&path).await.expect(200);
    assert!(elsewhere.header("cache-status").starts_with("redis; hit"), "{elsewhere:?}");
    // Who reads more has a search of his own, and so have other words, types and lengths.
    assert!(!ada.get(&path).await.expect(200).is_l1_hit());
    let plain = search_for(&workspace, "plans harbour");
    for other in [plain, format!("{path}&type=message"), format!("{path}&limit=7")] {
        assert!(!bob.get(&other).await.expect(200).is_l1_hit(), "{other}");
    }
    // Results end with their time, not with each message.
    ada.say(&channel, "more plans for the harbour").await;
    assert!(bob.get(&path).await.expect(200).is_l1_hit());
}
