//! Why somebody is told something.

use super::words::words;

words! {
    /// What a notification is about.
    NotificationKind {
        /// Somebody was named in a message or a document.
        Mention = "mention",
        /// A message of theirs was answered.
        Reply = "reply",
        /// They were added to a workspace.
        WorkspaceAdded = "workspace_added",
        /// They were added to a private channel.
        ChannelAdded = "channel_added",
    }
}
