//! Sending, editing and deleting messages. Whoever reads a channel writes there; a message is its author's to edit, and
//! its author's and every admin's to delete.

use diesel::result::{DatabaseErrorKind, Error as QueryError};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::{self, Actor},
    db::{Tx, Written},
    domain::{
        event::{Audience, EventKind},
        id::{ChannelId, MessageId, WorkspaceId},
        notification::NotificationKind,
        role::Role,
        text::{ClientMessageId, MessageContent},
    },
    error::{AppError, Faults},
    http::body::{Creation, required},
    models::{
        channels::ChannelReader,
        messages::{Message, MessageDetails, NewMessage},
    },
    queries::{messages::MessageView, view::View},
    services::{
        events,
        mentions::Place,
        notifications::{self, Subject},
        once::{self, Created},
    },
};

/// A new message.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendMessage {
    content: String,
    /// The message that it answers.
    reply_to: Option<MessageId>,
    /// What the client calls it. Sent again under the same name, it is still one message.
    client_msg_id: Option<String>,
}

/// A merge patch of a message.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EditMessage {
    #[serde(default, deserialize_with = "required")]
    #[schema(value_type = String, required = false)]
    content: Option<String>,
}

/// Sends a message, or finds the one that was sent before under the same name.
pub async fn send(
    app: &App,
    actor: Actor,
    (workspace, channel): (WorkspaceId, ChannelId),
    new: Creation<SendMessage>,
) -> Result<Written<Created>, AppError> {
    let input = new.body;
    let mut faults = Faults::default();
    let content = faults.member("content", MessageContent::parse(&input.content));
    let client_msg_id =
        faults.optional("client_msg_id", input.client_msg_id.as_deref().map(ClientMessageId::parse));
    let content = faults.check(content)?;
    once::create(app, actor, new.once, async move |tx| {
        let author = auth::require_author(tx, actor, workspace, channel).await?;
        let answered = match input.reply_to {
            Some(id) => {
                let found = Message::find(tx, channel, id).await?;
                Some(found.ok_or_else(|| AppError::member("#/reply_to", "is no message of this channel"))?)
            }
            None => None,
        };
        let client_msg_id = client_msg_id.as_ref().map(ClientMessageId::as_str);
        let id = MessageId::new();
        let new = NewMessage {
            id,
            workspace_id: workspace,
            channel_id: channel,
            author_id: actor.user_id,
            reply_to: input.reply_to,
            content: content.as_str(),
            client_msg_id,
        };
        let path = |id| format!("/v1/workspaces/{workspace}/channels/{channel}/messages/{id}");
        let view = show(MessageDetails::new(&new, author));
        let event =
            events::about_view(EventKind::MessageCreated, Audience::Channel(workspace, channel), &view)?;
        let inserted = Message::insert(tx, &new, &event).await.map_err(|err| match err {
            // The channel was deleted a moment ago.
            QueryError::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _) => AppError::NotFound,
            other => other.into(),
        })?;
        if inserted.is_none() {
            let known = client_msg_id.unwrap_or_default();
            let first = Message::find_by_client_msg_id(tx, channel, actor.user_id, known).await?;
            let first = first.ok_or_else(|| AppError::internal("a message was not inserted"))?;
            return Ok(Created::before(path(first), shown(tx, channel, first).await?));
        }
        let subject = Subject::message(workspace, channel, id);
        let about = (Place::Channel(workspace, channel), subject);
        let mentioned = notifications::notify_mentioned(tx, actor, about, content.as_str(), "").await?;
        // Who was named knows already.
        if let Some(answered) = answered.filter(|answered| !mentioned.contains(&answered.author_id)) {
            let reader = ChannelReader::filter(tx, channel, &[answered.author_id]).await?;
            notifications::notify(tx, actor, subject, NotificationKind::Reply, reader).await?;
        }
        Ok(Created::new(path(id), view))
    })
    .await
}

/// Gives a message other content. A patch that changes nothing raises no version.
pub async fn edit(
    app: &App,
    actor: Actor,
    (workspace, channel, id): (WorkspaceId, ChannelId, MessageId),
    patch: EditMessage,
) -> Result<Written<View>, AppError> {
    let mut faults = Faults::default();
    let content = faults.optional("content", patch.content.as_deref().map(MessageContent::parse));
    faults.check(Some(()))?;
    app.db
        .write(async move |tx| {
            auth::require_reader(tx, actor, workspace, channel).await?;
            let present = Message::lock(tx, channel, id).await?.ok_or(AppError::NotFound)?;
            if present.author_id != actor.user_id {
                return Err(AppError::Forbidden("Only its author may edit a message."));
            }
            if present.deleted_at.is_some() {
                return Err(AppError::Conflict("The message was deleted."));
            }
            let Some(content) = content.filter(|content| content.as_str() != present.content) else {
                return shown(tx, channel, id).await;
            };
            Message::edit(tx, id, content.as_str()).await?.ok_or(AppError::NotFound)?;
            let view = shown(tx, channel, id).await?;
            events::tell_view(tx, EventKind::MessageUpdated, Audience::Channel(workspace, channel), &view)?;
            let about = (Place::Channel(workspace, channel), Subject::message(workspace, channel, id));
            notifications::notify_mentioned(tx, actor, about, content.as_str(), &present.content).await?;
            Ok(view)
        })
        .await
}

/// Leaves a tombstone in a message's place. One that is there already may stay.
pub async fn delete(
    app: &App,
    actor: Actor,
    (workspace, channel, id): (WorkspaceId, ChannelId, MessageId),
) -> Result<Written<()>, AppError> {
    app.db
        .write(async move |tx| {
            let reader = auth::require_reader(tx, actor, workspace, channel).await?;
            let present = Message::lock(tx, channel, id).await?.ok_or(AppError::NotFound)?;
            if present.author_id != actor.user_id && !reader.role.at_least(Role::Admin) {
                return Err(AppError::Forbidden("Only its author or an admin may delete a message."));
            }
            if present.deleted_at.is_some() {
                return Ok(());
            }
            Message::bury(tx, id).await?.ok_or(AppError::NotFound)?;
            let tombstone = shown(tx, channel, id).await?;
            let audience = Audience::Channel(workspace, channel);
            events::tell_view(tx, EventKind::MessageDeleted, audience, &tombstone)
        })
        .await
}

/// The message as this transaction has left it.
async fn shown(tx: &mut Tx, channel: ChannelId, id: MessageId) -> Result<View, AppError> {
    Ok(show(MessageDetails::find(tx, channel, id).await?.ok_or(AppError::NotFound)?))
}

fn show(row: MessageDetails) -> View {
    View::object(row.version, &MessageView::from(row))
}
