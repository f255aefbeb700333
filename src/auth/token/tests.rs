use std::collections::HashSet;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const OTHER: &[u8] = b"fedcba9876543210fedcba9876543210";

fn tokens() -> AccessTokens {
    AccessTokens::new(SECRET, &[])
}

fn claims() -> Value {
    let now = jsonwebtoken::get_current_timestamp();
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": UserId::new(), "exp": now + 60, "iat": now,
        "jti": Uuid::now_v7(), "sid": SessionId::new(), "epoch": 7,
    })
}

/// Signs anything with the real key.
fn signed(tokens: &AccessTokens, claims: &Value) -> String {
    jsonwebtoken::encode(&tokens.header, claims, &tokens.signing).unwrap()
}

fn with(field: &str, value: Value) -> String {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(field)),
        value => claims[field] = value,
    }
    signed(&tokens(), &claims)
}

fn encoded(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

#[test]
fn an_issued_token_verifies() {
    let (user, session) = (UserId::new(), SessionId::new());
    let token = tokens().issue(user, session, 3).unwrap();
    let claims = tokens().verify(&token).unwrap();
    assert_eq!((claims.sub, claims.sid, claims.epoch), (user, session, 3));
    assert_eq!(claims.exp - claims.iat, ACCESS_TTL.as_secs());
    assert!((300..600).contains(&token.len()), "{} bytes", token.len());
    assert_ne!(token, tokens().issue(user, session, 3).unwrap());
}

#[test]
fn the_key_is_found_without_parsing_the_header() {
    let tokens = tokens();
    let token = tokens.issue(UserId::new(), SessionId::new(), 0).unwrap();
    assert_eq!(token.split('.').next().unwrap(), tokens.keys[0].encoded_header);
}

#[test]
fn a_header_spelled_otherwise_verifies_all_the_same() {
    let tokens = tokens();
    let header = encoded(&json!({"kid": tokens.keys[0].kid, "alg": "HS256"}));
    let message = format!("{header}.{}", encoded(&claims()));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &tokens.signing, ALGORITHM).unwrap();
    assert!(tokens.verify(&format!("{message}.{signature}")).is_ok());
}

#[test]
fn another_algorithm_is_refused_although_the_key_is_right() {
    let tokens = tokens();
    let mut header = tokens.header.clone();
    header.alg = Algorithm::HS512;
    let token = jsonwebtoken::encode(&header, &claims(), &tokens.signing).unwrap();
    assert_eq!(tokens.verify(&token), Err(TokenError::Algorithm));
}

#[test]
fn a_token_without_an_algorithm_is_refused() {
    let tokens = tokens();
    for alg in ["none", "None", "NONE", ""] {
        let header = encoded(&json!({"typ": "JWT", "alg": alg, "kid": tokens.keys[0].kid}));
        let token = format!("{header}.{}.", encoded(&claims()));
        assert_eq!(tokens.verify(&token), Err(TokenError::Malformed));
    }
    // A known header without a signature, or with that of another message.
    let token = tokens.issue(UserId::new(), SessionId::new(), 0).unwrap();
    let (message, signature) = token.rsplit_once('.').unwrap();
    assert_eq!(tokens.verify(&format!("{message}.")), Err(TokenError::Signature));
    let forged = format!("{}.{}.{signature}", tokens.keys[0].encoded_header, encoded(&claims()));
    assert_eq!(tokens.verify(&forged), Err(TokenError::Signature));
}

#[test]
fn a_forged_signature_is_refused() {
    let forger = AccessTokens::new(OTHER, &[]);
    let mut header = forger.header.clone();
    header.kid = tokens().header.kid;
    let token = jsonwebtoken::encode(&header, &claims(), &forger.signing).unwrap();
    assert_eq!(tokens().verify(&token), Err(TokenError::Signature));
}

#[test]
fn the_secret_itself_signs_nothing() {
    let token = jsonwebtoken::encode(&tokens().header, &claims(), &EncodingKey::from_secret(SECRET)).unwrap();
    assert_eq!(tokens().verify(&token), Err(TokenError::Signature));
}

#[test]
fn a_token_for_or_from_somebody_else_is_refused() {
    for field in ["aud", "iss"] {
        for value in [json!("somebody"), json!(""), json!(["somebody"]), Value::Null] {
            assert_eq!(tokens().verify(&with(field, value)), Err(TokenError::Claims), "{field}");
        }
    }
}

#[test]
fn a_token_expires() {
    let now = jsonwebtoken::get_current_timestamp();
    assert_eq!(tokens().verify(&with("exp", json!(now - 10))), Err(TokenError::Expired));
    assert!(tokens().verify(&with("exp", json!(now - 2))).is_ok(), "within the leeway");
    assert_eq!(tokens().verify(&with("exp", Value::Null)), Err(TokenError::Malformed));
}

#[test]
fn a_token_that_lacks_a_claim_is_refused() {
    for field in ["sub", "sid", "epoch", "iat", "jti"] {
        assert_eq!(tokens().verify(&with(field, Value::Null)), Err(TokenError::Malformed), "{field}");
    }
    assert_eq!(tokens().verify(&with("sub", json!("ada"))), Err(TokenError::Malformed));
}

#[test]
fn an_unknown_key_is_refused_and_a_previous_one_verifies() {
    let old = AccessTokens::new(OTHER, &[]);
    let token = old.issue(UserId::new(), SessionId::new(), 0).unwrap();
    assert_eq!(tokens().verify(&token), Err(TokenError::UnknownKey));

    let rotated = AccessTokens::new(SECRET, &[OTHER.to_vec(), SECRET.to_vec()]);
    assert!(rotated.verify(&token).is_ok());
    assert_eq!(rotated.keys.len(), 2);
    let new = rotated.issue(UserId::new(), SessionId::new(), 0).unwrap();
    assert!(tokens().verify(&new).is_ok());
    assert_eq!(old.verify(&new), Err(TokenError::UnknownKey));
}

#[test]
fn a_key_is_named_by_8_hexadecimal_digits() {
    let kid = tokens().header.kid.unwrap();
    let digest: [u8; 32] = Sha256::digest(derive_key(SECRET, KEY_LABEL)).into();
    assert_eq!(kid, digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()[..8]);
}

#[test]
fn garbage_is_refused() {
    let token = tokens().issue(UserId::new(), SessionId::new(), 0).unwrap();
    let cut = &token[..token.len() / 2];
    for garbage in ["", ".", "..", "...", "a.b.c", "ü.ü.ü", "Bearer x", cut, &format!("{token}.x")] {
        assert!(tokens().verify(garbage).is_err(), "{garbage:?}");
    }
}

#[test]
fn keys_of_different_labels_or_secrets_differ() {
    let keys = [derive_key(SECRET, "a"), derive_key(SECRET, "b"), derive_key(OTHER, "a")];
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), 3);
    assert_eq!(derive_key(SECRET, "a"), keys[0]);
}

#[test]
fn nothing_shows_a_key_or_a_refresh_token() {
    let refresh = RefreshToken::new();
    assert_eq!(format!("{refresh:?}"), "RefreshToken(***)");
    let shown = format!("{:?}", tokens());
    assert!(shown.starts_with("AccessTokens { kids: [\"") && shown.len() < 60, "{shown}");
}

#[test]
fn a_refresh_token_survives_the_way_to_the_client_and_back() {
    let token = RefreshToken::new();
    let text = token.reveal();
    assert!(text.starts_with("lsr_") && text.len() == 47);
    assert_eq!(RefreshToken::parse(&text).unwrap().digest(), token.digest());
    assert_ne!(RefreshToken::new().digest(), token.digest());
    for wrong in ["", "lsr_", &text[4..], &text[..46], &format!("{text}A"), &text.replace("lsr_", "LSR_")] {
        assert!(RefreshToken::parse(wrong).is_none(), "{wrong:?}");
    }
    // Another spelling of the same bits is another text, and there is only one right one.
    assert!(RefreshToken::parse(&format!("lsr_{}B", "A".repeat(42))).is_none());
}

/// A directory that goes away with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("lockstep-{}", Uuid::now_v7())))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn racing_processes_get_one_secret() {
    let directory = Directory::new();
    let path = &directory.0.join("data");
    let secrets: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| load_or_create_secret(path).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(secrets.iter().all(|secret| *secret == secrets[0]));
    assert_eq!(secrets[0].len(), 64);
    assert_eq!(load_or_create_secret(path).unwrap(), secrets[0]);
}

#[cfg(unix)]
#[test]
fn only_its_owner_may_read_the_secret() {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = Directory::new();
    load_or_create_secret(&directory.0).unwrap();
    let metadata = std::fs::metadata(directory.0.join("auth-secret")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
}

#[test]
fn an_empty_file_is_filled_and_a_broken_one_refused() {
    let directory = Directory::new();
    std::fs::create_dir_all(&directory.0).unwrap();
    let file = directory.0.join("auth-secret");
    std::fs::write(&file, "").unwrap();
    let secret = load_or_create_secret(&directory.0).unwrap();
    assert_eq!(std::fs::read(&file).unwrap().trim_ascii(), secret);
    std::fs::write(&file, "too short").unwrap();
    let err = load_or_create_secret(&directory.0).unwrap_err().to_string();
    assert!(err.contains("auth-secret") && !err.contains("too short"), "{err}");
}

#[test]
fn a_token_that_was_found_good_expires_all_the_same() {
    let tokens = tokens();
    let token = tokens.issue(UserId::new(), SessionId::new(), 0).unwrap();
    let claims = tokens.verify(&token).unwrap();
    let last = claims.exp + LEEWAY.as_secs();
    assert_eq!(tokens.verify_at(token.as_bytes(), last).unwrap(), claims);
    assert_eq!(tokens.verify_at(token.as_bytes(), last + 1).unwrap_err(), TokenError::Expired);
    assert_eq!(tokens.verify(&token).unwrap(), claims);
}

#[test]
fn what_is_remembered_of_a_token_is_for_no_other_token_and_no_other_key() {
    let tokens = tokens();
    let good = tokens.issue(UserId::new(), SessionId::new(), 0).unwrap();
    tokens.verify(&good).unwrap();
    let (signed, _) = good.rsplit_once('.').unwrap();
    let other = tokens.issue(UserId::new(), SessionId::new(), 0).unwrap();
    let forged = format!("{signed}.{}", other.rsplit_once('.').unwrap().1);
    for _ in 0..2 {
        assert_eq!(tokens.verify(&forged).unwrap_err(), TokenError::Signature);
        assert!(tokens.verify(signed).is_err());
        assert_eq!(tokens.verify(b"\xff").unwrap_err(), TokenError::Malformed);
    }
    assert_eq!(AccessTokens::new(OTHER, &[]).verify(&good).unwrap_err(), TokenError::UnknownKey);
    assert!(tokens.verify(&good).is_ok());
}

#[test]
fn more_tokens_than_are_remembered_stay_good() {
    let tokens = tokens();
    let issued: Vec<_> = (0..10_000)
        .map(|epoch| (epoch, tokens.issue(UserId::new(), SessionId::new(), epoch).unwrap()))
        .collect();
    for _ in 0..2 {
        for (epoch, token) in &issued {
            assert_eq!(tokens.verify(token).unwrap().epoch, *epoch);
        }
    }
}
