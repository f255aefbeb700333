//! `/v1/events`: what happens, as it happens.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        Method, StatusCode,
        header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue},
    },
    web::{Bytes, Data, Query},
};
use futures_util::StreamExt as _;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    app::App,
    error::AppError,
    http::{
        caller::{Caller, Listener},
        reply,
    },
    realtime::feed::{Start, feed},
    services::events,
};

/// How a browser says who it is and where it was, since its `EventSource` sends no headers of its own.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamQuery {
    /// From `POST /v1/events/ticket`; good once. Instead of an access token.
    #[serde(rename = "ticket")]
    _ticket: Option<String>,
    /// The `id` of the last event that was received. Instead of the header `Last-Event-ID`.
    last_event_id: Option<String>,
}

pub(super) async fn stream_events(
    app: Data<App>,
    listener: Listener,
    query: Query<StreamQuery>,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let mut response = HttpResponse::Ok();
    response
        .insert_header((CONTENT_TYPE, HeaderValue::from_static("text/event-stream")))
        .insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")))
        // Nothing on the way may gather events before it passes them on.
        .insert_header((CONTENT_ENCODING, HeaderValue::from_static("identity")))
        .insert_header(("x-accel-buffering", "no"));
    if request.method() == Method::HEAD {
        return Ok(response.finish());
    }
    let last = request.headers().get("last-event-id").and_then(|value| value.to_str().ok());
    let start = match last.or(query.last_event_id.as_deref()).filter(|last| !last.is_empty()) {
        Some(last) => Start::After(last.parse().ok()),
        None => Start::Now,
    };
    let user = listener.actor.user_id;
    let joined = app.hub.join(user, listener.credential).await;
    let joined = joined.map_err(|err| AppError::Unavailable(err.into()))?;
    let feed = feed(app.db.clone(), user, joined, start);
    Ok(response.streaming(feed.map(Ok::<Bytes, AppError>)))
}

pub(super) async fn create_event_ticket(app: Data<App>, caller: Caller) -> Result<HttpResponse, AppError> {
    let ticket = events::issue_ticket(&app, caller.actor, &caller.credential).await?;
    reply::secrets(StatusCode::CREATED, &ticket)
}
