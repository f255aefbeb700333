//! Blocking connections, for the commands that run before or beside the service: `migrate` and `seed`.
//!
//! They use the same Rust driver as the service, so that no C library is needed. Never to be called from async code:
//! the wrapper has a runtime of its own.

use std::time::Duration;

use diesel::{
    Connection as _, RunQueryDsl,
    migration::{Migration, MigrationSource, MigrationVersion},
    pg::Pg,
    r2d2::{ConnectionManager, Pool, PooledConnection},
    sql_query,
};
use diesel_async::{AsyncPgConnection, async_connection_wrapper::AsyncConnectionWrapper};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!();

/// A blocking connection.
pub type BlockingConnection = AsyncConnectionWrapper<AsyncPgConnection>;
/// A pool of them.
pub type BlockingPool = Pool<ConnectionManager<BlockingConnection>>;

/// Why a maintenance command failed.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// The server cannot be reached.
    #[error("the database cannot be reached (DATABASE_URL)")]
    Unreachable(#[from] diesel::ConnectionError),
    /// No connection in time.
    #[error("no database connection became free")]
    Busy(#[from] r2d2::Error),
    /// A statement failed.
    #[error("a statement failed")]
    Query(#[from] diesel::result::Error),
    /// A migration failed.
    #[error("a migration failed")]
    Migration(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Opens a pool of at most `size` connections.
///
/// # Errors
/// When the database cannot be reached.
pub fn open(url: &str, size: u32) -> Result<BlockingPool, MaintenanceError> {
    // The pool would try for a long time, and not say why in vain.
    drop(BlockingConnection::establish(url)?);
    // Not `connect_timeout` in the URL: the driver's runtime under the wrapper has no timer.
    let pool = Pool::builder().max_size(size).connection_timeout(Duration::from_secs(10));
    Ok(pool.build(ConnectionManager::new(url))?)
}

/// Which migrations are there, and whether each is applied, oldest first.
///
/// # Errors
/// When the database does not answer.
pub fn status(pool: &BlockingPool) -> Result<Vec<(String, bool)>, MaintenanceError> {
    let mut connection = pool.get()?;
    let applied = connection.applied_migrations().map_err(MaintenanceError::Migration)?;
    let mut all: Vec<_> = known()?
        .iter()
        .map(|migration| {
            (migration.name().to_string(), applied.contains(&migration.name().version().as_owned()))
        })
        .collect();
    all.sort_unstable();
    Ok(all)
}

/// Applies what is missing, one process at a time. Returns the versions applied.
///
/// # Errors
/// When a migration fails; those before it stay applied.
pub fn migrate_up(pool: &BlockingPool) -> Result<Vec<String>, MaintenanceError> {
    let mut connection = pool.get()?;
    alone(&mut connection, |connection| {
        let versions = connection.run_pending_migrations(MIGRATIONS).map_err(MaintenanceError::Migration)?;
        Ok(versions.iter().map(ToString::to_string).collect())
    })
}

/// Takes back the newest migration. Returns its version, or `None` if there is none.
///
/// # Errors
/// When it cannot be reverted.
pub fn migrate_down(pool: &BlockingPool) -> Result<Option<String>, MaintenanceError> {
    let mut connection = pool.get()?;
    alone(&mut connection, |connection| {
        if connection.applied_migrations().map_err(MaintenanceError::Migration)?.is_empty() {
            return Ok(None);
        }
        let version: MigrationVersion<'_> =
            connection.revert_last_migration(MIGRATIONS).map_err(MaintenanceError::Migration)?;
        Ok(Some(version.to_string()))
    })
}

fn known() -> Result<Vec<Box<dyn Migration<Pg>>>, MaintenanceError> {
    MIGRATIONS.migrations().map_err(MaintenanceError::Migration)
}

/// Holds the advisory lock of migrations, which ends with the connection if not before.
fn alone<T>(
    connection: &mut PooledConnection<ConnectionManager<BlockingConnection>>,
    work: impl FnOnce(&mut BlockingConnection) -> Result<T, MaintenanceError>,
) -> Result<T, MaintenanceError> {
    /// Any number that nothing else in this database uses.
    const LOCK: i64 = 0x6c6f_636b_7374_6570;
    sql_query(format!("SELECT pg_advisory_lock({LOCK})")).execute(connection)?;
    let outcome = work(connection);
    sql_query(format!("SELECT pg_advisory_unlock({LOCK})")).execute(connection)?;
    outcome
}
