//! What can go wrong with a request, and how it is told: RFC 9457 problem details with a stable `code`.
//!
//! A 4xx names the rule that was broken. A 5xx says nothing of its cause to the client; the cause goes to the log,
//! once. What a caller may not see does not exist: 404, with the same body as what really does not.

mod problem;

use std::{fmt, time::Duration};

use actix_web::{
    HttpResponse, ResponseError,
    body::BoxBody,
    http::{
        StatusCode,
        header::{ETAG, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
    },
};
use diesel::result::Error as QueryError;
use serde::Serialize;
use utoipa::ToSchema;

pub use self::problem::Problem;

use crate::{
    cache::{LoadError, SourceAway},
    config::Rate,
    db::DbError,
    http::cursor::InvalidCursor,
    telemetry::Chain,
};

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The body is not JSON, or a parameter is not what its place asks for.
    #[error("{0}")]
    Malformed(String),
    /// The `Consistency-Token` is none of ours.
    #[error("the header Consistency-Token {0}")]
    InvalidConsistencyToken(#[from] crate::cache::MalformedToken),
    /// The cursor is none of ours.
    #[error("{0}")]
    InvalidCursor(#[from] InvalidCursor),
    /// Nobody is signed in, or no longer.
    #[error("{}", .0.detail())]
    Unauthenticated(SignIn),
    /// The caller may see the thing but not do this with it.
    #[error("{0}")]
    Forbidden(&'static str),
    /// There is no such thing, or none that the caller may see.
    #[error("There is nothing here that you may see.")]
    NotFound,
    /// It contradicts what is there.
    #[error("{0}")]
    Conflict(&'static str),
    /// The same request is still under way.
    #[error("A request with this Idempotency-Key is under way; repeat yours when it has ended.")]
    RequestInProgress,
    /// The key belongs to another request.
    #[error("This Idempotency-Key was used with another body.")]
    IdempotencyKeyReused,
    /// A workspace needs an owner.
    #[error("A workspace needs an owner: make somebody else one first.")]
    LastOwner,
    /// Whoever changes this has to say what he has seen.
    #[error("Send If-Match with the ETag of what you have seen.")]
    PreconditionRequired,
    /// It is no longer what the caller has seen.
    #[error("It was changed since you have seen it; read it again.")]
    PreconditionFailed {
        /// What it is now.
        etag: Vec<u8>,
    },
    /// The body is too large.
    #[error("The body is larger than {limit} bytes.")]
    TooLarge { limit: usize },
    /// The body is of a type that this resource does not take.
    #[error("The body must be of type {accepted}.")]
    UnsupportedMediaType { accepted: &'static str, header: HeaderName },
    /// The request breaks rules, each of which is listed.
    #[error("The request breaks {} rule(s).", .0.len())]
    Invalid(Vec<Fault>),
    /// The caller has asked too much.
    #[error("Limit \"{policy}\" ({} per {} s) is used up; free again in {} s.", .rate.count, .rate.window.as_secs(), seconds(*.wait))]
    RateLimited {
        /// Which limit.
        policy: &'static str,
        /// What it allows.
        rate: Rate,
        /// Until the next request passes.
        wait: Duration,
        /// All limits that are used up.
        violated: Vec<&'static str>,
    },
    /// Try again later.
    #[error("The service cannot do this at the moment; try again.")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A bug, or the like.
    #[error("Something went wrong on our side.")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why nobody is signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignIn {
    /// No token was sent.
    Missing,
    /// The token is no good, or no longer.
    InvalidToken,
    /// Unknown account or wrong password: which of them is not told.
    WrongCredentials,
}

impl SignIn {
    const fn detail(self) -> &'static str {
        match self {
            Self::Missing => "Send an access token: Authorization: Bearer <token>.",
            Self::InvalidToken => "The token is invalid, expired or revoked; log in or refresh it.",
            Self::WrongCredentials => "E-mail and password do not match an account.",
        }
    }
}

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fault {
    /// What would be right.
    pub detail: String,
    /// The member of the body, as a JSON pointer in a URI fragment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The parameter of the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<&'static str>,
}

/// Collects what is wrong with a body, so that all of it is told at once.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// The parsed member, or notes what is wrong with it.
    pub fn member<T, E: fmt::Display>(&mut self, name: &str, parsed: Result<T, E>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(err) => {
                let pointer = Some(format!("#/{name}"));
                self.0.push(Fault { detail: err.to_string(), pointer, parameter: None });
                None
            }
        }
    }

    /// The same for a member that may be absent.
    pub fn optional<T, E: fmt::Display>(&mut self, name: &str, parsed: Option<Result<T, E>>) -> Option<T> {
        parsed.and_then(|parsed| self.member(name, parsed))
    }

    /// The same for a member of a merge patch that may be `null`.
    pub fn nullable<T, E: fmt::Display>(
        &mut self,
        name: &str,
        sent: Option<Option<String>>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Option<T>> {
        sent.map(|value| value.and_then(|text| self.member(name, parse(&text))))
    }

    /// The parsed value, if nothing at all was wrong.
    ///
    /// # Errors
    /// All that was noted.
    pub fn check<T>(self, value: Option<T>) -> Result<T, AppError> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(AppError::Invalid(self.0)),
        }
    }
}

impl AppError {
    /// A parameter of the URL breaks a rule.
    #[must_use]
    pub fn parameter(name: &'static str, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![Fault { detail: detail.into(), pointer: None, parameter: Some(name) }])
    }

    /// A member of the body breaks a rule. `pointer` is a JSON pointer in a URI fragment; `#` is the body itself.
    #[must_use]
    pub fn member(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![Fault { detail: detail.into(), pointer: Some(pointer.into()), parameter: None }])
    }

    /// A failure that nobody expected.
    pub fn internal(err: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(err.into())
    }

    /// The stable code, and the title that goes with it.
    #[must_use]
    pub const fn code(&self) -> (&'static str, &'static str) {
        match self {
            Self::Malformed(_) => ("malformed_body", "The request cannot be read"),
            Self::InvalidConsistencyToken(_) => {
                ("invalid_consistency_token", "The consistency token is malformed")
            }
            Self::InvalidCursor(_) => ("invalid_cursor", "The cursor is invalid"),
            Self::Unauthenticated(_) => ("unauthenticated", "Not signed in"),
            Self::Forbidden(_) => ("forbidden", "Not allowed"),
            Self::NotFound => ("not_found", "Not found"),
            Self::Conflict(_) => ("conflict", "In conflict with what is there"),
            Self::RequestInProgress => ("request_in_progress", "The request is under way"),
            Self::IdempotencyKeyReused => ("idempotency_key_reused", "The idempotency key was used before"),
            Self::LastOwner => ("last_owner", "The last owner"),
            Self::PreconditionRequired => ("precondition_required", "If-Match is missing"),
            Self::PreconditionFailed { .. } => ("precondition_failed", "Changed meanwhile"),
            Self::TooLarge { .. } => ("payload_too_large", "The body is too large"),
            Self::UnsupportedMediaType { .. } => ("unsupported_media_type", "The body is of the wrong type"),
            Self::Invalid(_) => ("validation_error", "The request is not valid"),
            Self::RateLimited { .. } => ("rate_limited", "Quota exceeded"),
            Self::Unavailable(_) => ("unavailable", "Unavailable at the moment"),
            Self::Internal(_) => ("internal", "Internal error"),
        }
    }
}

/// A wait in whole seconds, never too short and never 0.
fn seconds(wait: Duration) -> u64 {
    wait.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX)
}

impl ResponseError for AppError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::InvalidConsistencyToken(_) | Self::InvalidCursor(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Conflict(_) | Self::RequestInProgress | Self::LastOwner => StatusCode::CONFLICT,
            Self::PreconditionRequired => StatusCode::PRECONDITION_REQUIRED,
            Self::PreconditionFailed { .. } => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid(_) | Self::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let (code, title) = self.code();
        let mut problem = Problem::new(self.status_code(), code, title);
        problem.detail = Some(self.to_string());
        let mut extra = Vec::new();
        match self {
            Self::Invalid(faults) => problem.errors.clone_from(faults),
            Self::Unauthenticated(reason) => {
                let challenge = match reason {
                    SignIn::InvalidToken => "Bearer realm=\"lockstep\", error=\"invalid_token\"",
                    SignIn::Missing | SignIn::WrongCredentials => "Bearer realm=\"lockstep\"",
                };
                extra.push((WWW_AUTHENTICATE, HeaderValue::from_static(challenge)));
            }
            Self::UnsupportedMediaType { accepted, header } => {
                extra.push((header.clone(), HeaderValue::from_static(accepted)));
            }
            Self::PreconditionFailed { etag } => {
                if let Ok(etag) = HeaderValue::from_bytes(etag) {
                    extra.push((ETAG, etag));
                }
            }
            Self::RateLimited { violated, wait, .. } => {
                // Registered with IANA by the draft on RateLimit header fields.
                "https://iana.org/assignments/http-problem-types#quota-exceeded"
                    .clone_into(&mut problem.r#type);
                problem.violated_policies.clone_from(violated);
                extra.push((RETRY_AFTER, seconds(*wait).into()));
            }
            Self::Unavailable(cause) => {
                log::warn!("error.chain":% = Chain(&**cause); "request could not be served now");
                extra.push((RETRY_AFTER, HeaderValue::from_static("1")));
            }
            Self::Internal(cause) => log::error!("error.chain":% = Chain(&**cause); "request failed"),
            _ => {}
        }
        let mut response = problem.respond();
        for (name, value) in extra {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<DbError> for AppError {
    fn from(err: DbError) -> Self {
        match err {
            // Whoever refuses leave answers in place of this.
            DbError::Refused => Self::Forbidden("This request may not write."),
            err if err.is_passing() => Self::Unavailable(err.into()),
            err => Self::Internal(err.into()),
        }
    }
}

impl From<QueryError> for AppError {
    fn from(err: QueryError) -> Self {
        DbError::from(err).into()
    }
}

impl From<LoadError> for AppError {
    fn from(err: LoadError) -> Self {
        let passing = match &err {
            LoadError::TimedOut(_) => true,
            LoadError::Failed(cause) => cause.is::<SourceAway>(),
            LoadError::Panicked => false,
        };
        if passing { Self::Unavailable(err.into()) } else { Self::Internal(err.into()) }
    }
}
