//! What surrounds every request: its id, its line in the access log, its numbers, what holds whoever asks, and the form of
//! what Actix answers by itself.

use std::{
    rc::Rc,
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
    rt,
};
use log::Level;
use uuid::Uuid;

use super::{
    caller::consistency_token,
    memo::{Memo, PARTS},
};
use crate::{
    app::{App, Phase},
    cache::Status,
    error::{AppError, Problem},
    metrics::Route,
    rate_limit::flood_guard::FloodGuard,
    telemetry,
};

/// Where everything is that callers ask for.
pub const V1: &str = "/v1";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");
const CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");

/// Within such a time a worker lets go of what it need not remember any more.
const TIDY_WITHIN: Duration = Duration::from_secs(1);

/// What a worker has for itself.
pub struct Worker {
    app: App,
    guard: Option<Arc<FloodGuard>>,
    memo: Memo,
}

impl Worker {
    /// For the worker whose thread this is. All share what the guard counts.
    #[must_use]
    pub fn new(app: App, guard: Option<Arc<FloodGuard>>) -> Rc<Self> {
        let worker = Rc::new(Self { app, guard, memo: Memo::default() });
        let tidied = Rc::downgrade(&worker);
        rt::spawn(async move {
            while let Some(worker) = tidied.upgrade() {
                worker.memo.forget_what_is_over(Instant::now());
                drop(worker);
                rt::time::sleep(TIDY_WITHIN / PARTS).await;
            }
        });
        worker
    }

    /// What holds for every request, whoever asks: while the process starts there may be no tables yet, a token that says
    /// nothing must not pass for one that was honoured, and floods must cost nothing.
    fn refusal(&self, request: &ServiceRequest) -> Option<AppError> {
        // As it will be matched.
        let below = request.match_info().unprocessed().strip_prefix(V1);
        if !below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            return None;
        }
        if self.app.readiness.phase() == Phase::Starting {
            return Some(AppError::Unavailable("the service is starting".into()));
        }
        let guarded = self.guard.as_ref().map_or(Ok(()), |guard| guard.charge(request));
        guarded.and_then(|()| consistency_token(request.headers()).map(drop)).err()
    }
}

/// The outermost middleware.
///
/// # Errors
/// Those of middleware inside, of which ours has none: it answers with responses, which are logged and counted here.
pub async fn observe(
    worker: Rc<Worker>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = Instant::now();
    let id = request_id(request.headers());
    telemetry::with_request_id(Arc::clone(&id), async {
        let app = &worker.app;
        let (mut response, route) = match worker.refusal(&request) {
            None => {
                let (response, route) = worker.memo.answer(app, started, request, next).await?;
                (in_our_form(response), route)
            }
            Some(refusal) => (request.into_response(refusal.error_response()), None),
        };
        finish(app, &id, started, &mut response, route.as_ref());
        Ok(response)
    })
    .await
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

fn finish(
    app: &App,
    id: &str,
    started: Instant,
    response: &mut ServiceResponse<BoxBody>,
    route: Option<&Route>,
) {
    let elapsed = started.elapsed();
    let status = response.status();
    let request = response.request();
    match route.or_else(|| request.app_data::<Route>()) {
        Some(route) => {
            app.metrics.request(request.method(), route, status.as_u16(), elapsed);
            log_access(request, response.response(), route.pattern(), elapsed);
        }
        // What was refused on the way has not met its route.
        None => {
            let pattern = request.match_pattern();
            let pattern = pattern.as_deref().unwrap_or("none");
            app.metrics.refused(request.method(), pattern, status.as_u16(), elapsed);
            log_access(request, response.response(), pattern, elapsed);
        }
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(SERVED_BY, app.served_by.clone());
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
