//! Central management: invalidating by hand, on every instance and in both tiers.
//!
//! What a write changes is invalidated by itself; this is for what the database does not know of. Recorded in the journal
//! first, so that every instance hears of it whatever happens to this one or to Redis.

use super::{Queries, tags};
use crate::{
    cache::Tag,
    db::{DbError, Written},
    domain::{
        Change,
        id::{ChannelId, DocumentId, UserId, WorkspaceId},
    },
    models::journal::JournalRow,
};

impl Queries {
    /// Invalidates whatever carries one of these tags. Costs the same however many entries that are.
    ///
    /// # Errors
    /// When the database does not record it; then nothing was invalidated.
    pub async fn invalidate(&self, tags: &[Tag]) -> Result<Written<()>, DbError> {
        let changes: Vec<_> = tags.iter().map(|tag| Change::Tag { name: tag.to_string() }).collect();
        let recorded = self.db.journal(async |db| JournalRow::record(db, &changes).await).await?;
        let invalidated = self.cache.invalidate_recorded(tags, Some(recorded.position), "operator").await;
        self.cache.delete_from_l2(tags).await;
        if invalidated.announced && self.cache.relay_epoch().is_some() {
            // Otherwise it is announced a second time, which does no harm.
            let epoch = invalidated.epoch;
            let _ = self.db.journal(async |db| JournalRow::mark(db, &[recorded.id], epoch).await).await;
        }
        Ok(Written { value: (), token: invalidated.token })
    }

    /// A workspace and the lists of its members, documents and channels. Each of these has a tag of its own.
    ///
    /// # Errors
    /// As [`Queries::invalidate`].
    pub async fn invalidate_workspace(&self, id: WorkspaceId) -> Result<Written<()>, DbError> {
        self.invalidate(&tags::all_of_workspace(id)).await
    }

    /// All about a document: what it says and what it said.
    ///
    /// # Errors
    /// As [`Queries::invalidate`].
    pub async fn invalidate_document(&self, id: DocumentId) -> Result<Written<()>, DbError> {
        self.invalidate(&[tags::document(id)]).await
    }

    /// All about a user: whatever shows this person, the sign-in state, memberships.
    ///
    /// # Errors
    /// As [`Queries::invalidate`].
    pub async fn invalidate_user(&self, id: UserId) -> Result<Written<()>, DbError> {
        self.invalidate(&tags::all_of_user(id)).await
    }

    /// All about a channel: itself, its members and messages.
    ///
    /// # Errors
    /// As [`Queries::invalidate`].
    pub async fn invalidate_channel(&self, id: ChannelId) -> Result<Written<()>, DbError> {
        self.invalidate(&tags::all_of_channel(id)).await
    }
}
