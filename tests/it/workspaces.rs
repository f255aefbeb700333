//! Workspaces: making, listing, reading, changing and deleting them.

use std::collections::HashSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, Cluster, Reply};

const ALL: &str = "/v1/workspaces";
const NOBODYS: &str = "0197c0de-0000-7000-8000-000000000000";

fn path_of(workspace: &str) -> String {
    format!("/v1/workspaces/{workspace}")
}

async fn get_unless(client: &Client, path: &str, etags: &str) -> Reply {
    client.send(client.request(Method::GET, path).header("if-none-match", etags)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_workspace_says_where_it_is_and_belongs_to_its_maker() {
    let cluster = Cluster::start(1).await;
    let instance = &cluster.instances[0];
    let ada = instance.client().register("ada").await;
    let body = json!({"name": " Zürich & Büro ", "description": "Two\nlines"});
    let made = ada.post(ALL, body).await.expect(201);
    let id = made.field("/id");
    assert_eq!(made.header("location"), format!("{}/v1/workspaces/{id}", instance.url));
    assert_eq!(made.header("content-type"), "application/json");
    assert_eq!(made.header("cache-control"), "private, no-cache");
    assert!(!made.header("consistency-token").is_empty());
    let workspace = made.json();
    assert_eq!(workspace["object"], "workspace");
    assert_eq!(workspace["name"], "Zürich & Büro");
    assert_eq!(workspace["slug"], "zurich-buro");
    assert_eq!(workspace["description"], "Two\nlines");
    assert_eq!((&workspace["version"], &workspace["member_count"]), (&json!(1), &json!(1)));
    let owner = json!({"id": ada.user_id, "name": "ada", "display_name": "ada", "avatar_url": null});
    assert_eq!(workspace["owner"], owner);
    for time in ["created_at", "updated_at"] {
        let text = workspace[time].as_str().unwrap();
        assert!(text.ends_with('Z') && text.parse::<chrono::DateTime<chrono::Utc>>().is_ok(), "{text}");
    }

    let read = ada.after(&made).get(&path_of(&id)).await.expect(200);
    assert_eq!((read.json(), read.header("etag")), (workspace.clone(), made.header("etag")));
    assert!(made.header("etag").starts_with("\"1-"), "{made:?}");
    let membership = ada.get(&format!("{}/members/{}", path_of(&id), ada.user_id)).await.expect(200);
    assert_eq!(membership.json()["role"], "owner");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slug_is_unique_and_made_from_the_name_unless_it_is_chosen() {
    let cluster = Cluster::start(2).await;
    let nobody = cluster.instances[0].client();
    let (ada, bob) = (nobody.register("ada").await, nobody.register("bob").await);
    let bob = bob.at(&cluster.instances[1]);
    let first = ada.post(ALL, json!({"name": "Home"})).await.expect(201);
    assert_eq!(first.json()["slug"], "home");
    let second = bob.post(ALL, json!({"name": "Home"})).await.expect(201).field("/slug");
    let number = second.strip_prefix("home-").unwrap();
    assert!(!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()), "{second}");
    let odd = bob.post(ALL, json!({"name": "日本"})).await.expect(201);
    assert_eq!(odd.json()["slug"], "workspace");

    let chosen = json!({"name": "Home", "slug": "my-home", "description": null});
    let third = ada.post(ALL, chosen.clone()).await.expect(201);
    assert_eq!((&third.json()["slug"], &third.json()["description"]), (&json!("my-home"), &json!("")));
    bob.post(ALL, chosen).await.expect_problem(409, "conflict");
    // Of many at once one gets it.
    let wanted = || json!({"name": "Race", "slug": "race"});
    let (one, other) = tokio::join!(ada.post(ALL, wanted()), bob.post(ALL, wanted()));
    let (won, lost) = if one.status == 201 { (one, other) } else { (other, one) };
    won.expect(201);
    lost.expect_problem(409, "conflict");
    for slug in ["", "x", "Home", "my home", "-x-", "a".repeat(64).as_str()] {
        let reply = ada.post(ALL, json!({"name": "Home", "slug": slug})).await;
        let reply = reply.expect_problem(422, "validation_error");
        assert_eq!(reply.field("/errors/0/pointer"), "#/slug");
    }

    let path = path_of(&third.field("/id"));
    ada.patch(&path, json!({"name": "Mine", "slug": "home"})).await.expect_problem(409, "conflict");
    let kept = ada.patch(&path, json!({"slug": "my-home"})).await.expect(200);
    assert_eq!(kept.json()["name"], "Home", "a refused patch changes nothing");
    let moved = ada.patch(&path, json!({"slug": "new-home"})).await.expect(200);
    assert_eq!(moved.json()["slug"], "new-home");
    bob.post(ALL, json!({"name": "Home", "slug": "my-home"})).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_through_the_list_meets_every_workspace_once() {
    let cluster = Cluster::start(2).await;
    let nobody = cluster.instances[0].client();
    let (ada, bob) = (nobody.register("ada").await, nobody.register("bob").await);
    let empty = ada.get(ALL).await.expect(200);
    assert_eq!(empty.json(), json!({"data": [], "next_cursor": null, "has_more": false}));
    assert_eq!(empty.header("link"), "");
    let mut made = Vec::new();
    for number in 0..7 {
        made.push(ada.create_workspace(&format!("Workspace {number}")).await);
        bob.create_workspace("not Ada's").await;
    }
    let joined = bob.create_workspace("joined").await;
    let last_write = bob.add_member(&joined, &ada, "guest").await;
    made.push(joined);

    for instance in &cluster.instances {
        let ada = ada.at(instance).after(&last_write);
        let ids = |pages: &[Vec<Value>]| -> Vec<String> {
            pages.iter().flatten().map(|object| object["id"].as_str().unwrap().to_owned()).collect()
        };
        let sizes = |pages: &[Vec<Value>]| pages.iter().map(Vec::len).collect::<Vec<_>>();
        for (limit, expected) in
            [("1", vec![1; 8]), ("3", vec![3, 3, 2]), ("4", vec![4, 4]), ("8", vec![8]), ("100", vec![8])]
        {
            let pages = ada.walk(&format!("{ALL}?limit={limit}")).await;
            assert_eq!((ids(&pages), sizes(&pages)), (made.clone(), expected), "limit {limit}");
        }
        assert_eq!(ids(&ada.walk(ALL).await), made);
        for object in ada.walk(ALL).await.iter().flatten() {
            let alone = ada.get(&path_of(object["id"].as_str().unwrap())).await.expect(200);
            assert_eq!(&alone.json(), object, "a list shows what the object itself does");
        }
    }

    // What is made and left while somebody walks neither hides nor repeats what was there all the time.
    let (mut path, mut seen) = (format!("{ALL}?limit=2"), Vec::new());
    loop {
        let page = ada.get(&path).await.expect(200).json();
        seen.extend(page["data"].as_array().unwrap().iter().map(|object| object["id"].clone()));
        let first = seen[0].as_str().unwrap();
        if seen.len() == 2 {
            ada.delete(&path_of(first)).await.expect(204);
            ada.create_workspace("late").await;
        }
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("{ALL}?limit=2&cursor={cursor}");
    }
    assert_eq!(seen.len(), 9);
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_is_good_for_the_list_that_gave_it_and_as_it_was_given() {
    let cluster = Cluster::start(2).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    let (ada, bob) = (a.client().register("ada").await, a.client().register("bob").await);
    let home = ada.create_workspace("Home").await;
    let work = ada.create_workspace("Work").await;
    bob.create_workspace("Bob's").await;
    for workspace in [&home, &work] {
        ada.add_member(workspace, &bob, "member").await;
    }
    let members = |workspace: &str| format!("{}/members", path_of(workspace));
    let cursor =
        async |path: &str| ada.get(&format!("{path}?limit=1")).await.expect(200).field("/next_cursor");
    let of_list = cursor(ALL).await;
    let of_home = cursor(&members(&home)).await;

    let with = |path: &str, cursor: &str| format!("{path}?limit=1&cursor={cursor}");
    for (path, cursor) in [(ALL, &of_list), (&members(&home), &of_home)] {
        ada.at(b).get(&with(path, cursor)).await.expect(200);
        // The size of the page is for the reader to choose anew.
        ada.get(&format!("{path}?limit=7&cursor={cursor}")).await.expect(200);
    }
    let mut refused = vec![
        (&bob, with(ALL, &of_list)),
        (&ada, with(&members(&home), &of_list)),
        (&ada, with(ALL, &of_home)),
        (&ada, with(&members(&work), &of_home)),
        (&ada, with(ALL, "")),
        (&ada, with(ALL, "x")),
        (&ada, with(ALL, &of_list[1..])),
        (&ada, with(ALL, &of_list[..of_list.len() - 4])),
        (&ada, with(ALL, &format!("{of_list}AAAA"))),
        (&ada, with(ALL, &format!("{of_list}%3D"))),
        (&ada, with(ALL, "%FF%00")),
        (&ada, with(ALL, &home)),
        (&ada, with(ALL, &"A".repeat(5000))),
    ];
    for index in (0..of_list.len()).step_by(7).chain([of_list.len() - 1]) {
        let mut changed = of_list.clone().into_bytes();
        changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
        refused.push((&ada, with(ALL, &String::from_utf8(changed).unwrap())));
    }
    for (who, path) in refused {
        let reply = who.get(&path).await;
        assert_eq!(reply.status, 400, "{path}: {reply:?}");
        reply.expect_problem(400, "invalid_cursor");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_has_the_present_state_gets_a_304_with_all_that_matters_and_no_body() {
    let cluster = Cluster::start(2).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let mut home = ada.create_workspace("Home").await;
    ada.create_workspace("Work").await;
    home = path_of(&home);
    let paths = [
        home.clone(),
        format!("{ALL}?limit=1"),
        format!("{home}/members"),
        format!("{home}/members/{}", ada.user_id),
        "/v1/users/me".to_owned(),
    ];
    for instance in &cluster.instances {
        let ada = ada.at(instance);
        for path in &paths {
            let full = ada.get(path).await.expect(200);
            let etag = full.header("etag");
            let opaque = etag.trim_start_matches("W/");
            assert_eq!(
                etag.starts_with("W/"),
                full.json().get("data").is_some(),
                "only lists have weak ones"
            );
            let matching = [
                etag.to_owned(),
                opaque.to_owned(),
                format!("W/{opaque}"),
                format!("\"x\", {etag}"),
                format!("\"x\",{etag} , W/\"y\""),
                "*".to_owned(),
            ];
            for sent in matching {
                let reply = get_unless(&ada, path, &sent).await;
                assert_eq!((reply.status, &*reply.text), (304, ""), "{path} unless {sent}: {reply:?}");
                for name in ["etag", "vary", "cache-control", "link", "x-content-type-options"] {
                    assert_eq!(reply.header(name), full.header(name), "{name} of {path} unless {sent}");
                }
                assert_eq!(reply.header("content-type"), "");
                assert!(!reply.header("date").is_empty() && !reply.header("x-request-id").is_empty());
            }
            assert_eq!(full.header("cache-control"), "private, no-cache");
            assert_eq!(full.header("vary"), "Authorization, Accept, Accept-Encoding");
            let head = ada.request(Method::HEAD, path).header("if-none-match", etag);
            assert_eq!(ada.send(head).await.status, 304);
            // In several fields, which mean the same as one.
            let fields = ada.request(Method::GET, path).header("if-none-match", "\"x\"");
            assert_eq!(ada.send(fields.header("if-none-match", etag)).await.status, 304);
            for other in ["\"x\"", "W/\"x\"", "", opaque.trim_matches('"'), "\"*\"", "\"1\""] {
                get_unless(&ada, path, other).await.expect(200);
            }
        }
    }

    let old = ada.get(&home).await.expect(200).header("etag").to_owned();
    let write = ada.patch(&home, json!({"name": "New"})).await.expect(200);
    for instance in &cluster.instances {
        let ada = ada.at(instance).after(&write);
        assert_eq!(get_unless(&ada, &home, &old).await.expect(200).json()["name"], "New");
        get_unless(&ada, &home, write.header("etag")).await.expect(304);
    }
    // Not even the right tag lets anybody in.
    let eve = cluster.instances[0].client().register("eve").await;
    for sent in ["*", write.header("etag")] {
        get_unless(&eve, &home, sent).await.expect_problem(404, "not_found");
        get_unless(&cluster.instances[0].client(), &home, sent).await.expect_problem(401, "unauthenticated");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_and_admins_change_a_workspace_and_only_owners_delete_it() {
    let cluster = Cluster::start(1).await;
    let nobody = cluster.instances[0].client();
    let owner = nobody.register("owner").await;
    let path = path_of(&owner.create_workspace("Home").await);
    let mut others = Vec::new();
    for role in ["admin", "member", "guest"] {
        let user = nobody.register(role).await;
        owner.add_member(path.rsplit('/').next().unwrap(), &user, role).await;
        others.push(user);
    }
    let [admin, member, guest] = others.try_into().unwrap_or_else(|_| unreachable!());
    let stranger = nobody.register("stranger").await;

    let patched = admin.patch(&path, json!({"name": "House", "description": "big"})).await.expect(200);
    assert_eq!((&patched.json()["version"], &patched.json()["slug"]), (&json!(2), &json!("home")));
    assert!(patched.json()["updated_at"].as_str() > patched.json()["created_at"].as_str());
    let patched = owner.patch(&path, json!({"description": ""})).await.expect(200);
    assert_eq!(
        (&patched.json()["name"], &patched.json()["description"], &patched.json()["version"]),
        (&json!("House"), &json!(""), &json!(3))
    );
    let kept = owner.patch(&path, json!({})).await.expect(200);
    assert_eq!((kept.json(), kept.header("etag")), (patched.json(), patched.header("etag")));
    for (patch, pointer) in [
        (json!({"name": null}), "#/name"),
        (json!({"slug": null}), "#/slug"),
        (json!({"description": null}), "#/description"),
        (json!({"description": "x".repeat(2001)}), "#/description"),
    ] {
        let reply = owner.patch(&path, patch).await.expect_problem(422, "validation_error");
        assert_eq!(reply.field("/errors/0/pointer"), pointer);
    }
    for unknown in ["id", "owner", "member_count", "version"] {
        owner.patch(&path, json!({unknown: 1})).await.expect_problem(422, "validation_error");
    }

    for user in [&member, &guest] {
        user.get(&path).await.expect(200);
        user.patch(&path, json!({"name": "Mine"})).await.expect_problem(403, "forbidden");
        user.patch(&path, json!({})).await.expect_problem(403, "forbidden");
    }
    stranger.patch(&path, json!({"name": "Mine"})).await.expect_problem(404, "not_found");
    for user in [&admin, &member, &guest] {
        user.delete(&path).await.expect_problem(403, "forbidden");
    }
    stranger.delete(&path).await.expect_problem(404, "not_found");
    assert_eq!(owner.after(&kept).get(&path).await.expect(200).json(), patched.json());
    let deleted = owner.delete(&path).await.expect(204);
    assert!(deleted.text.is_empty() && !deleted.header("consistency-token").is_empty());
    owner.delete(&path).await.expect_problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_workspace_is_gone_at_once_for_all_who_were_in_it() {
    let cluster = Cluster::start(2).await;
    let a = cluster.instances[0].client();
    let owner = a.register("owner").await;
    let home = owner.create_workspace("Home").await;
    let kept = owner.create_workspace("Kept").await;
    let mut people = vec![owner.clone()];
    for role in ["admin", "member", "guest"] {
        let user = a.register(role).await;
        for workspace in [&home, &kept] {
            owner.add_member(workspace, &user, role).await;
        }
        people.push(user);
    }
    let paths = |user: &Client| {
        let members = format!("{}/members", path_of(&home));
        [path_of(&home), members.clone(), format!("{members}/{}", user.user_id)]
    };
    let mine = async |user: &Client| {
        let pages = user.walk(ALL).await;
        pages.iter().flatten().map(|object| object["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let both = vec![home.clone(), kept.clone()];
    for instance in &cluster.instances {
        for user in &people {
            // Twice: what is read the second time is in L1.
            for _ in 0..2 {
                for path in paths(user) {
                    user.at(instance).get(&path).await.expect(200);
                }
                assert_eq!(mine(&user.at(instance)).await, both);
            }
        }
    }

    let write = owner.delete(&path_of(&home)).await.expect(204);
    let unknown = owner.get(&path_of(NOBODYS)).await.without_instance();
    for instance in cluster.instances.iter().rev() {
        for user in &people {
            let user = user.at(instance).after(&write);
            for path in paths(&user) {
                let reply = user.get(&path).await.expect_problem(404, "not_found");
                assert_eq!(reply.without_instance(), unknown);
            }
            assert_eq!(mine(&user).await, std::slice::from_ref(&kept));
            user.get(&path_of(&kept)).await.expect(200);
        }
    }
    // A name is free again.
    people[3].post(ALL, json!({"name": "Home", "slug": "home"})).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_may_not_see_looks_like_what_does_not_exist() {
    let cluster = Cluster::start(1).await;
    let nobody = cluster.instances[0].client();
    let (ada, eve) = (nobody.register("ada").await, nobody.register("eve").await);
    let adas = ada.create_workspace("Home").await;
    let (me, body) = (&eve.user_id, json!({}));
    let mut bodies = HashSet::new();
    for workspace in [&*adas, NOBODYS, "home", "1", "%00", "%FF", "..%2f..", "nil", &adas[1..]] {
        let path = path_of(workspace);
        let members = format!("{path}/members");
        let replies = [
            eve.get(&path).await,
            eve.patch(&path, body.clone()).await,
            eve.delete(&path).await,
            eve.get(&members).await,
            eve.get(&format!("{members}?limit=5")).await,
            eve.post(&members, json!({"user_id": me})).await,
            eve.get(&format!("{members}/{}", ada.user_id)).await,
            eve.get(&format!("{members}/{me}")).await,
            eve.patch(&format!("{members}/{me}"), json!({"role": "owner"})).await,
            eve.delete(&format!("{members}/{me}")).await,
            eve.delete(&format!("{members}/{}", ada.user_id)).await,
        ];
        for reply in replies {
            let reply = reply.expect_problem(404, "not_found");
            bodies.insert(reply.without_instance().to_string());
        }
        for path in [&path, &members] {
            let reply = eve.head(path).await.expect(404);
            assert_eq!(reply.text, "");
        }
    }
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    // An id of one's own, but in the wrong place.
    let eves = eve.create_workspace("Eve's").await;
    for path in [path_of(&eve.user_id), format!("{}/members/{eves}", path_of(&eves))] {
        let reply = eve.get(&path).await.expect_problem(404, "not_found");
        assert!(bodies.contains(&reply.without_instance().to_string()));
    }
}
