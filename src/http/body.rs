//! Bodies: JSON in, or a problem that says what is wrong with it.

use std::{future::Future, pin::Pin};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::{
        Method,
        header::{ACCEPT, CONTENT_TYPE, HeaderName},
    },
    web::{Bytes, BytesMut},
};
use futures_util::StreamExt;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::AppError;

/// Largest body, in bytes.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

const MERGE_PATCH: &str = "application/merge-patch+json";
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// A JSON body. PATCH takes a JSON Merge Patch (RFC 7396), called so or plain `application/json`.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = AppError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, AppError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let typed = check_type(request);
        let payload = payload.take();
        Box::pin(async move {
            typed?;
            parse(&collect(payload).await?).map(Self)
        })
    }
}

/// A JSON body that may be left out.
#[derive(Debug)]
pub struct OptionalBody<T>(pub T);

impl<T: DeserializeOwned + Default + 'static> FromRequest for OptionalBody<T> {
    type Error = AppError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, AppError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let typed = check_type(request);
        let payload = payload.take();
        Box::pin(async move {
            let bytes = collect(payload).await?;
            if bytes.is_empty() {
                return Ok(Self(T::default()));
            }
            typed?;
            parse(&bytes).map(Self)
        })
    }
}

/// A body that asks for something to be made, and the key under which the request may be repeated.
#[derive(Debug)]
pub struct Creation<T> {
    /// The body.
    pub body: T,
    /// The header `Idempotency-Key`, if there is one.
    pub once: Option<Once>,
}

/// What tells a repeated request from another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// The key.
    pub key: String,
    /// What it was sent to.
    pub path: String,
    /// SHA-256 of the body.
    pub fingerprint: [u8; 32],
}

impl<T: DeserializeOwned + 'static> FromRequest for Creation<T> {
    type Error = AppError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, AppError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let typed = check_type(request);
        let key = idempotency_key(request);
        let path = request.path().to_owned();
        let payload = payload.take();
        Box::pin(async move {
            typed?;
            let key = key?;
            let bytes = collect(payload).await?;
            let body = parse(&bytes)?;
            let once = key.map(|key| Once { key, path, fingerprint: Sha256::digest(&bytes).into() });
            Ok(Self { body, once })
        })
    }
}

/// A Structured Field string of 1 to 255 printable characters; quotes may be left out.
fn idempotency_key(request: &HttpRequest) -> Result<Option<String>, AppError> {
    let Some(header) = request.headers().get("idempotency-key") else { return Ok(None) };
    let sent = header.to_str().unwrap_or_default().trim();
    let key = sent.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(sent);
    if (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"') {
        return Ok(Some(key.to_owned()));
    }
    Err(AppError::Malformed("The header Idempotency-Key must be 1 to 255 printable characters.".to_owned()))
}

fn check_type(request: &HttpRequest) -> Result<(), AppError> {
    let sent = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let sent = sent.split(';').next().unwrap_or_default().trim();
    let is_patch = request.method() == Method::PATCH;
    if sent.eq_ignore_ascii_case("application/json") || (is_patch && sent.eq_ignore_ascii_case(MERGE_PATCH)) {
        return Ok(());
    }
    let (accepted, header) =
        if is_patch { (MERGE_PATCH, ACCEPT_PATCH) } else { ("application/json", ACCEPT) };
    Err(AppError::UnsupportedMediaType { accepted, header })
}

async fn collect(mut payload: Payload) -> Result<Bytes, AppError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk =
            chunk.map_err(|err| AppError::Malformed(format!("The body did not arrive whole: {err}.")))?;
        if body.len() + chunk.len() > MAX_BODY_BYTES {
            // Read on for a moment, so that the client gets to read the answer; then give up.
            return drain(payload, body.len() + chunk.len()).await;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// A connection closed in the middle of a body loses the answer on its way; a client that sends without end may.
async fn drain(mut payload: Payload, mut read: usize) -> Result<Bytes, AppError> {
    const PATIENCE_BYTES: usize = 4 * 1024 * 1024;
    while read < PATIENCE_BYTES
        && let Some(Ok(chunk)) = payload.next().await
    {
        read += chunk.len();
    }
    Err(AppError::TooLarge { limit: MAX_BODY_BYTES })
}

/// In two steps: only then is it the same for all that is not JSON, wherever in the body that shows. And a list would
/// otherwise do for an object, its members taken in the order in which we declare them.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, AppError> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|err| AppError::Malformed(format!("The body is not JSON: {err}.")))?;
    if !body.is_object() {
        return Err(AppError::member("#", "must be an object"));
    }
    serde_path_to_error::deserialize(body).map_err(|err| {
        let path = err.path().to_string();
        let pointer = if path == "." { "#".to_owned() } else { format!("#/{}", path.replace('.', "/")) };
        AppError::member(pointer, err.inner().to_string())
    })
}

/// For `Option<Option<T>>` in a merge patch: absent is `None`, `null` is `Some(None)`.
///
/// # Errors
/// When the value is neither `null` nor a `T`.
pub fn nullable<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// For `Option<T>` in a merge patch where `null` is not allowed: absent is `None`, `null` an error.
///
/// # Errors
/// When the value is not a `T`.
pub fn required<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Fault;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Patch {
        #[serde(default, deserialize_with = "required")]
        name: Option<String>,
        #[serde(default, deserialize_with = "nullable")]
        avatar_url: Option<Option<String>>,
    }

    fn fault(body: &str) -> Fault {
        match parse::<Patch>(body.as_bytes()) {
            Err(AppError::Invalid(mut faults)) => faults.remove(0),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_merge_patch_tells_absent_from_null() {
        let patch: Patch = parse(br#"{"avatar_url": null}"#).unwrap();
        assert_eq!((patch.name, patch.avatar_url), (None, Some(None)));
        let patch: Patch = parse(b"{}").unwrap();
        assert_eq!((patch.name, patch.avatar_url), (None, None));
    }

    #[test]
    fn what_breaks_a_rule_is_named() {
        assert_eq!(fault(r#"{"name": 5}"#).pointer.as_deref(), Some("#/name"));
        assert_eq!(fault(r#"{"name": null}"#).pointer.as_deref(), Some("#/name"));
        assert!(fault(r#"{"nmae": "x"}"#).detail.starts_with("unknown field `nmae`"));
        for body in ["[]", "[\"x\"]", "null", "5"] {
            assert_eq!(fault(body).pointer.as_deref(), Some("#"), "{body}");
        }
    }

    #[test]
    fn what_is_not_json_is_malformed() {
        for body in ["", "{", "{\"name\": \"x\"", "name=x", "{} {}", "\u{feff}{}"] {
            assert!(matches!(parse::<Patch>(body.as_bytes()), Err(AppError::Malformed(_))), "{body:?}");
        }
    }
}
