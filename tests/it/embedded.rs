//! The program with nothing installed and nothing set, as a newcomer starts it.

use std::{path::PathBuf, process::Command};

use serde_json::json;

use crate::support::{Instance, unique_name};

/// A folder that is gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        Self(std::env::temp_dir().join(unique_name("data")))
    }

    fn settings(&self) -> Vec<(String, String)> {
        // Where the parts of the embedded database are unpacked, once for all tests.
        let home = std::env::temp_dir().join("lockstep-test-home");
        [
            ("DATA_DIR", self.0.display().to_string()),
            ("CACHE_STATUS", "all".to_owned()),
            ("HOME", home.display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Runs a command of the program to its end.
    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
        let output =
            command.args(arguments).env_clear().envs(self.settings()).current_dir("/").output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_reads_twice_patches_and_reads_the_new_name_and_loses_nothing_to_a_kill() {
    let folder = Folder::new();
    let instance = Instance::start(&folder.settings()).await;
    let ada = instance.client().register("ada").await;
    let bob = instance.client().register("bob").await;
    let path = format!("/v1/workspaces/{}", ada.create_workspace("Research").await);
    ada.post(&format!("{path}/members"), json!({"email": "bob@example.com", "role": "member"}))
        .await
        .expect(201);
    assert_eq!(bob.get(&path).await.expect(200).header("cache-status"), "moka; fwd=uri-miss; stored");
    assert!(bob.get(&path).await.expect(200).header("cache-status").starts_with("moka; hit; ttl="));
    ada.patch(&path, json!({"name": "Rest"})).await.expect(200);
    let read = bob.get(&path).await.expect(200);
    assert_eq!(
        (read.field("/name"), read.header("cache-status")),
        ("Rest".to_owned(), "moka; fwd=stale; stored")
    );

    let (success, text) = folder.run(&["seed"]);
    assert!(!success && text.contains("DATA_DIR") && text.contains("in use"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");

    instance.signal("KILL");
    drop(instance);
    let instance = Instance::start(&folder.settings()).await;
    // The token is still good, since the secret was kept, and what was acknowledged is there.
    let bob = bob.at(&instance);
    assert_eq!(bob.get(&path).await.expect(200).field("/name"), "Rest");
}

#[tokio::test(flavor = "multi_thread")]
async fn demo_data_can_be_written_twice_and_logged_in_to() {
    let folder = Folder::new();
    let amounts = ["seed", "--users", "30", "--workspaces", "12", "--members", "10"];
    for _ in 0..2 {
        let (success, text) = folder.run(&amounts);
        assert!(success && text.contains("user1@example.com / lockstep-demo"), "{text}");
    }
    let (success, text) = folder.run(&["user", "staff", "user1@example.com"]);
    assert!(success, "{text}");
    let (success, text) = folder.run(&["user", "staff", "nobody@example.com"]);
    assert!(!success && text.contains("nobody@example.com"), "{text}");
    let (success, text) = folder.run(&["migrate", "status"]);
    assert!(success && !text.contains("missing"), "{text}");

    let instance = Instance::start(&folder.settings()).await;
    let credentials = json!({"email": "user1@example.com", "password": "lockstep-demo"});
    let grant = instance.client().post("/v1/auth/login", credentials).await.expect(200);
    let user = instance.client().signed_in(&grant);
    let workspaces = user.get("/v1/workspaces").await.expect(200).json();
    let workspaces = workspaces["data"].as_array().unwrap();
    assert!(!workspaces.is_empty());
    assert!(workspaces.iter().all(|workspace| workspace["member_count"] == 10), "{workspaces:?}");
    let workspace = format!("/v1/workspaces/{}", workspaces[0]["id"].as_str().unwrap());
    let channel = user.get(&format!("{workspace}/channels")).await.expect(200).field("/data/0/id");
    let pages = user.walk(&format!("{workspace}/channels/{channel}/messages?limit=20")).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [20, 20, 10]);
    let remark = pages[0][0]["content"].as_str().unwrap();
    let word = remark.split([' ', '.', '?']).next().unwrap();
    let found = user.get(&format!("{workspace}/search?q={word}")).await.expect(200);
    assert!(found.text.contains("<mark>"), "{found:?}");
}
