//! Who is in a channel: who comes, who goes, who may decide that.

use diesel_async::SimpleAsyncConnection as _;
use serde_json::json;

use super::seat;
use crate::support::{Client, Cluster, client::announced};

/// The names of those in a channel.
async fn seated(viewer: &Client, channel: &str) -> Vec<String> {
    let pages = viewer.walk(&format!("{channel}/members")).await;
    pages.iter().flatten().map(|member| member["user"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn people_come_into_a_channel_and_leave_it() {
    let cluster = Cluster::start(2).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    let nobody = a.client();
    let (ada, bob) = (nobody.register("ada").await, nobody.register("bob").await);
    let (cleo, guest) = (nobody.register("cleo").await, nobody.register("guest").await);
    let stranger = nobody.register("stranger").await;
    let workspace = ada.create_workspace("Team").await;
    for (user, role) in [(&bob, "member"), (&cleo, "member"), (&guest, "guest")] {
        ada.add_member(&workspace, user, role).await;
    }
    let path = bob.create_channel(&workspace, "General", false).await;
    assert_eq!(seated(&ada, &path).await, ["bob"], "who made it");

    // Anybody takes a seat of his own, and twice it is the same one.
    let first = cleo.put(&seat(&path, &cleo)).await.expect(201);
    assert!(first.header("location").ends_with(&seat(&path, &cleo)));
    let member = first.json();
    assert_eq!((&member["object"], &member["version"]), (&json!("channel_member"), &json!(1)));
    assert_eq!((&member["id"], &member["workspace_id"]), (&json!(cleo.user_id), &json!(workspace)));
    assert!(path.ends_with(member["channel_id"].as_str().unwrap()));
    assert_eq!((&member["user"]["name"], &member["joined_at"]), (&json!("cleo"), &member["created_at"]));
    let again = bob.at(b).put(&seat(&path, &cleo)).await.expect(200);
    assert_eq!((&again.text, again.header("etag")), (&first.text, first.header("etag")));
    let read = bob.at(b).after(&first).get(&seat(&path, &cleo)).await.expect(200);
    assert_eq!((&read.text, read.header("etag")), (&first.text, first.header("etag")));
    // Guests too, but they bring in nobody else.
    guest.put(&seat(&path, &ada)).await.expect_problem(403, "forbidden");
    guest.put(&seat(&path, &guest)).await.expect(201);
    let put = cleo.put(&seat(&path, &ada)).await.expect(201);
    for client in [&cleo, &cleo.at(b).after(&put)] {
        assert_eq!(seated(client, &path).await, ["bob", "cleo", "guest", "ada"]);
    }
    for nobody_here in
        [seat(&path, &stranger), format!("{path}/members/{workspace}"), format!("{path}/members/x")]
    {
        bob.put(&nobody_here).await.expect_problem(404, "not_found");
        bob.delete(&nobody_here).await.expect_problem(404, "not_found");
        bob.get(&nobody_here).await.expect_problem(404, "not_found");
    }
    stranger.put(&seat(&path, &stranger)).await.expect_problem(404, "not_found");

    // Who made the channel and admins take people out of it; others leave.
    cleo.delete(&seat(&path, &bob)).await.expect_problem(403, "forbidden");
    guest.delete(&seat(&path, &cleo)).await.expect_problem(403, "forbidden");
    cleo.delete(&seat(&path, &cleo)).await.expect(204);
    cleo.delete(&seat(&path, &cleo)).await.expect_problem(404, "not_found");
    bob.delete(&seat(&path, &guest)).await.expect(204);
    let gone = ada.delete(&seat(&path, &bob)).await.expect(204);
    for client in [&ada, &bob.at(b).after(&gone)] {
        assert_eq!(seated(client, &path).await, ["ada"]);
        client.get(&seat(&path, &bob)).await.expect_problem(404, "not_found");
    }
    // Of a public channel the last one may leave as well.
    ada.delete(&seat(&path, &ada)).await.expect(204);
    assert_eq!(seated(&bob, &path).await, [""; 0]);
    bob.put(&seat(&path, &bob)).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_member_of_a_private_channel_cannot_leave() {
    let cluster = Cluster::start(2).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    let (ada, bob) = (a.client().register("ada").await, a.client().register("bob").await);
    let workspace = ada.create_workspace("Team").await;
    ada.add_member(&workspace, &bob, "member").await;
    let path = bob.create_channel(&workspace, "secret", true).await;
    bob.delete(&seat(&path, &bob)).await.expect_problem(409, "conflict");
    assert_eq!(seated(&bob, &path).await, ["bob"]);

    // Of two who leave at once, one stays.
    let (mut inside, mut other) = (&bob, &ada);
    for round in 0..6 {
        inside.put(&seat(&path, other)).await.expect(201);
        let (at_a, at_b) = (inside.at(a), other.at(b));
        let (one, two) = (
            async || at_a.delete(&seat(&path, inside)).await,
            async || at_b.delete(&seat(&path, other)).await,
        );
        let (one, two) = tokio::join!(one(), two());
        let mut statuses = [one.status, two.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [204, 409], "round {round}: {one:?}\n{two:?}");
        if one.status == 204 {
            (inside, other) = (other, inside);
        }
        let gone = if one.status == 204 { one } else { two };
        assert_eq!(seated(&inside.after(&gone), &path).await.len(), 1);
        other.after(&gone).get(&path).await.expect_problem(404, "not_found");
    }
    // Deleting is another way out, and so is a door that is open.
    inside.patch(&path, json!({"is_private": false})).await.expect(200);
    inside.delete(&seat(&path, inside)).await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_meets_everybody_in_a_channel_once_and_a_new_seat_spares_other_channels() {
    let cluster = Cluster::start(2).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    let (ada, bob) = (a.client().register("ada").await, a.client().register("bob").await);
    let workspace = ada.create_workspace("Team").await;
    ada.add_member(&workspace, &bob, "member").await;
    let path = ada.create_channel(&workspace, "General", false).await;
    let other = ada.create_channel(&workspace, "Other", false).await;
    let channel = path.rsplit('/').next().unwrap();
    // All at the same time.
    let join = format!(
        "WITH people AS (
            INSERT INTO users (id, email, name, password_hash)
            SELECT gen_random_uuid(), 'p' || n || '@example.com', 'p' || n, '' FROM generate_series(1, 25) AS n
            RETURNING id
        ), team AS (
            INSERT INTO members (workspace_id, user_id, role) SELECT '{workspace}', id, 'guest' FROM people
            RETURNING user_id
        )
        INSERT INTO channel_members (workspace_id, channel_id, user_id)
        SELECT '{workspace}', '{channel}', user_id FROM team"
    );
    cluster.database.connect().await.batch_execute(&join).await.unwrap();
    announced(&cluster.database).await;
    let pages = ada.walk(&format!("{path}/members?limit=10")).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 6]);
    let mut ids: Vec<_> = pages.iter().flatten().map(|member| member["id"].to_string()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 26);
    let cursor = ada.get(&format!("{path}/members?limit=10")).await.field("/next_cursor");
    let elsewhere = format!("{other}/members?cursor={cursor}");
    ada.get(&elsewhere).await.expect_problem(400, "invalid_cursor");

    for client in [&ada, &ada.at(b)] {
        for path in [&path, &other] {
            client.get_cached(path).await;
            client.get_cached(&format!("{path}/members")).await;
            client.get_cached(&format!("{path}/messages")).await;
        }
    }
    let put = ada.put(&seat(&path, &bob)).await.expect(201);
    for client in [&ada, &ada.at(b).after(&put)] {
        for spared in [&path, &other, &format!("{other}/members"), &format!("{path}/messages")] {
            assert!(client.get(spared).await.is_l1_hit(), "{spared}");
        }
        let members = client.get(&format!("{path}/members")).await.expect(200);
        assert!(members.text.contains(&bob.user_id) && !members.is_l1_hit(), "{members:?}");
    }
}
