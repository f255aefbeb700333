//! The words of the domain: ids, parsed text, roles, and what a write announces. No I/O, nothing `async`.

pub mod event;
pub mod id;
pub mod notification;
pub mod role;
pub mod text;
mod words;

use serde::{Deserialize, Serialize};

use self::id::{ChannelId, DocumentId, UserId, WorkspaceId};

/// What a save or a delete means to others: the table and the key columns that cached data depends on.
///
/// The database's journal records the same in the same words; `tests/it/journal/hooks.rs` holds both together. To add
/// one: list it here, let its row's [`Hooks`](crate::db::Hooks) emit it, let the migration of its table call
/// `cache_journal_track`, and say in [`queries::tags`](crate::queries::tags) what it makes stale, without
/// which it does not compile.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "table", rename_all = "snake_case")]
pub enum Change {
    /// A user was saved or deleted.
    Users {
        /// Whose.
        id: UserId,
    },
    /// A session has ended.
    Sessions {
        /// Whose.
        user_id: UserId,
    },
    /// A workspace was saved or deleted.
    Workspaces {
        /// Which.
        id: WorkspaceId,
    },
    /// Somebody came, left or changed roles.
    Members {
        /// Where.
        workspace_id: WorkspaceId,
        /// Who.
        user_id: UserId,
    },
    /// A document was saved or deleted.
    Documents {
        /// Which.
        id: DocumentId,
        /// Where.
        workspace_id: WorkspaceId,
    },
    /// A channel was saved or deleted.
    Channels {
        /// Which.
        id: ChannelId,
        /// Where.
        workspace_id: WorkspaceId,
    },
    /// Somebody came into a channel or left it.
    ChannelMembers {
        /// Where.
        channel_id: ChannelId,
        /// Who.
        user_id: UserId,
    },
    /// A message was saved or deleted.
    Messages {
        /// Where.
        channel_id: ChannelId,
    },
    /// No row: an operator wants this tag invalidated.
    Tag {
        /// What it is called.
        name: String,
    },
    /// Too much to tell.
    Everything,
}
