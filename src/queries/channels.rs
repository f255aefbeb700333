//! Cached reads about channels: lists, one, its members, and who reads it.

use chrono::{DateTime, Utc};
use diesel::QueryResult;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    CachedQuery, Kind, Queries,
    selects::{CachedSelect as _, Caching},
    tags, timestamp,
    users::PersonView,
    view::{Page, View},
};
use crate::{
    cache::{ArgumentsHash, Json, Key, LoadError, Tag, Token},
    db::Reader,
    domain::{
        id::{ChannelId, UserId, WorkspaceId},
        role::Role,
    },
    http::cursor::{CursorKey, Scope},
    models::{
        channels::{ChannelDetails, ChannelMember, ChannelReader},
        members::MemberPosition,
        users::User,
    },
};

/// A channel.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Channel)]
pub struct ChannelView {
    pub id: ChannelId,
    pub object: &'static str,
    pub workspace_id: WorkspaceId,
    pub name: String,
    pub topic: String,
    /// Seen by its own members only.
    pub is_private: bool,
    pub created_by: PersonView,
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub updated_at: DateTime<Utc>,
    pub version: i64,
}

impl From<ChannelDetails> for ChannelView {
    fn from(row: ChannelDetails) -> Self {
        Self {
            id: row.id,
            object: "channel",
            workspace_id: row.workspace_id,
            name: row.name,
            topic: row.topic,
            is_private: row.is_private,
            created_by: PersonView {
                id: row.created_by,
                name: row.creator_name,
                display_name: row.creator_display_name,
                avatar_url: row.creator_avatar_url,
            },
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.version,
        }
    }
}

/// A member of a channel.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChannelMember)]
pub struct ChannelMemberView {
    /// The user's id: a person is a member once.
    pub id: UserId,
    pub object: &'static str,
    pub workspace_id: WorkspaceId,
    pub channel_id: ChannelId,
    pub user: PersonView,
    #[serde(serialize_with = "timestamp::serialize")]
    pub joined_at: DateTime<Utc>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub updated_at: DateTime<Utc>,
    pub version: i64,
}

impl ChannelMemberView {
    /// A member and the person.
    #[must_use]
    pub fn new(member: ChannelMember, user: User) -> Self {
        let ChannelMember { workspace_id, channel_id, user_id, version, joined_at, updated_at } = member;
        Self {
            id: user_id,
            object: "channel_member",
            workspace_id,
            channel_id,
            user: PersonView::from(user),
            joined_at,
            created_at: joined_at,
            updated_at,
            version,
        }
    }
}

/// As what somebody reads a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readership {
    /// Where the channel is.
    pub workspace_id: WorkspaceId,
    /// The reader's role there.
    pub role: Role,
}

/// Whether and as what a user reads a channel; nothing if not, or if there is no such channel.
#[derive(Debug)]
pub struct ReadershipOf {
    pub channel: ChannelId,
    pub user: UserId,
}

impl CachedQuery for ReadershipOf {
    type Value = Json<Readership>;
    const KIND: Kind = Kind::Messages;

    fn key(&self) -> Key {
        Key::new("channel", self.channel.as_uuid(), 1).suffix("reader").sub_id(self.user.as_uuid())
    }

    fn tags(&self) -> Vec<Tag> {
        vec![
            tags::channel(self.channel),
            tags::channel_member(self.channel, self.user),
            // Of the membership alone it cannot depend: which workspace it is about is not known before.
            tags::user_workspaces(self.user),
        ]
    }

    async fn load(&self, db: &mut Reader, _learned: &mut Vec<Tag>) -> QueryResult<Option<Self::Value>> {
        let reader = ChannelReader::find(db, self.channel, self.user).await?;
        Ok(reader.map(|ChannelReader { workspace_id, role, .. }| Json(Readership { workspace_id, role })))
    }
}

/// The private channels of a workspace that a user reads, in the order of their ids: with his membership, all that
/// decides what a search may show him.
///
/// # Errors
/// When they are not cached and cannot be loaded.
pub async fn private_channels_of(
    queries: &Queries,
    workspace: WorkspaceId,
    user: UserId,
    token: Option<&Token>,
) -> Result<Vec<ChannelId>, LoadError> {
    let caching = Caching::of(Kind::Messages).tags(channels_seen_by(workspace, user)).token(token);
    let read = ChannelReader::private_of(workspace, user).cached_list(queries, caching).await?;
    Ok(read.value.map(|ids| ids.0.clone()).unwrap_or_default())
}

/// What it depends on which channels of a workspace a user reads.
fn channels_seen_by(workspace: WorkspaceId, user: UserId) -> Vec<Tag> {
    vec![
        tags::workspace_channels(workspace),
        tags::workspace_member(workspace, user),
        tags::user_channels(user),
    ]
}

/// A channel, as all who read it see it.
#[derive(Debug)]
pub struct ChannelById(pub ChannelId);

impl CachedQuery for ChannelById {
    type Value = View;
    const KIND: Kind = Kind::Messages;

    fn key(&self) -> Key {
        Key::new("channel", self.0.as_uuid(), 1)
    }

    fn tags(&self) -> Vec<Tag> {
        vec![tags::channel(self.0)]
    }

    async fn load(&self, db: &mut Reader, learned: &mut Vec<Tag>) -> QueryResult<Option<View>> {
        let Some(row) = ChannelDetails::find(db, self.0).await? else { return Ok(None) };
        learned.push(tags::user(row.created_by));
        Ok(Some(View::object(row.version, &ChannelView::from(row))))
    }
}

/// A page of the channels of a workspace that a user reads, in the order of their making.
#[derive(Debug)]
pub struct ChannelsOfReader {
    pub workspace: WorkspaceId,
    pub user: UserId,
    pub after: Option<ChannelId>,
    pub limit: u16,
    pub cursors: CursorKey,
}

impl ChannelsOfReader {
    /// What its cursors are for.
    #[must_use]
    pub fn scope(workspace: WorkspaceId) -> Scope {
        Scope::new("channels", workspace.as_uuid())
    }
}

impl CachedQuery for ChannelsOfReader {
    type Value = View;
    const KIND: Kind = Kind::Messages;

    fn key(&self) -> Key {
        let key = Key::new("workspace", self.workspace.as_uuid(), 1).suffix("channels");
        key.sub_id(self.user.as_uuid()).arguments(ArgumentsHash::of(&(self.limit, self.after)))
    }

    fn tags(&self) -> Vec<Tag> {
        channels_seen_by(self.workspace, self.user)
    }

    async fn load(&self, db: &mut Reader, learned: &mut Vec<Tag>) -> QueryResult<Option<View>> {
        let limit = i64::from(self.limit) + 1;
        let rows = ChannelDetails::list_of_reader(db, self.workspace, self.user, self.after, limit).await?;
        let sign = |last: &ChannelDetails| self.cursors.sign(Self::scope(self.workspace), &last.id);
        let page = Page::new(rows, self.limit, sign);
        learned.extend(page.data.iter().map(|row| tags::user(row.created_by)));
        Ok(Some(View::page(page.map(ChannelView::from))))
    }
}

/// One member of a channel.
#[derive(Debug)]
pub struct ChannelMemberByUser {
    pub channel: ChannelId,
    pub user: UserId,
}

impl CachedQuery for ChannelMemberByUser {
    type Value = View;
    const KIND: Kind = Kind::Messages;

    fn key(&self) -> Key {
        Key::new("channel", self.channel.as_uuid(), 1).suffix("member").sub_id(self.user.as_uuid())
    }

    fn tags(&self) -> Vec<Tag> {
        vec![tags::channel_member(self.channel, self.user), tags::user(self.user)]
    }

    async fn load(&self, db: &mut Reader, _learned: &mut Vec<Tag>) -> QueryResult<Option<View>> {
        let row = ChannelMember::find_with_user(db, self.channel, self.user).await?;
        Ok(row.map(|(member, user)| View::object(member.version, &ChannelMemberView::new(member, user))))
    }
}

/// A page of a channel's members, longest standing first.
#[derive(Debug)]
pub struct MembersOfChannel {
    pub channel: ChannelId,
    pub after: Option<MemberPosition>,
    pub limit: u16,
    pub cursors: CursorKey,
}

impl MembersOfChannel {
    /// What its cursors are for.
    #[must_use]
    pub fn scope(channel: ChannelId) -> Scope {
        Scope::new("channel_members", channel.as_uuid())
    }
}

impl CachedQuery for MembersOfChannel {
    type Value = View;
    const KIND: Kind = Kind::Messages;

    fn key(&self) -> Key {
        let arguments = ArgumentsHash::of(&(self.limit, self.after));
        Key::new("channel", self.channel.as_uuid(), 1).suffix("members").arguments(arguments)
    }

    fn tags(&self) -> Vec<Tag> {
        vec![tags::channel_members(self.channel)]
    }

    async fn load(&self, db: &mut Reader, learned: &mut Vec<Tag>) -> QueryResult<Option<View>> {
        let limit = i64::from(self.limit) + 1;
        let rows = ChannelMember::list_with_users(db, self.channel, self.after, limit).await?;
        let sign = |(last, _): &(ChannelMember, User)| {
            self.cursors.sign(Self::scope(self.channel), &last.position())
        };
        let page = Page::new(rows, self.limit, sign);
        learned.extend(page.data.iter().map(|(member, _)| tags::user(member.user_id)));
        Ok(Some(View::page(page.map(|(member, user)| ChannelMemberView::new(member, user)))))
    }
}
