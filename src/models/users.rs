//! The `users` table.

use chrono::{DateTime, Utc};
use diesel::{QueryResult, alias, dsl::now, prelude::*};

use crate::{
    db::{
        Hooks, Reader, Tx,
        schema::{members, users},
    },
    domain::{Change, id::UserId},
};

/// A row of the `users` table, without its secrets.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = users, check_for_backend(diesel::pg::Pg))]
pub struct User {
    pub id: UserId,
    pub email: String,
    pub name: String,
    /// `None`: the name is shown.
    pub display_name: Option<String>,
    pub avatar_url: Option<String>,
    pub timezone: String,
    pub status_text: Option<String>,
    pub token_epoch: i32,
    pub is_active: bool,
    pub is_staff: bool,
    pub version: i64,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// What of a user is shown beside what he has made.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = users, check_for_backend(diesel::pg::Pg))]
pub struct Person {
    pub name: String,
    /// `None`: the name is shown.
    pub display_name: Option<String>,
    pub avatar_url: Option<String>,
}

/// Somebody who writes something, as he is called then.
#[derive(Debug, Clone, Queryable)]
#[diesel(check_for_backend(diesel::pg::Pg))]
pub struct Author {
    pub person: Person,
    /// What PostgreSQL calls `now()` in his transaction.
    pub writes_at: DateTime<Utc>,
}

impl Hooks for User {
    fn on_save(&self) -> Option<Change> {
        Some(Change::Users { id: self.id })
    }

    fn on_delete(&self) -> Option<Change> {
        self.on_save()
    }
}

/// What is needed to check a password.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = users, check_for_backend(diesel::pg::Pg))]
pub struct Credentials {
    pub id: UserId,
    pub password_hash: String,
    pub is_active: bool,
}

/// A row to insert.
#[derive(Debug, Insertable)]
#[diesel(table_name = users)]
pub struct NewUser<'a> {
    pub id: UserId,
    pub email: &'a str,
    pub name: &'a str,
    pub password_hash: &'a str,
}

/// What a profile's owner can change; the outer `None` keeps.
#[derive(Debug, Default, PartialEq, Eq, AsChangeset)]
#[diesel(table_name = users)]
pub struct ProfileChanges<'a> {
    pub name: Option<&'a str>,
    pub display_name: Option<Option<&'a str>>,
    pub avatar_url: Option<Option<&'a str>>,
    pub timezone: Option<&'a str>,
    pub status_text: Option<Option<&'a str>>,
}

impl ProfileChanges<'_> {
    /// Nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl User {
    /// One user.
    pub async fn find(db: &mut Reader, id: UserId) -> QueryResult<Option<Self>> {
        db.first(users::table.find(id).select(Self::as_select())).await
    }

    /// The user with this address, which must be in lower case.
    pub async fn find_by_email(db: &mut Reader, email: &str) -> QueryResult<Option<Self>> {
        db.first(users::table.filter(users::email.eq(email)).select(Self::as_select())).await
    }

    /// Whether two users are members of the same workspace.
    pub async fn share_workspace(db: &mut Reader, one: UserId, other: UserId) -> QueryResult<bool> {
        let theirs = alias!(members as theirs);
        let of_other = theirs
            .filter(theirs.field(members::user_id).eq(other))
            .select(theirs.field(members::workspace_id));
        let shared =
            members::table.filter(members::user_id.eq(one)).filter(members::workspace_id.eq_any(of_other));
        let found: Option<UserId> = db.first(shared.select(members::user_id).limit(1)).await?;
        Ok(found.is_some())
    }

    /// Inserts a user. `None`: the address is taken.
    pub async fn insert(tx: &mut Tx, new: NewUser<'_>) -> QueryResult<Option<Self>> {
        let statement = diesel::insert_into(users::table).values(new).on_conflict(users::email).do_nothing();
        tx.save(statement.returning(Self::as_returning())).await
    }

    /// Changes the profile.
    pub async fn update_profile(
        tx: &mut Tx,
        id: UserId,
        changes: &ProfileChanges<'_>,
    ) -> QueryResult<Option<Self>> {
        let bookkeeping = (users::version.eq(users::version + 1), users::updated_at.eq(now));
        let statement = diesel::update(users::table.find(id)).set((changes, bookkeeping));
        tx.save(statement.returning(Self::as_returning())).await
    }

    /// Refuses every access token issued so far.
    pub async fn raise_token_epoch(tx: &mut Tx, id: UserId) -> QueryResult<Option<Self>> {
        let statement =
            diesel::update(users::table.find(id)).set(users::token_epoch.eq(users::token_epoch + 1));
        tx.save(statement.returning(Self::as_returning())).await
    }

    /// Sets the password, and refuses every access token issued so far.
    pub async fn set_password(tx: &mut Tx, id: UserId, hash: &str) -> QueryResult<Option<Self>> {
        let changes = (users::password_hash.eq(hash), users::token_epoch.eq(users::token_epoch + 1));
        let statement = diesel::update(users::table.find(id)).set(changes);
        tx.save(statement.returning(Self::as_returning())).await
    }

    /// Replaces the hash of an unchanged password by one with newer parameters.
    pub async fn rehash_password(tx: &mut Tx, id: UserId, old: &str, new: &str) -> QueryResult<Option<Self>> {
        let unchanged = users::table.find(id).filter(users::password_hash.eq(old));
        let statement = diesel::update(unchanged).set(users::password_hash.eq(new));
        tx.save(statement.returning(Self::as_returning())).await
    }

    /// The name to show.
    #[must_use]
    pub fn shown_name(&self) -> &str {
        self.display_name.as_deref().unwrap_or(&self.name)
    }
}

impl Credentials {
    /// By address, in lower case.
    pub async fn find_by_email(db: &mut Reader, email: &str) -> QueryResult<Option<Self>> {
        db.first(users::table.filter(users::email.eq(email)).select(Self::as_select())).await
    }

    /// By id, keeping the password from being changed until the transaction ends.
    pub async fn lock(tx: &mut Tx, id: UserId) -> QueryResult<Option<Self>> {
        tx.first(users::table.find(id).select(Self::as_select()).for_update()).await
    }

    /// By id.
    pub async fn find(db: &mut Reader, id: UserId) -> QueryResult<Option<Self>> {
        db.first(users::table.find(id).select(Self::as_select())).await
    }
}
