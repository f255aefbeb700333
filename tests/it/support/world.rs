//! A workspace with somebody of every role and something of every kind.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Client, openapi::fill};

/// What stands in the place of the names in paths.
pub type Places = BTreeMap<String, String>;

/// The same with other things in some places.
pub fn with<const N: usize>(places: &Places, others: [(&str, String); N]) -> Places {
    let others = others.into_iter().map(|(name, value)| (name.to_owned(), value));
    places.clone().into_iter().chain(others).collect()
}

/// A path with what stands in the place of its names.
pub fn at(path: &str, places: &Places) -> String {
    fill(path, |name| places.get(name).unwrap_or_else(|| panic!("nothing for {name} in {path}")).clone())
}

/// Called by their roles. A stranger shares no workspace with anybody.
pub struct World {
    pub owner: Client,
    pub admin: Client,
    pub member: Client,
    pub guest: Client,
    pub stranger: Client,
    /// A document, a public channel and a message in it, all of the owner, who was notified of something.
    pub places: Places,
    /// The same with a private channel that only the owner and the member are in.
    pub private: Places,
}

impl World {
    /// Made through the API.
    pub async fn make(nobody: &Client) -> Self {
        let [owner, admin, member, guest, stranger] =
            ["owner", "admin", "member", "guest", "stranger"].map(|name| nobody.register(name));
        let (owner, admin, member, guest, stranger) = tokio::join!(owner, admin, member, guest, stranger);
        let workspace = owner.create_workspace("World").await;
        for (user, role) in [(&admin, "admin"), (&member, "member"), (&guest, "guest")] {
            owner.add_member(&workspace, user, role).await;
        }
        let of_workspace = format!("/v1/workspaces/{workspace}");
        let make = async |user: &Client, path: &str, body| {
            user.post(&format!("{of_workspace}{path}"), body).await.expect(201).field("/id")
        };
        let document = make(&owner, "/documents", json!({"title": "Plan", "content": "words"})).await;
        let channel = make(&owner, "/channels", json!({"name": "general"})).await;
        let private = make(&owner, "/channels", json!({"name": "secret", "is_private": true})).await;
        let into_private = format!("{of_workspace}/channels/{private}/members/{}", member.user_id);
        owner.put(&into_private).await.expect(201);
        let words = json!({"content": "words"});
        let message = make(&owner, &format!("/channels/{channel}/messages"), words.clone()).await;
        let secret = make(&owner, &format!("/channels/{private}/messages"), words).await;
        make(&member, &format!("/channels/{channel}/messages"), json!({"content": "@owner"})).await;
        let notification = owner.get("/v1/notifications").await.expect(200).field("/data/0/id");
        let places = [
            ("workspace", workspace),
            ("document", document),
            ("version", "1".to_owned()),
            ("channel", channel),
            ("message", message),
            ("notification", notification),
            ("user", owner.user_id.clone()),
            ("file", "index.html".to_owned()),
        ];
        let places: Places = places.map(|(name, value)| (name.to_owned(), value)).into();
        let private = with(&places, [("channel", private), ("message", secret)]);
        Self { owner, admin, member, guest, stranger, places, private }
    }
}
