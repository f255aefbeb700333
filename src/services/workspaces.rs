//! Making, changing and deleting workspaces.

use diesel::result::{DatabaseErrorKind, Error as QueryError};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::{self, Actor},
    db::{Tx, Written},
    domain::{
        id::WorkspaceId,
        role::Role,
        text::{Description, Slug, WorkspaceName},
    },
    error::{AppError, Faults},
    http::body::{Creation, required},
    models::{
        members::Member,
        workspaces::{NewWorkspace, Workspace, WorkspaceChanges, WorkspaceDetails},
    },
    queries::{view::View, workspaces::WorkspaceView},
    services::once::{self, Created},
};

/// A new workspace.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateWorkspace {
    name: String,
    /// Made from the name if absent.
    slug: Option<String>,
    description: Option<String>,
}

/// A merge patch of a workspace.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeWorkspace {
    #[serde(default, deserialize_with = "required")]
    #[schema(value_type = String, required = false)]
    name: Option<String>,
    #[serde(default, deserialize_with = "required")]
    #[schema(value_type = String, required = false)]
    slug: Option<String>,
    #[serde(default, deserialize_with = "required")]
    #[schema(value_type = String, required = false)]
    description: Option<String>,
}

/// Other slugs to try when one made from the name is taken.
const SLUG_ATTEMPTS: usize = 5;

const SLUG_TAKEN: AppError = AppError::Conflict("Another workspace has this slug.");

/// Makes a workspace, whose owner is the caller.
pub async fn create(
    app: &App,
    actor: Actor,
    new: Creation<CreateWorkspace>,
) -> Result<Written<Created>, AppError> {
    let input = new.body;
    let mut faults = Faults::default();
    let name = faults.member("name", WorkspaceName::parse(&input.name));
    let wanted = faults.optional("slug", input.slug.as_deref().map(Slug::parse));
    let description = input.description.as_deref().unwrap_or_default();
    let description = faults.member("description", Description::parse(description));
    let (name, description) = faults.check(name.zip(description))?;
    once::create(app, actor, new.once, async move |tx| {
        let id = WorkspaceId::new();
        let mut slug = wanted.clone().unwrap_or_else(|| Slug::from_name(&name));
        for _ in 0..SLUG_ATTEMPTS {
            let (name, description) = (name.as_str(), description.as_str());
            let new = NewWorkspace { id, name, slug: slug.as_str(), description };
            if Workspace::insert(tx, new).await?.is_some() {
                Member::insert(tx, id, actor.user_id, Role::Owner).await?;
                return Ok(Created::new(format!("/v1/workspaces/{id}"), view(tx, id).await?));
            }
            if wanted.is_some() {
                break;
            }
            slug = slug.with_suffix(rand::random::<u32>() % 1_000_000);
        }
        Err(SLUG_TAKEN)
    })
    .await
}

/// Changes a workspace. A patch that changes nothing raises no version.
pub async fn change(
    app: &App,
    actor: Actor,
    id: WorkspaceId,
    patch: ChangeWorkspace,
) -> Result<Written<View>, AppError> {
    let mut faults = Faults::default();
    let name = faults.optional("name", patch.name.as_deref().map(WorkspaceName::parse));
    let slug = faults.optional("slug", patch.slug.as_deref().map(Slug::parse));
    let description = faults.optional("description", patch.description.as_deref().map(Description::parse));
    faults.check(Some(()))?;
    app.db
        .write(async move |tx| {
            auth::require(tx, actor, id, Role::Admin).await?;
            let changes = WorkspaceChanges {
                name: name.as_ref().map(WorkspaceName::as_str),
                slug: slug.as_ref().map(Slug::as_str),
                description: description.as_ref().map(Description::as_str),
            };
            if !changes.is_empty() {
                let updated = Workspace::update(tx, id, &changes).await.map_err(|err| match err {
                    QueryError::DatabaseError(DatabaseErrorKind::UniqueViolation, _) => SLUG_TAKEN,
                    other => other.into(),
                })?;
                updated.ok_or(AppError::NotFound)?;
            }
            view(tx, id).await
        })
        .await
}

/// Deletes a workspace and everything in it.
pub async fn delete(app: &App, actor: Actor, id: WorkspaceId) -> Result<Written<()>, AppError> {
    app.db
        .write(async move |tx| {
            // Nobody joins while it goes, and whoever deletes it is an owner still.
            Workspace::lock(tx, id).await?.ok_or(AppError::NotFound)?;
            auth::require(tx, actor, id, Role::Owner).await?;
            Workspace::delete(tx, id).await?.map(drop).ok_or(AppError::NotFound)
        })
        .await
}

/// The workspace as this transaction has left it.
async fn view(tx: &mut Tx, id: WorkspaceId) -> Result<View, AppError> {
    let row = WorkspaceDetails::find(tx, id).await?.ok_or(AppError::NotFound)?;
    Ok(View::object(row.version, &WorkspaceView::from(row)))
}
