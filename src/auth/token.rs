//! Tokens: the signed access token that every request shows, the refresh token that is exchanged
//! for the next one, and the keys behind them.
//!
//! A secret is never a key: each use derives its own with `derive_key`. Which algorithm verifies
//! is fixed here and never taken from a token. A token that verifies was issued by us and has not
//! expired; whether its session has ended is for the caller to ask. Nothing here shows a secret,
//! a key or a refresh token in `Debug`, in an error or in a log.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hkdf::Hkdf;
use jsonwebtoken::errors::{Error as JwtError, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::domain::id::{SessionId, UserId};

mod opaque;
mod secret;
mod verified;

pub use opaque::{RefreshToken, Ticket};
pub use secret::load_or_create_secret;

use self::verified::Verified;

/// How long an access token is good for.
pub const ACCESS_TTL: Duration = Duration::from_secs(15 * 60);

/// How far the clocks of two instances may differ.
const LEEWAY: Duration = Duration::from_secs(5);

const ISSUER: &str = "lockstep";
const AUDIENCE: &str = "lockstep-api";
const ALGORITHM: Algorithm = Algorithm::HS256;
const KEY_LABEL: &str = "lockstep access token";

/// What an access token says, once it is believed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Claims {
    /// Whom it speaks for.
    pub sub: UserId,
    /// The session it was issued in.
    pub sid: SessionId,
    /// The user's token epoch at that time: tokens of an earlier one are revoked.
    pub epoch: i32,
    /// When it expires, in seconds since 1970.
    pub exp: u64,
    /// When it was issued, in seconds since 1970.
    pub iat: u64,
    /// Its own id.
    pub jti: Uuid,
}

/// What is signed.
#[derive(Serialize)]
struct SignedClaims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: UserId,
    exp: u64,
    iat: u64,
    jti: Uuid,
    sid: SessionId,
    epoch: i32,
}

/// Why an access token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not a token of ours at all.
    #[error("the access token is malformed")]
    Malformed,
    /// It names another algorithm than ours.
    #[error("the access token has the wrong algorithm")]
    Algorithm,
    /// It names a key that we do not have, or no longer.
    #[error("the access token was signed with an unknown key")]
    UnknownKey,
    /// Its signature is not that of its key.
    #[error("the signature of the access token is wrong")]
    Signature,
    /// Its time is over.
    #[error("the access token has expired")]
    Expired,
    /// It is from or for somebody else, or does not say so.
    #[error("the access token was not issued for this API")]
    Claims,
}

impl TokenError {
    /// A word for metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::Claims => "claims",
        }
    }
}

impl From<JwtError> for TokenError {
    fn from(err: JwtError) -> Self {
        match err.kind() {
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::InvalidAlgorithm => Self::Algorithm,
            ErrorKind::InvalidIssuer | ErrorKind::InvalidAudience | ErrorKind::MissingRequiredClaim(_) => {
                Self::Claims
            }
            _ => Self::Malformed,
        }
    }
}

/// By what an access token is known where it must not be read: its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    #[must_use]
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }
}

/// Whether what a token says is still good, of one that was verified before.
#[must_use]
pub fn is_still_in_time(expires_at: u64) -> bool {
    is_in_time(expires_at, jsonwebtoken::get_current_timestamp())
}

/// As `Validation` has it.
const fn is_in_time(expires_at: u64, now: u64) -> bool {
    expires_at >= now.saturating_sub(LEEWAY.as_secs())
}

/// An access token could not be signed. Not the client's fault.
#[derive(Debug, thiserror::Error)]
#[error("an access token cannot be signed")]
pub struct SignError(#[from] JwtError);

/// Issues and verifies access tokens.
pub struct AccessTokens {
    header: Header,
    signing: EncodingKey,
    /// The key that signs, and then those that did.
    keys: Vec<VerifyingKey>,
    validation: Validation,
    verified: Verified,
}

struct VerifyingKey {
    kid: String,
    /// The first part of every token that this key signs. Found there, the key is known without
    /// parsing anything.
    encoded_header: String,
    key: DecodingKey,
}

impl VerifyingKey {
    fn new(derived: &[u8; 32]) -> Self {
        let kid = key_id(derived);
        let header = format!(r#"{{"typ":"JWT","alg":"HS256","kid":"{kid}"}}"#);
        Self { kid, encoded_header: URL_SAFE_NO_PAD.encode(header), key: DecodingKey::from_secret(derived) }
    }
}

impl AccessTokens {
    /// Signs with a key of `secret`; verifies with those of `previous` secrets too.
    pub fn new(secret: &[u8], previous: &[Vec<u8>]) -> Self {
        let derived = derive_key(secret, KEY_LABEL);
        let mut keys = vec![VerifyingKey::new(&derived)];
        for secret in previous {
            let key = VerifyingKey::new(&derive_key(secret, KEY_LABEL));
            if keys.iter().all(|known| known.kid != key.kid) {
                keys.push(key);
            }
        }
        let mut header = Header::new(ALGORITHM);
        header.kid = Some(key_id(&derived));
        let mut validation = Validation::new(ALGORITHM);
        validation.leeway = LEEWAY.as_secs();
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let signing = EncodingKey::from_secret(&derived);
        Self { header, signing, keys, validation, verified: Verified::new() }
    }

    /// A token for a user's session that is good from now for [`ACCESS_TTL`].
    pub fn issue(&self, user: UserId, sid: SessionId, epoch: i32) -> Result<String, SignError> {
        let iat = jsonwebtoken::get_current_timestamp();
        let exp = iat.saturating_add(ACCESS_TTL.as_secs());
        let jti = Uuid::now_v7();
        self.sign(&SignedClaims { iss: ISSUER, aud: AUDIENCE, sub: user, exp, iat, jti, sid, epoch })
    }

    fn sign(&self, claims: &SignedClaims<'_>) -> Result<String, SignError> {
        Ok(jsonwebtoken::encode(&self.header, claims, &self.signing)?)
    }

    /// What a token says, if it is ours and has not expired.
    pub fn verify(&self, token: &(impl AsRef<[u8]> + ?Sized)) -> Result<Claims, TokenError> {
        self.verify_at(token.as_ref(), jsonwebtoken::get_current_timestamp())
    }

    /// The same at a time that is given, in seconds since 1970, as far as the token was verified before.
    fn verify_at(&self, token: &[u8], now: u64) -> Result<Claims, TokenError> {
        let digest = Digest::of(token);
        if let Some(claims) = self.verified.get(&digest) {
            return if is_in_time(claims.exp, now) { Ok(claims) } else { Err(TokenError::Expired) };
        }
        let token = std::str::from_utf8(token).map_err(|_garbage| TokenError::Malformed)?;
        let key = self.key_of(token)?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.key, &self.validation)?.claims;
        self.verified.put(digest, &claims);
        Ok(claims)
    }

    /// The key that a token names. Naming one proves nothing yet.
    fn key_of(&self, token: &str) -> Result<&VerifyingKey, TokenError> {
        let (header, _) = token.split_once('.').ok_or(TokenError::Malformed)?;
        if let Some(key) = self.keys.iter().find(|key| key.encoded_header == header) {
            return Ok(key);
        }
        // Not spelled as we spell it; say what is wrong with it.
        let header = jsonwebtoken::decode_header(token)?;
        if header.alg != ALGORITHM {
            return Err(TokenError::Algorithm);
        }
        let kid = header.kid.ok_or(TokenError::UnknownKey)?;
        self.keys.iter().find(|key| key.kid == kid).ok_or(TokenError::UnknownKey)
    }
}

impl fmt::Debug for AccessTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kids: Vec<&str> = self.keys.iter().map(|key| key.kid.as_str()).collect();
        f.debug_struct("AccessTokens").field("kids", &kids).finish_non_exhaustive()
    }
}

/// What a token calls a key: enough of its hash to tell it from the others.
fn key_id(key: &[u8; 32]) -> String {
    let digest: [u8; 32] = Sha256::digest(key).into();
    let [a, b, c, d, ..] = digest;
    format!("{:08x}", u32::from_be_bytes([a, b, c, d]))
}

/// A key for one purpose, which its label names (HKDF-SHA256, RFC 5869). Keys of different labels
/// tell nothing of each other or of the secret.
#[expect(clippy::expect_used, reason = "HKDF-SHA256 gives up to 8160 bytes, and 32 are asked for")]
pub(crate) fn derive_key(secret: &[u8], label: &str) -> [u8; 32] {
    let mut key = [0; 32];
    Hkdf::<Sha256>::new(None, secret).expand(label.as_bytes(), &mut key).expect("32 bytes are not too many");
    key
}

#[cfg(test)]
mod tests;
