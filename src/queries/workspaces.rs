//! Cached reads about workspaces.

use chrono::{DateTime, Utc};
use diesel::QueryResult;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    CachedQuery, Kind, tags, timestamp,
    users::PersonView,
    view::{Page, View},
};
use crate::{
    cache::{ArgumentsHash, Key, Tag},
    db::Reader,
    domain::id::{UserId, WorkspaceId},
    http::cursor::{CursorKey, Scope},
    models::workspaces::WorkspaceDetails,
};

/// A workspace.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Workspace)]
pub struct WorkspaceView {
    pub id: WorkspaceId,
    pub object: &'static str,
    pub name: String,
    pub slug: String,
    pub description: String,
    pub owner: Option<PersonView>,
    pub member_count: i64,
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub updated_at: DateTime<Utc>,
    pub version: i64,
}

impl WorkspaceView {
    /// The tag of the person it shows.
    fn learned_tag(&self) -> Option<Tag> {
        self.owner.as_ref().map(|owner| tags::user(owner.id))
    }
}

impl From<WorkspaceDetails> for WorkspaceView {
    fn from(row: WorkspaceDetails) -> Self {
        let owner = match (row.owner_id, row.owner_name, row.owner_display_name) {
            (Some(id), Some(name), Some(display_name)) => {
                Some(PersonView { id, name, display_name, avatar_url: row.owner_avatar_url })
            }
            _ => None,
        };
        Self {
            id: row.id,
            object: "workspace",
            name: row.name,
            slug: row.slug,
            description: row.description,
            owner,
            member_count: row.member_count,
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.version,
        }
    }
}

/// A workspace, as all who may see it see it.
#[derive(Debug)]
pub struct WorkspaceById(pub WorkspaceId);

impl CachedQuery for WorkspaceById {
    type Value = View;
    const KIND: Kind = Kind::Workspace;

    fn key(&self) -> Key {
        Key::new("workspace", self.0.as_uuid(), 1)
    }

    fn tags(&self) -> Vec<Tag> {
        vec![tags::workspace(self.0)]
    }

    async fn load(&self, db: &mut Reader, learned: &mut Vec<Tag>) -> QueryResult<Option<View>> {
        let Some(row) = WorkspaceDetails::find(db, self.0).await? else { return Ok(None) };
        let view = WorkspaceView::from(row);
        learned.extend(view.learned_tag());
        Ok(Some(View::object(view.version, &view)))
    }
}

/// A page of a user's workspaces, in the order of their making.
#[derive(Debug)]
pub struct WorkspacesOfUser {
    pub user: UserId,
    pub after: Option<WorkspaceId>,
    pub limit: u16,
    pub cursors: CursorKey,
}

impl WorkspacesOfUser {
    /// What its cursors are for.
    #[must_use]
    pub fn scope(user: UserId) -> Scope {
        Scope::new("workspaces", user.as_uuid())
    }
}

impl CachedQuery for WorkspacesOfUser {
    type Value = View;
    const KIND: Kind = Kind::Workspace;

    fn key(&self) -> Key {
        Key::new("user", self.user.as_uuid(), 1)
            .suffix("workspaces")
            .arguments(ArgumentsHash::of(&(self.limit, self.after)))
    }

    fn tags(&self) -> Vec<Tag> {
        vec![tags::user_workspaces(self.user)]
    }

    async fn load(&self, db: &mut Reader, learned: &mut Vec<Tag>) -> QueryResult<Option<View>> {
        let rows =
            WorkspaceDetails::list_of_user(db, self.user, self.after, i64::from(self.limit) + 1).await?;
        let sign = |last: &WorkspaceDetails| self.cursors.sign(Self::scope(self.user), &last.id);
        let page = Page::new(rows, self.limit, sign).map(WorkspaceView::from);
        for view in &page.data {
            learned.push(tags::workspace(view.id));
            learned.extend(view.learned_tag());
        }
        Ok(Some(View::page(page)))
    }
}
