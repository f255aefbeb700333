//! The `sessions` and `refresh_tokens` tables: a log-in is a session, its refresh tokens are a family.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{QueryResult, dsl::now, prelude::*};

use crate::{
    db::{
        Hooks, Reader, Tx,
        schema::{refresh_tokens, sessions},
    },
    domain::{
        Change,
        id::{SessionId, UserId},
    },
};

/// A row of the `sessions` table.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = sessions, check_for_backend(diesel::pg::Pg))]
pub struct Session {
    pub id: SessionId,
    pub user_id: UserId,
    pub expires_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
}

impl Hooks for Session {
    /// Only an end matters: the sign-in state lists sessions that have ended, not those that go on.
    fn on_save(&self) -> Option<Change> {
        self.ended_at.map(|_| Change::Sessions { user_id: self.user_id })
    }

    fn on_delete(&self) -> Option<Change> {
        self.on_save()
    }
}

/// A row of the `refresh_tokens` table.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = refresh_tokens, check_for_backend(diesel::pg::Pg))]
pub struct StoredRefreshToken {
    pub session_id: SessionId,
    pub replaced_at: Option<DateTime<Utc>>,
}

impl Hooks for StoredRefreshToken {
    /// Nothing that is cached depends on it.
    fn on_save(&self) -> Option<Change> {
        None
    }

    fn on_delete(&self) -> Option<Change> {
        None
    }
}

/// How long a session lasts without being refreshed.
pub const SESSION_LIFE: TimeDelta = TimeDelta::days(30);

impl Session {
    /// Begins a session.
    pub async fn insert(
        tx: &mut Tx,
        user_id: UserId,
        expires_at: DateTime<Utc>,
        address_digest: &[u8],
    ) -> QueryResult<Option<Self>> {
        let id = SessionId::new();
        let values = (
            sessions::id.eq(id),
            sessions::user_id.eq(user_id),
            sessions::expires_at.eq(expires_at),
            sessions::address_digest.eq(address_digest),
        );
        tx.save(diesel::insert_into(sessions::table).values(values).returning(Self::as_returning())).await
    }

    /// Keeps a session alive. `None`: it has ended or expired.
    pub async fn extend(tx: &mut Tx, id: SessionId, expires_at: DateTime<Utc>) -> QueryResult<Option<Self>> {
        let alive = sessions::table
            .find(id)
            .filter(sessions::ended_at.is_null())
            .filter(sessions::expires_at.gt(now));
        let statement = diesel::update(alive).set(sessions::expires_at.eq(expires_at));
        tx.save(statement.returning(Self::as_returning())).await
    }

    /// Ends a session. `None`: it had ended before.
    pub async fn end(tx: &mut Tx, id: SessionId) -> QueryResult<Option<Self>> {
        let alive = sessions::table.find(id).filter(sessions::ended_at.is_null());
        tx.save(diesel::update(alive).set(sessions::ended_at.eq(now)).returning(Self::as_returning())).await
    }

    /// Ends every session of a user.
    pub async fn end_all(tx: &mut Tx, user_id: UserId) -> QueryResult<Vec<Self>> {
        let alive =
            sessions::table.filter(sessions::user_id.eq(user_id)).filter(sessions::ended_at.is_null());
        tx.save_all(diesel::update(alive).set(sessions::ended_at.eq(now)).returning(Self::as_returning()))
            .await
    }

    /// Whether a user has begun a session from there that would still live, had it not been ended.
    pub async fn is_known_address(
        db: &mut Reader,
        user_id: UserId,
        address_digest: &[u8],
    ) -> QueryResult<bool> {
        let known = sessions::table
            .filter(sessions::user_id.eq(user_id))
            .filter(sessions::address_digest.eq(address_digest))
            .filter(sessions::expires_at.gt(now));
        Ok(db.first(known.select(sessions::id).limit(1)).await?.map(|_: SessionId| ()).is_some())
    }

    /// The sessions of a user that ended after `since`.
    pub async fn list_ended(
        db: &mut Reader,
        user_id: UserId,
        since: DateTime<Utc>,
    ) -> QueryResult<Vec<SessionId>> {
        let ended =
            sessions::table.filter(sessions::user_id.eq(user_id)).filter(sessions::ended_at.gt(since));
        db.list(ended.select(sessions::id)).await
    }
}

impl StoredRefreshToken {
    /// Stores a token's digest.
    pub async fn insert(tx: &mut Tx, session_id: SessionId, digest: &[u8]) -> QueryResult<Option<Self>> {
        let values = (refresh_tokens::digest.eq(digest), refresh_tokens::session_id.eq(session_id));
        tx.save(diesel::insert_into(refresh_tokens::table).values(values).returning(Self::as_returning()))
            .await
    }

    /// Uses a token up. `None`: there is no such token, or it was used before. Of two uses at once one wins.
    pub async fn replace(tx: &mut Tx, digest: &[u8]) -> QueryResult<Option<Self>> {
        let unused = refresh_tokens::table.find(digest).filter(refresh_tokens::replaced_at.is_null());
        let statement = diesel::update(unused).set(refresh_tokens::replaced_at.eq(now));
        tx.save(statement.returning(Self::as_returning())).await
    }

    /// By digest, used or not.
    pub async fn find(db: &mut Reader, digest: &[u8]) -> QueryResult<Option<Self>> {
        db.first(refresh_tokens::table.find(digest).select(Self::as_select())).await
    }
}
