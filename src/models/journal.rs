//! The `cache_journal` table, which triggers fill and only [`crate::journal`] reads.

use diesel::{
    QueryResult,
    dsl::sql,
    prelude::*,
    sql_types::{BigInt, Bool, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::{db::schema::cache_journal, domain::Change};

/// A row of the journal.
#[derive(Debug, Clone)]
pub struct JournalRow {
    pub id: i64,
    /// What was changed; what this release cannot read counts as everything.
    pub changes: Vec<Change>,
}

impl JournalRow {
    fn new((id, changes): (i64, String)) -> Self {
        let changes = serde_json::from_str(&changes).unwrap_or_else(|_unknown| vec![Change::Everything]);
        Self { id, changes }
    }

    /// What the present transaction has recorded.
    pub async fn list_of_transaction(db: &mut AsyncPgConnection) -> QueryResult<Vec<Self>> {
        let rows = cache_journal::table
            .filter(cache_journal::xid.eq(sql::<BigInt>("pg_current_xact_id_if_assigned()::text::bigint")))
            .select((cache_journal::id, sql::<Text>("changes::text")));
        Ok(rows.load(db).await?.into_iter().map(Self::new).collect())
    }

    /// Rows that nobody has relayed for `grace_ms`, claimed until the transaction ends; those that another instance
    /// has claimed are left out.
    pub async fn claim(db: &mut AsyncPgConnection, grace_ms: i64, limit: i64) -> QueryResult<Vec<Self>> {
        let due = format!("written_at <= clock_timestamp() - interval '{grace_ms} milliseconds'");
        let rows: Vec<(i64, String)> = cache_journal::table
            .filter(cache_journal::relayed.eq(false))
            .filter(sql::<Bool>(&due))
            .select((cache_journal::id, sql::<Text>("changes::text")))
            .order(cache_journal::id)
            .limit(limit)
            .for_update()
            .skip_locked()
            .load(db)
            .await?;
        Ok(rows.into_iter().map(Self::new).collect())
    }

    /// Marks rows as relayed.
    pub async fn mark(db: &mut AsyncPgConnection, ids: &[i64]) -> QueryResult<usize> {
        let rows = cache_journal::table.filter(cache_journal::id.eq_any(ids));
        diesel::update(rows).set(cache_journal::relayed.eq(true)).execute(db).await
    }

    /// Rows of transactions that were not yet over at `horizon`, and the horizon for the next call. Every row is
    /// returned at least once; `horizon` is a transaction number, so a long transaction delays nothing.
    pub async fn list_since(db: &mut AsyncPgConnection, horizon: i64) -> QueryResult<(i64, Vec<Self>)> {
        // One statement, so that rows and horizon are of one snapshot.
        let rows: Vec<Since> = diesel::sql_query(
            "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon, id, changes::text AS changes \
             FROM (SELECT 1) AS one LEFT JOIN cache_journal ON xid >= $1 ORDER BY id",
        )
        .bind::<BigInt, _>(horizon)
        .load(db)
        .await?;
        let next = rows.as_slice().first().map_or(horizon, |row| row.horizon);
        let rows = rows.into_iter().filter_map(|row| Some(Self::new((row.id?, row.changes?))));
        Ok((next, rows.collect()))
    }

    /// Deletes rows that are older than `minutes`; those not relayed only after `unrelayed_minutes`.
    pub async fn prune(
        db: &mut AsyncPgConnection,
        minutes: i64,
        unrelayed_minutes: i64,
    ) -> QueryResult<usize> {
        let old = format!(
            "written_at < clock_timestamp() - CASE WHEN relayed THEN {minutes} ELSE {unrelayed_minutes} END * interval '1 minute'"
        );
        diesel::delete(cache_journal::table.filter(sql::<Bool>(&old))).execute(db).await
    }
}

#[derive(QueryableByName)]
struct Since {
    #[diesel(sql_type = BigInt)]
    horizon: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    id: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    changes: Option<String>,
}
