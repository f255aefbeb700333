//! How notifications look. They are read from the rows each time: never cached.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::{timestamp, users::PersonView};
use crate::{
    domain::{
        id::{ChannelId, DocumentId, MessageId, NotificationId, WorkspaceId},
        notification::NotificationKind,
    },
    models::{notifications::Notification, users::User},
};

/// A notification.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Notification)]
pub struct NotificationView {
    pub id: NotificationId,
    pub object: &'static str,
    pub kind: NotificationKind,
    pub workspace_id: WorkspaceId,
    /// Who caused it.
    pub actor: PersonView,
    pub channel_id: Option<ChannelId>,
    pub message_id: Option<MessageId>,
    pub document_id: Option<DocumentId>,
    pub read: bool,
    #[serde(serialize_with = "timestamp::serialize_option")]
    pub read_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub updated_at: DateTime<Utc>,
    pub version: i64,
}

impl NotificationView {
    /// A notification and who caused it.
    #[must_use]
    pub fn new(row: Notification, actor: User) -> Self {
        Self {
            id: row.id,
            object: "notification",
            kind: row.kind,
            workspace_id: row.workspace_id,
            actor: PersonView::from(actor),
            channel_id: row.channel_id,
            message_id: row.message_id,
            document_id: row.document_id,
            read: row.read_at.is_some(),
            read_at: row.read_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.version,
        }
    }
}

/// How many notifications were not read.
#[derive(Debug, Serialize, ToSchema)]
pub struct UnreadCount {
    pub object: &'static str,
    pub unread_count: i64,
}

impl UnreadCount {
    /// So many.
    #[must_use]
    pub const fn new(unread_count: i64) -> Self {
        Self { object: "unread_count", unread_count }
    }
}
