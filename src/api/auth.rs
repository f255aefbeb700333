//! `/v1/auth`.

use actix_web::{HttpResponse, http::StatusCode, web::Data};

use crate::{
    app::App,
    error::AppError,
    http::{body::Body, caller::Caller, client_address::ClientAddress, reply},
    services::sessions::{self, ChangePassword, LogIn, Refresh, Register},
};

pub(super) async fn register(
    app: Data<App>,
    address: ClientAddress,
    body: Body<Register>,
) -> Result<HttpResponse, AppError> {
    reply::secrets(StatusCode::CREATED, &sessions::register(&app, address.0, body.0).await?)
}

pub(super) async fn log_in(
    app: Data<App>,
    address: ClientAddress,
    body: Body<LogIn>,
) -> Result<HttpResponse, AppError> {
    reply::secrets(StatusCode::OK, &sessions::log_in(&app, address.0, body.0).await?)
}

pub(super) async fn refresh(
    app: Data<App>,
    address: ClientAddress,
    body: Body<Refresh>,
) -> Result<HttpResponse, AppError> {
    reply::secrets(StatusCode::OK, &sessions::refresh(&app, address.0, body.0).await?)
}

pub(super) async fn log_out(app: Data<App>, body: Body<Refresh>) -> Result<HttpResponse, AppError> {
    reply::done(&sessions::log_out(&app, body.0).await?)
}

pub(super) async fn log_out_everywhere(app: Data<App>, caller: Caller) -> Result<HttpResponse, AppError> {
    reply::done(&sessions::log_out_everywhere(&app, caller.actor).await?)
}

pub(super) async fn change_password(
    app: Data<App>,
    caller: Caller,
    body: Body<ChangePassword>,
) -> Result<HttpResponse, AppError> {
    reply::done(&sessions::change_password(&app, caller.actor, body.0).await?)
}
