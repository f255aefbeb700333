//! The document that describes the API: that it is sound, and that it describes what is there and nothing else.

use std::{
    collections::{BTreeSet, HashSet},
    process::Command,
};

use reqwest::Method;
use serde_json::Value;

use crate::support::{
    Client, Cluster, Reply,
    openapi::{Document, Operation},
    world::{World, at},
};

/// What everybody may ask.
const WAYS_IN: [&str; 10] = [
    "GET /docs",
    "GET /docs/{file}",
    "GET /livez",
    "GET /metrics",
    "GET /openapi.json",
    "GET /readyz",
    "POST /v1/auth/login",
    "POST /v1/auth/logout",
    "POST /v1/auth/refresh",
    "POST /v1/auth/register",
];

/// A path of nothing that exists, except for the page of the documentation.
fn path_of_nothing(operation: &Operation) -> String {
    operation.path_with(something)
}

fn something(name: &str) -> String {
    match name {
        "file" => "index.html".to_owned(),
        "version" => "1".to_owned(),
        _ => uuid::Uuid::now_v7().to_string(),
    }
}

/// Everything that is referred to anywhere within.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_and_the_service_give_out_the_same_document() {
    let cluster = Cluster::start(2).await;
    let printed = Command::new(env!("CARGO_BIN_EXE_lockstep")).env_clear().arg("openapi").output().unwrap();
    assert!(printed.status.success(), "{printed:?}");
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    for instance in &cluster.instances {
        let reply = instance.client().get("/openapi.json").await.expect(200);
        assert_eq!(reply.header("content-type"), "application/json");
        assert_eq!(reply.json(), printed);
    }
    assert!(printed["openapi"].as_str().unwrap().starts_with("3.1."));
    assert_eq!(printed["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_sound_and_says_what_can_go_wrong() {
    let cluster = Cluster::start(1).await;
    let document = Document::of(&cluster.instances[0].client()).await;
    let mut found = Vec::new();
    references(&document.0, &mut found);
    assert!(found.len() > 100, "{found:?}");
    for reference in found {
        let target = document.0.pointer(reference.strip_prefix('#').unwrap());
        assert!(target.is_some_and(|target| target.is_object()), "{reference} leads nowhere");
    }
    for (name, schema) in document.0["components"]["schemas"].as_object().unwrap() {
        jsonschema::meta::validate(schema).unwrap_or_else(|err| panic!("{name}: {err}"));
    }

    let schemes: HashSet<_> =
        document.0["components"]["securitySchemes"].as_object().unwrap().keys().collect();
    let mut ids = HashSet::new();
    for operation in document.operations() {
        let name = operation.name();
        assert!(ids.insert(operation.id.clone()), "{name}: another is called {} too", operation.id);
        let summary = operation.described["summary"].as_str().unwrap_or_default();
        assert!(summary.ends_with('.'), "{name}: {summary:?}");
        for way in operation.described["security"].as_array().into_iter().flatten() {
            assert!(way.as_object().unwrap().keys().all(|scheme| schemes.contains(scheme)), "{name}: {way}");
        }
        let in_path: Vec<_> = operation.parameters("path").iter().map(|one| &one["name"]).collect();
        assert_eq!(in_path, operation.names(), "{name}");

        let statuses = operation.statuses();
        let mut due = BTreeSet::new();
        if operation.path.starts_with("/v1/") {
            due.extend([400, 429, 500, 503]);
        }
        if operation.is_secured() {
            due.insert(401);
        }
        if !operation.names().is_empty() {
            due.insert(404);
        }
        if !operation.parameters("query").is_empty() {
            due.extend([400, 422]);
        }
        if operation.body().is_some() {
            due.extend([400, 413, 415, 422]);
        }
        due.retain(|status| !statuses.contains(status));
        assert!(due.is_empty(), "{name} does not say that it may answer {due:?}");
        assert!(statuses.iter().any(|status| *status < 400), "{name} says nothing of success");
        for status in statuses.into_iter().filter(|status| *status >= 400) {
            let response = document.response(&operation, status).unwrap();
            let problem = &response["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(problem, "#/components/schemas/Problem", "{name}: {status}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_described_is_answered_and_every_other_method_is_named_in_allow() {
    let cluster = Cluster::start(1).await;
    let nobody = cluster.instances[0].client();
    let document = Document::of(&nobody).await;
    for (path, known) in document.routes() {
        let filled = crate::support::openapi::fill(&path, something);
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "BREW"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let reply = nobody.send(nobody.request(method.clone(), &filled)).await;
            if known.contains(&method) {
                // Nobody is signed in, so that this is not for want of the thing.
                assert!(![404, 405].contains(&reply.status), "{method} {path}: {reply:?}");
                continue;
            }
            assert_eq!(reply.status, 405, "{method} {path}: {reply:?}");
            let mut allowed: Vec<_> = reply.header("allow").split(',').map(str::trim).collect();
            allowed.sort_unstable();
            let mut expected: Vec<_> = known.iter().map(Method::as_str).collect();
            expected.sort_unstable();
            assert_eq!(allowed, expected, "{method} {path}");
            if method != Method::HEAD {
                reply.expect_problem(405, "method_not_allowed");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_credential_there_is_nothing_but_the_ways_in() {
    let cluster = Cluster::start(1).await;
    let nobody = cluster.instances[0].client();
    let world = World::make(&nobody).await;
    let document = Document::of(&nobody).await;
    let mut open = Vec::new();
    for operation in document.operations() {
        let name = operation.name();
        let path = path_of_nothing(&operation);
        if !operation.is_secured() {
            let reply = nobody.send(nobody.request(operation.method.clone(), &path)).await;
            assert!(reply.status != 401, "{name}: {reply:?}");
            open.push(name);
            continue;
        }
        let ways = operation.described["security"].as_array().unwrap();
        assert!(ways.iter().any(|way| way.get("bearerAuth").is_some()), "{name}: {ways:?}");
        // Nobody is told more than that, whatever was sent, and whether it exists or not.
        let paths = [path, at(&operation.path, &world.places)];
        let bodies = [("application/json", "{}"), ("application/json", "{"), ("text/plain", "")];
        for (path, (content_type, body)) in paths.iter().flat_map(|path| bodies.map(|body| (path, body))) {
            let methods = [operation.method.clone(), Method::HEAD];
            for method in methods.into_iter().take(1 + usize::from(operation.method == Method::GET)) {
                let request = nobody.request(method.clone(), path).header("content-type", content_type);
                let reply = nobody.send(request.body(body)).await;
                assert_eq!(reply.status, 401, "{method} {path}: {reply:?}");
                assert_eq!(reply.header("www-authenticate"), "Bearer realm=\"lockstep\"");
                assert_eq!(reply.header("content-type"), "application/problem+json");
                if method == Method::HEAD {
                    assert_eq!(reply.text, "");
                } else {
                    reply.expect_problem(401, "unauthenticated");
                }
            }
        }
    }
    open.sort_unstable();
    assert_eq!(open, WAYS_IN);

    // The stream has another way in, for browsers: a ticket, which is good once.
    let stream = document.operations().into_iter().find(Operation::is_stream).unwrap();
    let ways: BTreeSet<_> = stream.described["security"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|way| way.as_object().unwrap().keys())
        .collect();
    assert_eq!(ways.into_iter().collect::<Vec<_>>(), ["bearerAuth", "ticket"]);
    let ticket = world.owner.post("/v1/events/ticket", Value::Null).await.expect(201).field("/ticket");
    let path = format!("{}?ticket={ticket}", stream.path);
    nobody.head(&path).await.expect(200);
    nobody.get(&path).await.expect_problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_get_answers_head_with_the_same_headers() {
    let cluster = Cluster::start(1).await;
    let nobody = cluster.instances[0].client();
    let World { owner, places, .. } = World::make(&nobody).await;
    owner.create_workspace("Another").await;
    // From now on `/readyz` says the same each time.
    owner.get_cached("/v1/users/me").await;
    let gets = Document::of(&nobody).await.operations();
    let gets = gets.into_iter().filter(|operation| operation.method == Method::GET && !operation.is_stream());
    let gets = gets.map(|operation| match &*operation.id {
        "search" => format!("{}?q=words", at(&operation.path, &places)),
        _ => at(&operation.path, &places),
    });
    let of_world = at("/v1/workspaces/{workspace}", &places);
    let others = [
        "/v1/workspaces?limit=1".to_owned(),
        format!("{of_world}/members?limit=1"),
        "/v1/users/1".to_owned(),
        "/v1/nothing".to_owned(),
        "/".to_owned(),
        "/docs/nothing".to_owned(),
    ];
    for path in gets.chain(others) {
        let (get, head) = (owner.get(&path).await, owner.head(&path).await);
        assert_eq!((head.status, &*head.text), (get.status, ""), "{path}");
        let headers = |reply: &Reply| {
            let differ = ["date", "x-request-id", "cache-status"];
            let mut headers: Vec<_> = reply
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                .filter(|(name, _)| !differ.contains(&&**name))
                // The text of the metrics grows while it is asked for.
                .filter(|(name, _)| path != "/metrics" || name != "content-length")
                .collect();
            headers.sort_unstable();
            headers
        };
        assert_eq!(headers(&head), headers(&get), "{path}");
        assert!(path == "/metrics" || get.header("content-length") == get.text.len().to_string(), "{get:?}");
    }
}

/// What an attribute such as `src="…"` says, wherever it stands.
fn attributes<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let begins = format!("{name}=\"");
    page.split(&*begins).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

async fn load(client: &Client, path: &str, content_type: &str) -> String {
    let reply = client.get(path).await.expect(200);
    assert!(reply.header("content-type").starts_with(content_type), "{path}: {:?}", reply.headers);
    assert_eq!(reply.header("content-encoding"), "", "{path}: nobody has asked for that");
    let policy = reply.header("content-security-policy");
    for rule in ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.split("; ").any(|one| one == rule), "{path}: {policy}");
    }
    assert!(!policy.contains("http") && !policy.contains('*'), "{path}: {policy}");
    reply.text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_for_people_takes_everything_from_the_service_itself() {
    let cluster = Cluster::start(1).await;
    let nobody = cluster.instances[0].client();
    let moved = nobody.get("/docs").await.expect(308);
    assert_eq!(moved.header("location"), "/docs/");
    let page = load(&nobody, "/docs/", "text/html").await;

    let parts: Vec<_> = [attributes(&page, "src"), attributes(&page, "href")].concat();
    assert!(parts.iter().any(|part| part.ends_with(".js")), "{page}");
    assert!(parts.iter().any(|part| part.ends_with(".css")), "{page}");
    let mut texts = String::new();
    for part in &parts {
        assert!(!part.contains("//") && !part.starts_with('/'), "{part} comes from elsewhere");
        let (_, kind) = part.rsplit_once('.').unwrap();
        let content_type = match kind {
            "js" => "text/javascript",
            "css" => "text/css",
            _ => "image/",
        };
        let text = load(&nobody, &format!("/docs/{}", part.trim_start_matches("./")), content_type).await;
        if kind == "css" {
            let urls: Vec<_> = text.split("url(").skip(1).collect();
            assert!(
                urls.iter().all(|url| url.trim_start_matches(['"', '\'']).starts_with("data:")),
                "{part}"
            );
            assert!(!text.contains("@import"), "{part}");
        }
        texts.push_str(&text);
    }
    assert!(texts.contains("\"/openapi.json\""), "the page shows our document");
    nobody.get("/docs/nothing.js").await.expect_problem(404, "not_found");
    nobody.get("/docs/%2e%2e%2fCargo.toml").await.expect(404);
}
