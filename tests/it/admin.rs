//! What staff see of the cache and do to it, by the API and from the command line.

use std::{process::Command, time::Duration};

use serde_json::json;

use crate::support::{
    Client, Cluster,
    client::{announced, email},
    eventually, redis, test_setting,
};

/// The bound for what the service did not do itself.
const OUT_OF_BAND: Duration = Duration::from_millis(1500);

/// Runs a command of the program with the settings of a cluster; what it printed, and whether it succeeded.
fn run(cluster: &Cluster, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .args(arguments)
        .env_clear()
        .envs(cluster.settings.iter().map(|(name, value)| (name, value)))
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// Somebody on the staff, signed in at the first instance.
async fn staff(cluster: &Cluster, name: &str) -> Client {
    let client = cluster.instances[0].client().register(name).await;
    let (success, text) = run(cluster, &["user", "staff", &email(name)]);
    assert!(success, "{text}");
    for instance in &cluster.instances {
        let client = client.at(instance);
        eventually("the user is staff everywhere", 2 * OUT_OF_BAND, async || {
            (client.get("/v1/admin/cache").await.status == 200).then_some(())
        })
        .await;
    }
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_are_for_staff() {
    let cluster = Cluster::start(1).await;
    let nobody = cluster.instances[0].client();
    let bob = nobody.register("bob").await;
    let ada = staff(&cluster, "ada").await;
    for path in ["/v1/admin/cache", "/v1/admin/cache/entry?key=x"] {
        nobody.get(path).await.expect_problem(401, "unauthenticated");
        bob.get(path).await.expect_problem(403, "forbidden");
        ada.get(path).await.expect(200);
    }
    for (path, body) in [
        ("/v1/admin/cache/invalidate", json!({"tags": ["all"]})),
        ("/v1/admin/cache/delete-pattern", json!({"pattern": "*"})),
    ] {
        nobody.post(path, body.clone()).await.expect_problem(401, "unauthenticated");
        bob.post(path, body.clone()).await.expect_problem(403, "forbidden");
        let done = ada.post(path, body).await;
        assert!(
            [200, 204].contains(&done.status) && !done.header("consistency-token").is_empty(),
            "{done:?}"
        );
    }
    for tags in [json!([]), json!(["two words"]), json!([""]), json!(["pattern:*"]), json!([1]), json!("all")]
    {
        let refused = ada.post("/v1/admin/cache/invalidate", json!({ "tags": tags })).await;
        refused.expect_problem(422, "validation_error");
    }
    for pattern in ["", "a b", "[a]", "\\*", "ü"] {
        let refused = ada.post("/v1/admin/cache/delete-pattern", json!({ "pattern": pattern })).await;
        refused.expect_problem(422, "validation_error");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalidating_a_tag_and_deleting_by_pattern_reach_both_tiers_of_every_instance_and_nothing_else() {
    let cluster = Cluster::start(2).await;
    let ada = staff(&cluster, "ada").await;
    let at_b = ada.at(&cluster.instances[1]);
    let (one, other) = (ada.create_workspace("One").await, ada.create_workspace("Other").await);
    let (first, second) = (format!("/v1/workspaces/{one}"), format!("/v1/workspaces/{other}"));
    announced(&cluster.database).await;
    for client in [&ada, &at_b] {
        client.get_cached(&first).await;
        client.get_cached(&second).await;
    }

    let key = format!("workspace:{one}:v1");
    let explain = format!("/v1/admin/cache/entry?key={key}");
    let entry = ada.get(&explain).await.expect(200).json();
    assert_eq!((&entry["l1"]["fresh"], &entry["l2"]["fresh"]), (&json!(true), &json!(true)), "{entry}");
    assert!(entry["l2"]["tags"][format!("workspace:{one}")].is_u64(), "{entry}");
    let tags = json!({"tags": [format!("workspace:{one}")]});
    let done = at_b.post("/v1/admin/cache/invalidate", tags).await.expect(200);
    assert_eq!(done.json()["tags"], 1);
    let entry = ada.after(&done).get(&explain).await.expect(200).json();
    assert_eq!((&entry["l1"]["fresh"], &entry["l2"]["fresh"]), (&json!(false), &json!(false)), "{entry}");
    let reason = entry["l2"]["reason"].as_str().unwrap();
    assert!(reason.starts_with(&format!("tag workspace:{one} was invalidated at ")), "{reason}");
    for client in [&ada, &at_b.after(&done)] {
        assert!(client.get(&second).await.is_l1_hit());
        assert!(!client.get(&first).await.is_l1_hit());
    }

    for client in [&ada, &at_b] {
        client.get_cached(&first).await;
    }
    let pattern = json!({"pattern": format!("workspace:{one}:*")});
    ada.post("/v1/admin/cache/delete-pattern", pattern).await.expect(204);
    let (url, namespace) = (test_setting("TEST_REDIS_URL"), cluster.setting("CACHE_NAMESPACE").to_owned());
    let keys: Vec<String> = redis::run(&url, &["KEYS", &format!("{namespace}:entry:workspace:*")]).await;
    assert!(!keys.is_empty() && keys.iter().all(|key| key.contains(&other)), "{keys:?}");
    for client in [&ada, &at_b] {
        eventually("it is gone from memory", OUT_OF_BAND, async || {
            let entry = client.get(&explain).await.expect(200).json();
            (entry["l1"].is_null()).then_some(())
        })
        .await;
        assert!(client.get(&second).await.is_l1_hit());
    }
    let stats = ada.get("/v1/admin/cache").await.expect(200).json();
    assert_eq!((&stats["source"], &stats["lease"]), (&json!("redis"), &json!(true)), "{stats}");
    assert!(stats["requests"]["workspace"]["l1"]["hit"].as_u64().unwrap() > 0, "{stats}");
    assert!(stats["l1"]["entries"].is_u64() && stats["invalidations"]["operator"].is_u64(), "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_does_the_same_without_an_instance_to_ask() {
    let cluster = Cluster::start(2).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let at_b = ada.at(&cluster.instances[1]);
    let workspace = ada.create_workspace("Home").await;
    let path = format!("/v1/workspaces/{workspace}");
    announced(&cluster.database).await;
    for arguments in [
        vec!["cache", "invalidate", &*format!("workspace:{workspace}"), "user:x"],
        vec!["cache", "delete-pattern", "workspace:*:v?"],
    ] {
        for client in [&ada, &at_b] {
            client.get_cached(&path).await;
        }
        let misses = async || {
            let mut misses = 0.0;
            for instance in &cluster.instances {
                for result in ["miss", "stale"] {
                    let labels = ["tier=\"l1\"", "kind=\"workspace\"", &format!("result=\"{result}\"")];
                    misses += instance.metric("lockstep_cache_requests_total", &labels).await;
                }
            }
            misses
        };
        let before = misses().await;
        let (success, text) = run(&cluster, &arguments);
        assert!(success, "{text}");
        eventually("both instances have heard", 2 * OUT_OF_BAND, async || {
            for client in [&ada, &at_b] {
                client.get(&path).await.expect(200);
            }
            (misses().await >= before + 2.0).then_some(())
        })
        .await;
    }
    let (success, text) = run(&cluster, &["cache", "stats"]);
    assert!(success && text.contains("workspace") && text.contains("sequence"), "{text}");
    assert_eq!(
        text.lines().find(|line| line.starts_with("instances")).unwrap().matches(", ").count(),
        1,
        "{text}"
    );
    let (success, text) = run(&cluster, &["cache", "invalidate", "two words"]);
    assert!(!success && text.lines().count() == 1, "{text}");
    let (success, text) = run(&cluster, &["cache", "delete-pattern", "[a]"]);
    assert!(!success && text.lines().count() == 1, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_journal_tells_the_other_instances() {
    let cluster = Cluster::start_with(2, &[("REDIS_URL", "")]).await;
    let ada = staff(&cluster, "ada").await;
    let at_b = ada.at(&cluster.instances[1]);
    let workspace = ada.create_workspace("Home").await;
    let path = format!("/v1/workspaces/{workspace}");
    for body in [json!({"tags": [format!("workspace:{workspace}")]}), json!({"pattern": "workspace:*"})] {
        let action = if body["tags"].is_array() { "invalidate" } else { "delete-pattern" };
        eventually("it is cached there", OUT_OF_BAND, async || {
            at_b.get(&path).await.expect(200).is_l1_hit().then_some(())
        })
        .await;
        ada.post(&format!("/v1/admin/cache/{action}"), body).await;
        eventually("it is not any more", OUT_OF_BAND, async || {
            (!at_b.get(&path).await.expect(200).is_l1_hit()).then_some(())
        })
        .await;
    }
}
