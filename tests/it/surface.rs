//! What every request and every answer have in common, above all when something is wrong.

mod connections;

use std::time::Duration;

use diesel_async::SimpleAsyncConnection as _;
use reqwest::Method;
use serde_json::json;

use crate::support::{Client, Cluster, Reply, client::PASSWORD, eventually, openapi::Document};

const ME: &str = "/v1/users/me";
const JSON: &str = "application/json";

async fn send(client: &Client, method: &Method, path: &str, content_type: &str, body: Vec<u8>) -> Reply {
    let request = client.request(method.clone(), path).header("content-type", content_type);
    client.send(request.body(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_in_one_form_that_says_what_is_wrong() {
    let cluster = Cluster::start(1).await;
    let nobody = cluster.instances[0].client();
    let ada = nobody.register("ada").await;
    let home = ada.create_workspace("Home").await;
    let of_home = format!("/v1/workspaces/{home}");
    let members = format!("{of_home}/members");

    let not_json: &[&[u8]] = &[
        b"",
        b" ",
        b"{",
        b"{\"name\"",
        b"{\"name\": \"x\"",
        b"{\"name\": \"x\"} {}",
        b"{\"name\": \"x\",}",
        b"{'name': 'x'}",
        b"name=x",
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\0}\0",
        b"{\"name\": \"\xff\xfe\"}",
        b"{\"name\": \"\xed\xa0\x80\"}",
        b"{\"name\": \"\\ud800\"}",
        b"{\"name\": \"\0\"}",
        b"{\"name\": 1e999}",
        b"{\"name\": NaN}",
        b"\0",
    ];
    // Whatever is wrong with a body is told before anybody looks for the thing.
    let operations = Document::of(&ada).await.operations().into_iter();
    let takes_bodies = operations.filter_map(|operation| {
        let (_, required) = operation.body()?;
        let path = operation.path_with(|_| uuid::Uuid::now_v7().to_string());
        // Who may do it at all is known even before.
        (!path.starts_with("/v1/admin/")).then_some((operation.method, path, required))
    });
    for (method, path, required) in takes_bodies {
        let (method, path) = (&method, &*path);
        for body in not_json.iter().filter(|body| required || !body.is_empty()) {
            let reply = send(&ada, method, path, JSON, body.to_vec()).await;
            let text = String::from_utf8_lossy(body);
            assert_eq!(reply.status, 400, "{method} {path} {text}: {reply:?}");
            reply.expect_problem(400, "malformed_body");
        }
        let deep = format!("{{\"name\": {}", "[".repeat(100_000));
        let reply = send(&ada, method, path, JSON, deep.into()).await;
        reply.expect_problem(400, "malformed_body");
        for body in [
            "null",
            "[]",
            "[{}]",
            r#"["a", "b", "c"]"#,
            "5",
            "\"x\"",
            "true",
            r#"{"surplus": 1}"#,
            r#"{"": ""}"#,
        ] {
            let reply = send(&ada, method, path, JSON, body.into()).await;
            assert_eq!(reply.status, 422, "{method} {path} {body}: {reply:?}");
            let reply = reply.expect_problem(422, "validation_error");
            assert!(reply.field("/errors/0/pointer").starts_with('#'), "{reply:?}");
        }
    }

    let long = |count: usize| "x".repeat(count);
    let account = |member: &str, value: serde_json::Value| {
        let mut account = json!({"email": "eve@example.com", "password": PASSWORD, "name": "Eve"});
        account[member] = value;
        account
    };
    let invalid = [
        ("/v1/auth/register", account("email", json!("eve")), "#/email"),
        ("/v1/auth/register", account("email", json!("e\u{0}e@example.com")), "#/email"),
        ("/v1/auth/register", account("email", json!(format!("{}@example.com", long(250)))), "#/email"),
        ("/v1/auth/register", account("email", json!(5)), "#/email"),
        ("/v1/auth/register", account("password", json!("short")), "#/password"),
        ("/v1/auth/register", account("password", json!(long(129))), "#/password"),
        ("/v1/auth/register", account("password", json!("nul\u{0}nul\u{0}nul")), "#/password"),
        ("/v1/auth/register", account("password", json!(null)), "#/password"),
        ("/v1/auth/register", account("name", json!("")), "#/name"),
        ("/v1/auth/register", account("name", json!(long(101))), "#/name"),
        ("/v1/auth/register", account("name", json!("a\u{0}b")), "#/name"),
        ("/v1/auth/register", json!({"email": "eve@example.com", "password": PASSWORD}), "#"),
        ("/v1/auth/login", json!({"email": "ada@example.com"}), "#"),
        ("/v1/auth/login", json!({"email": ["ada@example.com"], "password": PASSWORD}), "#/email"),
        ("/v1/auth/refresh", json!({}), "#"),
        ("/v1/auth/refresh", json!({"refresh_token": 5}), "#/refresh_token"),
        ("/v1/auth/logout", json!({"refresh_token": {}}), "#/refresh_token"),
        ("/v1/auth/password", json!({"new_password": PASSWORD}), "#"),
        ("/v1/workspaces", json!({}), "#"),
        ("/v1/workspaces", json!({"name": 5}), "#/name"),
        ("/v1/workspaces", json!({"name": "  "}), "#/name"),
        ("/v1/workspaces", json!({"name": long(101)}), "#/name"),
        ("/v1/workspaces", json!({"name": "a\u{0}b"}), "#/name"),
        ("/v1/workspaces", json!({"name": "x", "slug": "a\u{0}b"}), "#/slug"),
        ("/v1/workspaces", json!({"name": "x", "description": "a\u{0}b"}), "#/description"),
        ("/v1/workspaces", json!({"name": "x", "description": long(2001)}), "#/description"),
    ];
    for (path, body, pointer) in invalid {
        let reply = ada.post(path, body.clone()).await;
        assert_eq!(reply.status, 422, "{path} {body}: {reply:?}");
        let reply = reply.expect_problem(422, "validation_error");
        assert_eq!(reply.field("/errors/0/pointer"), pointer, "{path} {body}: {reply:?}");
        assert!(!reply.text.contains("\\u0000") && !reply.text.contains(PASSWORD), "{reply:?}");
    }
    // Credentials that nobody can have are wrong ones.
    for (email, password) in
        [("ada\u{0}@example.com", PASSWORD), ("ada@example.com", "a\u{0}bcdefgh"), ("", "")]
    {
        let reply = nobody.post("/v1/auth/login", json!({"email": email, "password": password})).await;
        reply.expect_problem(401, "unauthenticated");
    }

    let limits =
        ["0", "101", "x", "-1", "1.5", "", "%00", "%FF", "1e1", "99999999999999999999999999", "5%20", "٥"];
    for list in ["/v1/workspaces", &*members] {
        for limit in limits {
            let reply = ada.get(&format!("{list}?limit={limit}")).await;
            assert_eq!(reply.status, 422, "{list}?limit={limit}: {reply:?}");
            let reply = reply.expect_problem(422, "validation_error");
            assert_eq!(reply.field("/errors/0/parameter"), "limit");
        }
        for query in ["limit=1&limit=2", "cursor=a&cursor=b"] {
            ada.get(&format!("{list}?{query}")).await.expect_problem(400, "malformed_body");
        }
        for query in ["", "limit=1", "limit=100", "&&", "unknown=1", "%FF=%FF", "="] {
            ada.get(&format!("{list}?{query}")).await.expect(200);
        }
    }

    let unknown = [
        "/",
        "/v1",
        "/v1/",
        "/v2/workspaces",
        "/v1/nothing",
        "/v1/workspaces/",
        "//v1/workspaces",
        "/V1/workspaces",
        "/livez/",
        "/v1/auth",
        "/v1/users",
        "/v1/users/me/",
        "/v1/%FF",
        "/%00",
    ];
    for path in unknown {
        for method in [Method::GET, Method::POST, Method::DELETE, Method::OPTIONS] {
            let reply = send(&ada, &method, path, JSON, b"{}".to_vec()).await;
            assert_eq!(reply.status, 404, "{method} {path}: {reply:?}");
            reply.expect_problem(404, "not_found");
        }
    }

    for token in ["", "x", "AQ", "not a token", "AAAAAAAAAAAAAAAAAAAAAAA", &long(2000)] {
        let log_in = (Method::POST, "/v1/auth/login");
        for (method, path) in
            [(Method::GET, ME), (Method::GET, &of_home), (Method::PATCH, ME), (Method::GET, &members), log_in]
        {
            let request = ada.request(method, path).header("consistency-token", token);
            let reply = ada.send(request.header("content-type", JSON).body("{}")).await;
            reply.expect_problem(400, "invalid_consistency_token");
        }
    }
    let bytes = reqwest::header::HeaderValue::from_bytes(b"\xff\xfe").unwrap();
    let reply = ada.send(ada.request(Method::GET, ME).header("consistency-token", bytes)).await;
    reply.expect_problem(400, "invalid_consistency_token");
    // Well formed and from elsewhere: the database is sure to know.
    for token in [lockstep::cache::Token::new(7, u64::MAX), lockstep::cache::Token::unknown()] {
        let mut ada = ada.clone();
        ada.consistency_token = Some(token.to_string());
        ada.get(&of_home).await.expect(200);
    }
    let log = cluster.instances[0].log();
    assert!(!log.contains(" ERROR ") && !log.contains("panicked"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_must_be_of_a_known_type_and_not_too_large() {
    let cluster = Cluster::start(1).await;
    let nobody = cluster.instances[0].client();
    let ada = nobody.register("ada").await;
    let body = br#"{"name": "Ada"}"#;
    let reads = [(Method::POST, "/v1/workspaces", JSON), (Method::PATCH, ME, "application/merge-patch+json")];
    for (method, path, accepted) in reads {
        let mut wrong =
            vec!["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "json", "", "*/*"];
        wrong.extend(["application/problem+json", "multipart/form-data; boundary=application/json"]);
        if method == Method::POST {
            wrong.push("application/merge-patch+json");
        }
        for content_type in wrong {
            let reply = send(&ada, &method, path, content_type, body.to_vec()).await;
            assert_eq!(reply.status, 415, "{method} {path} {content_type}: {reply:?}");
            let reply = reply.expect_problem(415, "unsupported_media_type");
            let (name, other) =
                if method == Method::PATCH { ("accept-patch", "accept") } else { ("accept", "accept-patch") };
            assert_eq!((reply.header(name), reply.header(other)), (accepted, ""));
        }
        let reply = ada.send(ada.request(method.clone(), path).body(body.to_vec())).await;
        reply.expect_problem(415, "unsupported_media_type");
        for content_type in [JSON, accepted, "Application/JSON", "application/json; charset=utf-8"] {
            let reply = send(&ada, &method, path, content_type, body.to_vec()).await;
            assert!([200, 201].contains(&reply.status), "{method} {path} {content_type}: {reply:?}");
        }

        // Blanks are JSON too, so that only the size is wrong with these.
        let padded = |size: usize| {
            let mut padded = body.to_vec();
            padded.resize(size, b' ');
            padded
        };
        let largest = 256 * 1024;
        let reply = send(&ada, &method, path, JSON, padded(largest)).await;
        assert!([200, 201].contains(&reply.status), "{method} {path}: {reply:?}");
        for size in [largest + 1, 300_000, 2_000_000] {
            let reply = send(&ada, &method, path, JSON, padded(size)).await;
            assert_eq!(reply.status, 413, "{method} {path} of {size} bytes: {reply:?}");
            reply.expect_problem(413, "payload_too_large");
        }
    }
    let name = json!({"email": "eve@example.com", "password": PASSWORD, "name": "x".repeat(300_000)});
    nobody.post("/v1/auth/register", name.clone()).await.expect_problem(413, "payload_too_large");
    // Whoever is turned away unread still gets to know why.
    for _ in 0..5 {
        nobody.post("/v1/workspaces", name.clone()).await.expect_problem(401, "unauthenticated");
        nobody.post("/v1/nothing", name.clone()).await.expect_problem(404, "not_found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_names_the_request_and_the_instance() {
    let cluster = Cluster::start(2).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let ask = async |client: &Client, path: &str, id: &[u8]| {
        let id = reqwest::header::HeaderValue::from_bytes(id).unwrap();
        client.send(client.request(Method::GET, path).header("x-request-id", id)).await
    };
    let uuid = "0197c0de-0000-7000-8000-000000000000";
    let kept = [uuid, "a", "A-1.b_2", &"x".repeat(128)];
    let replaced: [&[u8]; 8] =
        [b"", b"two words", b"a,b", b"<script>", b"\"x\"", b"\xc3\xa4", &[b'x'; 129], b"../../etc/passwd"];
    for path in [ME, "/livez", "/v1/nothing", "/v1/users/1"] {
        for id in kept {
            let reply = ask(&ada, path, id.as_bytes()).await;
            assert_eq!(reply.header("x-request-id"), id, "{path}");
            if reply.status >= 400 {
                let instance = reply.field("/instance");
                let name = if id == uuid { "urn:uuid:" } else { "urn:lockstep:request:" };
                assert_eq!(instance, format!("{name}{id}"));
            }
        }
        let mut seen = std::collections::HashSet::new();
        for id in replaced {
            let reply = ask(&ada, path, id).await;
            let made = reply.header("x-request-id");
            let parsed: uuid::Uuid = made.parse().unwrap();
            assert_eq!(parsed.get_version_num(), 7, "{path}: {made}");
            assert!(seen.insert(parsed), "no two requests have the same");
            if reply.status >= 400 {
                assert_eq!(reply.field("/instance"), format!("urn:uuid:{made}"));
            }
        }
    }

    let mut names = std::collections::HashSet::new();
    for instance in &cluster.instances {
        let named = async |path: &str| ada.at(instance).get(path).await.header("x-served-by").to_owned();
        let name = named(ME).await;
        for path in ["/livez", "/readyz", "/metrics", "/v1/nothing", "/v1/users/1", "/v1/workspaces?limit=0"]
        {
            assert_eq!(named(path).await, name);
            let reply = ada.at(instance).get(path).await;
            assert_eq!(reply.header("x-content-type-options"), "nosniff");
        }
        names.insert(name);
    }
    assert_eq!(names.len(), 2, "each has a name of its own");
    assert!(names.iter().all(|name| !name.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_tells_how_it_is() {
    let cluster = Cluster::start(1).await;
    let instance = &cluster.instances[0];
    let nobody = instance.client();
    for path in ["/livez", "/readyz"] {
        // It is ready before it trusts its own memory, which it says.
        let reply = eventually("all is well", Duration::from_secs(5), async || {
            Some(nobody.get(path).await.expect(200)).filter(|reply| reply.text == "ok\n")
        })
        .await;
        assert_eq!(reply.header("cache-control"), "no-store");
        assert!(reply.header("content-type").starts_with("text/plain"), "{reply:?}");
    }
    let ada = nobody.register("ada").await;
    ada.get_cached(ME).await;
    nobody.get("/v1/users/somebody's").await.expect(401);
    nobody.get("/v1/nothing/at/all").await.expect(404);
    // Refused before it comes to its route, and counted there all the same.
    let garbage = nobody.request(Method::GET, "/v1/workspaces/home").header("consistency-token", "garbage");
    nobody.send(garbage).await.expect(400);
    nobody.send(nobody.request(Method::PUT, "/v1/workspaces")).await.expect(405);

    let metrics = nobody.get("/metrics").await.expect(200);
    assert_eq!(metrics.header("cache-control"), "no-store");
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"), "{metrics:?}");
    for secret in [&*ada.user_id, "ada@", "somebody", "/at/all"] {
        assert!(!metrics.text.contains(secret), "{secret} in the metrics");
    }
    let requests = "http_server_request_duration_seconds_count";
    let route = "http_route=\"/v1/users/{user}\"";
    assert_eq!(instance.metric(requests, &[route, "\"401\"", "\"GET\""]).await, 1.0);
    assert_eq!(instance.metric(requests, &["\"404\"", "\"GET\""]).await, 1.0);
    let route = "http_route=\"/v1/workspaces/{workspace}\"";
    assert_eq!(instance.metric(requests, &[route, "\"400\"", "\"GET\""]).await, 1.0);
    let route = "http_route=\"/v1/workspaces\"";
    assert_eq!(instance.metric(requests, &[route, "\"405\"", "\"PUT\""]).await, 1.0);
    assert!(
        instance.metric("lockstep_cache_requests_total", &["tier=\"l1\"", "result=\"hit\""]).await >= 1.0
    );
    assert!(instance.metric("lockstep_cache_loads_total", &["kind=\"user\""]).await >= 1.0);
    eventually("L1 may be used", Duration::from_secs(5), async || {
        (instance.metric("lockstep_cache_lease", &[]).await == 1.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_the_cache_fared_is_for_those_it_is_meant_for() {
    // What is not set is `staff`.
    for audience in ["", "staff", "none"] {
        let cluster = Cluster::start_with(1, &[("CACHE_STATUS", audience)]).await;
        let nobody = cluster.instances[0].client();
        let (ada, bob) = (nobody.register("ada").await, nobody.register("bob").await);
        let home = ada.create_workspace("Home").await;
        ada.add_member(&home, &bob, "admin").await;
        let paths =
            [ME.to_owned(), format!("/v1/workspaces/{home}"), format!("/v1/workspaces/{home}/members")];
        let hidden = async |user: &Client| {
            for path in &paths {
                assert_eq!(user.get(path).await.expect(200).header("cache-status"), "", "{audience}: {path}");
            }
        };
        hidden(&ada).await;
        hidden(&bob).await;

        // By another program, as far as the instance knows; it hears of it through the journal.
        let promote = "UPDATE users SET is_staff = true WHERE email = 'ada@example.com'";
        cluster.database.connect().await.batch_execute(promote).await.unwrap();
        if audience == "none" {
            crate::support::client::announced(&cluster.database).await;
            hidden(&ada).await;
            continue;
        }
        eventually("staff sees how the cache fared", Duration::from_millis(1500), async || {
            (!ada.get(ME).await.header("cache-status").is_empty()).then_some(())
        })
        .await;
        for path in &paths {
            let status = ada.get_cached(path).await.header("cache-status").to_owned();
            assert!(!status.contains("key"), "{status}");
        }
        hidden(&bob).await;
        ada.get("/v1/users/1").await.expect_problem(404, "not_found");
        let write = ada.patch(ME, json!({"name": "Ada"})).await.expect(200);
        assert_eq!(write.header("cache-status"), "", "a write asks no cache");
    }
}
