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
//!
//! **Round trips.** `BEGIN` goes with the first statement, if that only reads; what nothing else needs goes at the end
//! ([`Tx::save_last`]), with the question for the journal; and that may go with a statement before the end
//! ([`Tx::save_recorded`]). What goes together is sent in this order, as far as the connection knows its types, and fails
//! as one.

use std::ops::{Deref, DerefMut};

use diesel::{
    QueryResult,
    connection::TransactionDepthChange,
    deserialize::FromSqlRow,
    expression::QueryMetadata,
    pg::Pg,
    query_builder::{AsQuery, QueryFragment, QueryId, SelectQuery},
    query_dsl::CompatibleType,
    result::Error as QueryError,
};
use diesel_async::{
    AnsiTransactionManager, AsyncConnectionCore, AsyncPgConnection, SimpleAsyncConnection as _,
    TransactionManager, pooled_connection::deadpool::Object,
};
use futures_util::{FutureExt, TryFutureExt, TryStreamExt, future, future::BoxFuture};

use super::fixed::Worded;
use crate::{domain::Change, models::journal::JournalRow};

/// A row that says what its change means to others.
pub trait Hooks {
    /// Inserted or updated; this is the row as it is now.
    fn on_save(&self) -> Option<Change>;
    /// Deleted; this is the row as it was.
    fn on_delete(&self) -> Option<Change>;
}

/// A statement that answers with rows.
pub trait Statement<'c, R> {
    /// Runs it, and makes something of the first rows. Over a shared connection, so that statements whose futures are
    /// polled together are sent together.
    fn run(self, connection: &'c AsyncPgConnection, most: usize) -> BoxFuture<'c, QueryResult<Vec<R>>>;
}

impl<'c, R, Q, ST> Statement<'c, R> for Q
where
    Q: AsQuery + Send + 'c,
    Q::Query: QueryFragment<Pg> + QueryId + Send + 'c,
    Q::SqlType: CompatibleType<R, Pg, SqlType = ST>,
    R: FromSqlRow<ST, Pg> + Send + 'static,
    Pg: QueryMetadata<Q::SqlType>,
    ST: 'static,
{
    fn run(self, mut connection: &'c AsyncPgConnection, most: usize) -> BoxFuture<'c, QueryResult<Vec<R>>> {
        let rows = AsyncConnectionCore::load(&mut connection, Worded::by_type(self.as_query()));
        async move {
            let (mut rows, mut made) = (rows.await?, Vec::new());
            // To the end, where an error may still be.
            while let Some(row) = rows.try_next().await? {
                if made.len() < most {
                    made.push(R::build_from_row(&row).map_err(QueryError::DeserializationError)?);
                }
            }
            Ok(made)
        }
        .boxed()
    }
}

/// For [`Statement::run`].
const ALL: usize = usize::MAX;

/// A pooled connection that accepts `SELECT` only.
pub struct Reader {
    pub(super) connection: Object<AsyncPgConnection>,
    /// `BEGIN` has still to be sent.
    pub(super) begins: bool,
}

/// Unit of work: the only way to write. Dereferences to a [`Reader`], which sees what has been written so far.
pub struct Tx {
    pub(super) reader: Reader,
    pub(super) changes: Vec<Change>,
    pub(super) last: Vec<Last>,
    /// What the journal has recorded, if nothing was written since it was asked.
    pub(super) recorded: Option<Vec<JournalRow>>,
}

/// A statement of the end, which tells what its rows announce.
pub(super) type Last =
    Box<dyn for<'c> FnOnce(&'c AsyncPgConnection) -> BoxFuture<'c, QueryResult<Vec<Change>>> + Send>;

// Written as functions that return `impl Future + Send`: as `async fn` they would make callers that are spawned fail
// to compile.
impl Reader {
    /// A reader over a connection that is in no transaction.
    pub(crate) const fn over(connection: Object<AsyncPgConnection>) -> Self {
        Self { connection, begins: false }
    }

    /// The first row, if there is one.
    pub fn first<'q, R, Q>(&'q mut self, query: Q) -> impl Future<Output = QueryResult<Option<R>>> + Send + 'q
    where
        R: Send + 'q,
        Q: SelectQuery + Statement<'q, R> + 'q,
    {
        self.read(query, 1).map_ok(first)
    }

    /// All rows.
    pub fn list<'q, R, Q>(&'q mut self, query: Q) -> impl Future<Output = QueryResult<Vec<R>>> + Send + 'q
    where
        R: Send + 'q,
        Q: SelectQuery + Statement<'q, R> + 'q,
    {
        self.read(query, ALL)
    }

    fn read<'q, R, Q>(
        &'q mut self,
        query: Q,
        most: usize,
    ) -> impl Future<Output = QueryResult<Vec<R>>> + Send + 'q
    where
        R: Send + 'q,
        Q: Statement<'q, R> + 'q,
    {
        let Self { connection, begins } = self;
        let connection: &'q AsyncPgConnection = connection;
        let rows = query.run(connection, most);
        async move {
            if !*begins {
                return rows.await;
            }
            // What reads may be sent behind a `BEGIN` that fails; what writes may not.
            let (begun, rows) = future::join(begin(connection), rows).await;
            begun?;
            *begins = false;
            rows
        }
    }
}

impl Tx {
    /// A transaction on this connection. `BEGIN` is not sent yet.
    pub(super) fn on(mut connection: Object<AsyncPgConnection>) -> QueryResult<Self> {
        // From now on the pool would not use it again, whatever becomes of this.
        change_depth(&mut connection, TransactionDepthChange::IncreaseDepth)?;
        let reader = Reader { connection, begins: true };
        Ok(Self { reader, changes: Vec::new(), last: Vec::new(), recorded: None })
    }

    /// Takes everything back.
    pub(super) async fn roll_back(&mut self) -> QueryResult<()> {
        let connection = &mut self.reader.connection;
        if self.reader.begins {
            return change_depth(connection, TransactionDepthChange::DecreaseDepth);
        }
        AnsiTransactionManager::rollback_transaction(&mut **connection).await
    }

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
        Q: Statement<'q, R> + 'q,
    {
        self.save_all(statement).map_ok(first)
    }

    /// The same for many rows.
    pub fn save_all<'q, R, Q>(
        &'q mut self,
        statement: Q,
    ) -> impl Future<Output = QueryResult<Vec<R>>> + Send + 'q
    where
        R: Hooks + Send + 'q,
        Q: Statement<'q, R> + 'q,
    {
        self.write(statement, Hooks::on_save)
    }

    /// Runs a delete that returns its row, and keeps what the row announces. `None`: no row.
    pub fn delete<'q, R, Q>(
        &'q mut self,
        statement: Q,
    ) -> impl Future<Output = QueryResult<Option<R>>> + Send + 'q
    where
        R: Hooks + Send + 'q,
        Q: Statement<'q, R> + 'q,
    {
        self.write(statement, Hooks::on_delete).map_ok(first)
    }

    /// Runs an insert or update as [`save`](Self::save) does, and asks along with it what the journal has recorded, which
    /// then need not be asked at the end, unless something is written after it.
    ///
    /// Before a statement whose types are new to the connection, PostgreSQL is asked for them, and the journal may be asked
    /// before the row is there. That is noticed.
    pub fn save_recorded<'q, R, Q>(
        &'q mut self,
        statement: Q,
    ) -> impl Future<Output = QueryResult<Option<R>>> + Send + 'q
    where
        R: Hooks + Send + 'q,
        Q: Statement<'q, R> + 'q,
    {
        let Self { reader: Reader { connection, begins }, changes, recorded, .. } = self;
        let connection: &'q AsyncPgConnection = connection;
        *recorded = None;
        let rows = statement.run(connection, ALL);
        async move {
            begun(connection, begins).await?;
            let (rows, journal) = future::join(rows, JournalRow::list_of_transaction(connection)).await;
            let (rows, journal) = (rows?, journal?);
            let announced: Vec<_> = rows.iter().filter_map(R::on_save).collect();
            // Where an earlier row has announced the same, what the journal says may be of that one.
            let is_known =
                |change| !changes.contains(change) && journal.iter().any(|row| row.changes.contains(change));
            let is_recorded = !announced.is_empty() && announced.iter().all(is_known);
            *recorded = (is_recorded || rows.is_empty()).then_some(journal);
            changes.extend(announced);
            Ok(first(rows))
        }
    }

    /// Runs an insert or update at the end of the transaction, and announces what its rows announce. For what nothing
    /// else in the transaction reads; that it fails is then the error of the whole.
    pub fn save_last<R, Q>(&mut self, statement: Q)
    where
        R: Hooks + Send + 'static,
        Q: for<'c> Statement<'c, R> + Send + 'static,
    {
        self.last.push(Box::new(|connection| {
            let rows = statement.run(connection, ALL);
            rows.map_ok(|rows| rows.iter().filter_map(Hooks::on_save).collect()).boxed()
        }));
    }

    fn write<'q, R, Q>(
        &'q mut self,
        statement: Q,
        announce: fn(&R) -> Option<Change>,
    ) -> impl Future<Output = QueryResult<Vec<R>>> + Send + 'q
    where
        R: Send + 'q,
        Q: Statement<'q, R> + 'q,
    {
        let Self { reader: Reader { connection, begins }, changes, recorded, .. } = self;
        let connection: &'q AsyncPgConnection = connection;
        *recorded = None;
        let rows = statement.run(connection, ALL);
        async move {
            begun(connection, begins).await?;
            let rows = rows.await?;
            changes.extend(rows.iter().filter_map(announce));
            Ok(rows)
        }
    }
}

fn first<R>(rows: Vec<R>) -> Option<R> {
    rows.into_iter().next()
}

async fn begin(mut connection: &AsyncPgConnection) -> QueryResult<()> {
    connection.batch_execute("BEGIN").await
}

/// Sees to it that the transaction has begun.
pub(super) async fn begun(connection: &AsyncPgConnection, begins: &mut bool) -> QueryResult<()> {
    if *begins {
        begin(connection).await?;
        *begins = false;
    }
    Ok(())
}

fn change_depth(connection: &mut AsyncPgConnection, change: TransactionDepthChange) -> QueryResult<()> {
    let status = AnsiTransactionManager::transaction_manager_status_mut(connection);
    status.transaction_state()?.change_transaction_depth(change)
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
