//! A world in which each row of the table can be tried by everybody, again and again.

use reqwest::Method;
use serde_json::{Value, json};

use super::CALLERS;
use crate::support::{
    Client, Cluster, Instance, Reply,
    client::{PASSWORD, email},
    eventually,
    openapi::{Document, Operation},
    unique_name,
    world::{Places, World, at, with},
};

/// Of what the things in the places of a path are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Things {
    /// The owner's, open to the workspace.
    Open,
    /// Of a private channel that the owner and the member are in.
    Private,
    /// The caller's own.
    Own,
}

/// Everybody, at an instance with a cache and at one without.
pub struct Stage {
    world: World,
    /// In the order of [`CALLERS`].
    callers: Vec<Client>,
    /// A member of the workspace whenever one is needed to be added, changed or removed.
    extra: Client,
    pub cold: Instance,
    pub cluster: Cluster,
    pub operations: Vec<Operation>,
}

impl Stage {
    pub async fn set() -> Self {
        let cluster = Cluster::start(2).await;
        let mut settings = cluster.settings.clone();
        settings.push(("CACHE".to_owned(), "off".to_owned()));
        let cold = Instance::start(&settings).await;
        let nobody = cluster.instances[0].client();
        let world = World::make(&nobody).await;
        let (removed, extra) = (nobody.register("removed").await, nobody.register("extra").await);
        let World { owner, admin, member, guest, stranger, .. } = &world;
        let callers = [&nobody, stranger, &removed, guest, member, admin, owner].map(Client::clone).into();
        let operations = Document::of(&nobody).await.operations();
        Self { world, callers, extra, cold, cluster, operations }
    }

    pub fn operation(&self, name: &str) -> &Operation {
        let found = self.operations.iter().find(|operation| operation.name() == name);
        found.unwrap_or_else(|| panic!("{name} is in the table, and in no document"))
    }

    fn owner(&self) -> &Client {
        &self.world.owner
    }

    pub fn removed(&self) -> &Client {
        &self.callers[2]
    }

    /// Whoever is to be removed comes in and reads everything, until it is in the memory of the first instance; the owner
    /// removes him at the second.
    pub async fn remove(&self) -> (Vec<String>, Reply) {
        let (removed, places) = (self.removed(), &self.world.places);
        self.owner().add_member(&places["workspace"], removed, "member").await;
        let inside = self.operations.iter().filter(|operation| {
            operation.method == Method::GET && operation.path.contains("{workspace}") && operation.is_cached()
        });
        let mut paths: Vec<_> = inside.map(|operation| self.target(operation, places)).collect();
        paths.push(at("/v1/users/{user}", places));
        for path in &paths {
            removed.get_cached(path).await;
        }
        let path = at("/v1/workspaces/{workspace}/members/", places) + &removed.user_id;
        let removal = self.owner().at(&self.cluster.instances[1]).delete(&path).await.expect(204);
        (paths, removal)
    }

    /// Tries an operation as somebody. What he gets when he asks the first time and when he asks again is the same.
    pub async fn try_as(&mut self, name: &str, caller: usize, things: Things, cold: bool, expected: u16) {
        let operation = self.operation(name).clone();
        let places = self.prepare(&operation, caller, things).await;
        let server = if cold { &self.cold } else { &self.cluster.instances[0] };
        let client = self.callers[caller].at(server);
        let told =
            format!("{name} by {}, {things:?}, {}", CALLERS[caller], if cold { "cold" } else { "cached" });
        let target = self.target(&operation, &places);
        if operation.is_stream() {
            // There is no end to wait for.
            let response = client.request(Method::GET, &target).send().await.unwrap();
            assert_eq!(response.status(), expected, "{told}");
            return;
        }
        let reply = self.ask(&client, &operation, &target).await;
        assert_eq!(reply.status, expected, "{told}: {reply:?}");
        if operation.method == Method::GET {
            let cached = operation.is_cached() && expected == 200;
            if cached && !cold {
                client.get_cached(&target).await;
            }
            assert_eq!(reply.header("cache-status").is_empty(), cold || !cached, "{told}: {reply:?}");
            let again = self.ask(&client, &operation, &target).await;
            assert_eq!(again.status, expected, "{told}, again: {again:?}");
        }
        if ["log_out_everywhere", "change_password"].contains(&&*operation.id) && caller > 0 {
            self.sign_in_again(caller).await;
        }
    }

    async fn sign_in_again(&mut self, caller: usize) {
        let nobody = self.cluster.instances[0].client();
        let credentials = json!({"email": email(CALLERS[caller]), "password": PASSWORD});
        let reply = nobody.post("/v1/auth/login", credentials).await.expect(200);
        // An instance that has not heard of it yet would not know the session.
        self.callers[caller] = nobody.signed_in(&reply).after(&reply);
    }

    fn target(&self, operation: &Operation, places: &Places) -> String {
        let query = if operation.id == "search" { "?q=words" } else { "" };
        at(&operation.path, places) + query
    }

    async fn ask(&self, client: &Client, operation: &Operation, target: &str) -> Reply {
        let mut request = client.request(operation.method.clone(), target);
        if operation.parameters("header").iter().any(|parameter| parameter["name"] == "If-Match") {
            request = request.header("if-match", "*");
        }
        if let Some(body) = self.body(operation).await {
            request = request.json(&body);
        }
        client.send(request).await
    }

    async fn body(&self, operation: &Operation) -> Option<Value> {
        let session = async || self.cluster.instances[0].client().log_in("extra").await.refresh_token;
        let name = unique_name("n");
        Some(match &*operation.id {
            "register" => json!({"email": email(&name), "password": PASSWORD, "name": name}),
            "log_in" => json!({"email": email("extra"), "password": PASSWORD}),
            "refresh" | "log_out" => json!({ "refresh_token": session().await }),
            "change_password" => json!({"current_password": PASSWORD, "new_password": PASSWORD}),
            "change_profile" => json!({ "status_text": name }),
            "create_workspace" | "create_channel" => json!({ "name": name }),
            "change_workspace" => json!({ "description": name }),
            "add_member" => json!({ "user_id": self.extra.user_id }),
            "change_member" => json!({"role": "guest"}),
            "create_document" | "change_document" => json!({ "title": name }),
            "change_channel" => json!({ "topic": name }),
            "send_message" | "edit_message" => json!({ "content": name }),
            "change_notification" => json!({"read": true}),
            _ => return None,
        })
    }

    /// What stands in the place of names. What is changed or taken away is made first.
    async fn prepare(&self, operation: &Operation, caller: usize, things: Things) -> Places {
        let client = &self.callers[caller];
        let places = if things == Things::Private { &self.world.private } else { &self.world.places };
        let own = things == Things::Own;
        let name = unique_name("n");
        match &*operation.id {
            "delete_workspace" => with(places, [("workspace", self.workspace().await)]),
            "change_document" | "delete_document" => {
                let path = at("/v1/workspaces/{workspace}/documents", places);
                let made = self.owner().post(&path, json!({ "title": name })).await.expect(201);
                with(places, [("document", made.field("/id"))])
            }
            "change_channel" | "delete_channel" => self.channel(caller, things).await,
            "edit_message" | "delete_message" => {
                let path = at("/v1/workspaces/{workspace}/channels/{channel}/messages", places);
                // Outsiders have none of their own.
                let author = if own && caller > 2 { client } else { self.owner() };
                let made = author.post(&path, json!({ "content": name })).await.expect(201);
                with(places, [("message", made.field("/id"))])
            }
            "add_member" => {
                self.leave(places, &self.extra).await;
                with(places, [])
            }
            "change_member" | "remove_member" if own => {
                let role = if caller > 2 { CALLERS[caller] } else { "" };
                if ["guest", "member", "admin"].contains(&role) {
                    self.leave(places, client).await;
                    self.owner().add_member(&places["workspace"], client, role).await;
                }
                with(places, [("user", client.user_id.clone())]).into_iter().map(known_user).collect()
            }
            "change_member" | "remove_member" => {
                self.leave(places, &self.extra).await;
                self.owner().add_member(&places["workspace"], &self.extra, "member").await;
                with(places, [("user", self.extra.user_id.clone())])
            }
            "add_channel_member" | "remove_channel_member" => {
                let user = if own { client } else { &self.extra };
                if !own {
                    self.leave(places, &self.extra).await;
                    self.owner().add_member(&places["workspace"], &self.extra, "member").await;
                }
                let places = with(places, [("user", user.user_id.clone())]);
                let places: Places = places.into_iter().map(known_user).collect();
                let path = at(&operation.path, &places);
                if operation.id == "add_channel_member" {
                    self.owner().delete(&path).await;
                } else if !own || caller > 2 {
                    self.owner().put(&path).await;
                }
                places
            }
            "get_user" if own => {
                let places = with(places, [("user", client.user_id.clone())]);
                places.into_iter().map(known_user).collect()
            }
            _ => with(places, []),
        }
    }

    /// He is in it no more.
    async fn leave(&self, places: &Places, user: &Client) {
        let path = at("/v1/workspaces/{workspace}/members/", places) + &user.user_id;
        self.owner().delete(&path).await;
    }

    /// A workspace that can go, with everybody in it as in the other.
    async fn workspace(&self) -> String {
        let workspace = self.owner().create_workspace("Short").await;
        for (caller, role) in [(2, "member"), (3, "guest"), (4, "member"), (5, "admin")] {
            self.owner().add_member(&workspace, &self.callers[caller], role).await;
        }
        let removed = format!("/v1/workspaces/{workspace}/members/{}", self.removed().user_id);
        self.owner().delete(&removed).await.expect(204);
        workspace
    }

    /// A channel that can go: the caller's own if he may make one.
    async fn channel(&self, caller: usize, things: Things) -> Places {
        let places = &self.world.places;
        let path = at("/v1/workspaces/{workspace}/channels", places);
        let maker = if things == Things::Own && caller > 3 { &self.callers[caller] } else { self.owner() };
        let is_private = things == Things::Private;
        let body = json!({"name": unique_name("n"), "is_private": is_private});
        let channel = maker.post(&path, body).await.expect(201).field("/id");
        if is_private {
            let member = &self.world.member.user_id;
            self.owner().put(&format!("{path}/{channel}/members/{member}")).await.expect(201);
        }
        with(places, [("channel", channel)])
    }

    /// The first instance has heard that somebody was removed.
    pub async fn is_told(&self, paths: &[String]) {
        for path in paths {
            eventually("who was removed sees nothing", std::time::Duration::from_millis(1500), async || {
                (self.removed().get(path).await.status == 404).then_some(())
            })
            .await;
        }
    }
}

/// Nobody has no id of his own: any will do.
fn known_user((name, value): (String, String)) -> (String, String) {
    let value = if value.is_empty() { uuid::Uuid::now_v7().to_string() } else { value };
    (name, value)
}
