//! Cached reads. A query names its key, its tags and its kind of data, and loads from PostgreSQL; the rest is here.
//!
//! Never to be used inside a write: nothing uncommitted may reach the cache. There, read models.

pub mod channels;
pub mod documents;
pub mod functions;
mod invalidate;
pub mod members;
pub mod messages;
pub mod notifications;
pub mod search;
pub mod selects;
pub mod tags;
mod timestamp;
pub mod users;
pub mod view;
pub mod workspaces;

use std::{error::Error, sync::Arc};

use diesel::QueryResult;
use futures_util::future::BoxFuture;

use crate::{
    cache::{
        Cache, Item, Key, LoadError, Loaded, Policy, Question, Read, Recalled, SourceAway, Stored, Tag,
        Token, Unanswered,
    },
    config::policies::Policies,
    db::{Db, DbError, Reader},
};

pub use crate::config::policies::Kind;

type BoxError = Box<dyn Error + Send + Sync>;

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

    /// What the monitor compares of a value: the same rows must always make the same of it, whatever the clock says.
    fn compared(value: &Self::Value) -> Option<Vec<u8>> {
        value.encode()
    }
}

/// A read that is cached, and of which many can be loaded at once.
pub trait BatchQuery: CachedQuery {
    /// Loads all of these: one value for each, in their order, with the tags that came to light.
    fn load_many(
        db: &mut Reader,
        queries: &[&Self],
    ) -> impl Future<Output = QueryResult<Vec<Loaded<Self::Value>>>> + Send;
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

    /// The same for another thread: see [`Cache::share`].
    #[must_use]
    pub fn share(&self) -> Self {
        let policies = self.policies.iter().map(|policy| self.cache.share_policy(policy)).collect();
        Self { cache: self.cache.share(), db: self.db.share(), policies }
    }

    /// Whether anything is kept, in whichever tier.
    #[must_use]
    pub fn keeps_anything(&self) -> bool {
        self.cache.keeps_anything()
    }

    /// What this process has at hand of a query, at once. `None`: it has to be [got](Self::get).
    pub fn recall<Q: CachedQuery>(&self, query: &Q, token: Option<&Token>) -> Option<Read<Q::Value>> {
        self.cache.recall(self.policy(Q::KIND), Question { key: query.key(), token })
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
        match self.cache.recall_or_join(self.policy(Q::KIND), &question).await {
            Recalled::Answered(read) => read,
            // Apart, so that whoever needs none makes and moves nothing that only a load needs.
            Recalled::Unanswered(unanswered) => Box::pin(self.load(query, &question, unanswered)).await,
        }
    }

    async fn load<Q: CachedQuery>(
        &self,
        query: Q,
        question: &Question<'_>,
        unanswered: Unanswered,
    ) -> Result<Read<Q::Value>, LoadError> {
        let policy = self.policy(Q::KIND);
        let query = Arc::new(query);
        let loading = || {
            let (db, query) = (self.db.clone(), Arc::clone(&query));
            move || -> BoxFuture<'static, _> {
                let (db, query) = (db.clone(), Arc::clone(&query));
                Box::pin(async move { load(&db, &*query).await.map_err(load_error) })
            }
        };
        let tags = || {
            let tags = query.tags();
            self.cache.sample(policy, question.key, &tags, Q::compared, loading);
            tags
        };
        self.cache.read_on(policy, question, unanswered, tags, loading()).await
    }

    /// Reads anything through the cache, under the policy of its [kind](Self::policy) or one made from that.
    ///
    /// # Errors
    /// When the value is not cached and cannot be loaded.
    pub async fn read<T, F, L>(
        &self,
        policy: &Arc<Policy>,
        question: Question<'_>,
        tags: Vec<Tag>,
        load: F,
    ) -> Result<Read<T>, LoadError>
    where
        T: Stored,
        F: FnOnce(Db) -> L + Send + 'static,
        L: Future<Output = Result<Loaded<T>, DbError>> + Send + 'static,
    {
        let db = self.db.clone();
        let load = move || async move { load(db).await.map_err(load_error) };
        self.read_by(policy, question, tags, load).await
    }

    async fn read_by<T, F, L>(
        &self,
        policy: &Arc<Policy>,
        question: Question<'_>,
        tags: Vec<Tag>,
        load: F,
    ) -> Result<Read<T>, LoadError>
    where
        T: Stored,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<Loaded<T>, BoxError>> + Send + 'static,
    {
        match self.cache.recall_or_join(policy, &question).await {
            Recalled::Answered(read) => read,
            Recalled::Unanswered(unanswered) => {
                Box::pin(self.cache.read_on(policy, &question, unanswered, || tags.clone(), load)).await
            }
        }
    }

    /// Runs many queries of one kind through the cache, with one round trip to Redis and one load for all that are
    /// missing. Answers in their order.
    ///
    /// # Errors
    /// When one is not cached and the load fails.
    pub async fn get_many<Q: BatchQuery>(
        &self,
        queries: Vec<Q>,
        token: Option<&Token>,
    ) -> Result<Vec<Read<Q::Value>>, LoadError> {
        let items: Vec<_> =
            queries.iter().map(|query| Item { key: query.key(), tags: query.tags() }).collect();
        let (db, queries) = (self.db.clone(), Arc::<[Q]>::from(queries));
        let load = move |wanted: Vec<usize>| {
            let (db, queries) = (db.clone(), Arc::clone(&queries));
            async move {
                let wanted: Vec<&Q> = wanted.iter().filter_map(|index| queries.get(*index)).collect();
                db.read(async |reader| Q::load_many(reader, &wanted).await).await.map_err(load_error)
            }
        };
        self.cache.read_many(self.policy(Q::KIND), &items, token, load).await
    }

    /// The policy of a kind of data.
    #[expect(clippy::indexing_slicing, reason = "there is a policy for each kind")]
    #[must_use]
    pub fn policy(&self, kind: Kind) -> &Arc<Policy> {
        &self.policies[kind as usize]
    }
}

/// A database that is away is no fault of what was asked.
fn load_error(err: DbError) -> BoxError {
    if err.is_passing() { SourceAway(err.into()).into() } else { err.into() }
}

async fn load<Q: CachedQuery>(db: &Db, query: &Q) -> Result<Loaded<Q::Value>, DbError> {
    let mut tags = Vec::new();
    let value = db.read(async |reader| query.load(reader, &mut tags).await).await?;
    Ok(Loaded { value, tags })
}
