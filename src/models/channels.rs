//! The `channels` and `channel_members` tables, and the views `channel_details` and `channel_readers`.

use chrono::{DateTime, Utc};
use diesel::{
    QueryResult, alias,
    dsl::{exists, not, now},
    prelude::*,
    sql_types::Timestamptz,
};

use super::{
    members::MemberPosition,
    users::{Author, Person, User},
};
use crate::{
    db::{
        Hooks, Reader, Tx,
        schema::{channel_details, channel_members, channel_readers, channels, users},
    },
    domain::{
        Change,
        id::{ChannelId, UserId, WorkspaceId},
        role::Role,
    },
};

/// A row of the `channels` table.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = channels, check_for_backend(diesel::pg::Pg))]
pub struct Channel {
    pub id: ChannelId,
    pub workspace_id: WorkspaceId,
    pub is_private: bool,
    pub created_by: UserId,
    pub version: i64,
}

impl Hooks for Channel {
    fn on_save(&self) -> Option<Change> {
        Some(Change::Channels { id: self.id, workspace_id: self.workspace_id })
    }

    fn on_delete(&self) -> Option<Change> {
        self.on_save()
    }
}

/// A row of the view: a channel with the person who made it.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = channel_details, check_for_backend(diesel::pg::Pg))]
pub struct ChannelDetails {
    pub id: ChannelId,
    pub workspace_id: WorkspaceId,
    pub name: String,
    pub topic: String,
    pub is_private: bool,
    pub created_by: UserId,
    pub version: i64,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub creator_name: String,
    pub creator_display_name: String,
    pub creator_avatar_url: Option<String>,
}

/// A row of the `channel_members` table.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = channel_members, check_for_backend(diesel::pg::Pg))]
pub struct ChannelMember {
    pub workspace_id: WorkspaceId,
    pub channel_id: ChannelId,
    pub user_id: UserId,
    pub version: i64,
    pub joined_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl Hooks for ChannelMember {
    fn on_save(&self) -> Option<Change> {
        Some(Change::ChannelMembers { channel_id: self.channel_id, user_id: self.user_id })
    }

    fn on_delete(&self) -> Option<Change> {
        self.on_save()
    }
}

/// A row to insert.
#[derive(Debug, Insertable)]
#[diesel(table_name = channels)]
pub struct NewChannel<'a> {
    pub id: ChannelId,
    pub workspace_id: WorkspaceId,
    pub name: &'a str,
    pub topic: &'a str,
    pub is_private: bool,
    pub created_by: UserId,
}

/// What can be changed; `None` keeps.
#[derive(Debug, Default, PartialEq, Eq, AsChangeset)]
#[diesel(table_name = channels)]
pub struct ChannelChanges<'a> {
    pub name: Option<&'a str>,
    pub topic: Option<&'a str>,
    pub is_private: Option<bool>,
}

impl ChannelChanges<'_> {
    /// Nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Somebody who reads a channel: a row of the view `channel_readers`.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = channel_readers, check_for_backend(diesel::pg::Pg))]
pub struct ChannelReader {
    pub channel_id: ChannelId,
    pub workspace_id: WorkspaceId,
    pub role: Role,
    pub is_private: bool,
}

impl ChannelReader {
    /// A user as a reader of a channel, if so.
    pub async fn find(db: &mut Reader, channel: ChannelId, user: UserId) -> QueryResult<Option<Self>> {
        let reader = channel_readers::table.find((channel, user));
        db.first(reader.select(Self::as_select())).await
    }

    /// A user as a person who reads a channel, if he does; the workspace that it is in; and when the transaction began.
    pub async fn find_author(
        tx: &mut Tx,
        channel: ChannelId,
        user: UserId,
    ) -> QueryResult<Option<(WorkspaceId, Author)>> {
        let reader = channel_readers::table.find((channel, user)).inner_join(users::table);
        let author = (Person::as_select(), now.into_sql::<Timestamptz>());
        tx.first(reader.select((channel_readers::workspace_id, author))).await
    }

    /// Which of `users` read a channel.
    pub async fn filter(db: &mut Reader, channel: ChannelId, users: &[UserId]) -> QueryResult<Vec<UserId>> {
        let readers = channel_readers::table.filter(channel_readers::channel_id.eq(channel));
        db.list(readers.filter(channel_readers::user_id.eq_any(users)).select(channel_readers::user_id)).await
    }

    /// The private channels of a workspace that a user reads, in the order of their ids.
    #[diesel::dsl::auto_type(no_type_alias)]
    pub fn private_of(workspace: WorkspaceId, user: UserId) -> _ {
        channel_readers::table
            .filter(channel_readers::workspace_id.eq(workspace))
            .filter(channel_readers::user_id.eq(user))
            .filter(channel_readers::is_private.eq(true))
            .select(channel_readers::channel_id)
            .order(channel_readers::channel_id)
    }
}

impl Channel {
    /// Keeps others from changing the channel, and who is in it, until the transaction ends.
    pub async fn lock(tx: &mut Tx, id: ChannelId) -> QueryResult<Option<Self>> {
        tx.first(channels::table.find(id).select(Self::as_select()).for_no_key_update()).await
    }

    /// The private channels of a workspace that nobody but `user` is in.
    pub async fn list_private_of_one(
        db: &mut Reader,
        workspace: WorkspaceId,
        user: UserId,
    ) -> QueryResult<Vec<ChannelId>> {
        let others = alias!(channel_members as others);
        let somebody_else = others
            .filter(others.field(channel_members::channel_id).eq(channel_members::channel_id))
            .filter(others.field(channel_members::user_id).ne(user));
        let private = channels::table
            .filter(channels::workspace_id.eq(workspace))
            .filter(channels::is_private.eq(true));
        let lonely = channel_members::table
            .filter(channel_members::user_id.eq(user))
            .filter(channel_members::channel_id.eq_any(private.select(channels::id)))
            .filter(not(exists(somebody_else)));
        db.list(lonely.select(channel_members::channel_id)).await
    }

    /// The same for all private channels of a workspace that a user is in.
    pub async fn lock_private_of(
        tx: &mut Tx,
        workspace: WorkspaceId,
        user: UserId,
    ) -> QueryResult<Vec<ChannelId>> {
        let seats = channel_members::table.filter(channel_members::user_id.eq(user));
        let private = channels::table
            .filter(channels::workspace_id.eq(workspace))
            .filter(channels::is_private.eq(true))
            .filter(channels::id.eq_any(seats.select(channel_members::channel_id)));
        tx.list(private.select(channels::id).order(channels::id).for_no_key_update()).await
    }

    /// Inserts a channel. The names of a workspace's channels are unique: [a unique violation] otherwise.
    ///
    /// [a unique violation]: diesel::result::DatabaseErrorKind::UniqueViolation
    pub async fn insert(tx: &mut Tx, new: NewChannel<'_>) -> QueryResult<Option<Self>> {
        tx.save(diesel::insert_into(channels::table).values(new).returning(Self::as_returning())).await
    }

    /// Changes a channel; of its name the same holds.
    pub async fn update(
        tx: &mut Tx,
        id: ChannelId,
        changes: &ChannelChanges<'_>,
    ) -> QueryResult<Option<Self>> {
        let bookkeeping = (channels::version.eq(channels::version + 1), channels::updated_at.eq(now));
        let statement = diesel::update(channels::table.find(id)).set((changes, bookkeeping));
        tx.save(statement.returning(Self::as_returning())).await
    }

    /// Deletes a channel and everything in it.
    pub async fn delete(tx: &mut Tx, id: ChannelId) -> QueryResult<Option<Self>> {
        tx.delete(diesel::delete(channels::table.find(id)).returning(Self::as_returning())).await
    }
}

impl ChannelDetails {
    /// One channel.
    pub async fn find(db: &mut Reader, id: ChannelId) -> QueryResult<Option<Self>> {
        db.first(channel_details::table.find(id).select(Self::as_select())).await
    }

    /// The channels of a workspace that a user reads, in the order of their making, at most `limit`, after `after`.
    pub async fn list_of_reader(
        db: &mut Reader,
        workspace: WorkspaceId,
        user: UserId,
        after: Option<ChannelId>,
        limit: i64,
    ) -> QueryResult<Vec<Self>> {
        let readable = channel_readers::table
            .filter(channel_readers::workspace_id.eq(workspace))
            .filter(channel_readers::user_id.eq(user))
            .select(channel_readers::channel_id);
        let mut page = channel_details::table
            .filter(channel_details::id.eq_any(readable))
            .select(Self::as_select())
            .order(channel_details::id)
            .limit(limit)
            .into_boxed();
        if let Some(after) = after {
            page = page.filter(channel_details::id.gt(after));
        }
        db.list(page).await
    }
}

impl ChannelMember {
    /// Where it stands in the list.
    #[must_use]
    pub const fn position(&self) -> MemberPosition {
        MemberPosition { joined_at: self.joined_at, user_id: self.user_id }
    }

    /// One member with the person.
    pub async fn find_with_user(
        db: &mut Reader,
        channel: ChannelId,
        user: UserId,
    ) -> QueryResult<Option<(Self, User)>> {
        let row = channel_members::table.inner_join(users::table).filter(channel_members::user_id.eq(user));
        let row = row.filter(channel_members::channel_id.eq(channel));
        db.first(row.select((Self::as_select(), User::as_select()))).await
    }

    /// The members of a channel with their persons, longest standing first, at most `limit`, after `after`.
    pub async fn list_with_users(
        db: &mut Reader,
        channel: ChannelId,
        after: Option<MemberPosition>,
        limit: i64,
    ) -> QueryResult<Vec<(Self, User)>> {
        let mut page = channel_members::table
            .inner_join(users::table)
            .filter(channel_members::channel_id.eq(channel))
            .select((Self::as_select(), User::as_select()))
            .order((channel_members::joined_at, channel_members::user_id))
            .limit(limit)
            .into_boxed();
        if let Some(MemberPosition { joined_at, user_id }) = after {
            let later = channel_members::joined_at.gt(joined_at);
            let same = channel_members::joined_at.eq(joined_at).and(channel_members::user_id.gt(user_id));
            page = page.filter(later.or(same));
        }
        db.list(page).await
    }

    /// How many members a channel has. To be asked under [`Channel::lock`].
    pub async fn count(db: &mut Reader, channel: ChannelId) -> QueryResult<i64> {
        let members = channel_members::table.filter(channel_members::channel_id.eq(channel));
        Ok(db.first(members.count()).await?.unwrap_or_default())
    }

    /// Inserts a member. `None`: the user is one already.
    pub async fn insert(
        tx: &mut Tx,
        workspace: WorkspaceId,
        channel: ChannelId,
        user: UserId,
    ) -> QueryResult<Option<Self>> {
        let values = (
            channel_members::workspace_id.eq(workspace),
            channel_members::channel_id.eq(channel),
            channel_members::user_id.eq(user),
        );
        let statement = diesel::insert_into(channel_members::table).values(values).on_conflict_do_nothing();
        tx.save(statement.returning(Self::as_returning())).await
    }

    /// Removes a member. `None`: the user is none.
    pub async fn delete(tx: &mut Tx, channel: ChannelId, user: UserId) -> QueryResult<Option<Self>> {
        let statement = diesel::delete(channel_members::table.find((channel, user)));
        tx.delete(statement.returning(Self::as_returning())).await
    }
}
