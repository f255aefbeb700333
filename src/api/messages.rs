//! `/v1/workspaces/{workspace}/channels/{channel}/messages`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path, Query},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    app::App,
    auth::readership,
    domain::id::{ChannelId, MessageId, WorkspaceId},
    error::AppError,
    http::{
        body::{Body, Creation},
        caller::{Caller, Sender},
        params::PageQuery,
        reply,
    },
    models::messages::Window,
    queries::messages::{MessageById, MessagesOfChannel},
    services::messages::{self, EditMessage, SendMessage},
};

/// Where to begin; a cursor, which goes on from there, wins.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct WindowQuery {
    /// Only messages older than this one, the newest of them first.
    #[param(value_type = Option<MessageId>)]
    before: Option<String>,
    /// Only messages newer than this one: those that came next, newest first.
    #[param(value_type = Option<MessageId>)]
    after: Option<String>,
}

impl WindowQuery {
    fn window(&self) -> Result<Window, AppError> {
        let id = |name, text: &str| {
            text.parse().map_err(|_garbage| AppError::parameter(name, "must be the id of a message"))
        };
        match (&self.before, &self.after) {
            (None, None) => Ok(Window::Latest),
            (Some(before), None) => Ok(Window::Before(id("before", before)?)),
            (None, Some(after)) => Ok(Window::After(id("after", after)?)),
            (Some(_), Some(_)) => Err(AppError::parameter("after", "must not stand beside before")),
        }
    }
}

pub(super) async fn list_messages(
    app: Data<App>,
    caller: Caller,
    path: Path<(WorkspaceId, ChannelId)>,
    window: Query<WindowQuery>,
    page: Query<PageQuery>,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let ((workspace, channel), token) = (path.into_inner(), caller.token.as_ref());
    let allowed = readership(&app.queries, caller.actor, workspace, channel, token);
    let from_start = window.window()?;
    let window = page.position(&app.cursors, MessagesOfChannel::scope(channel))?.unwrap_or(from_start);
    let query = MessagesOfChannel { channel, window, limit: page.limit()?, cursors: app.cursors.clone() };
    reply::cached_if(allowed, &app, &request, &caller, query).await
}

pub(super) async fn send_message(
    app: Data<App>,
    caller: Sender,
    path: Path<(WorkspaceId, ChannelId)>,
    new: Creation<SendMessage>,
) -> Result<HttpResponse, AppError> {
    reply::created(&app, messages::send(&app, caller.actor, path.into_inner(), new).await?)
}

pub(super) async fn get_message(
    app: Data<App>,
    caller: Caller,
    path: Path<(WorkspaceId, ChannelId, MessageId)>,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let ((workspace, channel, message), token) = (path.into_inner(), caller.token.as_ref());
    let allowed = readership(&app.queries, caller.actor, workspace, channel, token);
    reply::cached_if(allowed, &app, &request, &caller, MessageById { channel, message }).await
}

pub(super) async fn edit_message(
    app: Data<App>,
    caller: Caller,
    path: Path<(WorkspaceId, ChannelId, MessageId)>,
    body: Body<EditMessage>,
) -> Result<HttpResponse, AppError> {
    reply::changed(&messages::edit(&app, caller.actor, path.into_inner(), body.0).await?)
}

pub(super) async fn delete_message(
    app: Data<App>,
    caller: Caller,
    path: Path<(WorkspaceId, ChannelId, MessageId)>,
) -> Result<HttpResponse, AppError> {
    reply::done(&messages::delete(&app, caller.actor, path.into_inner()).await?)
}
