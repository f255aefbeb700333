//! While Redis is away the journal stands in for it: memory goes on, and nothing is older than promised.

use std::time::Duration;

use diesel_async::SimpleAsyncConnection as _;
use futures_util::future::join_all;
use serde_json::json;

use super::OUT_OF_BAND;
use crate::support::{Client, Cluster, Reply, client::announced, eventually, redis::PrivateRedis};

/// Two instances, somebody at each, and what they look at.
struct Scene {
    redis: PrivateRedis,
    cluster: Cluster,
    ada: [Client; 2],
    workspace: String,
    members: String,
}

impl Scene {
    async fn new() -> Self {
        let redis = PrivateRedis::start().await;
        let settings = [("REDIS_URL", &*redis.url), ("REDIS_TIMEOUT", "500ms")];
        let cluster = Cluster::start_with(2, &settings).await;
        let ada = cluster.instances[0].client().register("ada").await;
        let workspace = format!("/v1/workspaces/{}", ada.create_workspace("0").await);
        let members = format!("{workspace}/members");
        let ada = [ada.at(&cluster.instances[0]), ada.at(&cluster.instances[1])];
        announced(&cluster.database).await;
        for client in &ada {
            client.get_cached(&workspace).await;
            client.get_cached(&members).await;
        }
        Self { redis, cluster, ada, workspace, members }
    }

    async fn rename(&self, at: usize, name: &str) -> Reply {
        self.ada[at].patch(&self.workspace, json!({ "name": name })).await.expect(200)
    }

    async fn name(&self, at: &Client) -> String {
        at.get(&self.workspace).await.expect(200).field("/name")
    }

    /// Both show it within the bound.
    async fn shows(&self, name: &str) {
        for client in &self.ada {
            eventually(name, OUT_OF_BAND, async || (self.name(client).await == name).then_some(())).await;
        }
    }

    async fn ready(&self, state: &str) {
        for instance in &self.cluster.instances {
            eventually(state, Duration::from_secs(10), async || {
                (instance.client().get("/readyz").await.expect(200).text == state).then_some(())
            })
            .await;
        }
    }

    async fn loads(&self) -> f64 {
        let loads =
            self.cluster.instances.iter().map(|instance| instance.metric("lockstep_cache_loads_total", &[]));
        join_all(loads).await.into_iter().sum()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_memory_goes_on_on_all_instances_and_hears_of_every_write() {
    let mut scene = Scene::new().await;
    let before = scene.rename(0, "before").await;
    scene.shows("before").await;
    scene.redis.kill();
    // Within a second or so, all readers are served from memory again.
    for client in &scene.ada {
        eventually("memory is used", OUT_OF_BAND, async || {
            let read = client.get(&scene.workspace).await.expect(200);
            assert_eq!(read.field("/name"), "before");
            read.is_l1_hit().then_some(())
        })
        .await;
    }
    scene.ready("degraded\n").await;
    for round in 1..=5 {
        for at in 0..2 {
            let name = format!("{round} at {at}");
            let written = scene.rename(at, &name).await;
            assert_eq!(scene.name(&scene.ada[at]).await, name, "on the instance that wrote");
            assert_eq!(scene.name(&scene.ada[1 - at].after(&written)).await, name, "with the token");
            scene.shows(&name).await;
            for client in &scene.ada {
                assert_eq!(scene.name(&client.after(&before)).await, name, "with a token from before");
            }
        }
    }
    let mut psql = scene.cluster.database.connect().await;
    psql.batch_execute("UPDATE workspaces SET name = 'by psql'").await.unwrap();
    scene.shows("by psql").await;

    // The database is shielded.
    for client in &scene.ada {
        client.get_cached(&scene.workspace).await;
        client.get_cached(&scene.members).await;
    }
    let (loads, mut hits) = (scene.loads().await, 0);
    for _ in 0..100 {
        for client in &scene.ada {
            for path in [&scene.workspace, &scene.members] {
                hits += usize::from(client.get(path).await.expect(200).is_l1_hit());
            }
        }
    }
    let loads = scene.loads().await - loads;
    // A busy machine may cost a lease now and then.
    assert!(hits >= 360 && loads <= 40.0, "{hits} hits and {loads} loads for 400 reads");

    let during = [scene.rename(0, "during at 0").await, scene.rename(1, "during").await];
    scene.redis.restart_empty().await;
    for token in during.iter().chain([&before]) {
        for client in &scene.ada {
            assert_eq!(scene.name(&client.after(token)).await, "during", "while Redis comes back");
        }
    }
    scene.ready("ok\n").await;
    scene.shows("during").await;
    let after = scene.rename(1, "after").await;
    // The writer knows it, and so does whoever shows its token, or one of an epoch that is over. The instance that did not
    // write may be the message's way behind for those who only know what was written during the outage.
    let [other, writer] = &scene.ada;
    for (client, tokens) in
        [(other, vec![&before, &after]), (writer, vec![&during[0], &during[1], &before, &after])]
    {
        for token in tokens {
            assert_eq!(scene.name(&client.after(token)).await, "after", "with Redis again");
        }
    }
    scene.shows("after").await;
    for token in &during {
        for client in &scene.ada {
            assert_eq!(scene.name(&client.after(token)).await, "after", "once it was heard of");
        }
    }
    // L2 is used again. By somebody new: what was announced in the former Redis within the last 10 s, such as that Ada has
    // signed up, each instance announces in this one once more, perhaps between these two reads.
    let eve = scene.cluster.instances[0].client().register("eve").await;
    let other = format!("/v1/workspaces/{}", eve.create_workspace("Other").await);
    announced(&scene.cluster.database).await;
    let stored = eve.get(&other).await.expect(200);
    let found = eve.at(&scene.cluster.instances[1]).get(&other).await.expect(200);
    assert!(stored.header("cache-status").contains("redis; fwd=uri-miss; stored"), "{stored:?}");
    assert!(found.header("cache-status").contains("redis; hit"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_while_redis_stood_still_is_nowhere_older_once_it_goes_on() {
    let scene = Scene::new().await;
    for round in 1..=3 {
        // It keeps what it has, and knows nothing of what is written meanwhile.
        scene.redis.signal("STOP");
        let mut last = String::new();
        for at in [0, 1] {
            last = format!("{round} at {at}");
            let written = scene.rename(at, &last).await;
            assert_eq!(scene.name(&scene.ada[at]).await, last, "on the instance that wrote");
            assert_eq!(scene.name(&scene.ada[1 - at].after(&written)).await, last, "with the token");
            scene.shows(&last).await;
        }
        scene.redis.signal("CONT");
        scene.shows(&last).await;
        scene.ready("ok\n").await;
        for client in &scene.ada {
            for _ in 0..20 {
                assert_eq!(scene.name(client).await, last, "once it goes on");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_of_the_log_has_the_password_of_redis_in_it() {
    const PASSWORD: &str = "correct-horse-battery-staple";
    let mut redis = PrivateRedis::start().await;
    let () = redis.run(&["CONFIG", "SET", "requirepass", PASSWORD]).await;
    let url = format!("{}?pass={PASSWORD}", redis.url);
    let cluster = Cluster::start_with(1, &[("REDIS_URL", &url), ("RUST_LOG", "debug")]).await;
    let instance = &cluster.instances[0];
    let ada = instance.client().register("ada").await;
    ada.create_workspace("Home").await;
    eventually("Redis is used", Duration::from_secs(10), async || {
        (instance.client().get("/readyz").await.text == "ok\n").then_some(())
    })
    .await;
    // The new one asks for no password, and refuses this one.
    redis.restart_empty().await;
    eventually("it is refused", Duration::from_secs(10), async || {
        instance.log().contains("cache bus lost").then_some(())
    })
    .await;
    redis.kill();
    ada.create_workspace("Away").await;
    let log = instance.log();
    assert!(!log.contains(PASSWORD), "{log}");
    let metrics = instance.client().get("/metrics").await.expect(200);
    assert!(!metrics.text.contains(PASSWORD));
}
