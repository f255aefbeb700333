//! The `workspaces` table, and the view `workspace_details`.

use chrono::{DateTime, Utc};
use diesel::{QueryResult, dsl::now, prelude::*};

use crate::{
    db::{
        Hooks, Reader, Tx,
        schema::{members, workspace_details, workspaces},
    },
    domain::{
        Change,
        id::{UserId, WorkspaceId},
    },
};

/// A row of the `workspaces` table.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = workspaces, check_for_backend(diesel::pg::Pg))]
pub struct Workspace {
    pub id: WorkspaceId,
    pub version: i64,
}

impl Hooks for Workspace {
    fn on_save(&self) -> Option<Change> {
        Some(Change::Workspaces { id: self.id })
    }

    fn on_delete(&self) -> Option<Change> {
        self.on_save()
    }
}

/// A row of the view: a workspace with its owner of longest standing and its size.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = workspace_details, check_for_backend(diesel::pg::Pg))]
pub struct WorkspaceDetails {
    pub id: WorkspaceId,
    pub name: String,
    pub slug: String,
    pub description: String,
    pub version: i64,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub owner_id: Option<UserId>,
    pub owner_name: Option<String>,
    pub owner_display_name: Option<String>,
    pub owner_avatar_url: Option<String>,
    pub member_count: i64,
}

/// A row to insert.
#[derive(Debug, Insertable)]
#[diesel(table_name = workspaces)]
pub struct NewWorkspace<'a> {
    pub id: WorkspaceId,
    pub name: &'a str,
    pub slug: &'a str,
    pub description: &'a str,
}

/// What can be changed; `None` keeps.
#[derive(Debug, Default, PartialEq, Eq, AsChangeset)]
#[diesel(table_name = workspaces)]
pub struct WorkspaceChanges<'a> {
    pub name: Option<&'a str>,
    pub slug: Option<&'a str>,
    pub description: Option<&'a str>,
}

impl WorkspaceChanges<'_> {
    /// Nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Workspace {
    /// Keeps others from changing who owns the workspace until the transaction ends. `None`: there is none.
    pub async fn lock(tx: &mut Tx, id: WorkspaceId) -> QueryResult<Option<Self>> {
        tx.first(workspaces::table.find(id).select(Self::as_select()).for_no_key_update()).await
    }

    /// Inserts a workspace. `None`: the slug is taken.
    pub async fn insert(tx: &mut Tx, new: NewWorkspace<'_>) -> QueryResult<Option<Self>> {
        let statement =
            diesel::insert_into(workspaces::table).values(new).on_conflict(workspaces::slug).do_nothing();
        tx.save(statement.returning(Self::as_returning())).await
    }

    /// Changes a workspace.
    pub async fn update(
        tx: &mut Tx,
        id: WorkspaceId,
        changes: &WorkspaceChanges<'_>,
    ) -> QueryResult<Option<Self>> {
        let bookkeeping = (workspaces::version.eq(workspaces::version + 1), workspaces::updated_at.eq(now));
        let statement = diesel::update(workspaces::table.find(id)).set((changes, bookkeeping));
        tx.save(statement.returning(Self::as_returning())).await
    }

    /// Deletes a workspace and everything in it.
    pub async fn delete(tx: &mut Tx, id: WorkspaceId) -> QueryResult<Option<Self>> {
        tx.delete(diesel::delete(workspaces::table.find(id)).returning(Self::as_returning())).await
    }
}

impl WorkspaceDetails {
    /// One workspace.
    pub async fn find(db: &mut Reader, id: WorkspaceId) -> QueryResult<Option<Self>> {
        db.first(workspace_details::table.find(id).select(Self::as_select())).await
    }

    /// The workspaces of a user in the order of their making, at most `limit`, after `after`.
    pub async fn list_of_user(
        db: &mut Reader,
        user_id: UserId,
        after: Option<WorkspaceId>,
        limit: i64,
    ) -> QueryResult<Vec<Self>> {
        let mine = members::table.filter(members::user_id.eq(user_id)).select(members::workspace_id);
        let mut page = workspace_details::table
            .filter(workspace_details::id.eq_any(mine))
            .select(Self::as_select())
            .order(workspace_details::id)
            .limit(limit)
            .into_boxed();
        if let Some(after) = after {
            page = page.filter(workspace_details::id.gt(after));
        }
        db.list(page).await
    }
}
