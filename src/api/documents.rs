//! `/v1/workspaces/{workspace}/documents`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path, Query},
};
use futures_util::FutureExt as _;

use crate::{
    app::App,
    auth::membership,
    domain::id::{DocumentId, WorkspaceId},
    error::AppError,
    http::{
        body::{Body, Creation},
        caller::Caller,
        if_match::IfMatch,
        params::PageQuery,
        reply,
        view_cache::ViewCache,
    },
    queries::{
        Kind,
        documents::{DocumentById, DocumentsOfWorkspace, VersionsOfDocument, load_version},
        tags,
    },
    services::documents::{self, ChangeDocument, CreateDocument},
};

pub(super) async fn list_documents(
    app: Data<App>,
    caller: Caller,
    path: Path<WorkspaceId>,
    page: Query<PageQuery>,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let (workspace, token) = (path.into_inner(), caller.token.as_ref());
    let allowed = membership(&app.queries, caller.actor, workspace, token);
    let after = page.position(&app.cursors, DocumentsOfWorkspace::scope(workspace))?;
    let query = DocumentsOfWorkspace { workspace, after, limit: page.limit()?, cursors: app.cursors.clone() };
    reply::cached_if(allowed, &app, &request, &caller, query).await
}

pub(super) async fn create_document(
    app: Data<App>,
    caller: Caller,
    path: Path<WorkspaceId>,
    new: Creation<CreateDocument>,
) -> Result<HttpResponse, AppError> {
    reply::created(&app, documents::create(&app, caller.actor, path.into_inner(), new).await?)
}

pub(super) async fn get_document(
    app: Data<App>,
    caller: Caller,
    path: Path<(WorkspaceId, DocumentId)>,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let ((workspace, document), token) = (path.into_inner(), caller.token.as_ref());
    let allowed = membership(&app.queries, caller.actor, workspace, token);
    reply::cached_if(allowed, &app, &request, &caller, DocumentById { workspace, document }).await
}

pub(super) async fn change_document(
    app: Data<App>,
    caller: Caller,
    path: Path<(WorkspaceId, DocumentId)>,
    if_match: IfMatch,
    body: Body<ChangeDocument>,
) -> Result<HttpResponse, AppError> {
    reply::changed(&documents::change(&app, caller.actor, path.into_inner(), if_match, body.0).await?)
}

pub(super) async fn delete_document(
    app: Data<App>,
    caller: Caller,
    path: Path<(WorkspaceId, DocumentId)>,
    if_match: IfMatch,
) -> Result<HttpResponse, AppError> {
    reply::done(&documents::delete(&app, caller.actor, path.into_inner(), if_match).await?)
}

pub(super) async fn list_document_versions(
    app: Data<App>,
    caller: Caller,
    path: Path<(WorkspaceId, DocumentId)>,
    page: Query<PageQuery>,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let ((workspace, document), token) = (path.into_inner(), caller.token.as_ref());
    let allowed = membership(&app.queries, caller.actor, workspace, token);
    let before = page.position(&app.cursors, VersionsOfDocument::scope(document))?;
    let cursors = app.cursors.clone();
    let query = VersionsOfDocument { workspace, document, before, limit: page.limit()?, cursors };
    reply::cached_if(allowed, &app, &request, &caller, query).await
}

pub(super) async fn get_document_version(
    app: Data<App>,
    caller: Caller,
    path: Path<(WorkspaceId, DocumentId, i64)>,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let version @ (workspace, document, _) = path.into_inner();
    membership(&app.queries, caller.actor, workspace, caller.token.as_ref()).await?;
    let cache = ViewCache::for_all("document-version", Kind::Document).tag(tags::document(document));
    cache.answer(&app, &request, &caller, move |db, learned| load_version(db, version, learned).boxed()).await
}
