//! What operators do to the cache, on every instance.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    app::App, cache::Tag, db::Written, domain::Change, error::AppError, models::journal::JournalRow,
};

/// Tags to invalidate.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InvalidateTags {
    /// Such as `workspace:ID`, `channel:ID:messages`, `user:ID`, or `all`.
    tags: Vec<String>,
}

/// Entries to delete.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeletePattern {
    /// Of keys: `*` stands for any characters, `?` for one.
    pattern: String,
}

/// More are not taken at once.
const MOST_TAGS: usize = 1000;

impl InvalidateTags {
    /// The tags.
    ///
    /// # Errors
    /// When one cannot be a tag, or there are none or too many.
    pub fn parse(names: &[String]) -> Result<Vec<Tag>, AppError> {
        if !(1..=MOST_TAGS).contains(&names.len()) {
            return Err(AppError::member("#/tags", format!("must be 1 to {MOST_TAGS} tags")));
        }
        let tags = names.iter().enumerate().map(|(index, name)| {
            let tag = Tag::parse(name).filter(|tag| tag.as_pattern().is_none());
            tag.ok_or_else(|| AppError::member(format!("#/tags/{index}"), "is no tag"))
        });
        tags.collect()
    }
}

impl DeletePattern {
    /// The pattern.
    ///
    /// # Errors
    /// When it cannot be one.
    pub fn parse(pattern: &str) -> Result<Tag, AppError> {
        Tag::pattern(pattern).ok_or_else(|| {
            AppError::member("#/pattern", "must be printable ASCII, with * for any characters and ? for one")
        })
    }
}

/// Invalidates tags on every instance.
pub async fn invalidate(app: &App, input: &InvalidateTags) -> Result<Written<usize>, AppError> {
    let tags = InvalidateTags::parse(&input.tags)?;
    Ok(announce(app, &tags).await?.map(|()| tags.len()))
}

/// Deletes the entries whose keys match, from L2 and from the memory of every instance.
pub async fn delete_pattern(app: &App, input: &DeletePattern) -> Result<Written<()>, AppError> {
    announce(app, &[DeletePattern::parse(&input.pattern)?]).await
}

/// Recorded first, so that every instance hears of it whatever happens to this one or to Redis.
async fn announce(app: &App, tags: &[Tag]) -> Result<Written<()>, AppError> {
    let changes: Vec<_> = tags.iter().map(|tag| Change::Tag { name: tag.to_string() }).collect();
    let id = app.db.journal(async |db| JournalRow::record(db, &changes).await).await?;
    let invalidated = app.cache.invalidate(tags, "operator").await;
    app.cache.delete_from_l2(tags).await;
    if invalidated.announced && app.cache.can_relay() {
        // Otherwise it is announced a second time, which does no harm.
        let _ = app.db.journal(async |db| JournalRow::mark(db, &[id]).await).await;
    }
    Ok(Written { value: (), token: invalidated.token })
}
