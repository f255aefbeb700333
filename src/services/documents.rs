//! Writing documents. Members write, guests read. Who changes or deletes a document has to say which version he has seen.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::{self, Actor},
    db::{Tx, Written},
    domain::{
        event::{Audience, EventKind},
        id::{DocumentId, WorkspaceId},
        role::Role,
        text::{DocumentContent, DocumentTitle},
    },
    error::{AppError, Faults},
    http::{
        body::{Creation, nullable, required},
        if_match::IfMatch,
    },
    models::{
        documents::{Document, DocumentChanges, DocumentDetails, NewDocument},
        workspaces::Workspace,
    },
    queries::{documents::DocumentView, view::View},
    services::{
        events,
        mentions::Place,
        notifications::{self, Subject},
        once::{self, Created},
    },
};

/// A new document.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateDocument {
    title: String,
    content: Option<String>,
    parent_id: Option<DocumentId>,
}

/// A merge patch of a document.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeDocument {
    #[serde(default, deserialize_with = "required")]
    #[schema(value_type = String, required = false)]
    title: Option<String>,
    #[serde(default, deserialize_with = "required")]
    #[schema(value_type = String, required = false)]
    content: Option<String>,
    /// `null`: at the top.
    #[serde(default, deserialize_with = "nullable")]
    parent_id: Option<Option<DocumentId>>,
}

/// How deep documents may lie below one another.
const MAX_DEPTH: usize = 32;

/// Makes a document, whose author is the caller.
pub async fn create(
    app: &App,
    actor: Actor,
    workspace: WorkspaceId,
    new: Creation<CreateDocument>,
) -> Result<Written<Created>, AppError> {
    let input = new.body;
    let mut faults = Faults::default();
    let title = faults.member("title", DocumentTitle::parse(&input.title));
    let content =
        faults.member("content", DocumentContent::parse(input.content.as_deref().unwrap_or_default()));
    let (title, content) = faults.check(title.zip(content))?;
    once::create(app, actor, new.once, async move |tx| {
        auth::require(tx, actor, workspace, Role::Member).await?;
        if let Some(parent) = input.parent_id {
            check_parent(tx, workspace, None, parent).await?;
        }
        let new = NewDocument {
            id: DocumentId::new(),
            workspace_id: workspace,
            parent_id: input.parent_id,
            title: title.as_str(),
            content: content.as_str(),
            author_id: actor.user_id,
            last_edited_by: actor.user_id,
        };
        let document = Document::insert(tx, new).await?;
        let id = document.ok_or_else(|| AppError::internal("a document was not inserted"))?.id;
        let about = (Place::Workspace(workspace), Subject::document(workspace, id));
        notifications::notify_mentioned(tx, actor, about, content.as_str(), "").await?;
        Ok(Created::new(format!("/v1/workspaces/{workspace}/documents/{id}"), view(tx, workspace, id).await?))
    })
    .await
}

/// Changes a document that is still what the caller has seen. A patch that names nothing raises no version.
pub async fn change(
    app: &App,
    actor: Actor,
    (workspace, id): (WorkspaceId, DocumentId),
    if_match: IfMatch,
    patch: ChangeDocument,
) -> Result<Written<View>, AppError> {
    let mut faults = Faults::default();
    let title = faults.optional("title", patch.title.as_deref().map(DocumentTitle::parse));
    let content = faults.optional("content", patch.content.as_deref().map(DocumentContent::parse));
    faults.check(Some(()))?;
    app.db
        .write(async move |tx| {
            auth::require(tx, actor, workspace, Role::Member).await?;
            if let Some(Some(parent)) = patch.parent_id {
                // One move at a time, so that two cannot make a circle. Before the document's own lock, as when a
                // workspace is deleted.
                Workspace::lock(tx, workspace).await?.ok_or(AppError::NotFound)?;
                check_parent(tx, workspace, Some(id), parent).await?;
            }
            let present = seen(tx, workspace, id, &if_match).await?;
            let changes = DocumentChanges {
                title: title.as_ref().map(DocumentTitle::as_str),
                content: content.as_ref().map(DocumentContent::as_str),
                parent_id: patch.parent_id,
            };
            if changes.is_empty() {
                return view(tx, workspace, id).await;
            }
            let changed = Document::update(tx, &present, actor.user_id, &changes).await?;
            let changed =
                changed.ok_or_else(|| AppError::internal("a locked document was changed by another"))?;
            let about = (Place::Workspace(workspace), Subject::document(workspace, id));
            notifications::notify_mentioned(tx, actor, about, &changed.content, &present.content).await?;
            let (row, content) = DocumentDetails::find(tx, workspace, id).await?.ok_or(AppError::NotFound)?;
            let listed = DocumentView::new(row.clone(), None);
            let audience = Audience::Workspace(workspace, None);
            events::tell(tx, EventKind::DocumentUpdated, audience, &listed)?;
            Ok(View::object(row.version, &DocumentView::new(row, Some(content))))
        })
        .await
}

/// Deletes a document that is still what the caller has seen, with all its versions.
pub async fn delete(
    app: &App,
    actor: Actor,
    (workspace, id): (WorkspaceId, DocumentId),
    if_match: IfMatch,
) -> Result<Written<()>, AppError> {
    app.db
        .write(async move |tx| {
            auth::require(tx, actor, workspace, Role::Member).await?;
            let present = seen(tx, workspace, id, &if_match).await?;
            Document::delete(tx, &present).await?.map(drop).ok_or(AppError::NotFound)
        })
        .await
}

/// The document, locked, if it is what the caller has seen.
async fn seen(
    tx: &mut Tx,
    workspace: WorkspaceId,
    id: DocumentId,
    if_match: &IfMatch,
) -> Result<Document, AppError> {
    let present = Document::lock(tx, workspace, id).await?.ok_or(AppError::NotFound)?;
    if if_match.allows(present.version)? {
        return Ok(present);
    }
    Err(AppError::PreconditionFailed { etag: view(tx, workspace, id).await?.etag().to_vec() })
}

/// A parent is another document of the same workspace, and not one that lies below the document itself.
async fn check_parent(
    tx: &mut Tx,
    workspace: WorkspaceId,
    document: Option<DocumentId>,
    parent: DocumentId,
) -> Result<(), AppError> {
    let fault = |detail: &str| AppError::member("#/parent_id", detail);
    let mut above = Some(parent);
    for _ in 0..MAX_DEPTH {
        let Some(id) = above else { return Ok(()) };
        if Some(id) == document {
            return Err(fault("would put the document below itself"));
        }
        let found = Document::find(tx, workspace, id).await?;
        above = found.ok_or_else(|| fault("is no document of this workspace"))?.parent_id;
    }
    Err(fault(&format!("would put the document deeper than {MAX_DEPTH}")))
}

/// The document as this transaction has left it.
async fn view(tx: &mut Tx, workspace: WorkspaceId, id: DocumentId) -> Result<View, AppError> {
    let (row, content) = DocumentDetails::find(tx, workspace, id).await?.ok_or(AppError::NotFound)?;
    Ok(View::object(row.version, &DocumentView::new(row, Some(content))))
}
