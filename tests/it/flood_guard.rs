//! The guard by client address.

use serde_json::json;

use crate::support::{Client, Cluster, Reply};

/// A request as if forwarded for these addresses.
async fn forwarded(client: &Client, addresses: &str) -> Reply {
    client
        .send(client.request(reqwest::Method::GET, "/v1/users/me").header("x-forwarded-for", addresses))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_that_floods_is_told_to_wait_and_cannot_talk_its_way_out() {
    let cluster = Cluster::start_with(1, &[("RATE_LIMIT_IP", "60/min")]).await;
    let client = cluster.instances[0].client();
    let mut passed = 0;
    let refused = loop {
        // Another address each time, which nobody believes.
        let reply = forwarded(&client, &format!("198.51.100.{passed}")).await;
        if reply.status == 429 {
            break reply;
        }
        assert_eq!(reply.status, 401);
        passed += 1;
    };
    // A sixth of a minute's worth at once, and what came back meanwhile.
    assert!((10..=12).contains(&passed), "{passed}");
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert_eq!(refused.header("cache-control"), "no-store");
    assert_eq!(refused.header("x-ratelimit-after"), "");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert!(!refused.header("x-request-id").is_empty());
    let problem = refused.json();
    assert_eq!(problem["code"], "rate_limited");
    assert_eq!(problem["violated-policies"], json!(["ip"]));
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    // Whatever was asked for, and counted as what it was.
    for path in ["/v1/workspaces/1/channels/1/messages", "/v1/nothing/of/ours"] {
        assert_eq!(client.get(path).await.status, 429, "{path}");
    }
    for route in ["/v1/users/me", "/v1/workspaces/{workspace}/channels/{channel}/messages"] {
        let labels = [&*format!("http_route=\"{route}\""), "\"429\"", "\"GET\""];
        let name = "http_server_request_duration_seconds_count";
        assert_eq!(cluster.instances[0].metric(name, &labels).await, 1.0, "{route}");
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(client.get(path).await.status, 200, "{path} is not guarded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_trusted_proxy_every_client_counts_alone() {
    let settings = [("RATE_LIMIT_IP", "6/min"), ("TRUSTED_PROXIES", "127.0.0.0/8")];
    let cluster = Cluster::start_with(1, &settings).await;
    let client = cluster.instances[0].client();
    for address in ["198.51.100.1", "198.51.100.2", "2001:db8::1"] {
        assert_eq!(forwarded(&client, address).await.status, 401);
        assert_eq!(forwarded(&client, &format!("6.6.6.6, {address}")).await.status, 429);
    }
    assert_eq!(forwarded(&client, "2001:db8::ffff").await.status, 429, "the same subscriber");
}
