//! What balancers and operators see besides answers.

use std::time::Duration;

use super::ME;
use crate::support::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_left_to_the_balancer_to_close() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let cluster = Cluster::start(1).await;
    let address = cluster.instances[0].url.trim_start_matches("http://").to_owned();
    let mut opened_ahead = tokio::net::TcpStream::connect(&address).await.unwrap();
    let mut used = tokio::net::TcpStream::connect(&address).await.unwrap();
    for idle in [0, 6] {
        tokio::time::sleep(Duration::from_secs(idle)).await;
        let connections = if idle == 0 { vec![&mut used] } else { vec![&mut used, &mut opened_ahead] };
        for connection in connections {
            connection.write_all(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
            let mut answer = [0; 4096];
            let length = connection.read(&mut answer).await.unwrap();
            assert!(answer[..length].starts_with(b"HTTP/1.1 200 OK"), "after {idle} s");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_says_how_the_cache_fared() {
    let cluster = Cluster::start_with(1, &[("RUST_LOG", "info")]).await;
    let ada = cluster.instances[0].client().register("ada").await;
    ada.get_cached(ME).await;
    eventually("a line of a hit", Duration::from_secs(5), async || {
        let log = cluster.instances[0].log();
        log.lines()
            .any(|line| line.contains("route=/v1/users/me") && line.contains("moka; hit"))
            .then_some(())
    })
    .await;
}
