//! The journal: everything that changes is recorded, and what is recorded is heard.

mod hooks;
mod server;
mod stand_in;

use std::time::Duration;

use diesel::{QueryableByName, sql_query, sql_types::Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use lockstep::domain::Change;
use serde_json::json;

use crate::support::{Cluster, Instance, eventually, redis::PrivateRedis};

/// The bound for what the service did not do itself.
const OUT_OF_BAND: Duration = Duration::from_millis(1500);

#[derive(QueryableByName)]
struct Recorded {
    #[diesel(sql_type = Text)]
    changes: String,
}

/// What the journal holds, emptied for the next step.
async fn recorded(connection: &mut AsyncPgConnection) -> Vec<Change> {
    let rows: Vec<Recorded> = sql_query("SELECT changes::text AS changes FROM cache_journal ORDER BY id")
        .load(connection)
        .await
        .unwrap();
    connection.batch_execute("DELETE FROM cache_journal").await.unwrap();
    let changes = rows.iter().map(|row| serde_json::from_str::<Vec<Change>>(&row.changes).unwrap());
    let mut changes: Vec<_> = changes.flatten().collect();
    changes.sort_unstable();
    changes.dedup();
    changes
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_another_program_changes_are_seen_on_every_instance_within_the_bound() {
    for redis in [true, false] {
        let cluster = Cluster::start_with(2, if redis { &[] } else { &[("REDIS_URL", "")] }).await;
        let ada = cluster.instances[0].client().register("ada").await;
        let workspace = ada.create_workspace("Old").await;
        let path = format!("/v1/workspaces/{workspace}");
        let members = format!("{path}/members");
        let mut psql = cluster.database.connect().await;
        let everywhere = async |path: &str, pointer: &str, wanted: &str| {
            for instance in &cluster.instances {
                eventually(wanted, OUT_OF_BAND, async || {
                    (ada.at(instance).get(path).await.field(pointer) == wanted).then_some(())
                })
                .await;
            }
        };
        everywhere(&path, "/name", "Old").await;
        everywhere(&members, "/data/0/user/name", "ada").await;

        psql.batch_execute("UPDATE workspaces SET name = 'New'").await.unwrap();
        everywhere(&path, "/name", "New").await;
        psql.batch_execute("UPDATE users SET name = 'Ada Lovelace'").await.unwrap();
        everywhere(&members, "/data/0/user/name", "Ada Lovelace").await;
        everywhere(&path, "/owner/name", "Ada Lovelace").await;
        // Far more than are listed one by one.
        let many = "INSERT INTO users (id, email, name, password_hash) \
            SELECT gen_random_uuid(), 'u' || n || '@example.com', 'U', 'x' FROM generate_series(1, 2000) n; \
            UPDATE users SET name = 'Everybody'";
        psql.batch_execute(many).await.unwrap();
        everywhere(&members, "/data/0/user/name", "Everybody").await;

        psql.batch_execute("DELETE FROM members").await.unwrap();
        for instance in &cluster.instances {
            eventually("the removed member is out", OUT_OF_BAND, async || {
                (ada.at(instance).get(&path).await.status == 404).then_some(())
            })
            .await;
        }
        psql.batch_execute("TRUNCATE users CASCADE").await.unwrap();
        for instance in &cluster.instances {
            eventually("the deleted user is out", OUT_OF_BAND, async || {
                (ada.at(instance).get("/v1/users/me").await.status == 401).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_transactions_the_one_that_commits_later_is_heard_although_it_wrote_first() {
    for redis in [true, false] {
        let cluster = Cluster::start_with(1, if redis { &[] } else { &[("REDIS_URL", "")] }).await;
        let ada = cluster.instances[0].client().register("ada").await;
        let one = format!("/v1/workspaces/{}", ada.create_workspace("One").await);
        let other = format!("/v1/workspaces/{}", ada.create_workspace("Other").await);
        let (mut first, mut second) = (cluster.database.connect().await, cluster.database.connect().await);
        let seen = async |path: &str, name: &str| {
            eventually(name, OUT_OF_BAND, async || {
                (ada.get(path).await.field("/name") == name).then_some(())
            })
            .await;
        };
        seen(&one, "One").await;
        seen(&other, "Other").await;
        first.batch_execute("BEGIN; UPDATE workspaces SET name = 'One!' WHERE slug = 'one'").await.unwrap();
        second.batch_execute("UPDATE workspaces SET name = 'Other!' WHERE slug = 'other'").await.unwrap();
        seen(&other, "Other!").await;
        seen(&one, "One").await;
        first.batch_execute("COMMIT").await.unwrap();
        seen(&one, "One!").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_writer_announced_is_not_announced_again_and_old_rows_go() {
    let cluster = Cluster::start(1).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let path = format!("/v1/workspaces/{}", ada.create_workspace("0").await);
    let mut psql = cluster.database.connect().await;
    #[derive(QueryableByName)]
    struct Count {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        count: i64,
    }
    eventually("all rows are marked", Duration::from_secs(5), async || {
        let mut connection = cluster.database.connect().await;
        let unmarked = sql_query("SELECT count(*) AS count FROM cache_journal WHERE NOT relayed");
        let Count { count } = unmarked.get_result(&mut connection).await.unwrap();
        (count == 0).then_some(())
    })
    .await;
    let relayed =
        cluster.instances[0].metric("lockstep_cache_invalidations_total", &["source=\"relay\""]).await;
    ada.patch(&path, json!({"name": "1"})).await.expect(200);
    ada.get(&path).await.expect(200);
    eventually("the row is marked", Duration::from_secs(5), async || {
        let mut connection = cluster.database.connect().await;
        let unmarked = sql_query("SELECT count(*) AS count FROM cache_journal WHERE NOT relayed");
        let Count { count } = unmarked.get_result(&mut connection).await.unwrap();
        (count == 0).then_some(())
    })
    .await;
    let after =
        cluster.instances[0].metric("lockstep_cache_invalidations_total", &["source=\"relay\""]).await;
    assert!((after - relayed).abs() < f64::EPSILON, "the relay has announced it again");
    assert!(ada.get(&path).await.header("cache-status").starts_with("moka; hit"));

    psql.batch_execute("UPDATE cache_journal SET written_at = now() - interval '1 hour'").await.unwrap();
    let journal = lockstep::models::journal::JournalRow::prune(&mut psql, 15, 24 * 60).await.unwrap();
    assert!(journal > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_dies_after_its_commit_leaves_nothing_stale_behind() {
    let mut cluster = Cluster::start(2).await;
    let ada = cluster.instances[1].client().register("ada").await;
    let path = format!("/v1/workspaces/{}", ada.create_workspace("0").await);
    for round in 1..=5 {
        ada.get(&path).await.expect(200);
        // Writes without end, and a writer that is killed among them.
        let at_a = ada.at(&cluster.instances[0]);
        let writing = tokio::spawn({
            let path = path.clone();
            async move {
                for number in 0.. {
                    let patch = json!({"name": format!("{round}-{number}")});
                    let request = at_a.request(reqwest::Method::PATCH, &path).json(&patch);
                    if request.send().await.is_err() {
                        return;
                    }
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(rand::random_range(100..250))).await;
        cluster.instances[0].signal("KILL");
        writing.await.unwrap();

        let mut psql = cluster.database.connect().await;
        let name = sql_query("SELECT name AS changes FROM workspaces");
        let Recorded { changes: name } = name.get_result(&mut psql).await.unwrap();
        eventually("B shows the last committed name", OUT_OF_BAND, async || {
            (ada.get(&path).await.field("/name") == name).then_some(())
        })
        .await;
        cluster.instances[0] = Instance::start(&cluster.settings).await;
    }
}

/// A Redis that was replaced may go on serving those who have not noticed.
#[tokio::test(flavor = "multi_thread")]
async fn instances_on_two_different_redis_hear_of_each_other_by_the_journal() {
    let cluster = Cluster::start(1).await;
    let other_redis = PrivateRedis::start().await;
    let mut settings = cluster.settings.clone();
    settings.retain(|(name, _)| name != "REDIS_URL");
    settings.push(("REDIS_URL".to_owned(), other_redis.url.clone()));
    let (a, b) = (&cluster.instances[0], &Instance::start(&settings).await);
    let ada = a.client().register("ada").await;
    let path = format!("/v1/workspaces/{}", ada.create_workspace("0").await);
    for (round, (writer, reader)) in [(a, b), (b, a), (a, b), (b, a)].into_iter().enumerate() {
        let name = format!("{}", round + 1);
        // Both hold what was there before, in both tiers.
        for instance in [a, b] {
            eventually("an L1 hit", Duration::from_secs(5), async || {
                ada.at(instance).get(&path).await.expect(200).is_l1_hit().then_some(())
            })
            .await;
        }
        let written = ada.at(writer).patch(&path, json!({"name": name})).await.expect(200);
        let with_token = ada.at(reader).after(&written).get(&path).await.expect(200);
        assert_eq!(with_token.field("/name"), name);
        eventually("the other side shows it", OUT_OF_BAND, async || {
            (ada.at(reader).get(&path).await.field("/name") == name).then_some(())
        })
        .await;
    }
}
