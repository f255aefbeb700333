//! Threads that read from L2 by connections of their own.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{Node, OPTIONS, Place, Row, Setup, is_hit};
use crate::support::{eventually, redis::PrivateRedis, unique_name};

/// What stands in front of a Redis that may be replaced: a name for its socket.
struct Address(PathBuf);

impl Address {
    fn of(socket: &str) -> Self {
        let address = Self(std::env::temp_dir().join(unique_name("address")));
        symlink(socket, &address.0).unwrap();
        address
    }

    fn lead_to(&self, socket: &str) {
        fs::remove_file(&self.0).unwrap();
        symlink(socket, &self.0).unwrap();
    }

    fn place(&self) -> Place {
        Place { url: format!("unix://{}", self.0.display()), namespace: "threads".to_owned() }
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn socket(redis: &PrivateRedis) -> &str {
    redis.url.trim_start_matches("unix://")
}

/// A socket that leads to a Redis, until it falls silent.
struct Relay {
    path: PathBuf,
    is_silent: Arc<AtomicBool>,
    /// Bytes that were sent through it.
    sent: Arc<AtomicUsize>,
}

impl Relay {
    fn to(redis: &PrivateRedis) -> Self {
        let relay =
            Self { path: redis.folder.join("relay"), is_silent: Arc::default(), sent: Arc::default() };
        let (listener, to) = (UnixListener::bind(&relay.path).unwrap(), socket(redis).to_owned());
        let (is_silent, sent) = (Arc::clone(&relay.is_silent), Arc::clone(&relay.sent));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (asks, hears) = client.into_split();
                let (answers, asked) = UnixStream::connect(&to).await.unwrap().into_split();
                let (is_silent, sent) = (Arc::clone(&is_silent), Arc::clone(&sent));
                tokio::spawn(pass_on(asks, asked, move |count| {
                    sent.fetch_add(count, Ordering::SeqCst);
                    true
                }));
                tokio::spawn(pass_on(answers, hears, move |_| !is_silent.load(Ordering::SeqCst)));
            }
        });
        relay
    }

    /// Waits until a read of the row has gone this way.
    async fn is_used(&self, node: &Node, row: &Arc<Row>) {
        eventually("the thread reads by its own connection", Duration::from_secs(10), async || {
            let before = self.sent.load(Ordering::SeqCst);
            node.read(row).await;
            // More than its opening takes.
            (before > 0 && self.sent.load(Ordering::SeqCst) > before.max(2000)).then_some(())
        })
        .await;
    }
}

async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, passes: impl Fn(usize) -> bool) {
    let mut bytes = vec![0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if passes(count) && to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// Who is connected, other than whoever asks.
async fn connected(redis: &PrivateRedis) -> BTreeSet<String> {
    let list: String = redis.run(&["CLIENT", "LIST", "TYPE", "normal"]).await;
    let others = list.lines().filter(|line| !line.contains("cmd=client|list"));
    others.filter_map(|line| line.split(' ').next()?.strip_prefix("id=").map(ToOwned::to_owned)).collect()
}

async fn eventually_connected(redis: &PrivateRedis, count: usize) -> BTreeSet<String> {
    eventually(&format!("there are {count} connections"), Duration::from_secs(10), async || {
        let connected = connected(redis).await;
        (connected.len() == count).then_some(connected)
    })
    .await
}

/// As an Actix worker is.
#[tokio::test(flavor = "current_thread")]
async fn a_thread_reads_by_its_own_connection_and_with_it_goes_that_of_the_others() {
    let redis = PrivateRedis::start().await;
    let (address, relay) = (Address::of(socket(&redis)), Relay::to(&redis));
    let node = Node::start_with(&address.place(), OPTIONS, false, true).await;
    let row = Arc::new(Row::default());
    let shared = eventually_connected(&redis, 1).await;
    address.lead_to(relay.path.to_str().unwrap());
    node.cache.add_thread();
    let both = eventually_connected(&redis, 2).await;
    relay.is_used(&node, &row).await;
    let (.., l2) = node.read(&row).await;
    assert!(is_hit(l2), "{l2:?}");

    let own = both.difference(&shared).next().unwrap();
    let _killed: i64 = redis.run(&["CLIENT", "KILL", "ID", own]).await;
    row.value.store(1, Ordering::SeqCst);
    // By whichever way: a read is answered.
    assert!([0, 1].contains(&node.read_value(&row).await));
    eventually("both are opened anew", Duration::from_secs(10), async || {
        let connected = connected(&redis).await;
        (connected.len() == 2 && connected.is_disjoint(&both)).then_some(())
    })
    .await;
    node.trusted().await;
    node.read(&row).await;
    let (.., l2) = node.read(&row).await;
    assert!(is_hit(l2), "{l2:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_whose_connection_leads_to_another_redis_ends_the_use_of_the_first() {
    let (first, second) = (PrivateRedis::start().await, PrivateRedis::start().await);
    let address = Address::of(socket(&first));
    let node = Node::start_with(&address.place(), OPTIONS, true, true).await;
    let epoch = node.cache.report().epoch;
    address.lead_to(socket(&second));
    node.cache.add_thread();
    eventually("it has turned to the second", Duration::from_secs(10), async || {
        let report = node.cache.report();
        (report.source == "redis" && report.epoch != epoch).then_some(())
    })
    .await;
    eventually_connected(&second, 2).await;
    assert_eq!(connected(&first).await, BTreeSet::new());
}

#[tokio::test(flavor = "current_thread")]
async fn a_thread_whose_connection_falls_silent_is_noticed_although_all_others_are_answered() {
    let redis = PrivateRedis::start().await;
    let address = Address::of(socket(&redis));
    let setup = Setup { l1: false, redis_timeout: Duration::from_millis(300), ..Setup::default() };
    let (node, row) = (Node::start_as(&address.place(), setup).await, Arc::new(Row::default()));
    let relay = Relay::to(&redis);
    address.lead_to(relay.path.to_str().unwrap());
    node.cache.add_thread();
    let before = eventually_connected(&redis, 2).await;
    relay.is_used(&node, &row).await;
    address.lead_to(socket(&redis));
    relay.is_silent.store(true, Ordering::SeqCst);
    for value in 1..=3 {
        // So many that the reads do not count among them.
        for _ in 0..5 {
            node.write(&row, value).await;
        }
        assert_eq!(node.read_value(&row).await, value);
    }
    eventually("both are opened anew", Duration::from_secs(10), async || {
        let connected = connected(&redis).await;
        (connected.len() >= 2 && !before.is_subset(&connected)).then_some(())
    })
    .await;
    node.trusted().await;
    node.read(&row).await;
    let (.., l2) = node.read(&row).await;
    assert!(is_hit(l2), "{l2:?}");
}
