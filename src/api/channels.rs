//! `/v1/workspaces/{workspace}/channels`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path, Query},
};

use crate::{
    app::App,
    auth::{membership, readership},
    domain::id::{ChannelId, UserId, WorkspaceId},
    error::AppError,
    http::{
        body::{Body, Creation},
        caller::Caller,
        params::PageQuery,
        reply,
    },
    queries::channels::{ChannelById, ChannelMemberByUser, ChannelsOfReader, MembersOfChannel},
    services::channels::{self, ChangeChannel, CreateChannel},
};

pub(super) async fn list_channels(
    app: Data<App>,
    caller: Caller,
    path: Path<WorkspaceId>,
    page: Query<PageQuery>,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let (workspace, user, token) = (path.into_inner(), caller.actor.user_id, caller.token.as_ref());
    let allowed = membership(&app.queries, caller.actor, workspace, token);
    let after = page.position(&app.cursors, ChannelsOfReader::scope(workspace))?;
    let cursors = app.cursors.clone();
    let query = ChannelsOfReader { workspace, user, after, limit: page.limit()?, cursors };
    reply::cached_if(allowed, &app, &request, &caller, query).await
}

pub(super) async fn create_channel(
    app: Data<App>,
    caller: Caller,
    path: Path<WorkspaceId>,
    new: Creation<CreateChannel>,
) -> Result<HttpResponse, AppError> {
    reply::created(&app, channels::create(&app, caller.actor, path.into_inner(), new).await?)
}

pub(super) async fn get_channel(
    app: Data<App>,
    caller: Caller,
    path: Path<(WorkspaceId, ChannelId)>,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let ((workspace, channel), token) = (path.into_inner(), caller.token.as_ref());
    let allowed = readership(&app.queries, caller.actor, workspace, channel, token);
    reply::cached_if(allowed, &app, &request, &caller, ChannelById(channel)).await
}

pub(super) async fn change_channel(
    app: Data<App>,
    caller: Caller,
    path: Path<(WorkspaceId, ChannelId)>,
    body: Body<ChangeChannel>,
) -> Result<HttpResponse, AppError> {
    reply::changed(&channels::change(&app, caller.actor, path.into_inner(), body.0).await?)
}

pub(super) async fn delete_channel(
    app: Data<App>,
    caller: Caller,
    path: Path<(WorkspaceId, ChannelId)>,
) -> Result<HttpResponse, AppError> {
    reply::done(&channels::delete(&app, caller.actor, path.into_inner()).await?)
}

pub(super) async fn list_channel_members(
    app: Data<App>,
    caller: Caller,
    path: Path<(WorkspaceId, ChannelId)>,
    page: Query<PageQuery>,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let ((workspace, channel), token) = (path.into_inner(), caller.token.as_ref());
    let allowed = readership(&app.queries, caller.actor, workspace, channel, token);
    let after = page.position(&app.cursors, MembersOfChannel::scope(channel))?;
    let query = MembersOfChannel { channel, after, limit: page.limit()?, cursors: app.cursors.clone() };
    reply::cached_if(allowed, &app, &request, &caller, query).await
}

pub(super) async fn get_channel_member(
    app: Data<App>,
    caller: Caller,
    path: Path<(WorkspaceId, ChannelId, UserId)>,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let ((workspace, channel, user), token) = (path.into_inner(), caller.token.as_ref());
    let allowed = readership(&app.queries, caller.actor, workspace, channel, token);
    reply::cached_if(allowed, &app, &request, &caller, ChannelMemberByUser { channel, user }).await
}

pub(super) async fn add_channel_member(
    app: Data<App>,
    caller: Caller,
    path: Path<(WorkspaceId, ChannelId, UserId)>,
) -> Result<HttpResponse, AppError> {
    reply::created(&app, channels::add_member(&app, caller.actor, path.into_inner()).await?)
}

pub(super) async fn remove_channel_member(
    app: Data<App>,
    caller: Caller,
    path: Path<(WorkspaceId, ChannelId, UserId)>,
) -> Result<HttpResponse, AppError> {
    reply::done(&channels::remove_member(&app, caller.actor, path.into_inner()).await?)
}
