//! What lets somebody read in a workspace, his session and his role, is one entry of the cache. It ends with either.

use std::time::Duration;

use serde_json::json;

use crate::support::{Client, Cluster, eventually};

/// Waits until a read is refused so, within what is promised.
async fn is_soon_refused(client: &Client, path: &str, status: u16) {
    eventually(&format!("{path} is {status}"), Duration::from_secs(2), async || {
        (client.get(path).await.status == status).then_some(())
    })
    .await;
}

async fn log_out(client: &Client) {
    client.post("/v1/auth/logout", json!({ "refresh_token": client.refresh_token })).await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_in_a_workspace_is_refused_on_all_instances_once_his_session_or_his_membership_has_ended() {
    let cluster = Cluster::start(2).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    let ada = a.client().register("ada").await;
    let [bob, cleo] = [a.client().register("bob").await, a.client().register("cleo").await];
    let workspace = ada.create_workspace("Research").await;
    for person in [&bob, &cleo] {
        ada.add_member(&workspace, person, "member").await;
    }
    let path = format!("/v1/workspaces/{workspace}");
    for person in [&bob, &cleo] {
        person.get_cached(&path).await;
        person.at(b).get_cached(&path).await;
    }

    log_out(&bob).await;
    assert_eq!(bob.get(&path).await.status, 401);
    is_soon_refused(&bob.at(b), &path, 401).await;
    // Of the same person another session goes on.
    let again = b.client().log_in("bob").await;
    for instance in &cluster.instances {
        again.at(instance).get(&path).await.expect(200);
    }

    ada.delete(&format!("{path}/members/{}", cleo.user_id)).await.expect(204);
    assert_eq!(cleo.get(&path).await.status, 404);
    is_soon_refused(&cleo.at(b), &path, 404).await;
    // That she is no member is known by now. Whoever is not signed in is not told that either.
    log_out(&cleo).await;
    assert_eq!(cleo.get(&path).await.status, 401);
    is_soon_refused(&cleo.at(b), &path, 401).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_no_member_a_moment_ago_reads_as_soon_as_he_is_one() {
    let cluster = Cluster::start(2).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    let (ada, bob) = (a.client().register("ada").await, b.client().register("bob").await);
    let workspace = ada.create_workspace("Research").await;
    let path = format!("/v1/workspaces/{workspace}");
    for _ in 0..2 {
        bob.get(&path).await.expect_problem(404, "not_found");
    }
    ada.add_member(&workspace, &bob, "guest").await;
    eventually("he reads here", Duration::from_secs(2), async || {
        (bob.get(&path).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_known_to_be_signed_in_no_more_causes_no_loads_whatever_he_names() {
    let cluster = Cluster::start(1).await;
    let instance = &cluster.instances[0];
    let ada = instance.client().register("ada").await;
    ada.get("/v1/users/me").await.expect(200);
    log_out(&ada).await;
    let loads = async || instance.metric("lockstep_cache_loads_total", &[]).await;
    eventually("that is known", Duration::from_secs(5), async || {
        let before = loads().await;
        assert_eq!(ada.get("/v1/users/me").await.status, 401);
        (loads().await <= before).then_some(())
    })
    .await;
    let before = loads().await;
    for _ in 0..10 {
        let path = format!("/v1/workspaces/{}", uuid::Uuid::new_v4());
        assert_eq!(ada.get(&path).await.status, 401);
    }
    // The monitor may have loaded the state once more.
    assert!(loads().await < before + 10.0);
}
