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
async fn a_role_that_was_changed_elsewhere_is_another_one_here_and_a_session_goes_on() {
    let cluster = Cluster::start(2).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    let (ada, bob) = (a.client().register("ada").await, b.client().register("bob").await);
    let workspace = ada.create_workspace("Research").await;
    let member = format!("/v1/workspaces/{workspace}/members/{}", bob.user_id);
    for role in ["guest", "admin"] {
        if role == "guest" {
            ada.add_member(&workspace, &bob, role).await;
        } else {
            ada.patch(&member, json!({ "role": role })).await.expect(200);
        }
        eventually("the role is known here", Duration::from_secs(2), async || {
            let seen = bob.get(&member).await;
            (seen.status == 200 && seen.json()["role"] == role).then_some(())
        })
        .await;
    }
}
