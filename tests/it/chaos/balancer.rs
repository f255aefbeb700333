//! `HAProxy`, told what `scripts/cluster` tells it.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::net::{TcpListener, TcpStream};

use crate::support::unique_name;

/// The balancer. Killed when dropped.
pub struct Balancer {
    process: Child,
    folder: PathBuf,
    /// Where it is.
    pub url: String,
}

impl Balancer {
    /// In front of these addresses.
    pub async fn start(addresses: &[String]) -> Self {
        let folder = std::env::temp_dir().join(unique_name("haproxy"));
        std::fs::create_dir(&folder).unwrap();
        for _ in 0..5 {
            // Free a moment ago; if somebody else takes it meanwhile, there is another one.
            let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
            let file = folder.join("haproxy.cfg");
            std::fs::write(&file, configuration(port, addresses)).unwrap();
            let mut process = Command::new("haproxy")
                .args(["-db", "-f"])
                .arg(&file)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            while process.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                    return Self { process, folder, url: format!("http://127.0.0.1:{port}") };
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        panic!("HAProxy does not start");
    }
}

/// The configuration in the script is the one that is tested.
fn configuration(port: u16, addresses: &[String]) -> String {
    let script = include_str!("../../../scripts/cluster");
    let (_, rest) = script.split_once("cat <<END\n").unwrap();
    let (common, _) = rest.split_once("\nEND\n").unwrap();
    let servers =
        addresses.iter().enumerate().map(|(k, address)| format!("    server instance-{k} {address}\n"));
    format!("{}\n{}", common.replace("$balancer_port", &port.to_string()), servers.collect::<String>())
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
