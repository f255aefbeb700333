//! What listeners are told in real time, and who they are.

use serde::{Deserialize, Serialize};

use super::{
    id::{ChannelId, SessionId, UserId, WorkspaceId},
    words::words,
};

words! {
    /// What happened.
    EventKind {
        /// Somebody has a new notification.
        NotificationCreated = "notification.created",
        /// A message was sent.
        MessageCreated = "message.created",
        /// A message was edited.
        MessageUpdated = "message.updated",
        /// A message was deleted.
        MessageDeleted = "message.deleted",
        /// A document was changed.
        DocumentUpdated = "document.updated",
        /// Somebody came into a workspace.
        MemberAdded = "member.added",
        /// Somebody left a workspace.
        MemberRemoved = "member.removed",
        /// Sessions of a user have ended: streams of theirs end too, and nobody is told.
        SessionsEnded = "sessions.ended",
    }
}

words! {
    /// How an audience is known in the database.
    AudienceKind {
        /// A user.
        User = "user",
        /// The members of a workspace.
        Workspace = "workspace",
        /// The readers of a channel.
        Channel = "channel",
    }
}

/// The data of [`EventKind::SessionsEnded`].
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct SessionsEnded {
    /// Only this one; all if it is absent.
    pub session_id: Option<SessionId>,
}

/// Who is told. Decided by what everybody may see at the time of telling, not of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// One user, about a workspace if there is one.
    User(UserId, Option<WorkspaceId>),
    /// The members of a workspace, and a user who may not be one any more.
    Workspace(WorkspaceId, Option<UserId>),
    /// The readers of a channel.
    Channel(WorkspaceId, ChannelId),
}

impl Audience {
    /// What kind it is.
    #[must_use]
    pub const fn kind(&self) -> AudienceKind {
        match self {
            Self::User(..) => AudienceKind::User,
            Self::Workspace(..) => AudienceKind::Workspace,
            Self::Channel(..) => AudienceKind::Channel,
        }
    }

    /// The user that is named.
    #[must_use]
    pub const fn user(&self) -> Option<UserId> {
        match *self {
            Self::User(user, _) => Some(user),
            Self::Workspace(_, user) => user,
            Self::Channel(..) => None,
        }
    }

    /// The workspace it happened in.
    #[must_use]
    pub const fn workspace(&self) -> Option<WorkspaceId> {
        match *self {
            Self::User(_, workspace) => workspace,
            Self::Workspace(workspace, _) | Self::Channel(workspace, _) => Some(workspace),
        }
    }

    /// The channel it happened in.
    #[must_use]
    pub const fn channel(&self) -> Option<ChannelId> {
        match *self {
            Self::Channel(_, channel) => Some(channel),
            Self::User(..) | Self::Workspace(..) => None,
        }
    }
}
