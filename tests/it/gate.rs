//! What only reads is worked on before it is known whether the caller may ask, and held back until it is.

use std::time::{Duration, Instant};

use diesel_async::SimpleAsyncConnection as _;
use serde_json::json;

use crate::support::{Client, Cluster, Instance, eventually, proxy::Proxy, redis::PrivateRedis};

/// Without a memory of their own, instances have to ask for everything, every time.
const WITHOUT_MEMORY: [(&str, &str); 1] = [("CACHE", "l2")];

/// A workspace of this client.
async fn workspace_of(client: &Client) -> String {
    let made = client.post("/v1/workspaces", json!({"name": "Analytical Engine"})).await.expect(201);
    format!("/v1/workspaces/{}", made.field("/id"))
}

async fn loads(instance: &Instance) -> f64 {
    instance.metric("lockstep_cache_loads_total", &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_no_longer_signed_in_is_told_so_and_nothing_of_what_there_is() {
    let cluster = Cluster::start_with(2, &WITHOUT_MEMORY).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let workspace = workspace_of(&ada).await;
    ada.get(&workspace).await.expect(200);
    let left = ada.post("/v1/auth/logout-all", json!({})).await.expect(204);
    for instance in &cluster.instances {
        for path in [&*workspace, "/v1/users/me", "/v1/workspaces", "/v1/workspaces/none"] {
            let refused =
                ada.at(instance).after(&left).get(path).await.expect_problem(401, "unauthenticated");
            for name in ["etag", "cache-status", "link"] {
                assert_eq!(refused.header(name), "", "{name} of {path}");
            }
            assert!(!refused.text.contains("Analytical"), "{}", refused.text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_nothing_begins_before_it_is_known_who_asks() {
    let cluster = Cluster::start_with(1, &WITHOUT_MEMORY).await;
    let instance = &cluster.instances[0];
    let ada = instance.client().register("ada").await;
    let left = ada.post("/v1/auth/logout-all", json!({})).await.expect(204);
    let before = loads(instance).await;
    for _ in 0..10 {
        // Never asked for before, so that they would have to be loaded.
        let path = format!("/v1/users/{}", uuid::Uuid::now_v7());
        ada.after(&left).get(&path).await.expect_problem(401, "unauthenticated");
    }
    // Her state, which the write has made stale.
    assert!(loads(instance).await - before <= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_see_it_gets_the_same_answer_whether_it_is_there_or_not() {
    let cluster = Cluster::start_with(1, &WITHOUT_MEMORY).await;
    let nobody = cluster.instances[0].client();
    let (ada, eve) = (nobody.register("ada").await, nobody.register("eve").await);
    let there = workspace_of(&ada).await;
    let not_there = format!("/v1/workspaces/{}", uuid::Uuid::now_v7());
    for path in [there, not_there] {
        for path in [path.clone(), format!("{path}/members"), format!("{path}/documents")] {
            let refused = eve.get(&path).await.expect_problem(404, "not_found");
            assert_eq!((refused.header("etag"), refused.header("cache-status")), ("", ""), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn staff_is_told_how_the_cache_fared_by_the_first_answer_and_others_by_none() {
    let settings = [("CACHE", "l2"), ("CACHE_STATUS", "staff"), ("RUST_LOG", "info")];
    let cluster = Cluster::start_with(1, &settings).await;
    let nobody = cluster.instances[0].client();
    let (ada, eve) = (nobody.register("ada").await, nobody.register("eve").await);
    let staff = format!("UPDATE users SET is_staff = true WHERE id = '{}'", ada.user_id);
    cluster.database.connect().await.batch_execute(&staff).await.unwrap();
    eventually("it is known who is staff", Duration::from_secs(3), async || {
        (ada.get("/v1/admin/cache").await.status == 200).then_some(())
    })
    .await;
    assert!(ada.get("/v1/users/me").await.expect(200).header("cache-status").starts_with("redis; "));
    assert_eq!(eve.get("/v1/users/me").await.expect(200).header("cache-status"), "");
    // The operator sees both.
    eventually("it is in the log", Duration::from_secs(3), async || {
        let log = cluster.instances[0].log();
        let told = log.lines().filter(|line| line.contains("/v1/users/me") && line.contains("redis; "));
        (told.count() == 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_asked_too_much_is_refused_and_causes_no_loads() {
    let settings = [("CACHE", "l2"), ("RATE_LIMIT_BURST", "5/min")];
    let cluster = Cluster::start_with(1, &settings).await;
    let instance = &cluster.instances[0];
    let ada = instance.client().register("ada").await;
    eventually("she has asked too much", Duration::from_secs(10), async || {
        (ada.get("/v1/users/me").await.status == 429).then_some(())
    })
    .await;
    // The first refusal is remembered for a second only, after which Redis is asked again, and a request begins meanwhile.
    eventually("twenty requests within what is remembered", Duration::from_secs(30), async || {
        let before = loads(instance).await;
        for _ in 0..20 {
            // Never asked for before, so that they would have to be loaded.
            let refused = ada.get(&format!("/v1/users/{}", uuid::Uuid::now_v7())).await;
            let refused = refused.expect_problem(429, "rate_limited");
            assert!(refused.header("ratelimit").contains("\"burst\";r=0"), "{refused:?}");
        }
        (loads(instance).await - before < 1.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_has_to_say_of_a_request_is_asked_for_at_once() {
    const DELAY: Duration = Duration::from_millis(300);
    let redis = PrivateRedis::start().await;
    let proxy = Proxy::start(&redis).await;
    let settings = [("CACHE", "l2"), ("REDIS_URL", &*proxy.url)];
    let cluster = Cluster::start_with(1, &settings).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let workspace = workspace_of(&ada).await;
    ada.get(&workspace).await.expect(200);
    proxy.delay(DELAY);
    // Whether she may read it, and the workspace. On a busy machine it may take longer now and then.
    let took = eventually("an answer after one round trip", Duration::from_secs(20), async || {
        let begun = Instant::now();
        let read = ada.get(&workspace).await.expect(200);
        assert!(read.header("cache-status").starts_with("redis; hit"), "{read:?}");
        Some(begun.elapsed()).filter(|took| *took < 2 * DELAY)
    })
    .await;
    assert!(took >= DELAY, "{took:?}");
}
