//! Every URL, in one table. Handlers translate: a read is a query, a write is a service.

mod auth;
mod documents;
mod members;
mod ops;
mod users;
mod workspaces;

use actix_web::{
    HttpResponse, Resource, ResponseError,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    middleware::{Next, from_fn},
    web::{self, Data, ServiceConfig},
};

use crate::{
    app::{App, Phase},
    error::AppError,
    http::caller::consistency_token,
    rate_limit::flood_guard::FloodGuard,
};

/// A resource that is read: HEAD stands beside every GET. Resources rather than routes: they answer 405, with `Allow`.
macro_rules! resource {
    ($path:literal, get: $get:expr $(, $method:ident: $handler:expr)*) => {
        web::resource($path)
            .route(web::get().to($get))
            .route(web::head().to($get))
            $(.route(web::$method().to($handler)))*
    };
    ($path:literal $(, $method:ident: $handler:expr)+) => {
        web::resource($path)$(.route(web::$method().to($handler)))+
    };
}

/// Mounts everything. The guard stands before all that costs something, and not before what operators ask.
pub fn configure(config: &mut ServiceConfig, guard: Option<&FloodGuard>) {
    config.service(resource!("/livez", get: ops::livez));
    config.service(resource!("/readyz", get: ops::readyz));
    config.service(resource!("/metrics", get: ops::metrics));
    let v1 = v1_resources().into_iter().fold(web::scope("/v1"), actix_web::Scope::service);
    let v1 = v1.wrap(from_fn(admit));
    match guard {
        Some(guard) => config.service(v1.wrap(guard.middleware())),
        None => config.service(v1),
    };
    config.default_service(web::to(not_found));
}

fn v1_resources() -> Vec<Resource> {
    vec![
        resource!("/auth/register", post: auth::register),
        resource!("/auth/login", post: auth::log_in),
        resource!("/auth/refresh", post: auth::refresh),
        resource!("/auth/logout", post: auth::log_out),
        resource!("/auth/logout-all", post: auth::log_out_everywhere),
        resource!("/auth/password", post: auth::change_password),
        resource!("/users/me", get: users::get_own_profile, patch: users::change_profile),
        resource!("/users/{user}", get: users::get_user),
        resource!("/workspaces", get: workspaces::list_workspaces, post: workspaces::create_workspace),
        resource!("/workspaces/{workspace}", get: workspaces::get_workspace,
            patch: workspaces::change_workspace, delete: workspaces::delete_workspace),
        resource!("/workspaces/{workspace}/members", get: members::list_members, post: members::add_member),
        resource!("/workspaces/{workspace}/members/{user}", get: members::get_member,
            patch: members::change_member, delete: members::remove_member),
        resource!("/workspaces/{workspace}/documents", get: documents::list_documents,
            post: documents::create_document),
        resource!("/workspaces/{workspace}/documents/{document}", get: documents::get_document,
            patch: documents::change_document, delete: documents::delete_document),
        resource!("/workspaces/{workspace}/documents/{document}/versions",
            get: documents::list_document_versions),
        resource!("/workspaces/{workspace}/documents/{document}/versions/{version}",
            get: documents::get_document_version),
    ]
}

async fn not_found() -> Result<HttpResponse, AppError> {
    Err(AppError::NotFound)
}

/// What holds for every request, whoever asks: while the process starts there may be no tables yet, and a token that says
/// nothing must not pass for one that was honoured.
async fn admit(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let starting = request.app_data::<Data<App>>().is_none_or(|app| app.readiness.phase() == Phase::Starting);
    let refusal = if starting {
        Some(AppError::Unavailable("the service is starting".into()))
    } else {
        consistency_token(request.headers()).err()
    };
    match refusal {
        Some(refusal) => Ok(request.into_response(refusal.error_response())),
        None => Ok(next.call(request).await?.map_into_boxed_body()),
    }
}
