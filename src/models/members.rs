//! The `members` table: who is in a workspace, and as what.

use chrono::{DateTime, Utc};
use diesel::{QueryResult, define_sql_function, dsl::now, prelude::*, sql_types::Text};
use serde::{Deserialize, Serialize};

use super::users::User;
use crate::{
    db::{
        Hooks, Reader, Tx,
        schema::{members, users},
    },
    domain::{
        Change,
        id::{UserId, WorkspaceId},
        role::Role,
    },
};

define_sql_function! { fn lower(text: Text) -> Text; }
define_sql_function! { fn strpos(text: Text, part: Text) -> diesel::sql_types::Integer; }

/// A row of the `members` table.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = members, check_for_backend(diesel::pg::Pg))]
pub struct Member {
    pub workspace_id: WorkspaceId,
    pub user_id: UserId,
    pub role: Role,
    pub version: i64,
    pub joined_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl Hooks for Member {
    fn on_save(&self) -> Option<Change> {
        Some(Change::Members { workspace_id: self.workspace_id, user_id: self.user_id })
    }

    fn on_delete(&self) -> Option<Change> {
        self.on_save()
    }
}

/// Where a page of members begins, of a workspace or of a channel: after this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberPosition {
    pub joined_at: DateTime<Utc>,
    pub user_id: UserId,
}

impl Member {
    /// Where it stands in the list.
    #[must_use]
    pub const fn position(&self) -> MemberPosition {
        MemberPosition { joined_at: self.joined_at, user_id: self.user_id }
    }

    /// The role of a user in a workspace, if any.
    pub async fn find_role(
        db: &mut Reader,
        workspace: WorkspaceId,
        user: UserId,
    ) -> QueryResult<Option<Role>> {
        db.first(members::table.find((workspace, user)).select(members::role)).await
    }

    /// One member with the person.
    pub async fn find_with_user(
        db: &mut Reader,
        workspace: WorkspaceId,
        user: UserId,
    ) -> QueryResult<Option<(Self, User)>> {
        let row = members::table.inner_join(users::table).filter(members::workspace_id.eq(workspace));
        db.first(row.filter(members::user_id.eq(user)).select((Self::as_select(), User::as_select()))).await
    }

    /// The members of a workspace with their persons, longest standing first, at most `limit`, after `after`.
    pub async fn list_with_users(
        db: &mut Reader,
        workspace: WorkspaceId,
        after: Option<MemberPosition>,
        limit: i64,
    ) -> QueryResult<Vec<(Self, User)>> {
        let mut page = members::table
            .inner_join(users::table)
            .filter(members::workspace_id.eq(workspace))
            .select((Self::as_select(), User::as_select()))
            .order((members::joined_at, members::user_id))
            .limit(limit)
            .into_boxed();
        if let Some(MemberPosition { joined_at, user_id }) = after {
            let later = members::joined_at.gt(joined_at);
            page = page.filter(later.or(members::joined_at.eq(joined_at).and(members::user_id.gt(user_id))));
        }
        db.list(page).await
    }

    /// The members of a workspace whose names stand in `text`, which is in lower case, after an `@`.
    pub async fn list_named_in(
        db: &mut Reader,
        workspace: WorkspaceId,
        text: &str,
    ) -> QueryResult<Vec<(UserId, String)>> {
        let called = "@".into_sql::<Text>().concat(lower(users::name));
        let candidates = members::table
            .inner_join(users::table)
            .filter(members::workspace_id.eq(workspace))
            .filter(strpos(text, called).gt(0));
        db.list(candidates.select((users::id, users::name))).await
    }

    /// Which of `users` are members. They stay it until the transaction ends: whoever is leaving is waited for.
    pub async fn keep(tx: &mut Tx, workspace: WorkspaceId, users: &[UserId]) -> QueryResult<Vec<UserId>> {
        let present = members::table.filter(members::workspace_id.eq(workspace));
        let present = present.filter(members::user_id.eq_any(users)).order(members::user_id);
        tx.list(present.select(members::user_id).for_key_share()).await
    }

    /// The owner of longest standing, apart from a user.
    pub async fn find_other_owner(
        db: &mut Reader,
        workspace: WorkspaceId,
        user: UserId,
    ) -> QueryResult<Option<UserId>> {
        let owners = members::table
            .filter(members::workspace_id.eq(workspace))
            .filter(members::role.eq(Role::Owner).and(members::user_id.ne(user)));
        db.first(owners.order((members::joined_at, members::user_id)).select(members::user_id)).await
    }

    /// How many owners a workspace has. To be asked under [`super::workspaces::Workspace::lock`].
    pub async fn count_owners(db: &mut Reader, workspace: WorkspaceId) -> QueryResult<i64> {
        let owners =
            members::table.filter(members::workspace_id.eq(workspace)).filter(members::role.eq(Role::Owner));
        Ok(db.first(owners.count()).await?.unwrap_or_default())
    }

    /// Inserts a member. `None`: the user is one already.
    pub async fn insert(
        tx: &mut Tx,
        workspace: WorkspaceId,
        user: UserId,
        role: Role,
    ) -> QueryResult<Option<Self>> {
        let values = (members::workspace_id.eq(workspace), members::user_id.eq(user), members::role.eq(role));
        let statement = diesel::insert_into(members::table).values(values).on_conflict_do_nothing();
        tx.save(statement.returning(Self::as_returning())).await
    }

    /// Gives a member another role.
    pub async fn set_role(
        tx: &mut Tx,
        workspace: WorkspaceId,
        user: UserId,
        role: Role,
    ) -> QueryResult<Option<Self>> {
        let changes =
            (members::role.eq(role), members::version.eq(members::version + 1), members::updated_at.eq(now));
        let statement = diesel::update(members::table.find((workspace, user))).set(changes);
        tx.save(statement.returning(Self::as_returning())).await
    }

    /// Removes a member.
    pub async fn delete(tx: &mut Tx, workspace: WorkspaceId, user: UserId) -> QueryResult<Option<Self>> {
        let statement = diesel::delete(members::table.find((workspace, user)));
        tx.delete(statement.returning(Self::as_returning())).await
    }
}
