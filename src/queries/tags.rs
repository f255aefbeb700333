//! What entries depend on, and what a change makes stale.
//!
//! Hooks, journal and relay all go through [`tags_of`]; a new kind of [`Change`] does not compile until it is listed.

use crate::{
    cache::Tag,
    domain::{
        Change,
        id::{ChannelId, DocumentId, UserId, WorkspaceId},
    },
};

/// A user's row: everything that shows this person, and the sign-in state.
#[must_use]
pub fn user(id: UserId) -> Tag {
    Tag::new("user", id.as_uuid())
}

/// Which sessions of a user have ended.
#[must_use]
pub fn user_sessions(id: UserId) -> Tag {
    Tag::suffixed("user", id.as_uuid(), "sessions")
}

/// Which workspaces a user is in, and as what.
#[must_use]
pub fn user_workspaces(id: UserId) -> Tag {
    Tag::suffixed("user", id.as_uuid(), "workspaces")
}

/// A workspace as it is shown.
#[must_use]
pub fn workspace(id: WorkspaceId) -> Tag {
    Tag::new("workspace", id.as_uuid())
}

/// The list of a workspace's members.
#[must_use]
pub fn workspace_members(id: WorkspaceId) -> Tag {
    Tag::suffixed("workspace", id.as_uuid(), "members")
}

/// One member of a workspace.
#[must_use]
pub fn workspace_member(id: WorkspaceId, user: UserId) -> Tag {
    Tag::pair("workspace", id.as_uuid(), "member", user.as_uuid())
}

/// A document: what it says and what it said.
#[must_use]
pub fn document(id: DocumentId) -> Tag {
    Tag::new("document", id.as_uuid())
}

/// The list of a workspace's documents.
#[must_use]
pub fn workspace_documents(id: WorkspaceId) -> Tag {
    Tag::suffixed("workspace", id.as_uuid(), "documents")
}

/// A channel as it is shown, and whether it is private.
#[must_use]
pub fn channel(id: ChannelId) -> Tag {
    Tag::new("channel", id.as_uuid())
}

/// Which channels a workspace has, and what they are like.
#[must_use]
pub fn workspace_channels(id: WorkspaceId) -> Tag {
    Tag::suffixed("workspace", id.as_uuid(), "channels")
}

/// The list of a channel's members.
#[must_use]
pub fn channel_members(id: ChannelId) -> Tag {
    Tag::suffixed("channel", id.as_uuid(), "members")
}

/// One member of a channel.
#[must_use]
pub fn channel_member(id: ChannelId, user: UserId) -> Tag {
    Tag::pair("channel", id.as_uuid(), "member", user.as_uuid())
}

/// Which channels a user is in.
#[must_use]
pub fn user_channels(id: UserId) -> Tag {
    Tag::suffixed("user", id.as_uuid(), "channels")
}

/// The messages of a channel.
#[must_use]
pub fn channel_messages(id: ChannelId) -> Tag {
    Tag::suffixed("channel", id.as_uuid(), "messages")
}

/// A workspace and all lists that belong to it.
#[must_use]
pub fn all_of_workspace(id: WorkspaceId) -> Vec<Tag> {
    vec![workspace(id), workspace_members(id), workspace_documents(id), workspace_channels(id)]
}

/// A user, his sessions and memberships.
#[must_use]
pub fn all_of_user(id: UserId) -> Vec<Tag> {
    vec![user(id), user_sessions(id), user_workspaces(id), user_channels(id)]
}

/// A channel, its members and messages.
#[must_use]
pub fn all_of_channel(id: ChannelId) -> Vec<Tag> {
    vec![channel(id), channel_members(id), channel_messages(id)]
}

/// What a change makes stale.
#[must_use]
pub fn tags_of(change: &Change) -> Vec<Tag> {
    match *change {
        Change::Users { id } => vec![user(id)],
        Change::Sessions { user_id } => vec![user_sessions(user_id)],
        Change::Workspaces { id } => vec![workspace(id)],
        Change::Members { workspace_id, user_id } => vec![
            // It shows how many members it has, and its owner.
            workspace(workspace_id),
            workspace_members(workspace_id),
            workspace_member(workspace_id, user_id),
            user_workspaces(user_id),
        ],
        Change::Documents { id, workspace_id } => vec![document(id), workspace_documents(workspace_id)],
        Change::Channels { id, workspace_id } => vec![channel(id), workspace_channels(workspace_id)],
        Change::ChannelMembers { channel_id, user_id } => {
            vec![channel_members(channel_id), channel_member(channel_id, user_id), user_channels(user_id)]
        }
        Change::Messages { channel_id } => vec![channel_messages(channel_id)],
        // What this release does not take for a tag counts as everything.
        Change::Tag { ref name } => vec![Tag::parse(name).unwrap_or_else(Tag::all)],
        Change::Everything => vec![Tag::all()],
    }
}

/// More changes than this make everything stale, as in the journal: naming them would hold up Redis.
const MANY: usize = 1000;

/// What several changes make stale, each tag once.
#[must_use]
pub fn tags_of_all(changes: &[Change]) -> Vec<Tag> {
    if changes.len() > MANY {
        return vec![Tag::all()];
    }
    let mut tags: Vec<_> = changes.iter().flat_map(tags_of).collect();
    tags.sort_unstable();
    tags.dedup();
    tags
}
