//! Guessing passwords.

use reqwest::Method;
use serde_json::json;

use crate::support::{
    Client, Cluster, Reply,
    client::{PASSWORD, email},
};

async fn try_password(client: &Client, from: &str, name: &str, password: &str) -> Reply {
    let request = client.request(Method::POST, "/v1/auth/login").header("x-forwarded-for", from);
    client.send(request.json(&json!({"email": email(name), "password": password}))).await
}

const SETTINGS: [(&str, &str); 2] = [("RATE_LIMIT_LOGIN", "5/15min"), ("TRUSTED_PROXIES", "127.0.0.1/32")];

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_guesses_at_once_five_are_looked_at() {
    let cluster = Cluster::start_with(2, &SETTINGS).await;
    cluster.instances[0].client().register("ada").await;
    let guesses = (0..100).map(|guess| {
        let client = cluster.instances[guess % 2].client();
        // Each from another address: what counts is the account.
        async move { try_password(&client, &format!("198.51.100.{guess}"), "ada", "a wrong password").await }
    });
    let mut looked_at = 0;
    for reply in futures_util::future::join_all(guesses).await {
        match reply.status {
            401 => looked_at += 1,
            _ => {
                let reply = reply.expect_problem(429, "rate_limited");
                assert_eq!(reply.json()["violated-policies"], json!(["login"]));
                let wait: u64 = reply.header("retry-after").parse().unwrap();
                assert!((1..=900).contains(&wait), "{wait}");
            }
        }
    }
    assert_eq!(looked_at, 5);
    // An account that is not there is no different.
    for (guess, status) in [401, 401, 401, 401, 401, 429].into_iter().enumerate() {
        let from = format!("203.0.113.{guess}");
        let reply = try_password(&cluster.instances[1].client(), &from, "nobody", "a wrong password").await;
        assert_eq!(reply.status, status, "guess {guess}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_guess_do_not_lock_the_owner_out_of_his_usual_place() {
    let cluster = Cluster::start_with(1, &SETTINGS).await;
    let client = cluster.instances[0].client();
    client.register("ada").await;
    try_password(&client, "192.0.2.1", "ada", PASSWORD).await.expect(200);
    for guess in 0..6 {
        try_password(&client, &format!("198.51.100.{guess}"), "ada", "a wrong password").await;
    }
    try_password(&client, "198.51.100.77", "ada", PASSWORD).await.expect_problem(429, "rate_limited");
    try_password(&client, "192.0.2.1", "ada", PASSWORD).await.expect(200);
    // There, too, no more than five guesses.
    for _ in 0..5 {
        try_password(&client, "192.0.2.1", "ada", "a wrong password").await.expect(401);
    }
    try_password(&client, "192.0.2.1", "ada", PASSWORD).await.expect_problem(429, "rate_limited");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_knows_the_password_may_sign_in_as_often_as_he_likes() {
    let cluster = Cluster::start_with(2, &SETTINGS).await;
    cluster.instances[0].client().register("ada").await;
    for round in 0..25 {
        let client = cluster.instances[round % 2].client();
        try_password(&client, &format!("198.51.100.{round}"), "ada", PASSWORD).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_may_fail_twenty_times_a_minute_whatever_it_claims_to_be() {
    let cluster = Cluster::start_with(1, &SETTINGS).await;
    let client = cluster.instances[0].client();
    for guess in 0..20 {
        // The left-most address is the client's own invention.
        let from = format!("203.0.113.{guess}, 2001:db8:1:2:3::{guess}");
        let name = format!("somebody{guess}");
        try_password(&client, &from, &name, "a wrong password").await.expect(401);
    }
    let refused = try_password(&client, "9.9.9.9, 2001:db8:1:2:ffff::1", "other", "a wrong password").await;
    let refused = refused.expect_problem(429, "rate_limited");
    assert_eq!(refused.json()["violated-policies"], json!(["login_address_burst"]));
    // Tokens and accounts are guessed at, too.
    let token = json!({"refresh_token": "lsr_x"});
    let request =
        client.request(Method::POST, "/v1/auth/refresh").header("x-forwarded-for", "2001:db8:1:2::9");
    assert_ne!(client.send(request.json(&token)).await.status, 200);
    try_password(&client, "2001:db8:1:3::1", "other", "a wrong password").await.expect(401);
}
