//! Notifications: made in the transaction of what caused them, read and marked by the user they are for.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, de::Error as _};
use utoipa::ToSchema;

use super::mentions::{Place, newly_mentioned};
use crate::{
    app::App,
    auth::Actor,
    db::{Tx, Written},
    domain::{
        event::{Audience, EventKind},
        id::{ChannelId, DocumentId, MessageId, NotificationId, UserId, WorkspaceId},
        notification::NotificationKind,
    },
    error::AppError,
    http::body::required,
    models::{
        events::{Event, NewEvent},
        members::Member,
        notifications::{NewNotification, Notification, Until},
        users::User,
    },
    queries::{notifications::NotificationView, view::View},
};

/// A merge patch of a notification.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeNotification {
    #[serde(default, deserialize_with = "required")]
    #[schema(value_type = bool, required = false)]
    read: Option<bool>,
}

/// Which notifications are to be marked as read.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadAll {
    /// Only those made before this notification or this time; all if it is absent.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    before: Option<Before>,
}

/// The id of a notification, or a time.
#[derive(Debug, Clone, Copy)]
enum Before {
    Notification(NotificationId),
    Time(DateTime<Utc>),
}

impl<'de> Deserialize<'de> for Before {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let id = text.parse().map(Self::Notification).ok();
        let time = || text.parse().map(Self::Time).ok();
        id.or_else(time)
            .ok_or_else(|| D::Error::custom("must be the id of a notification, or a time as in RFC 3339"))
    }
}

/// What a notification is about.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    pub workspace: WorkspaceId,
    pub channel: Option<ChannelId>,
    pub message: Option<MessageId>,
    pub document: Option<DocumentId>,
}

impl Subject {
    /// A workspace itself.
    #[must_use]
    pub const fn workspace(workspace: WorkspaceId) -> Self {
        Self { workspace, channel: None, message: None, document: None }
    }

    /// A channel.
    #[must_use]
    pub const fn channel(workspace: WorkspaceId, channel: ChannelId) -> Self {
        Self { channel: Some(channel), ..Self::workspace(workspace) }
    }

    /// A message.
    #[must_use]
    pub const fn message(workspace: WorkspaceId, channel: ChannelId, message: MessageId) -> Self {
        Self { message: Some(message), ..Self::channel(workspace, channel) }
    }

    /// A document.
    #[must_use]
    pub const fn document(workspace: WorkspaceId, document: DocumentId) -> Self {
        Self { document: Some(document), ..Self::workspace(workspace) }
    }
}

/// Notifies members of the workspace of what the actor has done, each once and never the actor, and tells those who
/// listen. Whoever leaves at this moment is passed over.
pub async fn notify(
    tx: &mut Tx,
    actor: Actor,
    subject: Subject,
    kind: NotificationKind,
    users: impl IntoIterator<Item = UserId>,
) -> Result<(), AppError> {
    let row = |user_id| NewNotification {
        id: NotificationId::new(),
        user_id,
        workspace_id: subject.workspace,
        kind,
        actor_id: actor.user_id,
        channel_id: subject.channel,
        message_id: subject.message,
        document_id: subject.document,
    };
    let users: Vec<_> = users.into_iter().filter(|user| *user != actor.user_id).collect();
    if users.is_empty() {
        return Ok(());
    }
    let new: Vec<_> = Member::keep(tx, subject.workspace, &users).await?.into_iter().map(row).collect();
    if new.is_empty() {
        return Ok(());
    }
    let who = User::find(tx, actor.user_id).await?.ok_or(AppError::NotFound)?;
    let mut events = Vec::with_capacity(new.len());
    for row in Notification::insert_all(tx, new).await? {
        let audience = Audience::User(row.user_id, Some(row.workspace_id));
        let data = serde_json::to_string(&NotificationView::new(row, who.clone()));
        let data = data.map_err(AppError::internal)?;
        events.push(NewEvent::new(EventKind::NotificationCreated, audience, data));
    }
    Event::insert_all(tx, events);
    Ok(())
}

/// Notifies those who are named in `text` and were not in `before`. Returns who that is.
pub async fn notify_mentioned(
    tx: &mut Tx,
    actor: Actor,
    (place, subject): (Place, Subject),
    text: &str,
    before: &str,
) -> Result<BTreeSet<UserId>, AppError> {
    let mentioned = newly_mentioned(tx, place, text, before).await?;
    notify(tx, actor, subject, NotificationKind::Mention, mentioned.iter().copied()).await?;
    Ok(mentioned)
}

/// Marks one of the caller's notifications as read, or as not.
pub async fn change(
    app: &App,
    actor: Actor,
    id: NotificationId,
    patch: ChangeNotification,
) -> Result<Written<View>, AppError> {
    app.db
        .write(async move |tx| {
            if let Some(read) = patch.read {
                Notification::mark(tx, actor.user_id, id, read).await?;
            }
            let found = Notification::find_with_actor(tx, actor.user_id, id).await?;
            let (row, who) = found.ok_or(AppError::NotFound)?;
            Ok(View::object(row.version, &NotificationView::new(row, who)))
        })
        .await
}

/// Marks the caller's notifications as read.
pub async fn read_all(app: &App, actor: Actor, input: ReadAll) -> Result<Written<()>, AppError> {
    let until = match input.before {
        None => Until::Now,
        Some(Before::Notification(id)) => Until::Notification(id),
        Some(Before::Time(time)) => Until::Time(time),
    };
    app.db.write(async move |tx| Ok(Notification::mark_all(tx, actor.user_id, until).await.map(drop)?)).await
}
