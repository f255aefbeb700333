//! The `cache_journal` table, which triggers fill and only [`crate::journal`] reads.

use diesel::{
    QueryResult,
    dsl::sql,
    expression::SqlLiteral,
    prelude::*,
    sql_types::{Array, BigInt, Bool, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::{
    db::{
        fixed::{Wording, fixed},
        schema::cache_journal,
        snapshot::Snapshot,
    },
    domain::Change,
};

/// A row of the journal.
#[derive(Debug, Clone)]
pub struct JournalRow {
    pub id: i64,
    /// Which transaction wrote it.
    pub position: u64,
    /// What was changed; what this release cannot read counts as everything.
    pub changes: Vec<Change>,
}

impl JournalRow {
    fn new((id, xid, changes): (i64, i64, String)) -> Self {
        let changes = serde_json::from_str(&changes).unwrap_or_else(|_unknown| vec![Change::Everything]);
        Self { id, position: u64::try_from(xid).unwrap_or_default(), changes }
    }

    /// What the present transaction has recorded.
    pub async fn list_of_transaction(mut db: &AsyncPgConnection) -> QueryResult<Vec<Self>> {
        static WORDING: Wording = Wording::new();
        let own = fixed::<BigInt>("pg_current_xact_id_if_assigned()::text::bigint");
        let rows = cache_journal::table.filter(cache_journal::xid.eq(own)).select((
            cache_journal::id,
            cache_journal::xid,
            fixed::<Text>("changes::text"),
        ));
        Ok(WORDING.of(rows).load(&mut db).await?.into_iter().map(Self::new).collect())
    }

    /// Rows that nobody has relayed for `grace_ms`, claimed until the transaction ends; those that another instance
    /// has claimed are left out.
    pub async fn claim(db: &mut AsyncPgConnection, grace_ms: i64, limit: i64) -> QueryResult<Vec<Self>> {
        let due = Self::due(grace_ms).limit(limit).for_update().skip_locked();
        let rows: Vec<(i64, i64, String)> = due.load(db).await?;
        Ok(rows.into_iter().map(Self::new).collect())
    }

    /// The same, whoever has claimed them.
    pub async fn list_due(db: &mut AsyncPgConnection, grace_ms: i64, limit: i64) -> QueryResult<Vec<Self>> {
        let rows: Vec<(i64, i64, String)> = Self::due(grace_ms).limit(limit).load(db).await?;
        Ok(rows.into_iter().map(Self::new).collect())
    }

    #[diesel::dsl::auto_type(no_type_alias)]
    fn due(grace_ms: i64) -> _ {
        let age: SqlLiteral<Bool> =
            sql::<Bool>(&format!("written_at <= clock_timestamp() - interval '{grace_ms} milliseconds'"));
        let changes: SqlLiteral<Text> = sql::<Text>("changes::text");
        cache_journal::table
            .filter(cache_journal::relayed.eq(false))
            .filter(age)
            .select((cache_journal::id, cache_journal::xid, changes))
            .order(cache_journal::id)
    }

    /// What was announced lately, but in another life of Redis than this: to those who are still connected to a Redis
    /// that others have left, or have left it already.
    pub async fn list_relayed_elsewhere(
        db: &mut AsyncPgConnection,
        epoch: u64,
        lately_ms: i64,
        limit: i64,
    ) -> QueryResult<Vec<Self>> {
        let lately =
            sql::<Bool>(&format!("written_at > clock_timestamp() - interval '{lately_ms} milliseconds'"));
        let rows: Vec<(i64, i64, String)> = cache_journal::table
            .filter(cache_journal::relayed.eq(true))
            .filter(cache_journal::relayed_in.is_distinct_from(epoch.cast_signed()))
            .filter(lately)
            .select((cache_journal::id, cache_journal::xid, sql::<Text>("changes::text")))
            .limit(limit)
            .load(db)
            .await?;
        Ok(rows.into_iter().map(Self::new).collect())
    }

    /// Whether anything that is kept was announced in another life of Redis than this.
    pub async fn was_relayed_elsewhere(db: &mut AsyncPgConnection, epoch: u64) -> QueryResult<bool> {
        let elsewhere = cache_journal::table.filter(cache_journal::relayed_in.ne(epoch.cast_signed()));
        diesel::select(diesel::dsl::exists(elsewhere)).get_result(db).await
    }

    /// Marks rows as relayed in this life of Redis, but for those that another instance has claimed.
    pub async fn mark(db: &mut AsyncPgConnection, ids: &[i64], epoch: u64) -> QueryResult<usize> {
        diesel::sql_query(
            "UPDATE cache_journal SET relayed = true, relayed_in = $2 WHERE id IN \
             (SELECT id FROM cache_journal WHERE id = ANY($1) AND NOT relayed FOR UPDATE SKIP LOCKED)",
        )
        .bind::<Array<BigInt>, _>(ids)
        .bind::<BigInt, _>(epoch.cast_signed())
        .execute(db)
        .await
    }

    /// Records what no trigger sees.
    pub async fn record(db: &mut AsyncPgConnection, changes: &[Change]) -> QueryResult<Self> {
        let recorded = changes.to_vec();
        let changes = serde_json::to_string(changes);
        let changes = changes.map_err(|err| diesel::result::Error::SerializationError(Box::new(err)))?;
        let row: Recorded =
            diesel::sql_query("INSERT INTO cache_journal (changes) VALUES ($1::jsonb) RETURNING id, xid")
                .bind::<Text, _>(changes)
                .get_result(db)
                .await?;
        let position = u64::try_from(row.xid).unwrap_or_default();
        Ok(Self { id: row.id, position, changes: recorded })
    }

    /// What has become visible since `snapshot`, and the snapshot for the next call. A row is returned once, whatever
    /// its number and however long its transaction took. Without a snapshot: only the present one.
    pub async fn list_since(
        db: &mut AsyncPgConnection,
        snapshot: Option<&Snapshot>,
    ) -> QueryResult<(Snapshot, Vec<Self>)> {
        let (before, horizon) = seen_of(snapshot);
        // One statement, so that all of it is of one snapshot.
        let rows: Vec<Since> = diesel::sql_query(
            "SELECT pg_current_snapshot()::text AS snapshot, id, xid, changes::text AS changes \
             FROM (SELECT 1) AS one LEFT JOIN cache_journal \
                ON xid >= $2 AND NOT pg_visible_in_snapshot(xid::text::xid8, $1::pg_snapshot) ORDER BY id",
        )
        .bind::<Nullable<Text>, _>(before)
        .bind::<BigInt, _>(horizon)
        .load(db)
        .await?;
        let present = present_snapshot(rows.as_slice().first().map(|row| row.snapshot.as_str()))?;
        let rows = rows.into_iter().filter_map(|row| Some(Self::new((row.id?, row.xid?, row.changes?))));
        Ok((present, rows.collect()))
    }

    /// The position below which every transaction is over.
    pub async fn horizon(db: &mut AsyncPgConnection) -> QueryResult<u64> {
        let horizon = sql::<BigInt>("pg_snapshot_xmin(pg_current_snapshot())::text::bigint");
        let horizon: i64 = diesel::select(horizon).get_result(db).await?;
        Ok(u64::try_from(horizon).unwrap_or_default())
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

/// The binds of "not visible in this snapshot, or in none": its text, and a bound that an index can use.
pub(super) fn seen_of(snapshot: Option<&Snapshot>) -> (Option<&str>, i64) {
    snapshot.map_or((None, i64::MAX), |seen| (Some(seen.as_str()), seen.horizon()))
}

/// The snapshot in a row that every reading returns.
pub(super) fn present_snapshot(text: Option<&str>) -> QueryResult<Snapshot> {
    let text = text.ok_or(diesel::result::Error::NotFound)?;
    text.parse().map_err(|err| diesel::result::Error::DeserializationError(Box::new(err)))
}

#[derive(QueryableByName)]
struct Recorded {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = BigInt)]
    xid: i64,
}

#[derive(QueryableByName)]
struct Since {
    #[diesel(sql_type = Text)]
    snapshot: String,
    #[diesel(sql_type = Nullable<BigInt>)]
    id: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    xid: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    changes: Option<String>,
}
