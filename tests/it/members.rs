//! Members: who comes, who goes, who may decide that, and that everybody knows at once.

use std::{collections::HashSet, time::Duration};

use chrono::{DateTime, Utc};
use diesel_async::SimpleAsyncConnection as _;
use serde_json::{Value, json};

use crate::support::{
    Client, Cluster, Reply,
    client::{announced, email},
    eventually,
};

fn path_of(workspace: &str) -> String {
    format!("/v1/workspaces/{workspace}")
}

fn members_of(workspace: &str) -> String {
    format!("/v1/workspaces/{workspace}/members")
}

fn membership(workspace: &str, user: &Client) -> String {
    format!("/v1/workspaces/{workspace}/members/{}", user.user_id)
}

async fn set_role(actor: &Client, workspace: &str, user: &Client, role: &str) -> Reply {
    actor.patch(&membership(workspace, user), json!({ "role": role })).await
}

/// Everybody's role, owners first, as one text.
async fn roles(viewer: &Client, workspace: &str) -> Vec<String> {
    let pages = viewer.walk(&members_of(workspace)).await;
    let role = |member: &Value| format!("{}: {}", member["user"]["name"], member["role"]).replace('"', "");
    pages.iter().flatten().map(role).collect()
}

/// A workspace with one user of each role, called by it.
struct Team {
    workspace: String,
    owner: Client,
    admin: Client,
    member: Client,
    guest: Client,
    stranger: Client,
}

impl Team {
    async fn assemble(cluster: &Cluster) -> Self {
        let nobody = cluster.instances[0].client();
        let owner = nobody.register("owner").await;
        let team = Self {
            workspace: owner.create_workspace("Team").await,
            owner,
            admin: nobody.register("admin").await,
            member: nobody.register("member").await,
            guest: nobody.register("guest").await,
            stranger: nobody.register("stranger").await,
        };
        for (user, role) in [(&team.admin, "admin"), (&team.member, "member"), (&team.guest, "guest")] {
            team.owner.add_member(&team.workspace, user, role).await;
        }
        team
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_added_by_id_or_by_address() {
    let cluster = Cluster::start(1).await;
    let instance = &cluster.instances[0];
    let nobody = instance.client();
    let ada = nobody.register("ada").await;
    let (bob, cleo) = (nobody.register("bob").await, nobody.register("cleo").await);
    let dora = nobody.register("dora").await;
    let home = ada.create_workspace("Home").await;

    let added =
        ada.post(&members_of(&home), json!({"user_id": bob.user_id, "role": "guest"})).await.expect(201);
    let location = format!("{}{}", instance.url, membership(&home, &bob));
    assert_eq!(added.header("location"), location);
    assert!(!added.header("consistency-token").is_empty());
    let member = added.json();
    assert_eq!(member["object"], "member");
    assert_eq!((&member["id"], &member["workspace_id"]), (&json!(bob.user_id), &json!(home)));
    assert_eq!((&member["role"], &member["version"]), (&json!("guest"), &json!(1)));
    let person = json!({"id": bob.user_id, "name": "bob", "display_name": "bob", "avatar_url": null});
    assert_eq!(member["user"], person);
    for time in ["joined_at", "created_at", "updated_at"] {
        assert!(member[time].as_str().unwrap().ends_with('Z'), "{time} in {member}");
    }
    let read = bob.after(&added).get(&membership(&home, &bob)).await.expect(200);
    assert_eq!((read.json(), read.header("etag")), (member, added.header("etag")));

    let by_address = json!({"email": " Cleo@EXAMPLE.com", "role": "admin"});
    let added = ada.post(&members_of(&home), by_address).await.expect(201);
    assert_eq!((added.field("/id"), added.field("/role")), (cleo.user_id.clone(), "admin".to_owned()));
    let added = cleo.post(&members_of(&home), json!({"user_id": dora.user_id})).await.expect(201);
    assert_eq!(added.field("/role"), "member", "unless another role is asked for");
    for again in [json!({"user_id": bob.user_id, "role": "admin"}), json!({"email": email("ada")})] {
        ada.post(&members_of(&home), again).await.expect_problem(409, "conflict");
    }
    let present = roles(&bob.after(&added), &home).await;
    assert_eq!(present, ["ada: owner", "bob: guest", "cleo: admin", "dora: member"]);
    let workspace = ada.after(&added).get(&path_of(&home)).await.expect(200);
    assert_eq!(workspace.json()["member_count"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_somebody_known_can_be_added_and_only_as_something_known() {
    let cluster = Cluster::start(1).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let home = ada.create_workspace("Home").await;
    let nobody = "0197c0de-0000-7000-8000-000000000000";
    let refused = [
        (json!({"user_id": nobody}), "#/user_id"),
        (json!({"user_id": home}), "#/user_id"),
        (json!({"user_id": "bob"}), "#/user_id"),
        (json!({"user_id": 5}), "#/user_id"),
        (json!({"email": "nobody@example.com"}), "#/email"),
        (json!({"email": "bob"}), "#/email"),
        (json!({"email": "b\u{0}b@example.com"}), "#/email"),
        (json!({}), "#"),
        (json!({"role": "guest"}), "#"),
        (json!({"user_id": null, "email": null}), "#"),
        (json!({"user_id": ada.user_id, "email": email("ada")}), "#"),
        (json!({"email": email("ada"), "role": "king"}), "#/role"),
        (json!({"email": email("ada"), "role": "Owner"}), "#/role"),
        (json!({"email": email("ada"), "role": null}), "#/role"),
        (json!({"email": email("ada"), "role": {"owner": null}}), "#/role"),
        (json!([ada.user_id]), "#"),
    ];
    for (body, pointer) in refused {
        let reply = ada.post(&members_of(&home), body.clone()).await;
        assert_eq!(reply.status, 422, "{body}: {reply:?}");
        let reply = reply.expect_problem(422, "validation_error");
        assert_eq!(reply.field("/errors/0/pointer"), pointer, "{body}: {reply:?}");
    }
    let unknown = json!({"email": email("ada"), "rank": "guest"});
    ada.post(&members_of(&home), unknown).await.expect_problem(422, "validation_error");
    for patch in
        [json!({"role": null}), json!({"role": "king"}), json!({"role": 1}), json!({"user_id": nobody})]
    {
        let reply = ada.patch(&membership(&home, &ada), patch).await;
        reply.expect_problem(422, "validation_error");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn admins_manage_members_but_never_owners() {
    let cluster = Cluster::start(1).await;
    let team = Team::assemble(&cluster).await;
    let Team { workspace, owner, admin, member, guest, stranger } = &team;

    // Neither make one,
    let as_owner = json!({"user_id": stranger.user_id, "role": "owner"});
    admin.post(&members_of(workspace), as_owner.clone()).await.expect_problem(403, "forbidden");
    set_role(admin, workspace, member, "owner").await.expect_problem(403, "forbidden");
    set_role(admin, workspace, admin, "owner").await.expect_problem(403, "forbidden");
    // nor unmake one, be there two of them.
    owner.post(&members_of(workspace), as_owner).await.expect(201);
    for role in ["admin", "member", "guest"] {
        set_role(admin, workspace, stranger, role).await.expect_problem(403, "forbidden");
    }
    admin.delete(&membership(workspace, stranger)).await.expect_problem(403, "forbidden");
    set_role(admin, workspace, owner, "owner").await.expect(200);

    // All else they may.
    let changed = set_role(admin, workspace, guest, "member").await.expect(200);
    assert_eq!((changed.field("/role"), changed.field("/version")), ("member".to_owned(), "2".to_owned()));
    let same = set_role(admin, workspace, guest, "member").await.expect(200);
    assert_eq!(same.json(), changed.json(), "the same role again changes nothing");
    let empty = admin.patch(&membership(workspace, guest), json!({})).await.expect(200);
    assert_eq!(empty.json(), changed.json());
    set_role(admin, workspace, member, "admin").await.expect(200);
    set_role(admin, workspace, member, "guest").await.expect(200);
    admin.delete(&membership(workspace, guest)).await.expect(204);
    admin.delete(&membership(workspace, guest)).await.expect_problem(404, "not_found");
    set_role(admin, workspace, guest, "guest").await.expect_problem(404, "not_found");
    // Members and guests may not.
    for role in ["member", "guest"] {
        let write = set_role(owner, workspace, member, role).await.expect(200);
        let member = member.after(&write);
        let body = json!({"user_id": guest.user_id});
        member.post(&members_of(workspace), body).await.expect_problem(403, "forbidden");
        set_role(&member, workspace, &member, "admin").await.expect_problem(403, "forbidden");
        set_role(&member, workspace, admin, "guest").await.expect_problem(403, "forbidden");
        member.delete(&membership(workspace, admin)).await.expect_problem(403, "forbidden");
    }
    let write = set_role(admin, workspace, admin, "member").await.expect(200);
    let left = set_role(&admin.after(&write), workspace, guest, "guest").await;
    left.expect_problem(403, "forbidden");
    assert_eq!(
        roles(&owner.after(&write), workspace).await,
        ["owner: owner", "admin: member", "member: guest", "stranger: owner"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_and_members_read_all_of_a_workspace() {
    let cluster = Cluster::start(1).await;
    let team = Team::assemble(&cluster).await;
    let Team { workspace, owner, admin, member, guest, stranger } = &team;
    let paths = [path_of(workspace), members_of(workspace), membership(workspace, owner)];
    announced(&cluster.database).await;
    for path in &paths {
        let seen = owner.get_cached(path).await;
        for user in [admin, member, guest] {
            let reply = user.get(path).await.expect(200);
            assert_eq!((&reply.text, reply.header("etag")), (&seen.text, seen.header("etag")));
            // Cached once for all who may see it.
            assert!(reply.is_l1_hit(), "{reply:?}");
        }
        stranger.get(path).await.expect_problem(404, "not_found");
    }
    guest.get(&membership(workspace, stranger)).await.expect_problem(404, "not_found");
    let everybody = ["owner: owner", "admin: admin", "member: member", "guest: guest"];
    assert_eq!(roles(guest, workspace).await, everybody);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_owner_can_neither_leave_nor_be_demoted() {
    let cluster = Cluster::start(1).await;
    let team = Team::assemble(&cluster).await;
    let Team { workspace, owner, admin, .. } = &team;
    let own = membership(workspace, owner);
    for role in ["admin", "member", "guest"] {
        set_role(owner, workspace, owner, role).await.expect_problem(409, "last_owner");
    }
    owner.delete(&own).await.expect_problem(409, "last_owner");
    set_role(owner, workspace, owner, "owner").await.expect(200);

    set_role(owner, workspace, admin, "owner").await.expect(200);
    set_role(admin, workspace, owner, "guest").await.expect(200);
    owner.get(&path_of(workspace)).await.expect(200);
    set_role(admin, workspace, admin, "guest").await.expect_problem(409, "last_owner");
    admin.delete(&membership(workspace, admin)).await.expect_problem(409, "last_owner");
    set_role(admin, workspace, owner, "owner").await.expect(200);
    let write = admin.delete(&membership(workspace, admin)).await.expect(204);
    owner.delete(&own).await.expect_problem(409, "last_owner");
    let workspace = owner.after(&write).get(&path_of(workspace)).await.expect(200);
    assert_eq!(
        (workspace.field("/owner/name"), workspace.field("/member_count")),
        ("owner".into(), "3".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_owners_who_demote_or_remove_each_other_at_once_one_stays() {
    let cluster = Cluster::start(2).await;
    let a = cluster.instances[0].client();
    let (ada, bob) = (a.register("ada").await, a.register("bob").await);
    let bob = bob.at(&cluster.instances[1]);
    let workspace = ada.create_workspace("Home").await;
    ada.add_member(&workspace, &bob, "owner").await;
    let (of_ada, of_bob) = (membership(&workspace, &ada), membership(&workspace, &bob));
    for round in 0..8 {
        let demote = || json!({"role": "admin"});
        let (one, other) = match round % 4 {
            0 => tokio::join!(ada.patch(&of_bob, demote()), bob.patch(&of_ada, demote())),
            1 => tokio::join!(ada.patch(&of_ada, demote()), bob.patch(&of_bob, demote())),
            2 => tokio::join!(ada.delete(&of_bob), bob.delete(&of_ada)),
            _ => tokio::join!(ada.delete(&of_ada), bob.delete(&of_bob)),
        };
        let succeeded = [&one, &other].map(|reply| reply.status < 300);
        assert!(succeeded[0] != succeeded[1], "round {round}: {one:?}\n{other:?}");
        let (won, lost) = if succeeded[0] { (one, other) } else { (other, one) };
        // It depends on what the loser still was when it looked.
        assert!([403, 404, 409].contains(&lost.status), "round {round}: {lost:?}");

        let mut owners = Vec::new();
        for user in [&ada, &bob] {
            let own = user.after(&won).get(&membership(&workspace, user)).await;
            if own.status == 200 && own.json()["role"] == "owner" {
                owners.push(user);
            }
        }
        assert_eq!(owners.len(), 1, "round {round}");
        let other = if owners[0].user_id == ada.user_id { &bob } else { &ada };
        let body = json!({"user_id": other.user_id, "role": "owner"});
        let added = owners[0].post(&members_of(&workspace), body).await;
        if added.status != 201 {
            added.expect_problem(409, "conflict");
            set_role(owners[0], &workspace, other, "owner").await.expect(200);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_demoted_a_moment_ago_demotes_nobody_any_more() {
    let cluster = Cluster::start(2).await;
    let a = cluster.instances[0].client();
    let (ada, bob) = (a.register("ada").await, a.register("bob").await);
    let bob = bob.at(&cluster.instances[1]);
    // So that neither is the last one.
    let cleo = a.register("cleo").await;
    let workspace = ada.create_workspace("Home").await;
    for user in [&bob, &cleo] {
        ada.add_member(&workspace, user, "owner").await;
    }
    for round in 0..10 {
        let (of_ada, of_bob) = (membership(&workspace, &ada), membership(&workspace, &bob));
        let (one, other) = if round % 2 == 0 {
            tokio::join!(set_role(&ada, &workspace, &bob, "guest"), set_role(&bob, &workspace, &ada, "guest"))
        } else {
            tokio::join!(ada.delete(&of_bob), bob.delete(&of_ada))
        };
        let succeeded = [&one, &other].map(|reply| reply.status < 300);
        assert!(succeeded[0] != succeeded[1], "round {round}: {one:?}\n{other:?}");
        let lost = if succeeded[0] { (&other, &bob) } else { (&one, &ada) };
        assert!([403, 404].contains(&lost.0.status), "round {round}: {lost:?}", lost = lost.0);
        if round % 2 == 0 {
            set_role(&cleo, &workspace, lost.1, "owner").await.expect(200);
        } else {
            cleo.add_member(&workspace, lost.1, "owner").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_or_is_removed_is_out_at_once_on_every_instance() {
    let cluster = Cluster::start(2).await;
    let team = Team::assemble(&cluster).await;
    let Team { workspace, owner, admin, member, guest, .. } = &team;
    let unknown = owner.get(&path_of("0197c0de-0000-7000-8000-000000000000")).await.without_instance();
    let mut left = 4;
    let partings = [(guest, guest, true), (owner, member, false), (admin, admin, true)];
    for (actor, leaver, told) in partings {
        let paths = [path_of(workspace), members_of(workspace), membership(workspace, leaver)];
        for instance in &cluster.instances {
            for path in paths.iter().chain(&paths) {
                leaver.at(instance).get(path).await.expect(200);
            }
            assert_eq!(leaver.at(instance).walk("/v1/workspaces").await[0].len(), 1);
            let seen = owner.at(instance).get(&path_of(workspace)).await.expect(200);
            assert_eq!(seen.json()["member_count"], left);
            assert_eq!(roles(&owner.at(instance), workspace).await.len(), left);
        }

        let write = actor.delete(&membership(workspace, leaver)).await.expect(204);
        left -= 1;
        for instance in cluster.instances.iter().rev() {
            let mut leaver = leaver.at(instance);
            if told {
                leaver = leaver.after(&write);
            } else {
                eventually("the workspace is gone", Duration::from_secs(1), async || {
                    (leaver.get(&paths[0]).await.status == 404).then_some(())
                })
                .await;
            }
            for path in &paths {
                let reply = leaver.get(path).await.expect_problem(404, "not_found");
                assert_eq!(reply.without_instance(), unknown);
            }
            leaver.patch(&paths[2], json!({"role": "owner"})).await.expect_problem(404, "not_found");
            leaver.delete(&paths[2]).await.expect_problem(404, "not_found");
            assert!(leaver.after(&write).walk("/v1/workspaces").await[0].is_empty());
            let owner = owner.at(instance).after(&write);
            let seen = owner.get(&path_of(workspace)).await.expect(200);
            assert_eq!(seen.json()["member_count"], left);
            assert_eq!(roles(&owner, workspace).await.len(), left);
            owner.get(&paths[2]).await.expect_problem(404, "not_found");
        }
    }
    // And in again.
    let write = owner.add_member(workspace, guest, "guest").await;
    for instance in &cluster.instances {
        guest.at(instance).after(&write).get(&path_of(workspace)).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_through_the_list_meets_every_member_once_though_all_joined_at_the_same_time() {
    let cluster = Cluster::start(1).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let home = ada.create_workspace("Home").await;
    let join = format!(
        "WITH people AS (
            INSERT INTO users (id, email, name, password_hash)
            SELECT gen_random_uuid(), 'p' || n || '@example.com', 'p' || n, '' FROM generate_series(1, 120) AS n
            RETURNING id
        )
        INSERT INTO members (workspace_id, user_id, role) SELECT '{home}', id, 'guest' FROM people"
    );
    cluster.database.connect().await.batch_execute(&join).await.unwrap();

    for (query, expected) in
        [("", vec![50, 50, 21]), ("?limit=40", vec![40, 40, 40, 1]), ("?limit=100", vec![100, 21])]
    {
        let pages = ada.walk(&format!("{}{query}", members_of(&home))).await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), expected, "{query}");
        let all: Vec<_> = pages.iter().flatten().collect();
        let ids: HashSet<_> = all.iter().map(|member| member["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 121, "{query}");
        assert_eq!(all[0]["user"]["name"], "ada");
        let joined = |member: &Value| member["joined_at"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
        let order = |member: &&Value| (joined(member), member["id"].to_string());
        assert!(all.is_sorted_by_key(order), "{query}");
    }
    let page = ada.get(&format!("{}?limit=2&x=y", members_of(&home))).await.expect(200);
    assert!(page.header("link").contains("/members?limit=2&x=y&cursor="), "{page:?}");
}
