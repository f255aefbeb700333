//! `lockstep cache`: what the operations API does, without an instance to ask.

use std::time::Duration;

use clap::Subcommand;
use diesel::{RunQueryDsl, sql_types::Text};

use super::{AnyError, print, with_database};
use crate::{
    cache::operate::survey,
    config::Config,
    domain::Change,
    error::AppError,
    redis::Redis,
    services::operations::{DeletePattern, InvalidateTags},
};

#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// What there is in Redis, and who listens.
    Stats,
    /// Invalidate tags, such as workspace:ID, channel:ID:messages, user:ID, or all.
    Invalidate {
        /// The tags.
        #[arg(required = true)]
        tags: Vec<String>,
    },
    /// Delete the entries whose keys match: `*` stands for any characters, `?` for one.
    DeletePattern {
        /// The pattern.
        pattern: String,
    },
}

/// Recorded in the journal, like what any other program changes: instances that run hear of it within 1.5 s.
pub(super) fn manage(config: &Config, command: CacheCommand) -> Result<(), AnyError> {
    let tags = match command {
        CacheCommand::Stats => return print(&redis_stats(config)?),
        CacheCommand::Invalidate { tags } => InvalidateTags::parse(&tags).map_err(|err| explained(&err))?,
        CacheCommand::DeletePattern { pattern } => {
            vec![DeletePattern::parse(&pattern).map_err(|err| explained(&err))?]
        }
    };
    let changes: Vec<_> = tags.iter().map(|tag| Change::Tag { name: tag.to_string() }).collect();
    with_database(&config.database, |pool| {
        diesel::sql_query("INSERT INTO cache_journal (changes) VALUES ($1::jsonb)")
            .bind::<Text, _>(serde_json::to_string(&changes)?)
            .execute(&mut pool.get()?)?;
        Ok(())
    })?;
    println!("told every instance");
    Ok(())
}

/// The faults of an input, for people.
fn explained(err: &AppError) -> AnyError {
    let AppError::Invalid(faults) = err else { return err.to_string().into() };
    let faults: Vec<_> = faults.iter().map(|fault| fault.detail.clone()).collect();
    faults.join("; ").into()
}

fn redis_stats(config: &Config) -> Result<String, AnyError> {
    let missing =
        "REDIS_URL: is not set, so there is nothing to look at; ask an instance: GET /v1/admin/cache";
    let url = config.redis.url.as_deref().ok_or(missing)?;
    let redis = Redis::new(url, config.redis.timeout.max(Duration::from_secs(2)))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(survey(&redis, &config.cache.namespace))?.to_string())
}
