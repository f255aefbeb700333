//! `/v1/events`: what happens, as it happens.

use std::{future::Future, pin::Pin};

use actix_web::{
    FromRequest, HttpRequest, HttpResponse,
    dev::Payload,
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
    auth::Actor,
    error::AppError,
    http::{
        caller::{Caller, Credential, admit},
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
    ticket: Option<String>,
    /// The `id` of the last event that was received. Instead of the header `Last-Event-ID`.
    last_event_id: Option<String>,
}

/// Somebody who listens, signed in by an access token or by a ticket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listener {
    actor: Actor,
    credential: Credential,
}

impl FromRequest for Listener {
    type Error = AppError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, AppError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let ticket = Query::<StreamQuery>::from_query(request.query_string());
        let Ok(Query(StreamQuery { ticket: Some(ticket), .. })) = ticket else {
            let caller = Caller::from_request(request, payload);
            return Box::pin(async move {
                let Caller { actor, credential, .. } = caller.await?;
                Ok(Self { actor, credential })
            });
        };
        let request = request.clone();
        Box::pin(async move {
            let app =
                request.app_data::<Data<App>>().ok_or_else(|| AppError::internal("no application data"))?;
            let (user, credential) = events::take_ticket(app, &ticket).await?;
            Ok(Self { actor: admit(app, user, &credential, None).await?, credential })
        })
    }
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
    let ticket = events::issue_ticket(&app, &caller.actor, &caller.credential).await?;
    reply::secrets(StatusCode::CREATED, &ticket)
}
