//! Cached functions: an `async` function of serialisable arguments, whose results are kept.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use lockstep::queries::{Kind, Queries, functions::CachedFunction};
//! # async fn fetch_rate(from: &str, to: &str) -> std::io::Result<Option<f64>> { Ok(Some(1.1)) }
//! # async fn example(queries: &Queries) -> Result<(), Box<dyn std::error::Error>> {
//! let rate = CachedFunction::new(queries, "exchange-rate", Kind::Search, |(from, to): (String, String)| async move {
//!     fetch_rate(&from, &to).await
//! });
//! let euros = rate.call(("USD".to_owned(), "EUR".to_owned()), None).await?;
//! rate.invalidate(&("USD".to_owned(), "EUR".to_owned())).await?;
//! # Ok(())
//! # }
//! ```
//!
//! `Ok(None)` is a result too and is kept for a shorter time; an error is told to all who waited and never kept.

use std::{marker::PhantomData, sync::Arc};

use futures_util::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};

use super::{BoxError, Kind, Queries};
use crate::{
    cache::{ArgumentsHash, Json, Key, LoadError, Loaded, Question, Tag, Token, Value},
    db::{DbError, Written},
};

type TagsOf<A> = dyn Fn(&A) -> Vec<Tag> + Send + Sync;
type Call<A, T> = dyn Fn(A) -> BoxFuture<'static, Result<Option<T>, BoxError>> + Send + Sync;

/// A function whose results are cached. Make it once and share it: clones are the same function.
pub struct CachedFunction<A, T> {
    queries: Queries,
    prefix: &'static str,
    kind: Kind,
    schema: u16,
    tags: Arc<TagsOf<A>>,
    call: Arc<Call<A, T>>,
    arguments: PhantomData<fn(A)>,
}

impl<A, T> CachedFunction<A, T>
where
    A: Serialize + Send + 'static,
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Wraps a function. No other function may have this prefix; `kind` says how long results are kept.
    pub fn new<F, C, E>(queries: &Queries, prefix: &'static str, kind: Kind, function: F) -> Self
    where
        F: Fn(A) -> C + Send + Sync + 'static,
        C: Future<Output = Result<Option<T>, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        let call = move |arguments| -> BoxFuture<'static, _> {
            let called = function(arguments);
            Box::pin(async move { called.await.map_err(Into::into) })
        };
        Self {
            queries: queries.clone(),
            prefix,
            kind,
            schema: 1,
            tags: Arc::new(|_| Vec::new()),
            call: Arc::new(call),
            arguments: PhantomData,
        }
    }

    /// Results also depend on these, and end when one of them is invalidated.
    #[must_use]
    pub fn tagged(self, tags: impl Fn(&A) -> Vec<Tag> + Send + Sync + 'static) -> Self {
        Self { tags: Arc::new(tags), ..self }
    }

    /// The version of the result's type: raise it when that changes, so that releases that run side by side do not read
    /// each other's.
    #[must_use]
    pub fn schema(self, schema: u16) -> Self {
        Self { schema, ..self }
    }

    /// The result for these arguments: a kept one, or that of a call. With a token, no older than the token's write.
    ///
    /// # Errors
    /// When the function fails.
    ///
    /// # Panics
    /// When the arguments have no JSON form.
    pub async fn call(
        &self,
        arguments: A,
        token: Option<&Token>,
    ) -> Result<Option<Value<Json<T>>>, LoadError> {
        let hash = ArgumentsHash::of(&arguments);
        let key = Key::hashed("function", self.prefix, hash, self.schema);
        let mut tags = (self.tags)(&arguments);
        tags.extend([self.tag_of(hash), self.tag()]);
        let call = Arc::clone(&self.call);
        let load = move || async move {
            let value = call(arguments).await?.map(Json);
            Ok(Loaded { value, tags: Vec::new() })
        };
        let policy = self.queries.policy(self.kind);
        let read = self.queries.read_by(policy, Question { key, token }, tags, load).await?;
        Ok(read.value)
    }

    /// Forgets the result for these arguments, on every instance.
    ///
    /// # Errors
    /// When the database does not record it; then nothing was invalidated.
    pub async fn invalidate(&self, arguments: &A) -> Result<Written<()>, DbError> {
        self.queries.invalidate(&[self.tag_of(ArgumentsHash::of(arguments))]).await
    }

    /// Forgets all results, on every instance.
    ///
    /// # Errors
    /// When the database does not record it; then nothing was invalidated.
    pub async fn invalidate_all(&self) -> Result<Written<()>, DbError> {
        self.queries.invalidate(&[self.tag()]).await
    }

    /// Of one call.
    fn tag_of(&self, arguments: ArgumentsHash) -> Tag {
        Tag::named("function", &format!("{}:{arguments}", self.prefix))
    }

    /// Of all calls.
    fn tag(&self) -> Tag {
        Tag::named("function", self.prefix)
    }
}

impl<A, T> Clone for CachedFunction<A, T> {
    fn clone(&self) -> Self {
        let Self { queries, prefix, kind, schema, tags, call, arguments } = self;
        Self {
            queries: queries.clone(),
            prefix,
            kind: *kind,
            schema: *schema,
            tags: Arc::clone(tags),
            call: Arc::clone(call),
            arguments: *arguments,
        }
    }
}
