//! What operators do to the cache, on every instance.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::{app::App, cache::Tag, db::Written, error::AppError};

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
    Ok(app.queries.invalidate(&tags).await?.map(|()| tags.len()))
}

/// Deletes the entries whose keys match, from L2 and from the memory of every instance.
pub async fn delete_pattern(app: &App, input: &DeletePattern) -> Result<Written<()>, AppError> {
    Ok(app.queries.invalidate(&[DeletePattern::parse(&input.pattern)?]).await?)
}
