//! `/livez`, `/readyz`, `/metrics`: for those who operate it.

use actix_web::{
    HttpResponse,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    web::Data,
};

use crate::{
    app::{App, Phase},
    error::{AppError, Problem},
};

/// The process answers. Depends on nothing.
pub(super) async fn livez() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((CONTENT_TYPE, "text/plain"))
        .body("ok\n")
}

/// Whether a balancer should send requests here. Not refused when a store goes away later: cached reads go on without
/// it, and all instances would leave at once.
pub(super) async fn readyz(app: Data<App>) -> HttpResponse {
    let not_ready = |detail| {
        let (code, title) = ("unavailable", "Not ready");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, title).with_detail(detail).respond()
    };
    let body = match app.readiness.phase() {
        Phase::Starting => return not_ready("starting"),
        Phase::Draining => return not_ready("draining"),
        Phase::Ready if app.cache.is_degraded() || !app.db.is_reachable() => "degraded\n",
        Phase::Ready => "ok\n",
    };
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((CONTENT_TYPE, "text/plain"))
        .body(body)
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
