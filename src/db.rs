//! PostgreSQL: pools, reading, and the unit of work.
//!
//! Connections live on the main runtime, whose threads nobody blocks: one whose driver was started on an Actix worker
//! would stand still whenever that worker is busy.
//!
//! It knows nothing of caches, except to say that rows were asked for. What a commit changed is handed to `announce`, which
//! [`crate::app`] connects.

#[cfg(feature = "embedded")]
pub mod embedded;
pub mod fixed;
pub mod maintenance;
pub mod schema;
pub mod seed;
pub mod snapshot;
mod tx;
mod write;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use diesel::{
    ConnectionError, ConnectionResult, QueryResult,
    result::{DatabaseErrorKind, Error as QueryError},
};
use diesel_async::{
    AnsiTransactionManager, AsyncConnection, AsyncPgConnection, SimpleAsyncConnection, TransactionManager,
    pooled_connection::{
        AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
        deadpool::{BuildError, Object, Pool},
    },
};
use futures_util::FutureExt;
use tokio::runtime::Handle;

pub use self::{
    tx::{Hooks, Reader, Statement, Tx},
    write::{Announce, Committed, Leave, Work, Written, with_leave},
};
use crate::{cache::recording, sharded::Share};

/// The database of a process. Clones are cheap: every cached read takes one along, and how many there are is counted for
/// each [share](Db::share).
#[derive(Clone)]
pub struct Db(Share<Inner>);

struct Inner {
    read: Pool<AsyncPgConnection>,
    write: Pool<AsyncPgConnection>,
    journal: Pool<AsyncPgConnection>,
    main: Handle,
    announce: Announce,
    /// The embedded database: one connection, which nobody else can use.
    embedded: bool,
    reachable: AtomicBool,
}

/// No connection, or none in time.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// All connections are busy.
    #[error("no database connection became free within {} s", CHECKOUT.as_secs())]
    Busy,
    /// The server cannot be reached.
    #[error("the database cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Connections for the journal and for the log of events, beside those for requests.
const JOURNAL_CONNECTIONS: usize = 3;
/// Longest that the journal's statements may take at once.
const JOURNAL: Duration = Duration::from_secs(2);
/// Longest wait for a connection.
const CHECKOUT: Duration = Duration::from_secs(5);

/// Bounds for a statement, a wait for a lock, and a transaction whose request has gone.
const LIMITS: &str = "SET statement_timeout = '10s'; SET lock_timeout = '5s'; \
    SET idle_in_transaction_session_timeout = '15s'; SET timezone = 'UTC';";

/// A standby shows rows later than they were committed, and its snapshots say of transactions under way that they are
/// over: what was loaded there would pass for new, and the journal would lose rows.
const NO_STANDBY: &str = "DO $$ BEGIN IF pg_is_in_recovery() THEN \
    RAISE EXCEPTION 'the server is a standby, not the primary'; END IF; END $$;";

impl Db {
    /// Pools for a server; connects when first used. `size` connections for requests (two at least), half of which can
    /// only read, and three for the journal and the log of events.
    ///
    /// # Errors
    /// When the pools cannot be built.
    pub fn connect(url: &str, size: usize, main: Handle, announce: Announce) -> Result<Self, BuildError> {
        let write = (size / 2).max(1);
        let read = (size - write.min(size)).max(1);
        Ok(Self::of(Inner {
            read: build_pool(url, read, main.clone(), true)?,
            write: build_pool(url, write, main.clone(), false)?,
            journal: build_pool(url, JOURNAL_CONNECTIONS, main.clone(), false)?,
            main,
            announce,
            embedded: false,
            reachable: AtomicBool::new(true),
        }))
    }

    /// The embedded database's only connection.
    ///
    /// # Errors
    /// When the pool cannot be built.
    pub fn connect_embedded(url: &str, main: Handle, announce: Announce) -> Result<Self, BuildError> {
        let only = build_pool(url, 1, main.clone(), false)?;
        Ok(Self::of(Inner {
            read: only.clone(),
            write: only.clone(),
            journal: only,
            main,
            announce,
            embedded: true,
            reachable: AtomicBool::new(true),
        }))
    }

    fn of(inner: Inner) -> Self {
        Self(Share::new(Arc::new(inner)))
    }

    /// The same for another thread: clones of this one are counted apart from those of the other.
    #[must_use]
    pub fn share(&self) -> Self {
        Self(self.0.another())
    }

    /// Nobody else can write to this database.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        self.0.embedded
    }

    /// Whether whoever asked last has got an answer.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.0.reachable.load(Ordering::Relaxed)
    }

    /// Notes whether the database has answered. Told by those who ask it all the time.
    pub(crate) fn note_reachable(&self, reachable: bool) {
        self.0.reachable.store(reachable, Ordering::Relaxed);
    }

    /// Connections of both pools: open, and idle among them.
    #[must_use]
    pub fn connections(&self) -> (usize, usize) {
        let (read, write) = (self.0.read.status(), self.0.write.status());
        if self.0.embedded {
            (read.size, read.available)
        } else {
            (read.size + write.size, read.available + write.available)
        }
    }

    /// A connection that can only read.
    ///
    /// # Errors
    /// When there is none in time.
    async fn reader(&self) -> Result<ReadOnly, DbError> {
        let mut connection = check_out(&self.0.read).await?;
        if self.0.embedded {
            AnsiTransactionManager::begin_transaction_sql(&mut *connection, "BEGIN READ ONLY").await?;
        }
        Ok(ReadOnly { reader: Some(Reader::over(connection)), in_transaction: self.0.embedded })
    }

    /// Reads rows that are not cached.
    ///
    /// # Errors
    /// When there is no connection in time, or what `work` returns.
    pub async fn read<T>(&self, work: impl AsyncFnOnce(&mut Reader) -> QueryResult<T>) -> Result<T, DbError> {
        self.reader().await?.run(work).await
    }

    /// Runs statements of the journal and of the log of events, which change nothing that is cached, on connections that requests cannot take
    /// away. What takes too long is given up together with its connection.
    pub(crate) async fn journal<T>(
        &self,
        work: impl AsyncFnOnce(&mut AsyncPgConnection) -> QueryResult<T>,
    ) -> Result<T, DbError> {
        let mut connection = check_out(&self.0.journal).await?;
        match tokio::time::timeout(JOURNAL, work(&mut connection)).await {
            Ok(outcome) => Ok(outcome?),
            Err(_elapsed) => {
                // It may be half open, and would hang again.
                drop(Object::take(connection));
                Err(Unavailable::Busy.into())
            }
        }
    }
}

/// A reader on loan. One that is dropped before its end may be in the middle of a statement, behind which the next
/// borrower would wait: its connection is not given back.
struct ReadOnly {
    reader: Option<Reader>,
    in_transaction: bool,
}

impl ReadOnly {
    /// Runs `work` with the reader.
    ///
    /// # Errors
    /// What `work` returns, or that the connection is broken.
    async fn run<T>(mut self, work: impl AsyncFnOnce(&mut Reader) -> QueryResult<T>) -> Result<T, DbError> {
        let Some(reader) = self.reader.as_mut() else { return Err(QueryError::NotFound.into()) };
        let outcome = work(reader).await;
        if self.in_transaction {
            AnsiTransactionManager::commit_transaction(&mut *reader.connection).await?;
        }
        // Given back.
        drop(self.reader.take());
        Ok(outcome?)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            drop(Object::take(reader.connection));
        }
    }
}

/// What can go wrong with the database itself.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// No connection.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// A statement failed.
    #[error("a statement failed")]
    Query(#[from] diesel::result::Error),
    /// The request that wanted to write was given no leave.
    #[error("the request was refused before it could write")]
    Refused,
}

impl DbError {
    /// Whether it may work in a moment: no connection, a server that stops or starts, a time that was up.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        // The driver gives most of these no kind of their own.
        const MESSAGES: [&str; 6] = [
            "terminating connection",
            "the database system is",
            "canceling statement due to",
            "connection closed",
            "error communicating with the server",
            "deadlock detected",
        ];
        match self {
            Self::Unavailable(_) => true,
            Self::Query(QueryError::DatabaseError(kind, info)) => {
                matches!(kind, DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::SerializationFailure)
                    || MESSAGES.iter().any(|message| info.message().contains(message))
            }
            Self::Query(_) | Self::Refused => false,
        }
    }
}

async fn check_out(pool: &Pool<AsyncPgConnection>) -> Result<Object<AsyncPgConnection>, Unavailable> {
    recording::spoil();
    match tokio::time::timeout(CHECKOUT, pool.get()).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(err)) => Err(Unavailable::Unreachable(err.into())),
        Err(_elapsed) => Err(Unavailable::Busy),
    }
}

fn build_pool(
    url: &str,
    size: usize,
    main: Handle,
    read_only: bool,
) -> Result<Pool<AsyncPgConnection>, BuildError> {
    let mut config = ManagerConfig::<AsyncPgConnection>::default();
    // A round trip at each checkout would cost a third of the rate; a dead connection shows at its first statement.
    config.recycling_method = RecyclingMethod::Fast;
    config.custom_setup = Box::new(move |url| {
        let url = url.to_owned();
        let task = main.spawn(async move { establish(&url, read_only).await });
        task.map(|joined| joined.map_err(|err| ConnectionError::BadConnection(err.to_string()))?).boxed()
    });
    Pool::builder(AsyncDieselConnectionManager::new_with_config(url, config)).max_size(size).build()
}

async fn establish(url: &str, read_only: bool) -> ConnectionResult<AsyncPgConnection> {
    let mut connection = AsyncPgConnection::establish(url).await?;
    let read_only = if read_only { "SET default_transaction_read_only = on" } else { "" };
    let setup = connection.batch_execute(&format!("{LIMITS}{NO_STANDBY}{read_only}")).await;
    setup.map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(connection)
}
