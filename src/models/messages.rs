//! The `messages` table, and the view `message_details`.

mod told;

use chrono::{DateTime, Utc};
use diesel::{QueryResult, dsl::now, prelude::*};
use serde::{Deserialize, Serialize};

use self::told::Told;
use super::{events::NewEvent, users::Author};
use crate::{
    db::{
        Hooks, Reader, Tx,
        fixed::Wording,
        schema::{message_details, messages},
    },
    domain::{
        Change,
        id::{ChannelId, MessageId, UserId, WorkspaceId},
    },
};

/// A row of the `messages` table.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = messages, check_for_backend(diesel::pg::Pg))]
pub struct Message {
    pub id: MessageId,
    pub workspace_id: WorkspaceId,
    pub channel_id: ChannelId,
    pub author_id: UserId,
    pub reply_to: Option<MessageId>,
    pub content: String,
    pub client_msg_id: Option<String>,
    pub version: i64,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub edited_at: Option<DateTime<Utc>>,
    pub deleted_at: Option<DateTime<Utc>>,
}

impl Hooks for Message {
    fn on_save(&self) -> Option<Change> {
        Some(Change::Messages { channel_id: self.channel_id })
    }

    fn on_delete(&self) -> Option<Change> {
        self.on_save()
    }
}

/// A message that was inserted. Not all of it, which whoever inserts it knows.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = messages, check_for_backend(diesel::pg::Pg))]
pub struct Inserted {
    channel_id: ChannelId,
}

impl Hooks for Inserted {
    fn on_save(&self) -> Option<Change> {
        Some(Change::Messages { channel_id: self.channel_id })
    }

    fn on_delete(&self) -> Option<Change> {
        self.on_save()
    }
}

/// A row of the view: a message with its author.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = message_details, check_for_backend(diesel::pg::Pg))]
pub struct MessageDetails {
    pub id: MessageId,
    pub workspace_id: WorkspaceId,
    pub channel_id: ChannelId,
    pub author_id: UserId,
    pub reply_to: Option<MessageId>,
    pub content: String,
    pub client_msg_id: Option<String>,
    pub version: i64,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub edited_at: Option<DateTime<Utc>>,
    pub deleted_at: Option<DateTime<Utc>>,
    pub author_name: String,
    pub author_display_name: String,
    pub author_avatar_url: Option<String>,
}

/// A row to insert.
#[derive(Debug, Insertable)]
#[diesel(table_name = messages, treat_none_as_default_value = false)]
pub struct NewMessage<'a> {
    pub id: MessageId,
    pub workspace_id: WorkspaceId,
    pub channel_id: ChannelId,
    pub author_id: UserId,
    pub reply_to: Option<MessageId>,
    pub content: &'a str,
    pub client_msg_id: Option<&'a str>,
}

/// A part of a channel's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    /// The newest.
    Latest,
    /// Those right before this one.
    Before(MessageId),
    /// Those right after this one.
    After(MessageId),
}

impl Message {
    /// One message of a channel. In another channel there is no such message.
    pub async fn find(db: &mut Reader, channel: ChannelId, id: MessageId) -> QueryResult<Option<Self>> {
        let message = messages::table.find(id).filter(messages::channel_id.eq(channel));
        db.first(message.select(Self::as_select())).await
    }

    /// Keeps others from changing the message until the transaction ends.
    pub async fn lock(tx: &mut Tx, channel: ChannelId, id: MessageId) -> QueryResult<Option<Self>> {
        let message = messages::table.find(id).filter(messages::channel_id.eq(channel));
        tx.first(message.select(Self::as_select()).for_update()).await
    }

    /// The message that its author's client calls so, whoever is writing it at this moment.
    pub async fn find_by_client_msg_id(
        db: &mut Reader,
        channel: ChannelId,
        author: UserId,
        client_msg_id: &str,
    ) -> QueryResult<Option<MessageId>> {
        let message = messages::table
            .filter(messages::channel_id.eq(channel))
            .filter(messages::author_id.eq(author))
            .filter(messages::client_msg_id.eq(client_msg_id));
        db.first(message.select(messages::id)).await
    }

    /// Inserts a message and the event that tells of it. `None`: its author's client has sent it before.
    pub async fn insert(
        tx: &mut Tx,
        new: &NewMessage<'_>,
        event: &NewEvent,
    ) -> QueryResult<Option<Inserted>> {
        static WORDING: Wording = Wording::new();
        let insert = diesel::insert_into(messages::table).values(new).on_conflict_do_nothing();
        let insert = insert.returning(Inserted::as_returning());
        tx.save_recorded(WORDING.of(Told { insert, event })).await
    }

    /// Gives a message other content.
    pub async fn edit(tx: &mut Tx, id: MessageId, content: &str) -> QueryResult<Option<Self>> {
        let changes = (
            messages::content.eq(content),
            messages::version.eq(messages::version + 1),
            messages::updated_at.eq(now),
            messages::edited_at.eq(now),
        );
        let statement = diesel::update(messages::table.find(id)).set(changes);
        tx.save(statement.returning(Self::as_returning())).await
    }

    /// Leaves a tombstone in a message's place.
    pub async fn bury(tx: &mut Tx, id: MessageId) -> QueryResult<Option<Self>> {
        let changes = (
            messages::content.eq(""),
            messages::version.eq(messages::version + 1),
            messages::updated_at.eq(now),
            messages::deleted_at.eq(now),
        );
        let statement = diesel::update(messages::table.find(id)).set(changes);
        tx.save(statement.returning(Self::as_returning())).await
    }
}

impl MessageDetails {
    /// A message as it will be once it is inserted.
    #[must_use]
    pub fn new(new: &NewMessage<'_>, author: Author) -> Self {
        let Author { person: author, writes_at } = author;
        Self {
            id: new.id,
            workspace_id: new.workspace_id,
            channel_id: new.channel_id,
            author_id: new.author_id,
            reply_to: new.reply_to,
            content: new.content.to_owned(),
            client_msg_id: new.client_msg_id.map(ToOwned::to_owned),
            version: 1,
            created_at: writes_at,
            updated_at: writes_at,
            edited_at: None,
            deleted_at: None,
            author_display_name: author.display_name.unwrap_or_else(|| author.name.clone()),
            author_name: author.name,
            author_avatar_url: author.avatar_url,
        }
    }

    /// One message of a channel.
    pub async fn find(db: &mut Reader, channel: ChannelId, id: MessageId) -> QueryResult<Option<Self>> {
        let message = message_details::table.find(id).filter(message_details::channel_id.eq(channel));
        db.first(message.select(Self::as_select())).await
    }

    /// Messages of a channel, at most `limit`, going away from where the window begins: from the newest or from `Before`
    /// to older ones, from `After` to newer ones.
    pub async fn list(
        db: &mut Reader,
        channel: ChannelId,
        window: Window,
        limit: i64,
    ) -> QueryResult<Vec<Self>> {
        let page = message_details::table
            .filter(message_details::channel_id.eq(channel))
            .select(Self::as_select())
            .limit(limit)
            .into_boxed();
        let page = match window {
            Window::Latest => page.order(message_details::id.desc()),
            Window::Before(id) => page.filter(message_details::id.lt(id)).order(message_details::id.desc()),
            Window::After(id) => page.filter(message_details::id.gt(id)).order(message_details::id.asc()),
        };
        db.list(page).await
    }
}
