//! Problem details as they are sent (RFC 9457).

use actix_web::{
    HttpResponse,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{AppError, Fault};
use crate::telemetry::current_request_id;

/// A problem as it is sent.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    pub(super) r#type: String,
    title: &'static str,
    status: u16,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) errors: Vec<Fault>,
    #[serde(rename = "violated-policies", skip_serializing_if = "Vec::is_empty")]
    pub(super) violated_policies: Vec<&'static str>,
}

impl Problem {
    /// A problem of a certain kind.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, title: &'static str) -> Self {
        let instance = current_request_id().map(|id| match uuid::Uuid::try_parse(&id) {
            // Only if it says the same again.
            Ok(uuid) if uuid.to_string() == *id => uuid.urn().to_string(),
            _ => format!("urn:lockstep:request:{id}"),
        });
        // Relative to the API, where `docs/api.md` is served in time to come; a name first of all.
        let r#type = format!("/problems/{}", code.replace('_', "-"));
        Self {
            r#type,
            title,
            status: status.as_u16(),
            code,
            detail: None,
            instance,
            errors: Vec::new(),
            violated_policies: Vec::new(),
        }
    }

    /// What the framework answers by itself, in our form. `None`: there is nothing to say about this status.
    #[must_use]
    pub fn of_framework(status: StatusCode) -> Option<Self> {
        let (code, title) = match status {
            StatusCode::NOT_FOUND => AppError::NotFound.code(),
            StatusCode::METHOD_NOT_ALLOWED => {
                ("method_not_allowed", "The resource does not know this method")
            }
            StatusCode::PAYLOAD_TOO_LARGE => ("payload_too_large", "The body is too large"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => ("unsupported_media_type", "The body is of the wrong type"),
            StatusCode::REQUEST_TIMEOUT => ("request_timeout", "The request took too long to arrive"),
            StatusCode::SERVICE_UNAVAILABLE => ("unavailable", "Unavailable at the moment"),
            status if status.is_client_error() => ("malformed_body", "The request cannot be read"),
            status if status.is_server_error() => ("internal", "Internal error"),
            _ => return None,
        };
        Some(Self::new(status, code, title))
    }

    /// What is the matter in this case.
    #[must_use]
    pub fn with_detail(self, detail: &str) -> Self {
        Self { detail: Some(detail.to_owned()), ..self }
    }

    /// The response. Never kept by anybody.
    #[must_use]
    pub fn respond(self) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        HttpResponse::build(status)
            .insert_header((CONTENT_TYPE, "application/problem+json"))
            .insert_header((CACHE_CONTROL, "no-store"))
            .body(serde_json::to_vec(&self).unwrap_or_default())
    }
}
