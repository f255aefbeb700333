//! A consumer of the API.

use std::time::Duration;

use diesel::{ExpressionMethods as _, QueryDsl as _};
use diesel_async::RunQueryDsl as _;
use lockstep::db::schema::cache_journal;
use serde_json::{Value, json};

use super::{TestDatabase, eventually};

/// Sends requests to one instance, as one user.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    /// The user's access token.
    pub access_token: Option<String>,
    /// The user's refresh token.
    pub refresh_token: String,
    /// The user's id.
    pub user_id: String,
    /// Sent as `Consistency-Token`.
    pub consistency_token: Option<String>,
}

/// A response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Reply {
    /// The body as JSON; `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// A header, or the empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// A member of the body as text.
    pub fn field(&self, pointer: &str) -> String {
        let json = self.json();
        let value = json.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {self:?}"));
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    }

    /// The reply, if it has this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// The reply, if it is this problem and looks as every problem does.
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) -> Self {
        let reply = self.expect(status);
        assert_eq!(reply.header("content-type"), "application/problem+json", "{reply:?}");
        assert_eq!(reply.header("cache-control"), "no-store", "{reply:?}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{reply:?}");
        assert!(!reply.header("x-served-by").is_empty(), "{reply:?}");
        assert_eq!(reply.json()["status"], status, "{reply:?}");
        assert_eq!(reply.json()["code"], code, "{reply:?}");
        assert!(reply.json()["type"].as_str().is_some_and(|name| name.contains('/')), "{reply:?}");
        assert!(reply.json()["title"].as_str().is_some_and(|title| !title.is_empty()), "{reply:?}");
        let id = reply.header("x-request-id");
        let instance = reply.field("/instance");
        assert!(!id.is_empty() && instance.starts_with("urn:") && instance.ends_with(id), "{reply:?}");
        reply
    }

    /// It came from the instance's own memory.
    pub fn is_l1_hit(&self) -> bool {
        self.header("cache-status").starts_with("moka; hit")
    }

    /// The body of a problem without what tells one occurrence from another.
    pub fn without_instance(&self) -> Value {
        let mut body = self.json();
        assert!(body.as_object_mut().unwrap().remove("instance").is_some(), "{self:?}");
        body
    }
}

impl Client {
    /// Nobody in particular.
    pub fn new(url: &str) -> Self {
        // Where an answer leads to is for the test to see.
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            // Shorter than the service keeps an idle connection: else a request may meet its closing.
            .pool_idle_timeout(Duration::from_secs(2))
            .build()
            .unwrap();
        Self {
            http,
            url: url.to_owned(),
            access_token: None,
            refresh_token: String::new(),
            user_id: String::new(),
            consistency_token: None,
        }
    }

    /// The same user at another instance.
    pub fn at(&self, instance: &super::Instance) -> Self {
        self.at_url(&instance.url)
    }

    /// The same user at whoever answers there.
    pub fn at_url(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    /// The same user, reading no older than the write that gave this reply.
    pub fn after(&self, write: &Reply) -> Self {
        self.with_token(Some(write.header("consistency-token").to_owned()))
    }

    /// The same user with this `Consistency-Token`.
    pub fn with_token(&self, consistency_token: Option<String>) -> Self {
        Self { consistency_token, ..self.clone() }
    }

    /// Somebody new, called `name`, with the address `name@example.com`.
    pub async fn register(&self, name: &str) -> Self {
        let account = json!({"email": email(name), "password": PASSWORD, "name": name});
        let reply = self.post("/v1/auth/register", account).await.expect(201);
        self.signed_in(&reply)
    }

    /// Somebody who has registered.
    pub async fn log_in(&self, name: &str) -> Self {
        let credentials = json!({"email": email(name), "password": PASSWORD});
        let reply = self.post("/v1/auth/login", credentials).await.expect(200);
        self.signed_in(&reply)
    }

    /// The user that a grant of tokens speaks of.
    pub fn signed_in(&self, grant: &Reply) -> Self {
        Self {
            access_token: Some(grant.field("/access_token")),
            refresh_token: grant.field("/refresh_token"),
            user_id: grant.field("/user/id"),
            ..self.clone()
        }
    }

    /// Makes a workspace; returns its id.
    pub async fn create_workspace(&self, name: &str) -> String {
        self.post("/v1/workspaces", json!({"name": name})).await.expect(201).field("/id")
    }

    /// Adds a member.
    pub async fn add_member(&self, workspace: &str, user: &Self, role: &str) -> Reply {
        let path = format!("/v1/workspaces/{workspace}/members");
        self.post(&path, json!({"user_id": user.user_id, "role": role})).await.expect(201)
    }

    /// Makes a channel; returns its path.
    pub async fn create_channel(&self, workspace: &str, name: &str, is_private: bool) -> String {
        let path = format!("/v1/workspaces/{workspace}/channels");
        let made = self.post(&path, json!({"name": name, "is_private": is_private})).await.expect(201);
        format!("{path}/{}", made.field("/id"))
    }

    /// Sends a message to the channel with this path.
    pub async fn say(&self, channel: &str, content: &str) -> Reply {
        self.post(&format!("{channel}/messages"), json!({ "content": content })).await.expect(201)
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.request(reqwest::Method::GET, path)).await
    }

    pub async fn head(&self, path: &str) -> Reply {
        self.send(self.request(reqwest::Method::HEAD, path)).await
    }

    /// Reads until the answer comes from the instance's own memory.
    pub async fn get_cached(&self, path: &str) -> Reply {
        eventually(&format!("{path} is cached"), Duration::from_secs(2), async || {
            Some(self.get(path).await.expect(200)).filter(Reply::is_l1_hit)
        })
        .await
    }

    /// A list page by page, as its links lead.
    pub async fn walk(&self, path: &str) -> Vec<Vec<Value>> {
        let (mut path, mut pages) = (path.to_owned(), Vec::new());
        loop {
            let page = self.get(&path).await.expect(200);
            let body = page.json();
            pages.push(body["data"].as_array().unwrap().clone());
            assert_eq!(body["has_more"].as_bool(), Some(body["next_cursor"].is_string()), "{page:?}");
            let Some(cursor) = body["next_cursor"].as_str() else {
                assert_eq!(page.header("link"), "", "{page:?}");
                return pages;
            };
            let next = page.header("link").strip_suffix(">; rel=\"next\"").unwrap();
            assert!(next.ends_with(&format!("cursor={cursor}")), "{page:?}");
            path = next.strip_prefix(&format!("<{}", self.url)).unwrap().to_owned();
        }
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(self.request(reqwest::Method::POST, path).json(&body)).await
    }

    /// Without a body: the path says it all.
    pub async fn put(&self, path: &str) -> Reply {
        self.send(self.request(reqwest::Method::PUT, path)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Reply {
        self.send(self.request(reqwest::Method::PATCH, path).json(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send(self.request(reqwest::Method::DELETE, path)).await
    }

    /// A request with the user's tokens, to be changed and then [sent](Self::send).
    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(token) = &self.access_token {
            request = request.bearer_auth(token);
        }
        if let Some(token) = &self.consistency_token {
            request = request.header("consistency-token", token);
        }
        request
    }

    /// Sends a request.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Reply { status, headers, text: response.text().await.unwrap() }
    }
}

/// The password of every registered user.
pub const PASSWORD: &str = "correct horse battery";

/// The address of the user with this name.
pub fn email(name: &str) -> String {
    format!("{name}@example.com")
}

/// Waits until every write so far was announced, and marked so: nothing is announced a second time after that.
pub async fn announced(database: &TestDatabase) {
    let connection = tokio::sync::Mutex::new(database.connect().await);
    eventually("every write is announced", Duration::from_secs(5), async || {
        let left = cache_journal::table.filter(cache_journal::relayed.eq(false)).count();
        let left: i64 = left.get_result(&mut *connection.lock().await).await.unwrap();
        (left == 0).then_some(())
    })
    .await;
}
