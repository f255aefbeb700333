//! The `events` and `event_tickets` tables: what listeners are told, and how browsers are let in.

use chrono::{DateTime, Utc};
use diesel::{
    QueryResult,
    dsl::sql,
    prelude::*,
    sql_types::{BigInt, Bool, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::journal::{present_snapshot, seen_of};
use crate::{
    db::{
        Hooks, Reader, Tx,
        schema::{channel_readers, event_tickets, events, members},
        snapshot::Snapshot,
    },
    domain::{
        Change,
        event::{Audience, AudienceKind, EventKind},
        id::{ChannelId, SessionId, UserId, WorkspaceId},
    },
};

/// A row of the `events` table.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = events, check_for_backend(diesel::pg::Pg))]
pub struct Event {
    pub id: i64,
    pub kind: EventKind,
    pub audience: AudienceKind,
    pub user_id: Option<UserId>,
    pub workspace_id: Option<WorkspaceId>,
    pub channel_id: Option<ChannelId>,
    /// JSON.
    pub data: String,
}

/// An event that was inserted. Not all of it, which whoever inserts it knows.
#[derive(Queryable)]
pub struct Inserted {
    _id: i64,
}

impl Hooks for Inserted {
    /// Never cached.
    fn on_save(&self) -> Option<Change> {
        None
    }

    fn on_delete(&self) -> Option<Change> {
        None
    }
}

/// A row to insert.
#[derive(Debug, Insertable)]
#[diesel(table_name = events, treat_none_as_default_value = false)]
pub struct NewEvent {
    pub kind: EventKind,
    pub audience: AudienceKind,
    pub user_id: Option<UserId>,
    pub workspace_id: Option<WorkspaceId>,
    pub channel_id: Option<ChannelId>,
    pub data: String,
}

impl NewEvent {
    /// An event for an audience. `data`: JSON.
    #[must_use]
    pub const fn new(kind: EventKind, audience: Audience, data: String) -> Self {
        Self {
            kind,
            audience: audience.kind(),
            user_id: audience.user(),
            workspace_id: audience.workspace(),
            channel_id: audience.channel(),
            data,
        }
    }
}

/// Rows in one statement; PostgreSQL takes 65,535 parameters.
const INSERTED_AT_ONCE: usize = 1000;

/// What a reading of the log has found.
#[derive(Debug)]
pub struct Reading {
    /// What was visible.
    pub snapshot: Snapshot,
    /// The database's time, in milliseconds since 1970.
    pub at_ms: i64,
    /// What has become visible since the last reading, in the order of writing.
    pub events: Vec<Event>,
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = Text)]
    snapshot: String,
    #[diesel(sql_type = BigInt)]
    at_ms: i64,
    #[diesel(embed)]
    event: Option<FoundEvent>,
}

#[derive(QueryableByName)]
struct FoundEvent {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Text)]
    kind: EventKind,
    #[diesel(sql_type = Text)]
    audience: AudienceKind,
    #[diesel(sql_type = Nullable<diesel::sql_types::Uuid>)]
    user_id: Option<UserId>,
    #[diesel(sql_type = Nullable<diesel::sql_types::Uuid>)]
    workspace_id: Option<WorkspaceId>,
    #[diesel(sql_type = Nullable<diesel::sql_types::Uuid>)]
    channel_id: Option<ChannelId>,
    #[diesel(sql_type = Text)]
    data: String,
}

impl Event {
    /// Inserts one at the end of the transaction.
    pub fn insert(tx: &mut Tx, new: NewEvent) {
        // Of many rows in one statement, it would be prepared anew each time.
        let statement = diesel::insert_into(events::table).values(new).returning((events::id,));
        tx.save_last::<Inserted, _>(statement);
    }

    /// Inserts several there.
    pub fn insert_all(tx: &mut Tx, new: Vec<NewEvent>) {
        let mut new = new.into_iter().peekable();
        while new.peek().is_some() {
            let part: Vec<_> = new.by_ref().take(INSERTED_AT_ONCE).collect();
            tx.save_last::<Inserted, _>(
                diesel::insert_into(events::table).values(part).returning((events::id,)),
            );
        }
    }

    /// What has become visible since `snapshot`, for all listeners, at most `limit`. Without a snapshot: only the present
    /// one.
    pub async fn list_since(
        db: &mut AsyncPgConnection,
        snapshot: Option<&Snapshot>,
        limit: i64,
    ) -> QueryResult<Reading> {
        let (before, horizon) = seen_of(snapshot);
        // One statement, so that all of it is of one snapshot.
        let rows: Vec<Found> = diesel::sql_query(
            "SELECT pg_current_snapshot()::text AS snapshot, \
                    (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS at_ms, events.* \
             FROM (SELECT 1) AS one LEFT JOIN events \
                ON xid >= $2 AND NOT pg_visible_in_snapshot(xid::text::xid8, $1::pg_snapshot) ORDER BY id \
             LIMIT $3",
        )
        .bind::<Nullable<Text>, _>(before)
        .bind::<BigInt, _>(horizon)
        .bind::<BigInt, _>(limit)
        .load(db)
        .await?;
        let snapshot = present_snapshot(rows.as_slice().first().map(|row| row.snapshot.as_str()))?;
        let at_ms = rows.as_slice().first().map_or(0, |row| row.at_ms);
        let events = rows.into_iter().filter_map(|row| row.event).map(|found| Self {
            id: found.id,
            kind: found.kind,
            audience: found.audience,
            user_id: found.user_id,
            workspace_id: found.workspace_id,
            channel_id: found.channel_id,
            data: found.data,
        });
        Ok(Reading { snapshot, at_ms, events: events.collect() })
    }

    /// What became visible from one snapshot to another and is for `user`, as far as he may see it now: at most `limit`
    /// events after number `after`, in the order of writing.
    pub async fn list_of_user(
        db: &mut Reader,
        user: UserId,
        (from, to): (&Snapshot, &Snapshot),
        after: i64,
        limit: i64,
    ) -> QueryResult<Vec<Self>> {
        let visible = |snapshot: &Snapshot| {
            sql::<Bool>("pg_visible_in_snapshot(xid::text::xid8, ")
                .bind::<Text, _>(snapshot.as_str().to_owned())
                .sql("::pg_snapshot)")
        };
        let workspaces =
            members::table.filter(members::user_id.eq(user)).select(members::workspace_id.nullable());
        let channels = channel_readers::table
            .filter(channel_readers::user_id.eq(user))
            .select(channel_readers::channel_id.nullable());
        let of_workspaces =
            events::audience.eq(AudienceKind::Workspace).and(events::workspace_id.eq_any(workspaces));
        let of_channels = events::audience.eq(AudienceKind::Channel).and(events::channel_id.eq_any(channels));
        let page = events::table
            .filter(events::xid.ge(from.horizon()).and(events::xid.lt(to.end())))
            .filter(visible(to).and(diesel::dsl::not(visible(from))))
            .filter(events::id.gt(after).and(events::kind.ne(EventKind::SessionsEnded)))
            .filter(events::user_id.eq(user).or(of_workspaces).or(of_channels));
        db.list(page.select(Self::as_select()).order(events::id).limit(limit)).await
    }

    /// Who of these users is in these workspaces, and who of them reads these channels.
    pub async fn audiences(
        db: &mut AsyncPgConnection,
        workspaces: &[WorkspaceId],
        channels: &[ChannelId],
        among: &[UserId],
    ) -> QueryResult<(Vec<(WorkspaceId, UserId)>, Vec<(ChannelId, UserId)>)> {
        let members = members::table
            .filter(members::workspace_id.eq_any(workspaces).and(members::user_id.eq_any(among)))
            .select((members::workspace_id, members::user_id));
        let readers = channel_readers::table
            .filter(channel_readers::channel_id.eq_any(channels))
            .filter(channel_readers::user_id.eq_any(among))
            .select((channel_readers::channel_id, channel_readers::user_id));
        let members = if workspaces.is_empty() { Vec::new() } else { members.load(db).await? };
        let readers = if channels.is_empty() { Vec::new() } else { readers.load(db).await? };
        Ok((members, readers))
    }

    /// Deletes what is older than `minutes`.
    pub async fn prune(db: &mut AsyncPgConnection, minutes: i64) -> QueryResult<usize> {
        let old = format!("written_at < statement_timestamp() - interval '{minutes} minutes'");
        diesel::delete(events::table.filter(sql::<Bool>(&old))).execute(db).await
    }
}

/// A row of the `event_tickets` table.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = event_tickets, check_for_backend(diesel::pg::Pg))]
pub struct EventTicket {
    pub digest: Vec<u8>,
    pub user_id: UserId,
    pub session_id: SessionId,
    pub token_epoch: i32,
    pub token_expires_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

impl Hooks for EventTicket {
    /// Never cached.
    fn on_save(&self) -> Option<Change> {
        None
    }

    fn on_delete(&self) -> Option<Change> {
        None
    }
}

impl EventTicket {
    /// Stores a ticket.
    pub async fn insert(self, tx: &mut Tx) -> QueryResult<Option<Self>> {
        let statement = diesel::insert_into(event_tickets::table).values(self);
        tx.save(statement.returning(Self::as_returning())).await
    }

    /// Uses a ticket up. `None`: there is no such ticket, or it was used before. Of two uses at once one wins.
    pub async fn take(tx: &mut Tx, digest: &[u8]) -> QueryResult<Option<Self>> {
        let statement = diesel::delete(event_tickets::table.find(digest));
        tx.delete(statement.returning(Self::as_returning())).await
    }

    /// Deletes those that nobody has used in time.
    pub async fn prune(db: &mut AsyncPgConnection) -> QueryResult<usize> {
        let old = event_tickets::table.filter(event_tickets::expires_at.lt(diesel::dsl::now));
        diesel::delete(old).execute(db).await
    }
}
