//! Reading and writing, told apart by type.
//!
//! **Invariant.** Nothing is written without its announcement: a [`Reader`] takes `SELECT` statements only, and a
//! [`Tx`] hands out no connection; what it saves or deletes must be rows with [`Hooks`], whose changes it collects.
//!
//! A write given to a reader does not compile:
//!
//! ```compile_fail,E0277
//! # use lockstep::db::{Reader, schema::users};
//! # use diesel::prelude::*;
//! async fn sneak(reader: &mut Reader) {
//!     reader.list::<(), _>(diesel::delete(users::table)).await.unwrap();
//! }
//! ```
//!
//! neither does raw SQL:
//!
//! ```compile_fail,E0277
//! # use lockstep::db::Reader;
//! async fn sneak(reader: &mut Reader) {
//!     reader.list::<(), _>(diesel::sql_query("DELETE FROM users")).await.unwrap();
//! }
//! ```
//!
//! nor a row that announces nothing:
//!
//! ```compile_fail,E0277
//! # use lockstep::db::{Tx, schema::users};
//! # use diesel::prelude::*;
//! async fn sneak(tx: &mut Tx) {
//!     let statement = diesel::update(users::table).set(users::name.eq("x")).returning(users::name);
//!     tx.save::<String, _>(statement).await.unwrap();
//! }
//! ```
//!
//! The read-only connections refuse what a type cannot see, such as a `SELECT` of a function that writes.

use std::ops::{Deref, DerefMut};

use diesel::{OptionalExtension, QueryResult, query_builder::SelectQuery};
use diesel_async::{AsyncPgConnection, methods::LoadQuery, pooled_connection::deadpool::Object};
use futures_util::{FutureExt, TryFutureExt, TryStreamExt};

use crate::domain::Change;

/// A row that says what its change means to others.
pub trait Hooks {
    /// Inserted or updated; this is the row as it is now.
    fn on_save(&self) -> Option<Change>;
    /// Deleted; this is the row as it was.
    fn on_delete(&self) -> Option<Change>;
}

/// A pooled connection that accepts `SELECT` only.
pub struct Reader {
    pub(super) connection: Object<AsyncPgConnection>,
}

/// Unit of work: the only way to write. Dereferences to a [`Reader`], which sees what has been written so far.
pub struct Tx {
    pub(super) reader: Reader,
    pub(super) changes: Vec<Change>,
}

// Written as functions that return `impl Future + Send`: as `async fn` they would make callers that are spawned fail
// to compile.
impl Reader {
    /// A reader over a connection that may be able to write, for benchmarks only.
    #[cfg(feature = "bench")]
    pub(crate) const fn over(connection: Object<AsyncPgConnection>) -> Self {
        Self { connection }
    }

    /// The first row, if there is one.
    pub fn first<'q, R, Q>(&'q mut self, query: Q) -> impl Future<Output = QueryResult<Option<R>>> + Send + 'q
    where
        R: Send + 'q,
        Q: SelectQuery + LoadQuery<'q, AsyncPgConnection, R> + 'q,
    {
        self.get(query)
    }

    /// All rows.
    pub fn list<'q, R, Q>(&'q mut self, query: Q) -> impl Future<Output = QueryResult<Vec<R>>> + Send + 'q
    where
        R: Send + 'q,
        Q: SelectQuery + LoadQuery<'q, AsyncPgConnection, R> + 'q,
    {
        self.get_all(query)
    }

    fn get<'q, R, Q>(&'q mut self, query: Q) -> impl Future<Output = QueryResult<Option<R>>> + Send + 'q
    where
        R: Send + 'q,
        Q: LoadQuery<'q, AsyncPgConnection, R> + 'q,
    {
        diesel_async::RunQueryDsl::get_result(query, &mut *self.connection).map(OptionalExtension::optional)
    }

    fn get_all<'q, R, Q>(&'q mut self, query: Q) -> impl Future<Output = QueryResult<Vec<R>>> + Send + 'q
    where
        R: Send + 'q,
        Q: LoadQuery<'q, AsyncPgConnection, R> + 'q,
    {
        query.internal_load(&mut *self.connection).and_then(TryStreamExt::try_collect)
    }
}

impl Tx {
    /// What its rows have announced so far.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Runs an insert or update that returns its row, and keeps what the row announces. `None`: no row.
    pub fn save<'q, R, Q>(
        &'q mut self,
        statement: Q,
    ) -> impl Future<Output = QueryResult<Option<R>>> + Send + 'q
    where
        R: Hooks + Send + 'q,
        Q: LoadQuery<'q, AsyncPgConnection, R> + 'q,
    {
        let Self { reader, changes } = self;
        reader.get(statement).map_ok(move |row: Option<R>| {
            changes.extend(row.as_ref().and_then(Hooks::on_save));
            row
        })
    }

    /// The same for many rows.
    pub fn save_all<'q, R, Q>(
        &'q mut self,
        statement: Q,
    ) -> impl Future<Output = QueryResult<Vec<R>>> + Send + 'q
    where
        R: Hooks + Send + 'q,
        Q: LoadQuery<'q, AsyncPgConnection, R> + 'q,
    {
        let Self { reader, changes } = self;
        reader.get_all(statement).map_ok(move |rows: Vec<R>| {
            changes.extend(rows.iter().filter_map(Hooks::on_save));
            rows
        })
    }

    /// Runs a delete that returns its row, and keeps what the row announces. `None`: no row.
    pub fn delete<'q, R, Q>(
        &'q mut self,
        statement: Q,
    ) -> impl Future<Output = QueryResult<Option<R>>> + Send + 'q
    where
        R: Hooks + Send + 'q,
        Q: LoadQuery<'q, AsyncPgConnection, R> + 'q,
    {
        let Self { reader, changes } = self;
        reader.get(statement).map_ok(move |row: Option<R>| {
            changes.extend(row.as_ref().and_then(Hooks::on_delete));
            row
        })
    }
}

impl Deref for Tx {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.reader
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Reader {
        &mut self.reader
    }
}
