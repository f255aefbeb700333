//! What is promised in numbers: how soon a write is seen and told elsewhere while everything is healthy, and what idle
//! listeners cost. A program of its own, so that no other test takes the processor's time meanwhile; one at a time.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails may panic")]
#![expect(
    unreachable_pub,
    dead_code,
    unused_imports,
    reason = "most of the harness is for the other test program"
)]

mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Mutex,
};

use crate::support::{Cluster, EventStream, Instance, eventually};

/// Held by the test that is running.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_seen_on_another_instance_within_50_ms_a_thousand_times_in_a_row() {
    let _alone = ALONE.lock().await;
    let cluster = Cluster::start(2).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    let ada = a.client().register("ada").await;
    let workspace = ada.create_workspace("0").await;
    let path = format!("/v1/workspaces/{workspace}");
    let at_b = ada.at(b);
    at_b.get(&path).await.expect(200);

    let (mut l1_hits, mut longest) = (0, Duration::ZERO);
    for round in 1..=1000 {
        let name = round.to_string();
        ada.patch(&path, json!({ "name": name })).await.expect(200);
        let written = Instant::now();
        loop {
            let asked_after = written.elapsed();
            if at_b.get(&path).await.expect(200).field("/name") == name {
                break;
            }
            assert!(
                asked_after < Duration::from_millis(50),
                "round {round}: the old name {asked_after:?} after the write"
            );
            longest = longest.max(asked_after);
            // Reading without pause would take from Redis the processor that it needs to send the message.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let again = at_b.get(&path).await.expect(200);
        assert_eq!(again.field("/name"), name);
        l1_hits += usize::from(again.header("cache-status").starts_with("moka; hit"));
    }
    println!(
        "latest read of an old name {longest:?} after the write, L1 hits between writes {l1_hits} of 1000"
    );
    assert!(l1_hits >= 950, "only {l1_hits} of 1000 reads between writes were L1 hits");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_reaches_a_listener_on_another_instance_within_100_ms_of_the_acknowledged_write() {
    let _alone = ALONE.lock().await;
    let cluster = Cluster::start(2).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let workspace = ada.create_workspace("Home").await;
    let channels = format!("/v1/workspaces/{workspace}/channels");
    let channel = ada.post(&channels, json!({"name": "general"})).await.expect(201).field("/id");
    let messages = format!("{channels}/{channel}/messages");
    let mut stream = EventStream::open(&ada.at(&cluster.instances[1]), None).await;
    let mut delays = Vec::new();
    for number in 0..500 {
        let sending = async {
            ada.post(&messages, json!({"content": number.to_string()})).await.expect(201);
            Instant::now()
        };
        let hearing = async {
            stream.expect("message.created").await;
            Instant::now()
        };
        let (acknowledged, heard) = tokio::join!(sending, hearing);
        delays.push(heard.saturating_duration_since(acknowledged));
    }
    delays.sort_unstable();
    println!("told after the acknowledgement: median {:?}, latest {:?} of 500", delays[250], delays[499]);
    assert!(delays[499] < Duration::from_millis(100), "{:?}", delays[499]);
}

/// Memory that the process has for itself. Not the program, of which a build for tests has three times as much as the
/// 14 MB of a release, which are left out of the bound.
fn resident_bytes(instance: &Instance) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", instance.process_id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_idle_streams_on_one_instance_take_less_than_200_mb() {
    const STREAMS: usize = 5_000;
    let _alone = ALONE.lock().await;
    rlimit::increase_nofile_limit(2 * STREAMS as u64).unwrap();
    let cluster = Cluster::start(1).await;
    let instance = &cluster.instances[0];
    let ada = instance.client().register("ada").await;
    let before = resident_bytes(instance);
    let address = instance.url.trim_start_matches("http://").to_owned();
    let request = format!(
        "GET /v1/events HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\r\n",
        ada.access_token.as_deref().unwrap()
    );
    let mut streams = Vec::with_capacity(STREAMS);
    for _ in 0..STREAMS {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 15];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200 OK");
        streams.push(stream);
    }
    let connected = instance.metric("lockstep_sse_connections", &[]).await;
    let after = resident_bytes(instance);
    println!("resident: {} MB before, {} MB with {STREAMS} idle streams", before >> 20, after >> 20);
    assert!((connected - 5_000.0).abs() < f64::EPSILON, "{connected}");
    assert!(after < 180_000_000, "{after} bytes, and the program");

    // One event for all of them, and the instance goes on answering.
    let started = Instant::now();
    ada.create_workspace("Home").await;
    let told = ada.post("/v1/auth/logout-all", json!({})).await.expect(204);
    eventually("all streams have ended", Duration::from_secs(10), async || {
        (instance.metric("lockstep_sse_connections", &[]).await < 1.0).then_some(())
    })
    .await;
    println!("all ended {:?} after their session", started.elapsed());
    drop(told);
}
