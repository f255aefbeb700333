//! `/v1/workspaces/{workspace}/members`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path, Query},
};

use crate::{
    app::App,
    auth::membership,
    domain::id::{UserId, WorkspaceId},
    error::AppError,
    http::{
        body::{Body, Creation},
        caller::Caller,
        params::PageQuery,
        reply,
    },
    queries::members::{MemberByUser, MembersOfWorkspace},
    services::members::{self, AddMember, ChangeMember},
};

pub(super) async fn list_members(
    app: Data<App>,
    caller: Caller,
    path: Path<WorkspaceId>,
    page: Query<PageQuery>,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let (workspace, token) = (path.into_inner(), caller.token.as_ref());
    let allowed = membership(&app.queries, caller.actor, workspace, token);
    let after = page.position(&app.cursors, MembersOfWorkspace::scope(workspace))?;
    let query = MembersOfWorkspace { workspace, after, limit: page.limit()?, cursors: app.cursors.clone() };
    reply::cached_if(allowed, &app, &request, &caller, query).await
}

pub(super) async fn add_member(
    app: Data<App>,
    caller: Caller,
    path: Path<WorkspaceId>,
    new: Creation<AddMember>,
) -> Result<HttpResponse, AppError> {
    reply::created(&app, members::add(&app, caller.actor, path.into_inner(), new).await?)
}

pub(super) async fn get_member(
    app: Data<App>,
    caller: Caller,
    path: Path<(WorkspaceId, UserId)>,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let ((workspace, user), token) = (path.into_inner(), caller.token.as_ref());
    let allowed = membership(&app.queries, caller.actor, workspace, token);
    reply::cached_if(allowed, &app, &request, &caller, MemberByUser { workspace, user }).await
}

pub(super) async fn change_member(
    app: Data<App>,
    caller: Caller,
    path: Path<(WorkspaceId, UserId)>,
    body: Body<ChangeMember>,
) -> Result<HttpResponse, AppError> {
    let (workspace, user) = path.into_inner();
    reply::changed(&members::change(&app, caller.actor, workspace, user, body.0).await?)
}

pub(super) async fn remove_member(
    app: Data<App>,
    caller: Caller,
    path: Path<(WorkspaceId, UserId)>,
) -> Result<HttpResponse, AppError> {
    let (workspace, user) = path.into_inner();
    reply::done(&members::remove(&app, caller.actor, workspace, user).await?)
}
