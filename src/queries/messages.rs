//! Cached reads about messages: pages of a channel, and one.

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
    domain::id::{ChannelId, MessageId, WorkspaceId},
    http::cursor::{CursorKey, Scope},
    models::messages::{MessageDetails, Window},
};

/// A message, or the tombstone of one.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Message)]
pub struct MessageView {
    pub id: MessageId,
    pub object: &'static str,
    pub workspace_id: WorkspaceId,
    pub channel_id: ChannelId,
    pub author: PersonView,
    /// Nothing once it is deleted.
    pub content: Option<String>,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    /// What its author's client calls it.
    pub client_msg_id: Option<String>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub updated_at: DateTime<Utc>,
    #[serde(serialize_with = "timestamp::serialize_option")]
    pub edited_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "timestamp::serialize_option")]
    pub deleted_at: Option<DateTime<Utc>>,
    pub version: i64,
}

impl From<MessageDetails> for MessageView {
    fn from(row: MessageDetails) -> Self {
        Self {
            id: row.id,
            object: "message",
            workspace_id: row.workspace_id,
            channel_id: row.channel_id,
            author: PersonView {
                id: row.author_id,
                name: row.author_name,
                display_name: row.author_display_name,
                avatar_url: row.author_avatar_url,
            },
            content: row.deleted_at.is_none().then_some(row.content),
            reply_to: row.reply_to,
            client_msg_id: row.client_msg_id,
            created_at: row.created_at,
            updated_at: row.updated_at,
            edited_at: row.edited_at,
            deleted_at: row.deleted_at,
            version: row.version,
        }
    }
}

/// A message of a channel.
#[derive(Debug)]
pub struct MessageById {
    pub channel: ChannelId,
    pub message: MessageId,
}

impl CachedQuery for MessageById {
    type Value = View;
    const KIND: Kind = Kind::Messages;

    fn key(&self) -> Key {
        Key::new("channel", self.channel.as_uuid(), 1).suffix("message").sub_id(self.message.as_uuid())
    }

    fn tags(&self) -> Vec<Tag> {
        vec![tags::channel_messages(self.channel)]
    }

    async fn load(&self, db: &mut Reader, learned: &mut Vec<Tag>) -> QueryResult<Option<View>> {
        let Some(row) = MessageDetails::find(db, self.channel, self.message).await? else { return Ok(None) };
        learned.push(tags::user(row.author_id));
        Ok(Some(View::object(row.version, &MessageView::from(row))))
    }
}

/// A page of a channel's messages, newest first.
#[derive(Debug)]
pub struct MessagesOfChannel {
    pub channel: ChannelId,
    pub window: Window,
    pub limit: u16,
    pub cursors: CursorKey,
}

impl MessagesOfChannel {
    /// What its cursors are for.
    #[must_use]
    pub fn scope(channel: ChannelId) -> Scope {
        Scope::new("messages", channel.as_uuid())
    }
}

impl CachedQuery for MessagesOfChannel {
    type Value = View;
    const KIND: Kind = Kind::Messages;

    fn key(&self) -> Key {
        let arguments = ArgumentsHash::of(&(self.limit, self.window));
        Key::new("channel", self.channel.as_uuid(), 1).suffix("messages").arguments(arguments)
    }

    fn tags(&self) -> Vec<Tag> {
        vec![tags::channel_messages(self.channel)]
    }

    async fn load(&self, db: &mut Reader, learned: &mut Vec<Tag>) -> QueryResult<Option<View>> {
        let rows = MessageDetails::list(db, self.channel, self.window, i64::from(self.limit) + 1).await?;
        let ascends = matches!(self.window, Window::After(_));
        // The next page goes on in the same direction.
        let sign = |last: &MessageDetails| {
            let next = if ascends { Window::After(last.id) } else { Window::Before(last.id) };
            self.cursors.sign(Self::scope(self.channel), &next)
        };
        let mut page = Page::new(rows, self.limit, sign);
        if ascends {
            page.data.reverse();
        }
        learned.extend(page.data.iter().map(|row| tags::user(row.author_id)));
        Ok(Some(View::page(page.map(MessageView::from))))
    }
}
