//! `/livez`, `/readyz`, `/metrics`: for those who operate it.

use actix_web::{
    HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    web::Data,
};

use crate::{
    app::{App, Phase},
    error::AppError,
};

/// The process answers. Depends on nothing.
pub(super) async fn livez() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((CONTENT_TYPE, "text/plain"))
        .body("ok\n")
}

/// Whether a balancer should send requests here. Not asked again of the database once it was reached: cached reads go on
/// without it, and all instances would leave at once.
pub(super) async fn readyz(app: Data<App>) -> HttpResponse {
    let (mut response, body) = match app.readiness.phase() {
        Phase::Starting => (HttpResponse::ServiceUnavailable(), "starting\n"),
        Phase::Draining => (HttpResponse::ServiceUnavailable(), "draining\n"),
        Phase::Ready if app.cache.is_degraded() => (HttpResponse::Ok(), "degraded\n"),
        Phase::Ready => (HttpResponse::Ok(), "ok\n"),
    };
    response.insert_header((CACHE_CONTROL, "no-store")).insert_header((CONTENT_TYPE, "text/plain")).body(body)
}

pub(super) async fn metrics(app: Data<App>) -> Result<HttpResponse, AppError> {
    app.cache.measure();
    let (open, idle) = app.db.connections();
    app.metrics.set_connections(open, idle);
    let text = app.metrics.render().map_err(AppError::internal)?;
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((CONTENT_TYPE, "text/plain; version=0.0.4"))
        .body(text))
}
