//! Signing up, in and out.

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use diesel_async::SimpleAsyncConnection as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Client, Cluster, Instance, Reply,
    client::{PASSWORD, email},
    eventually,
};

const ME: &str = "/v1/users/me";
const CHALLENGE: &str = "Bearer realm=\"lockstep\"";
const INVALID_TOKEN: &str = "Bearer realm=\"lockstep\", error=\"invalid_token\"";

/// How soon an ended session has to be refused by an instance that was not told so by the client.
const SOON: Duration = Duration::from_secs(1);

async fn log_in(client: &Client, email: &str, password: &str) -> Reply {
    client.post("/v1/auth/login", json!({"email": email, "password": password})).await
}

async fn refresh(client: &Client, refresh_token: &str) -> Reply {
    client.post("/v1/auth/refresh", json!({ "refresh_token": refresh_token })).await
}

async fn log_out(client: &Client, refresh_token: &str) -> Reply {
    client.post("/v1/auth/logout", json!({ "refresh_token": refresh_token })).await.expect(204)
}

/// The refusal of a token.
#[track_caller]
fn expect_invalid_token(reply: Reply) -> Reply {
    let reply = reply.expect_problem(401, "unauthenticated");
    assert_eq!(reply.header("www-authenticate"), INVALID_TOKEN);
    reply
}

/// Whoever knows of the write that ended the session is refused at once.
async fn expect_ended_at_once(session: &Client, write: &Reply, instance: &Instance) {
    expect_invalid_token(session.at(instance).after(write).get(ME).await);
}

/// Everybody else is refused in a moment.
async fn expect_ended_soon(session: &Client, instance: &Instance) {
    let there = session.at(instance);
    eventually("the session is refused", SOON, async || (there.get(ME).await.status == 401).then_some(()))
        .await;
    expect_invalid_token(there.get(ME).await);
}

/// A write that nobody may keep a copy of.
#[track_caller]
fn expect_kept_by_nobody(write: &Reply) {
    assert_eq!(write.header("cache-control"), "no-store", "{write:?}");
    assert!((1..64).contains(&write.header("consistency-token").len()), "{write:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_registers_can_sign_in_refresh_and_sign_out() {
    let cluster = Cluster::start(1).await;
    let nobody = cluster.instances[0].client();

    let account = json!({"email": " Ada@Example.COM ", "password": PASSWORD, "name": "Ada"});
    let registered = nobody.post("/v1/auth/register", account).await.expect(201);
    let logged_in = log_in(&nobody, "aDA@exaMPle.com", PASSWORD).await.expect(200);
    let refreshed = refresh(&nobody, &logged_in.field("/refresh_token")).await.expect(200);
    for grant in [&registered, &logged_in, &refreshed] {
        expect_kept_by_nobody(grant);
        assert_eq!(grant.header("content-type"), "application/json");
        assert_eq!(grant.json()["token_type"], "Bearer");
        assert_eq!(grant.json()["expires_in"], 900);
        assert_eq!(grant.json()["user"]["object"], "user");
        assert_eq!(grant.json()["user"]["email"], "ada@example.com");
        assert_eq!(grant.json()["user"]["name"], "Ada");
        assert_eq!(grant.json()["user"]["id"], registered.json()["user"]["id"]);
        assert!(!grant.text.contains("password"), "{grant:?}");
        let me = nobody.signed_in(grant).get(ME).await.expect(200);
        assert_eq!(me.json(), grant.json()["user"]);
    }
    let secrets = [&registered, &logged_in, &refreshed]
        .map(|grant| [grant.field("/access_token"), grant.field("/refresh_token")]);
    let distinct: std::collections::HashSet<_> = secrets.iter().flatten().collect();
    assert_eq!(distinct.len(), 6, "every grant has tokens of its own");

    let ada = nobody.signed_in(&refreshed);
    let left = log_out(&nobody, &ada.refresh_token).await;
    expect_kept_by_nobody(&left);
    assert_eq!(left.text, "");
    expect_invalid_token(refresh(&nobody, &ada.refresh_token).await);
    expect_invalid_token(ada.get(ME).await);
    // Whoever is out already has what he wants.
    for token in [&*ada.refresh_token, "nobody's"] {
        expect_kept_by_nobody(&log_out(&nobody, token).await);
    }
    for garbage in ["", "x", "lsr_", &ada.access_token.unwrap(), &format!("lsr_{}", "A".repeat(43))] {
        expect_invalid_token(refresh(&nobody, garbage).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_one_account_however_it_is_spelled() {
    let cluster = Cluster::start(2).await;
    let (a, b) = (cluster.instances[0].client(), cluster.instances[1].client());
    a.register("ada").await;
    for address in ["ada@example.com", "ADA@Example.com", "\tada@EXAMPLE.COM "] {
        let account = json!({"email": address, "password": PASSWORD, "name": "Eve"});
        b.post("/v1/auth/register", account).await.expect_problem(409, "conflict");
    }
    // Of many at once one gets it.
    let account = || json!({"email": "bob@example.com", "password": PASSWORD, "name": "Bob"});
    let (one, other) =
        tokio::join!(a.post("/v1/auth/register", account()), b.post("/v1/auth/register", account()));
    let (won, lost) = if one.status == 201 { (one, other) } else { (other, one) };
    won.expect(201);
    lost.expect_problem(409, "conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_account_and_a_wrong_password_cannot_be_told_apart() {
    let cluster = Cluster::start(1).await;
    let nobody = cluster.instances[0].client();
    nobody.register("ada").await;

    let (mut unknown_times, mut wrong_times) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        let started = Instant::now();
        let unknown = log_in(&nobody, "nobody@example.com", "wrong password").await;
        unknown_times.push(started.elapsed());
        let started = Instant::now();
        let wrong = log_in(&nobody, "ada@example.com", "wrong password").await;
        wrong_times.push(started.elapsed());

        let unknown = unknown.expect_problem(401, "unauthenticated");
        let wrong = wrong.expect_problem(401, "unauthenticated");
        assert_eq!(unknown.without_instance(), wrong.without_instance());
        assert_eq!(unknown.header("www-authenticate"), CHALLENGE);
        let names = |reply: &Reply| -> std::collections::BTreeSet<String> {
            reply.headers.keys().map(ToString::to_string).collect()
        };
        assert_eq!(names(&unknown), names(&wrong));
        assert_eq!(unknown.header("www-authenticate"), wrong.header("www-authenticate"));
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let (unknown, wrong) = (median(unknown_times), median(wrong_times));
    // A check costs tens of milliseconds, all else a few.
    assert!(unknown < 4 * wrong && wrong < 4 * unknown, "unknown {unknown:?}, wrong {wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reused_refresh_token_ends_the_session_on_every_instance() {
    let cluster = Cluster::start(2).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    let stolen = a.client().register("ada").await;
    let elsewhere = b.client().log_in("ada").await;
    let second = a.client().signed_in(&refresh(&a.client(), &stolen.refresh_token).await.expect(200));
    let third = b.client().signed_in(&refresh(&b.client(), &second.refresh_token).await.expect(200));
    let family = [&stolen, &second, &third];
    // Refreshing alone ends nothing; and both instances know the sign-in state by now.
    for instance in &cluster.instances {
        for session in family {
            session.at(instance).get(ME).await.expect(200);
        }
    }

    expect_invalid_token(refresh(&a.client(), &stolen.refresh_token).await);
    for session in family {
        expect_invalid_token(session.at(a).get(ME).await);
        expect_ended_soon(session, b).await;
    }
    for session in [&second, &third] {
        expect_invalid_token(refresh(&b.client(), &session.refresh_token).await);
    }
    // The thief's session only.
    for instance in &cluster.instances {
        elsewhere.at(instance).get(ME).await.expect(200);
    }
    refresh(&a.client(), &elsewhere.refresh_token).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_uses_of_a_refresh_token_at_once_one_wins() {
    let cluster = Cluster::start(2).await;
    let (a, b) = (cluster.instances[0].client(), cluster.instances[1].client());
    a.register("ada").await;
    for _ in 0..5 {
        let session = a.log_in("ada").await;
        let token = &session.refresh_token;
        let (one, other) = tokio::join!(refresh(&a, token), refresh(&b, token));
        let (won, lost) = if one.status == 200 { (one, other) } else { (other, one) };
        won.expect(200);
        expect_invalid_token(lost);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_ends_that_session_at_once_on_every_instance_and_no_other() {
    let cluster = Cluster::start(2).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    let stays = a.client().register("ada").await;
    for told in [true, false] {
        let leaves = a.client().log_in("ada").await;
        for instance in &cluster.instances {
            leaves.at(instance).get(ME).await.expect(200);
        }
        let write = log_out(&leaves, &leaves.refresh_token).await;
        expect_invalid_token(leaves.get(ME).await);
        if told {
            expect_ended_at_once(&leaves, &write, b).await;
        } else {
            expect_ended_soon(&leaves, b).await;
        }
        expect_invalid_token(refresh(&b.client(), &leaves.refresh_token).await);
        for instance in &cluster.instances {
            stays.at(instance).after(&write).get(ME).await.expect(200);
        }
    }
    refresh(&b.client(), &stays.refresh_token).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_everywhere_ends_every_session_at_once_on_every_instance() {
    let cluster = Cluster::start(2).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    a.client().register("ada").await;
    let bob = a.client().register("bob").await;
    for told in [true, false] {
        let sessions = [a.client().log_in("ada").await, b.client().log_in("ada").await];
        for session in &sessions {
            session.at(a).get(ME).await.expect(200);
            session.at(b).get(ME).await.expect(200);
        }
        sessions[0].at(b).get_cached(ME).await;

        let write = sessions[0].at(a).post("/v1/auth/logout-all", json!({})).await.expect(204);
        expect_kept_by_nobody(&write);
        for session in &sessions {
            expect_invalid_token(session.at(a).get(ME).await);
            if told {
                expect_ended_at_once(session, &write, b).await;
            } else {
                expect_ended_soon(session, b).await;
            }
            expect_invalid_token(refresh(&b.client(), &session.refresh_token).await);
        }
        b.client().log_in("ada").await.get(ME).await.expect(200);
        bob.at(b).after(&write).get(ME).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_takes_the_place_of_the_old_one_and_ends_every_session() {
    let cluster = Cluster::start(2).await;
    let (a, b) = (&cluster.instances[0], &cluster.instances[1]);
    let ada = a.client().register("ada").await;
    let elsewhere = b.client().log_in("ada").await;
    let change = async |current: &str, new: &str| {
        ada.post("/v1/auth/password", json!({"current_password": current, "new_password": new})).await
    };
    let new = "another horse, another battery";

    change("not the password", new).await.expect_problem(403, "forbidden");
    let refused = change(PASSWORD, "short").await.expect_problem(422, "validation_error");
    assert_eq!(refused.field("/errors/0/pointer"), "#/new_password");
    let refused = change(PASSWORD, &"x".repeat(129)).await.expect_problem(422, "validation_error");
    assert_eq!(refused.field("/errors/0/pointer"), "#/new_password");
    for session in [&ada, &elsewhere] {
        session.at(a).get(ME).await.expect(200);
        session.at(b).get(ME).await.expect(200);
    }

    let write = change(PASSWORD, new).await.expect(204);
    expect_kept_by_nobody(&write);
    expect_invalid_token(ada.get(ME).await);
    expect_ended_soon(&ada, b).await;
    expect_ended_at_once(&elsewhere, &write, b).await;
    for session in [&ada, &elsewhere] {
        expect_invalid_token(refresh(&b.client(), &session.refresh_token).await);
    }
    log_in(&b.client(), &email("ada"), PASSWORD).await.expect_problem(401, "unauthenticated");
    let again = log_in(&b.client(), &email("ada"), new).await.expect(200);
    b.client().signed_in(&again).get(ME).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_account_is_signed_out_and_cannot_sign_in() {
    let cluster = Cluster::start(1).await;
    let nobody = cluster.instances[0].client();
    let ada = nobody.register("ada").await;
    ada.get(ME).await.expect(200);

    let disable = "UPDATE users SET is_active = false WHERE email = 'ada@example.com'";
    cluster.database.connect().await.batch_execute(disable).await.unwrap();
    eventually("the account is refused", Duration::from_secs(5), async || {
        (ada.get(ME).await.status == 401).then_some(())
    })
    .await;
    expect_invalid_token(ada.get(ME).await);
    expect_invalid_token(refresh(&nobody, &ada.refresh_token).await);
    let refused = log_in(&nobody, &email("ada"), PASSWORD).await.expect_problem(401, "unauthenticated");
    let unknown = log_in(&nobody, &email("eve"), PASSWORD).await.expect_problem(401, "unauthenticated");
    assert_eq!(refused.without_instance(), unknown.without_instance());
}

/// A token as we would sign it, were the header and the claims ours and this the secret.
fn forge(header: &Header, claims: &Value, secret: &str) -> String {
    let mut key = [0; 32];
    let derived = hkdf::Hkdf::<sha2::Sha256>::new(None, secret.as_bytes());
    derived.expand(b"lockstep access token", &mut key).unwrap();
    jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(&key)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn access_tokens_that_are_not_ours_are_refused() {
    let cluster = Cluster::start(1).await;
    let nobody = cluster.instances[0].client();
    let ada = nobody.register("ada").await;
    let genuine = ada.access_token.clone().unwrap();
    let (signed, signature) = genuine.rsplit_once('.').unwrap();
    let (head, payload) = signed.split_once('.').unwrap();
    let header = jsonwebtoken::decode_header(&genuine).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    let secret = cluster.setting("AUTH_SECRET");
    let with_token = async |token: &str| {
        let mut session = nobody.clone();
        session.access_token = Some(token.to_owned());
        session.get(ME).await
    };
    // This is how ours are made: what is refused below is refused for the one thing that is wrong with it.
    with_token(&forge(&header, &claims, secret)).await.expect(200);

    let claiming = |name: &str, value: Value| {
        let mut other = claims.clone();
        other[name] = value;
        forge(&header, &other, secret)
    };
    let without = |name: &str| {
        let mut other = claims.clone();
        other.as_object_mut().unwrap().remove(name);
        forge(&header, &other, secret)
    };
    let issued = claims["iat"].as_u64().unwrap();
    let unsigned = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"none"}"#);
    let unsigned_kid =
        URL_SAFE_NO_PAD.encode(json!({"typ": "JWT", "alg": "none", "kid": header.kid}).to_string());
    let other_payload = {
        let mut other = claims.clone();
        other["sub"] = uuid::Uuid::now_v7().to_string().into();
        URL_SAFE_NO_PAD.encode(other.to_string())
    };
    let forged = [
        ("expired", claiming("exp", (issued - 60).into())),
        ("for ever", without("exp")),
        ("no number", claiming("exp", "tomorrow".into())),
        ("by somebody else", claiming("iss", "somebody".into())),
        ("by nobody", without("iss")),
        ("for somebody else", claiming("aud", "somebody".into())),
        ("for nobody", without("aud")),
        ("of an unknown user", claiming("sub", uuid::Uuid::now_v7().to_string().into())),
        ("of no user", without("sub")),
        ("of no session", without("sid")),
        ("of an earlier epoch", claiming("epoch", (-1).into())),
        ("other secret", forge(&header, &claims, "another secret that is long enough")),
        (
            "unknown kid",
            forge(&Header { kid: Some("00000000".to_owned()), ..header.clone() }, &claims, secret),
        ),
        ("no kid", forge(&Header { kid: None, ..header.clone() }, &claims, secret)),
        ("HS512", forge(&Header { alg: Algorithm::HS512, ..header.clone() }, &claims, secret)),
        ("none", format!("{unsigned}.{payload}.")),
        ("none, signed", format!("{unsigned_kid}.{payload}.{signature}")),
        ("no signature", format!("{signed}.")),
        ("two parts", signed.to_owned()),
        ("other payload", format!("{head}.{other_payload}.{signature}")),
        ("short signature", genuine[..genuine.len() - 4].to_owned()),
        ("four parts", format!("{genuine}.x")),
        ("refresh token", ada.refresh_token.clone()),
        ("garbage", "garbage".to_owned()),
        ("dots", "..".to_owned()),
        ("letters", "a.b.c".to_owned()),
        ("long", "A".repeat(10_000)),
    ];
    for (what, token) in forged {
        let reply = with_token(&token).await;
        assert_eq!(reply.status, 401, "{what}: {reply:?}");
        expect_invalid_token(reply);
    }

    let with_header = async |value: &[u8]| {
        let value = reqwest::header::HeaderValue::from_bytes(value).unwrap();
        nobody.send(nobody.request(Method::GET, ME).header("authorization", value)).await
    };
    with_header(format!("bearer {genuine}").as_bytes()).await.expect(200);
    for invalid in ["Bearer", "Bearer x y", "Bearer  "] {
        expect_invalid_token(with_header(invalid.as_bytes()).await);
    }
    with_header(b"Bearer \xff\xfe").await.expect_problem(401, "unauthenticated");
    // No token was sent, so that none can be invalid (RFC 6750, section 3.1).
    for other in ["", "Basic YTpi", "Token abc", &genuine] {
        let reply = with_header(other.as_bytes()).await.expect_problem(401, "unauthenticated");
        assert_eq!(reply.header("www-authenticate"), CHALLENGE, "{other:?}");
    }
    let reply = nobody.get(ME).await.expect_problem(401, "unauthenticated");
    assert_eq!(reply.header("www-authenticate"), CHALLENGE);
    ada.get(ME).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_the_previous_secret_are_good_for_as_long_as_it_is_listed() {
    let cluster = Cluster::start(1).await;
    let ada = cluster.instances[0].client().register("ada").await;
    let old = cluster.setting("AUTH_SECRET").to_owned();
    let rotated = async |previous: Option<&str>| {
        let mut settings = cluster.settings.clone();
        settings.retain(|(name, _)| name != "AUTH_SECRET");
        settings.push(("AUTH_SECRET".to_owned(), "the next secret, which is long enough".to_owned()));
        settings.extend(previous.map(|secret| ("AUTH_SECRET_PREVIOUS".to_owned(), secret.to_owned())));
        Instance::start(&settings).await
    };
    let during = rotated(Some(&old)).await;
    let after = rotated(None).await;
    ada.at(&during).get(ME).await.expect(200);
    expect_invalid_token(ada.at(&after).get(ME).await);
    let refreshed = refresh(&during.client(), &ada.refresh_token).await.expect(200);
    after.client().signed_in(&refreshed).get(ME).await.expect(200);
}
