//! `/v1/workspaces`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path, Query},
};

use crate::{
    app::App,
    auth::membership,
    domain::id::WorkspaceId,
    error::AppError,
    http::{
        body::{Body, Creation},
        caller::Caller,
        params::PageQuery,
        reply,
    },
    queries::workspaces::{WorkspaceById, WorkspacesOfUser},
    services::workspaces::{self, ChangeWorkspace, CreateWorkspace},
};

pub(super) async fn list_workspaces(
    app: Data<App>,
    caller: Caller,
    page: Query<PageQuery>,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let user = caller.actor.user_id;
    let after = page.position(&app.cursors, WorkspacesOfUser::scope(user))?;
    let query = WorkspacesOfUser { user, after, limit: page.limit()?, cursors: app.cursors.clone() };
    reply::cached(&app, &request, &caller, query).await
}

pub(super) async fn create_workspace(
    app: Data<App>,
    caller: Caller,
    new: Creation<CreateWorkspace>,
) -> Result<HttpResponse, AppError> {
    reply::created(&app, workspaces::create(&app, caller.actor, new).await?)
}

pub(super) async fn get_workspace(
    app: Data<App>,
    caller: Caller,
    path: Path<WorkspaceId>,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let (id, token) = (path.into_inner(), caller.token.as_ref());
    let allowed = membership(&app.queries, caller.actor, id, token);
    reply::cached_if(allowed, &app, &request, &caller, WorkspaceById(id)).await
}

pub(super) async fn change_workspace(
    app: Data<App>,
    caller: Caller,
    path: Path<WorkspaceId>,
    body: Body<ChangeWorkspace>,
) -> Result<HttpResponse, AppError> {
    reply::changed(&workspaces::change(&app, caller.actor, path.into_inner(), body.0).await?)
}

pub(super) async fn delete_workspace(
    app: Data<App>,
    caller: Caller,
    path: Path<WorkspaceId>,
) -> Result<HttpResponse, AppError> {
    reply::done(&workspaces::delete(&app, caller.actor, path.into_inner()).await?)
}
