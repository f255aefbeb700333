//! Readers and writers at once, with a checker that knows what was acknowledged when.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{Client, Cluster};

const WORKSPACES: usize = 6;
const READERS: usize = 8;

/// One workspace, whose name counts its writes, and what is known of them.
struct Subject {
    path: String,
    /// The last write that each instance has acknowledged.
    acknowledged: [AtomicU64; 2],
    /// The last write that was acknowledged at all, and with which token.
    latest: std::sync::Mutex<(u64, String)>,
}

/// What the readers saw.
#[derive(Default)]
struct Tally {
    reads: AtomicU64,
    with_token: AtomicU64,
    l1_hits: AtomicU64,
    writes: AtomicU64,
}

/// How long; the promise was tested for a minute.
fn duration() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "a setting of the test, not of the program")]
    let seconds = std::env::var("TEST_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_is_older_than_what_its_instance_or_its_token_knows() {
    let cluster = Cluster::start(2).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let clients = [ada.at(&cluster.instances[0]), ada.at(&cluster.instances[1])];
    let mut subjects = Vec::new();
    for _ in 0..WORKSPACES {
        let path = format!("/v1/workspaces/{}", ada.create_workspace("0").await);
        subjects.push(Subject { path, acknowledged: Default::default(), latest: Default::default() });
    }
    let (subjects, tally) = (Arc::new(subjects), Arc::new(Tally::default()));
    let ends = Instant::now() + duration();
    let mut tasks = Vec::new();
    for number in 0..WORKSPACES {
        tasks.push(tokio::spawn(write(
            clients.clone(),
            Arc::clone(&subjects),
            number,
            Arc::clone(&tally),
            ends,
        )));
    }
    for number in 0..READERS {
        tasks.push(tokio::spawn(read(
            clients.clone(),
            Arc::clone(&subjects),
            number,
            Arc::clone(&tally),
            ends,
        )));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{} writes, {} reads of which {} with a token and {} L1 hits; none stale",
        count(&tally.writes),
        count(&tally.reads),
        count(&tally.with_token),
        count(&tally.l1_hits),
    );
    assert!(count(&tally.l1_hits) > count(&tally.reads) / 10, "the cache was hardly used");
}

/// Writes one workspace, now through one instance and now through the other.
async fn write(
    clients: [Client; 2],
    subjects: Arc<Vec<Subject>>,
    number: usize,
    tally: Arc<Tally>,
    ends: Instant,
) {
    let subject = &subjects[number];
    for version in 1.. {
        if Instant::now() >= ends {
            return;
        }
        let instance = rand::random_range(0..2);
        let name = version.to_string();
        let reply = clients[instance].patch(&subject.path, json!({ "name": name })).await.expect(200);
        let token = reply.header("consistency-token").to_owned();
        *subject.latest.lock().unwrap() = (version, token);
        subject.acknowledged[instance].store(version, Ordering::SeqCst);
        tally.writes.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..120))).await;
    }
}

/// Reads any workspace on any instance, half of the time with the token of its last write.
async fn read(
    clients: [Client; 2],
    subjects: Arc<Vec<Subject>>,
    reader: usize,
    tally: Arc<Tally>,
    ends: Instant,
) {
    while Instant::now() < ends {
        let subject = &subjects[rand::random_range(0..WORKSPACES)];
        let instance = rand::random_range(0..2);
        let with_token = reader.is_multiple_of(2) && rand::random();
        let (least, client) = if with_token {
            let (version, token) = subject.latest.lock().unwrap().clone();
            let token = (!token.is_empty()).then_some(token);
            (version, clients[instance].with_token(token))
        } else {
            (subject.acknowledged[instance].load(Ordering::SeqCst), clients[instance].clone())
        };
        let reply = client.get(&subject.path).await.expect(200);
        let seen: u64 = reply.field("/name").parse().unwrap();
        assert!(seen >= least, "read {seen} on {instance} after {least}, token: {with_token}: {reply:?}");
        tally.reads.fetch_add(1, Ordering::Relaxed);
        tally.with_token.fetch_add(with_token.into(), Ordering::Relaxed);
        let l1_hit = reply.header("cache-status").starts_with("moka; hit");
        tally.l1_hits.fetch_add(l1_hit.into(), Ordering::Relaxed);
    }
}
