//! The `notifications` table.

use chrono::{DateTime, Utc};
use diesel::{QueryResult, dsl::now, prelude::*};

use super::users::User;
use crate::{
    db::{
        Hooks, Reader, Tx,
        schema::{notifications, users},
    },
    domain::{
        Change,
        id::{ChannelId, DocumentId, MessageId, NotificationId, UserId, WorkspaceId},
        notification::NotificationKind,
    },
};

/// A row of the `notifications` table.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = notifications, check_for_backend(diesel::pg::Pg))]
pub struct Notification {
    pub id: NotificationId,
    pub user_id: UserId,
    pub workspace_id: WorkspaceId,
    pub kind: NotificationKind,
    pub actor_id: UserId,
    pub channel_id: Option<ChannelId>,
    pub message_id: Option<MessageId>,
    pub document_id: Option<DocumentId>,
    pub version: i64,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub read_at: Option<DateTime<Utc>>,
}

impl Hooks for Notification {
    /// Never cached.
    fn on_save(&self) -> Option<Change> {
        None
    }

    fn on_delete(&self) -> Option<Change> {
        None
    }
}

/// A row to insert.
#[derive(Debug, Insertable)]
#[diesel(table_name = notifications)]
pub struct NewNotification {
    pub id: NotificationId,
    pub user_id: UserId,
    pub workspace_id: WorkspaceId,
    pub kind: NotificationKind,
    pub actor_id: UserId,
    pub channel_id: Option<ChannelId>,
    pub message_id: Option<MessageId>,
    pub document_id: Option<DocumentId>,
}

/// Rows in one statement; PostgreSQL takes 65,535 parameters.
const INSERTED_AT_ONCE: usize = 1000;

/// Which notifications `read-all` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// All.
    Now,
    /// Those older than this one.
    Notification(NotificationId),
    /// Those made before this time.
    Time(DateTime<Utc>),
}

impl Notification {
    /// One notification of a user, with the person who caused it.
    pub async fn find_with_actor(
        db: &mut Reader,
        user: UserId,
        id: NotificationId,
    ) -> QueryResult<Option<(Self, User)>> {
        let row = notifications::table.inner_join(users::table).filter(notifications::id.eq(id));
        let row = row.filter(notifications::user_id.eq(user));
        db.first(row.select((Self::as_select(), User::as_select()))).await
    }

    /// The notifications of a user, newest first, at most `limit`, before `before`; only those with this state, if one is
    /// given.
    pub async fn list_with_actors(
        db: &mut Reader,
        user: UserId,
        unread: Option<bool>,
        before: Option<NotificationId>,
        limit: i64,
    ) -> QueryResult<Vec<(Self, User)>> {
        let mut page = notifications::table
            .inner_join(users::table)
            .filter(notifications::user_id.eq(user))
            .select((Self::as_select(), User::as_select()))
            .order(notifications::id.desc())
            .limit(limit)
            .into_boxed();
        page = match unread {
            Some(true) => page.filter(notifications::read_at.is_null()),
            Some(false) => page.filter(notifications::read_at.is_not_null()),
            None => page,
        };
        if let Some(before) = before {
            page = page.filter(notifications::id.lt(before));
        }
        db.list(page).await
    }

    /// How many notifications a user has not read.
    pub async fn count_unread(db: &mut Reader, user: UserId) -> QueryResult<i64> {
        let unread = notifications::table
            .filter(notifications::user_id.eq(user))
            .filter(notifications::read_at.is_null());
        Ok(db.first(unread.count()).await?.unwrap_or_default())
    }

    /// Inserts several.
    pub async fn insert_all(tx: &mut Tx, new: Vec<NewNotification>) -> QueryResult<Vec<Self>> {
        let (mut new, mut rows) = (new.into_iter().peekable(), Vec::new());
        while new.peek().is_some() {
            let part: Vec<_> = new.by_ref().take(INSERTED_AT_ONCE).collect();
            let statement = diesel::insert_into(notifications::table).values(part);
            rows.extend(tx.save_all(statement.returning(Self::as_returning())).await?);
        }
        Ok(rows)
    }

    /// Marks a notification of a user as read or not. `None`: there is none, or it is marked so already.
    pub async fn mark(
        tx: &mut Tx,
        user: UserId,
        id: NotificationId,
        read: bool,
    ) -> QueryResult<Option<Self>> {
        let mine = notifications::table.find(id).filter(notifications::user_id.eq(user));
        let differs = mine.filter(notifications::read_at.is_null().eq(read));
        let read_at = read.then(Utc::now);
        let changes = (
            notifications::read_at.eq(read_at),
            notifications::version.eq(notifications::version + 1),
            notifications::updated_at.eq(now),
        );
        tx.save(diesel::update(differs).set(changes).returning(Self::as_returning())).await
    }

    /// Marks the unread notifications of a user as read. Returns how many it was.
    pub async fn mark_all(tx: &mut Tx, user: UserId, until: Until) -> QueryResult<usize> {
        let changes = (
            notifications::read_at.eq(now),
            notifications::version.eq(notifications::version + 1),
            notifications::updated_at.eq(now),
        );
        let unread = notifications::table
            .filter(notifications::user_id.eq(user))
            .filter(notifications::read_at.is_null());
        let statement = diesel::update(unread).set(changes).into_boxed();
        let statement = match until {
            Until::Now => statement,
            Until::Notification(id) => statement.filter(notifications::id.lt(id)),
            Until::Time(time) => statement.filter(notifications::created_at.lt(time)),
        };
        let rows: Vec<Self> = tx.save_all(statement.returning(Self::as_returning())).await?;
        Ok(rows.len())
    }
}
