//! Cached reads. A query names its key, its tags and its kind of data, and loads from PostgreSQL; the rest is here.
//!
//! Never to be used inside a write: nothing uncommitted may reach the cache. There, read models.

pub mod channels;
pub mod documents;
pub mod members;
pub mod messages;
pub mod notifications;
pub mod search;
pub mod tags;
pub mod users;
pub mod view;
pub mod workspaces;

use std::sync::Arc;

use diesel::QueryResult;

use crate::{
    cache::{Cache, Key, LoadError, Loaded, Policy, Question, Read, SourceAway, Stored, Tag, Token},
    config::policies::Policies,
    db::{Db, DbError, Reader},
};

pub use crate::config::policies::Kind;

/// A read that is cached.
pub trait CachedQuery: Send + Sync + 'static {
    /// What it yields.
    type Value: Stored;
    /// Decides how long it is kept.
    const KIND: Kind;

    /// Its entry. Everything that makes the value another one belongs in here.
    fn key(&self) -> Key;

    /// The tags that are known before loading.
    fn tags(&self) -> Vec<Tag>;

    /// Loads the value; `None`: there is no such thing, which is cached too. Tags that come to light are added to
    /// `learned`.
    fn load(
        &self,
        db: &mut Reader,
        learned: &mut Vec<Tag>,
    ) -> impl Future<Output = QueryResult<Option<Self::Value>>> + Send;
}

/// Runs cached queries.
#[derive(Clone)]
pub struct Queries {
    cache: Arc<Cache>,
    db: Db,
    /// In the order of [`Kind`].
    policies: Arc<[Arc<Policy>]>,
}

impl Queries {
    /// Queries over a cache and a database.
    #[must_use]
    pub fn new(cache: &Arc<Cache>, db: &Db, policies: &Policies) -> Self {
        let policies = policies.iter().map(|(_, name, options)| cache.policy(name, *options)).collect();
        Self { cache: Arc::clone(cache), db: db.clone(), policies }
    }

    /// Runs a query through the cache. With a token, the answer is no older than the token's write.
    ///
    /// # Errors
    /// When the value is not cached and cannot be loaded.
    pub async fn get<Q: CachedQuery>(
        &self,
        query: Q,
        token: Option<&Token>,
    ) -> Result<Read<Q::Value>, LoadError> {
        let question = Question { key: query.key(), token };
        let query = Arc::new(query);
        let load = {
            let (db, query) = (self.db.clone(), Arc::clone(&query));
            move || async move {
                load(&db, &*query).await.map_err(|err| -> Box<dyn std::error::Error + Send + Sync> {
                    if err.is_passing() { SourceAway(err.into()).into() } else { err.into() }
                })
            }
        };
        self.cache.read(self.policy(Q::KIND), question, || query.tags(), load).await
    }

    #[expect(clippy::indexing_slicing, reason = "there is a policy for each kind")]
    fn policy(&self, kind: Kind) -> &Arc<Policy> {
        &self.policies[kind as usize]
    }
}

async fn load<Q: CachedQuery>(db: &Db, query: &Q) -> Result<Loaded<Q::Value>, DbError> {
    let mut tags = Vec::new();
    let value = db.read(async |reader| query.load(reader, &mut tags).await).await?;
    // A page shows the same person many times.
    tags.sort_unstable();
    tags.dedup();
    Ok(Loaded { value, tags })
}
