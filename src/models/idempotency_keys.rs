//! The `idempotency_keys` table: what was answered to a request that may be repeated.

use diesel::{
    QueryResult,
    dsl::sql,
    prelude::*,
    sql_types::{Bool, Text},
};
use diesel_async::AsyncPgConnection;

use crate::{
    db::{Hooks, Tx, schema::idempotency_keys},
    domain::{Change, id::UserId},
};

/// A row of the `idempotency_keys` table.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = idempotency_keys, check_for_backend(diesel::pg::Pg))]
pub struct IdempotencyKey {
    pub user_id: UserId,
    pub path: String,
    pub key: String,
    pub fingerprint: Vec<u8>,
    pub location: String,
    pub etag: String,
    pub body: String,
}

impl Hooks for IdempotencyKey {
    /// Nothing that is cached depends on it.
    fn on_save(&self) -> Option<Change> {
        None
    }

    fn on_delete(&self) -> Option<Change> {
        None
    }
}

impl IdempotencyKey {
    /// Keeps others from using the key until the transaction ends. `false`: somebody is using it.
    pub async fn lock(tx: &mut Tx, user_id: UserId, path: &str, key: &str) -> QueryResult<bool> {
        let name = format!("{user_id} {path} {key}");
        let lock =
            sql::<Bool>("pg_try_advisory_xact_lock(hashtextextended(").bind::<Text, _>(name).sql(", 0))");
        Ok(tx.first(diesel::select(lock)).await?.unwrap_or_default())
    }

    /// What was answered under a key.
    pub async fn find(tx: &mut Tx, user_id: UserId, path: &str, key: &str) -> QueryResult<Option<Self>> {
        tx.first(idempotency_keys::table.find((user_id, path, key)).select(Self::as_select())).await
    }

    /// Keeps an answer.
    pub async fn insert(&self, tx: &mut Tx) -> QueryResult<Option<Self>> {
        let statement = diesel::insert_into(idempotency_keys::table).values(self);
        tx.save(statement.returning(Self::as_returning())).await
    }

    /// Deletes answers that are older than `hours`.
    pub async fn prune(db: &mut AsyncPgConnection, hours: i64) -> QueryResult<usize> {
        let old = format!("created_at < now() - interval '{hours} hours'");
        let statement = diesel::delete(idempotency_keys::table.filter(sql::<Bool>(&old)));
        diesel_async::RunQueryDsl::execute(statement, db).await
    }
}
