//! What surrounds every request: its id, its line in the access log, its numbers, what holds whoever asks, and the form of
//! what Actix answers by itself.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{
    Error, HttpRequest, HttpResponse, ResponseError as _,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        StatusCode,
        header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
    web::Data,
};
use log::Level;
use uuid::Uuid;

use super::caller::consistency_token;
use crate::{
    app::{App, Phase},
    cache::Status,
    error::{AppError, Problem},
    metrics::Route,
    telemetry,
};

/// Where everything is that callers ask for.
pub const V1: &str = "/v1";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");
const CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");

/// The outermost middleware.
///
/// # Errors
/// Those of middleware inside, of which ours has none: it answers with responses, which are logged and counted here.
pub async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = Instant::now();
    let id = request_id(request.headers());
    telemetry::with_request_id(Arc::clone(&id), async {
        let mut response = match refusal(&request) {
            None => in_our_form(next.call(request).await?.map_into_boxed_body()),
            Some(refusal) => request.into_response(refusal.error_response()),
        };
        finish(&id, started, &mut response);
        Ok(response)
    })
    .await
}

/// What holds for every request, whoever asks: while the process starts there may be no tables yet, and a token that says
/// nothing must not pass for one that was honoured.
fn refusal(request: &ServiceRequest) -> Option<AppError> {
    // As it will be matched.
    let below = request.match_info().unprocessed().strip_prefix(V1);
    if !below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        return None;
    }
    if request.app_data::<Data<App>>().is_none_or(|app| app.readiness.phase() == Phase::Starting) {
        return Some(AppError::Unavailable("the service is starting".into()));
    }
    consistency_token(request.headers()).err()
}

/// The caller's id if it is well formed, else one of ours.
fn request_id(headers: &HeaderMap) -> Arc<str> {
    let sent = headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok());
    let legal = |id: &&str| {
        (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    let ours = || Arc::from(&*Uuid::now_v7().hyphenated().encode_lower(&mut Uuid::encode_buffer()));
    sent.filter(legal).map_or_else(ours, Into::into)
}

/// Actix answers some requests by itself (unknown paths, wrong methods) in a form of its own.
fn in_our_form(response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let status = response.status();
    if status.as_u16() < 400 || is_problem(response.headers()) {
        return response;
    }
    let Some(problem) = Problem::of_framework(status) else { return response };
    let mut ours = problem.respond();
    for name in [ALLOW] {
        if let Some(value) = response.headers().get(&name) {
            ours.headers_mut().insert(name, value.clone());
        }
    }
    response.into_response(ours)
}

fn is_problem(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes() == b"application/problem+json")
}

fn finish(id: &str, started: Instant, response: &mut ServiceResponse<BoxBody>) {
    let elapsed = started.elapsed();
    let status = response.status();
    let request = response.request();
    let route = request.app_data::<Route>();
    // What was refused on the way has not met its route.
    let pattern = match route {
        Some(route) => Cow::Borrowed(&*route.pattern),
        None => request.match_pattern().map_or(Cow::Borrowed("none"), Cow::Owned),
    };
    let app = request.app_data::<Data<App>>();
    if let Some(app) = app {
        match route {
            Some(route) => app.metrics.request(request.method(), route, status.as_u16(), elapsed),
            None => app.metrics.refused(request.method(), &pattern, status.as_u16(), elapsed),
        }
    }
    log_access(request, response.response(), &pattern, elapsed);
    let served_by = app.map(|app| app.served_by.clone());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    if let Some(served_by) = served_by {
        headers.insert(SERVED_BY, served_by);
    }
}

/// What lines of requests are written under.
pub const ACCESS_LOG: &str = "lockstep::access";

fn log_access(request: &HttpRequest, response: &HttpResponse, route: &str, elapsed: Duration) {
    let status = response.status();
    let level = if status >= StatusCode::INTERNAL_SERVER_ERROR { Level::Warn } else { Level::Info };
    if !log::log_enabled!(target: ACCESS_LOG, level) {
        return;
    }
    let cache = response.extensions().get::<Status>().map(ToString::to_string).unwrap_or_default();
    log::log!(target: ACCESS_LOG, level,
        method = request.method().as_str(), route, status = status.as_u16(),
        elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX), cache = cache.as_str(); "request");
}
