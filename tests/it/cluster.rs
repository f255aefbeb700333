//! `scripts/cluster`, as a newcomer runs it.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::json;

use crate::support::{Client, eventually};

/// The script, stopped when dropped.
struct Running(Child);

impl Running {
    fn terminate(&self) {
        let sent = Command::new("kill").arg("-TERM").arg(self.0.id().to_string()).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.terminate();
            let _ = self.0.wait();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_starts_with_one_command_is_coherent_behind_its_balancer_and_leaves_nothing_behind() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cluster");
    let mut child = Command::new(script)
        .arg("2")
        .env("LOCKSTEP_BIN", env!("CARGO_BIN_EXE_lockstep"))
        .env("CLUSTER_SEED_ARGS", "--users 20 --workspaces 10 --members 5 --channels 2 --messages 20")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut cluster = Running(child);
    let mut addresses = HashMap::new();
    for line in lines {
        if line.starts_with("ready") {
            break;
        }
        if let Some((name, address)) = line.split_once(' ') {
            addresses.insert(name.to_owned(), address.trim().to_owned());
        }
    }
    let at = |name: &str| Client::new(&addresses[name]);
    let credentials = json!({"email": "user1@example.com", "password": "lockstep-demo"});
    let grant = at("balancer").post("/v1/auth/login", credentials).await.expect(200);
    let user = |name: &str| at(name).signed_in(&grant);
    let workspaces = user("balancer").get("/v1/workspaces").await.expect(200);
    let path = format!("/v1/workspaces/{}", workspaces.field("/data/0/id"));

    let served_by: Vec<String> = {
        let mut names = Vec::new();
        for _ in 0..4 {
            names.push(user("balancer").get(&path).await.expect(200).header("x-served-by").to_owned());
        }
        names
    };
    assert!(served_by.contains(&"instance-1".to_owned()) && served_by.contains(&"instance-2".to_owned()));
    for round in 0..10 {
        let name = format!("Round {round}");
        user("instance-2").get(&path).await.expect(200);
        let write = user("instance-1").patch(&path, json!({ "name": name })).await.expect(200);
        assert_eq!(user("instance-2").after(&write).get(&path).await.expect(200).field("/name"), name);
    }

    cluster.terminate();
    assert!(cluster.0.wait().unwrap().success());
    for name in ["balancer", "instance-1", "instance-2"] {
        let address = addresses[name].trim_start_matches("http://");
        eventually("nobody listens", Duration::from_secs(5), async || {
            tokio::net::TcpStream::connect(address).await.is_err().then_some(())
        })
        .await;
    }
}
