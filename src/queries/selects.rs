//! Cached queries: any Diesel `SELECT` can be asked through the cache.
//!
//! ```no_run
//! # use diesel::prelude::*;
//! # use lockstep::{db::schema::channels, domain::id::{ChannelId, WorkspaceId}};
//! # use lockstep::queries::{Kind, Queries, selects::{CachedSelect as _, Caching}, tags};
//! # async fn example(queries: &Queries, workspace: WorkspaceId) -> Result<(), Box<dyn std::error::Error>> {
//! let public = channels::table
//!     .filter(channels::workspace_id.eq(workspace))
//!     .filter(channels::is_private.eq(false))
//!     .select(channels::id);
//! let caching = Caching::of(Kind::Messages).tag(tags::workspace_channels(workspace));
//! let ids = public.cached_list::<ChannelId>(queries, caching).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The key is a SHA-256 over the SQL and its binds as they are sent to PostgreSQL: the same in every process and after
//! every restart, and another one for any other bind. Tags say when the result ends; whoever forgets one gets results
//! that only time ends, so they are asked for in one place with the kind of data.

use std::{sync::Arc, time::Duration};

use diesel::{
    QueryDsl, QueryResult,
    dsl::CountStar,
    pg::{Pg, PgMetadataLookup, PgQueryBuilder, PgTypeMetadata},
    query_builder::{QueryBuilder as _, QueryFragment, SelectQuery, bind_collector::RawBytesBindCollector},
};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::{Kind, Queries};
use crate::{
    cache::{ArgumentsHash, Json, Key, LoadError, Loaded, Policy, Question, Read, Tag, Token},
    db::{Db, DbError, Statement},
};

/// How a query is cached.
#[derive(Debug, Clone)]
pub struct Caching {
    kind: Kind,
    tags: Vec<Tag>,
    ttl: Option<Duration>,
    token: Option<Token>,
    schema: u16,
}

impl Caching {
    /// As this kind of data is.
    #[must_use]
    pub const fn of(kind: Kind) -> Self {
        Self { kind, tags: Vec::new(), ttl: None, token: None, schema: 1 }
    }

    /// The result ends when this is invalidated.
    #[must_use]
    pub fn tag(self, tag: Tag) -> Self {
        self.tags([tag])
    }

    /// The result ends when one of these is invalidated.
    #[must_use]
    pub fn tags(mut self, tags: impl IntoIterator<Item = Tag>) -> Self {
        self.tags.extend(tags);
        self
    }

    /// Kept for no longer than this.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }

    /// The result must not be older than this write.
    #[must_use]
    pub fn token(self, token: Option<&Token>) -> Self {
        Self { token: token.copied(), ..self }
    }

    /// The version of the result's type: raise it when that changes.
    #[must_use]
    pub fn schema(self, schema: u16) -> Self {
        Self { schema, ..self }
    }
}

/// A `SELECT` that can be asked through the cache. Errors are those of [`Queries::get`].
pub trait CachedSelect: SelectQuery + QueryFragment<Pg> + Sized + Send + 'static {
    /// All rows.
    fn cached_list<R>(
        self,
        queries: &Queries,
        caching: Caching,
    ) -> impl Future<Output = Result<Read<Json<Vec<R>>>, LoadError>> + Send
    where
        Self: for<'q> Statement<'q, R>,
        R: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        read(self, queries, caching, "list", |db, query| async move {
            Ok(Some(db.read(async |reader| reader.list(query).await).await?))
        })
    }

    /// The first row. That there is none is kept too, for a shorter time.
    fn cached_first<R>(
        self,
        queries: &Queries,
        caching: Caching,
    ) -> impl Future<Output = Result<Read<Json<R>>, LoadError>> + Send
    where
        Self: for<'q> Statement<'q, R>,
        R: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        read(self, queries, caching, "first", |db, query| async move {
            db.read(async |reader| reader.first(query).await).await
        })
    }

    /// How many rows there are.
    fn cached_count(
        self,
        queries: &Queries,
        caching: Caching,
    ) -> impl Future<Output = Result<Read<Json<i64>>, LoadError>> + Send
    where
        Self: QueryDsl + diesel::query_dsl::methods::SelectDsl<CountStar>,
        diesel::dsl::Select<Self, CountStar>:
            SelectQuery + QueryFragment<Pg> + Send + for<'q> Statement<'q, i64> + 'static,
    {
        read(self.count(), queries, caching, "count", |db, query| async move {
            db.read(async |reader| reader.first(query).await).await
        })
    }
}

impl<Q: SelectQuery + QueryFragment<Pg> + Send + 'static> CachedSelect for Q {}

fn read<Q, T, F, L>(
    query: Q,
    queries: &Queries,
    caching: Caching,
    what: &'static str,
    load: F,
) -> impl Future<Output = Result<Read<Json<T>>, LoadError>> + Send
where
    Q: QueryFragment<Pg> + Send + 'static,
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
    F: FnOnce(Db, Q) -> L + Send + 'static,
    L: Future<Output = Result<Option<T>, DbError>> + Send + 'static,
{
    let Caching { kind, tags, ttl, token, schema } = caching;
    let policy = queries.policy(kind);
    let policy: Arc<Policy> = if ttl.is_none() && !tags.is_empty() {
        Arc::clone(policy)
    } else {
        Arc::new(policy.with(|options| {
            let ttl = ttl.unwrap_or(Duration::MAX);
            (options.l1, options.l2) = (options.l1.min(ttl), options.l2.min(ttl));
            if tags.is_empty() {
                // Only time ends it: never kept beyond that, and no answer to whoever has written something.
                (options.ends_by_time, options.fail_safe, options.refresh_at) = (true, Duration::ZERO, 100);
            }
        }))
    };
    let hash = hash_of(&query, std::any::type_name::<T>());
    let queries = queries.clone();
    async move {
        let hash = hash.map_err(|err| LoadError::Failed(Arc::new(err)))?;
        let question = Question { key: Key::hashed("query", what, hash, schema), token: token.as_ref() };
        let load =
            move |db| async move { Ok(Loaded { value: load(db, query).await?.map(Json), tags: Vec::new() }) };
        queries.read(&policy, question, tags, load).await
    }
}

/// SHA-256 over the result's type, the SQL and the binds, each with its length before it, so that no two lists of them
/// read the same.
///
/// # Errors
/// When a bind cannot be serialised.
fn hash_of(query: &impl QueryFragment<Pg>, result: &str) -> QueryResult<ArgumentsHash> {
    let mut sql = PgQueryBuilder::default();
    query.to_sql(&mut sql, &Pg)?;
    let mut binds = RawBytesBindCollector::<Pg>::new();
    let mut types = TypeNames::default();
    query.collect_binds(&mut binds, &mut types, &Pg)?;
    let mut hash = Sha256::new();
    let mut part = |bytes: Option<&[u8]>| {
        // NULL is not the empty text.
        let length = bytes.map_or(u64::MAX, |bytes| bytes.len() as u64);
        hash.update(length.to_be_bytes());
        hash.update(bytes.unwrap_or_default());
    };
    part(Some(result.as_bytes()));
    part(Some(sql.finish().as_bytes()));
    for (bind, metadata) in binds.binds.iter().zip(&binds.metadata) {
        part(metadata.oid().ok().map(u32::to_be_bytes).as_ref().map(<[u8; 4]>::as_slice));
        part(bind.as_deref());
    }
    types.0.iter().for_each(|name| part(Some(name.as_bytes())));
    Ok(ArgumentsHash::from(<[u8; 32]>::from(hash.finalize())))
}

/// Types of our own have numbers that differ between databases; their names do not.
#[derive(Default)]
struct TypeNames(Vec<String>);

impl PgMetadataLookup for TypeNames {
    fn lookup_type(&mut self, type_name: &str, schema: Option<&str>) -> PgTypeMetadata {
        self.0.push(format!("{}.{type_name}", schema.unwrap_or_default()));
        PgTypeMetadata::new(0, 0)
    }
}

#[cfg(test)]
mod tests {
    use diesel::prelude::*;

    use super::*;
    use crate::{db::schema::workspaces, domain::id::WorkspaceId};

    #[test]
    fn queries_that_differ_only_in_a_bind_have_keys_of_their_own() {
        let named = |name: &'static str, limit| {
            let query =
                workspaces::table.filter(workspaces::name.eq(name)).select(workspaces::id).limit(limit);
            hash_of(&query, "id").unwrap()
        };
        assert_eq!(named("a", 1), named("a", 1));
        let others = [named("b", 1), named("a", 2), named("", 1), named("a1", 1)];
        assert!(others.iter().all(|other| *other != named("a", 1)));
        let two = |one: &'static str, other: &'static str| {
            let query =
                workspaces::table.filter(workspaces::name.eq_any([one, other])).select(workspaces::id);
            hash_of(&query, "id").unwrap()
        };
        assert_ne!(two("ab", "c"), two("a", "bc"));
    }

    #[test]
    fn null_is_not_the_empty_text() {
        let described = |text: Option<&'static str>| {
            let text = diesel::dsl::sql::<diesel::sql_types::Nullable<diesel::sql_types::Text>>("")
                .bind::<diesel::sql_types::Nullable<diesel::sql_types::Text>, _>(text);
            hash_of(&diesel::select(text), "text").unwrap()
        };
        assert_ne!(described(None), described(Some("")));
    }

    /// Of another release, on another machine: what is in Redis must be found again.
    #[test]
    fn the_key_of_a_query_is_the_same_everywhere() {
        let id = WorkspaceId::from(uuid::Uuid::from_u128(7));
        let query = workspaces::table.find(id).select(workspaces::name);
        assert_eq!(
            hash_of(&query, "text").unwrap().to_string(),
            "f82febc9386fc42b010377c2a1f5fa57c6d43db95dddff2481876c55ce70b776"
        );
    }
}
