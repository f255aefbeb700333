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

use std::{sync::Arc, time::Duration};

use diesel::QueryResult;

use crate::{
    cache::{Cache, Key, LoadError, Loaded, Policy, Question, Read, SourceAway, Stored, Tag, Times, Token},
    config::CacheConfig,
    db::{Db, DbError, Reader},
};

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

/// Kinds of cached data, as the settings `CACHE_TTL_…` know them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Workspaces.
    Workspace,
    /// Member lists, memberships.
    Members,
    /// Documents, lists of them, their versions.
    Document,
    /// Profiles, sign-in states.
    User,
    /// Channels, who reads them, pages of their messages.
    Messages,
    /// Search results.
    Search,
}

/// How long it is remembered that there is nothing.
const ABSENT: Duration = Duration::from_secs(30);

/// Runs cached queries.
#[derive(Clone)]
pub struct Queries {
    cache: Arc<Cache>,
    db: Db,
    workspace: Arc<Policy>,
    members: Arc<Policy>,
    document: Arc<Policy>,
    user: Arc<Policy>,
    messages: Arc<Policy>,
    search: Arc<Policy>,
}

impl Queries {
    /// Queries over a cache and a database.
    #[must_use]
    pub fn new(cache: &Arc<Cache>, db: &Db, config: &CacheConfig) -> Self {
        let times = |l2, ends_by_time| Times {
            l1: config.l1_ttl.min(l2),
            l2,
            absent: ABSENT,
            // What nothing invalidates may not be kept beyond its time.
            fail_safe: if ends_by_time { Duration::ZERO } else { config.failsafe },
            ends_by_time,
        };
        let policy = |kind, l2| cache.policy(kind, times(l2, false));
        Self {
            workspace: policy("workspace", config.ttl.workspace),
            members: policy("members", config.ttl.members),
            document: policy("document", config.ttl.document),
            user: policy("user", config.ttl.user),
            messages: policy("messages", config.ttl.messages),
            search: cache.policy("search", times(config.ttl.search, true)),
            cache: Arc::clone(cache),
            db: db.clone(),
        }
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

    const fn policy(&self, kind: Kind) -> &Arc<Policy> {
        match kind {
            Kind::Workspace => &self.workspace,
            Kind::Members => &self.members,
            Kind::Document => &self.document,
            Kind::User => &self.user,
            Kind::Messages => &self.messages,
            Kind::Search => &self.search,
        }
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
