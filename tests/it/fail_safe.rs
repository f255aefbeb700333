//! While PostgreSQL is away: reads go on from what is kept, for as long as the settings allow, and never from what was
//! invalidated.

use std::time::Duration;

use diesel_async::{AsyncConnection as _, AsyncPgConnection, SimpleAsyncConnection as _};
use serde_json::json;

use crate::support::{Client, Cluster, Reply, client::announced, eventually, test_setting};

/// A database that nobody can connect to, until this is dropped.
struct Away {
    name: String,
    admin: AsyncPgConnection,
}

impl Away {
    async fn begin(cluster: &Cluster) -> Self {
        let name = cluster.database.url.rsplit_once('/').unwrap().1.to_owned();
        let mut admin = AsyncPgConnection::establish(&test_setting("TEST_DATABASE_URL")).await.unwrap();
        let away = format!(
            "ALTER DATABASE {name} ALLOW_CONNECTIONS false; \
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        );
        admin.batch_execute(&away).await.unwrap();
        Self { name, admin }
    }

    async fn end(mut self) {
        let back = format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", self.name);
        self.admin.batch_execute(&back).await.unwrap();
    }
}

/// Everything lives for a second or two.
fn short_lives() -> Vec<(&'static str, &'static str)> {
    let mut settings = vec![("CACHE_L1_TTL", "1s"), ("CACHE_FAILSAFE", "1h")];
    for kind in ["WORKSPACE", "MEMBERS", "DOCUMENT", "USER", "SEARCH", "MESSAGES"] {
        let name: &'static str = Box::leak(format!("CACHE_TTL_{kind}").into_boxed_str());
        settings.push((name, "2s"));
    }
    settings
}

async fn expired(client: &Client, path: &str) -> Reply {
    eventually("its time is up", Duration::from_secs(10), async || {
        let reply = client.get(path).await.expect(200);
        reply.header("cache-status").contains("detail=FAIL-SAFE").then_some(reply)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_served_and_marked_and_what_was_invalidated_is_not() {
    let cluster = Cluster::start_with(2, &short_lives()).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let at_b = ada.at(&cluster.instances[1]);
    let (kept, changed) = (ada.create_workspace("Kept").await, ada.create_workspace("Changed").await);
    let (kept, changed) = (format!("/v1/workspaces/{kept}"), format!("/v1/workspaces/{changed}"));
    let members = format!("{kept}/members");
    announced(&cluster.database).await;
    for path in [&kept, &changed, &members] {
        ada.get(path).await.expect(200);
        at_b.get(path).await.expect(200);
    }
    let written = ada.patch(&changed, json!({"name": "Changed again"})).await.expect(200);

    let away = Away::begin(&cluster).await;
    for client in [&ada, &at_b] {
        for path in [&kept, &members] {
            let old = expired(client, path).await;
            assert!(old.header("cache-status").contains("; ttl=-"), "{old:?}");
            // Nothing that was written is newer.
            client.after(&written).get(path).await.expect(200);
        }
        // Nobody has read it since it was changed.
        let none = client.get(&changed).await.expect_problem(503, "unavailable");
        assert!(!none.header("retry-after").is_empty());
        client.patch(&kept, json!({"name": "Lost"})).await.expect_problem(503, "unavailable");
    }
    let ready = cluster.instances[0].client().get("/readyz").await.expect(200);
    assert!(ready.text.contains("degraded"), "{ready:?}");

    away.end().await;
    for client in [&ada, &at_b] {
        eventually("it is loaded again", Duration::from_secs(10), async || {
            let reply = client.get(&kept).await.expect(200);
            (!reply.header("cache-status").contains("FAIL-SAFE")).then_some(())
        })
        .await;
        eventually("the other is back, too", Duration::from_secs(10), async || {
            (client.get(&changed).await.status == 200).then_some(())
        })
        .await;
        assert_eq!(client.get(&changed).await.field("/name"), "Changed again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_process_serves_what_it_holds_only_while_it_can_know_that_it_is_fresh() {
    let mut settings = short_lives();
    settings.push(("CACHE", "l1"));
    let cluster = Cluster::start_with(1, &settings).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let workspace = format!("/v1/workspaces/{}", ada.create_workspace("Kept").await);
    announced(&cluster.database).await;
    ada.get(&workspace).await.expect(200);
    let away = Away::begin(&cluster).await;
    assert!(expired(&ada, &workspace).await.header("cache-status").starts_with("moka; hit; ttl=-"));
    away.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_served_beyond_the_age_that_the_settings_allow() {
    let mut settings = short_lives();
    settings.retain(|(name, _)| *name != "CACHE_FAILSAFE");
    settings.push(("CACHE_FAILSAFE", "0s"));
    let cluster = Cluster::start_with(1, &settings).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let workspace = format!("/v1/workspaces/{}", ada.create_workspace("Kept").await);
    ada.get(&workspace).await.expect(200);
    let away = Away::begin(&cluster).await;
    eventually("there is nothing left", Duration::from_secs(10), async || {
        (ada.get(&workspace).await.status == 503).then_some(())
    })
    .await;
    away.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_database_is_waited_for_when_what_there_is_instead_was_invalidated() {
    let cluster = Cluster::start(1).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let workspace = format!("/v1/workspaces/{}", ada.create_workspace("Old").await);
    announced(&cluster.database).await;
    ada.get_cached(&workspace).await;
    ada.patch(&workspace, json!({"name": "New"})).await.expect(200);
    let mut psql = cluster.database.connect().await;
    psql.batch_execute("BEGIN; LOCK TABLE workspaces IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let reading = tokio::spawn({
        let (ada, workspace) = (ada.clone(), workspace.clone());
        async move { ada.get(&workspace).await }
    });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    psql.batch_execute("COMMIT").await.unwrap();
    assert_eq!(reading.await.unwrap().expect(200).field("/name"), "New");
}
