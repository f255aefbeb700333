//! Cached reads about users: profiles, and the sign-in state that every request needs.

use chrono::{DateTime, Utc};
use diesel::QueryResult;
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use super::{CachedQuery, Kind, tags, timestamp, view::View};
use crate::{
    auth::token::ACCESS_TTL,
    cache::{Json, Key, Stored as _, Tag},
    db::Reader,
    domain::id::{SessionId, UserId},
    models::{sessions::Session, users::User},
};

/// A person as others' objects show it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Person)]
pub struct PersonView {
    pub id: UserId,
    pub name: String,
    pub display_name: String,
    pub avatar_url: Option<String>,
}

impl From<User> for PersonView {
    fn from(user: User) -> Self {
        let display_name = user.shown_name().to_owned();
        Self { id: user.id, name: user.name, display_name, avatar_url: user.avatar_url }
    }
}

/// A profile.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub struct UserView {
    pub id: UserId,
    pub object: &'static str,
    pub name: String,
    pub display_name: String,
    pub avatar_url: Option<String>,
    pub timezone: String,
    pub status_text: Option<String>,
    /// Only to oneself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub updated_at: DateTime<Utc>,
    pub version: i64,
}

impl UserView {
    /// As others see it.
    #[must_use]
    pub fn public(user: User) -> Self {
        let own = Self::own(user);
        Self { email: None, ..own }
    }

    /// As the user sees it.
    #[must_use]
    pub fn own(user: User) -> Self {
        Self {
            id: user.id,
            object: "user",
            display_name: user.shown_name().to_owned(),
            name: user.name,
            avatar_url: user.avatar_url,
            timezone: user.timezone,
            status_text: user.status_text,
            email: Some(user.email),
            created_at: user.created_at,
            updated_at: user.updated_at,
            version: user.version,
        }
    }
}

/// A profile as others see it.
#[derive(Debug)]
pub struct UserById(pub UserId);

impl CachedQuery for UserById {
    type Value = View;
    const KIND: Kind = Kind::User;

    fn key(&self) -> Key {
        Key::new("user", self.0.as_uuid(), 1)
    }

    fn tags(&self) -> Vec<Tag> {
        vec![tags::user(self.0)]
    }

    async fn load(&self, db: &mut Reader, _learned: &mut Vec<Tag>) -> QueryResult<Option<View>> {
        let user = User::find(db, self.0).await?;
        Ok(user.map(|user| View::object(user.version, &UserView::public(user))))
    }
}

/// A profile as its user sees it.
#[derive(Debug)]
pub struct OwnProfile(pub UserId);

impl CachedQuery for OwnProfile {
    type Value = View;
    const KIND: Kind = Kind::User;

    fn key(&self) -> Key {
        Key::new("user", self.0.as_uuid(), 1).suffix("own")
    }

    fn tags(&self) -> Vec<Tag> {
        vec![tags::user(self.0)]
    }

    async fn load(&self, db: &mut Reader, _learned: &mut Vec<Tag>) -> QueryResult<Option<View>> {
        let user = User::find(db, self.0).await?;
        Ok(user.map(|user| View::object(user.version, &UserView::own(user))))
    }
}

/// What decides whether an access token is still good. It is kept as [`SignInStateOf`] and within
/// [`StandingOf`](super::members::StandingOf).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SignInState {
    /// Tokens of a lower epoch are refused.
    pub token_epoch: i32,
    pub is_active: bool,
    pub is_staff: bool,
    /// Sessions that ended while access tokens of theirs may still be about.
    pub ended_sessions: Vec<SessionId>,
}

/// Without the names of its members, which each request would read that finds it in Redis. A list is understood as well as
/// an object.
impl Serialize for SignInState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { token_epoch, is_active, is_staff, ended_sessions } = self;
        (token_epoch, is_active, is_staff, ended_sessions).serialize(serializer)
    }
}

impl SignInState {
    /// The version of this type, and of whatever it is kept within.
    pub(super) const SCHEMA: u16 = 1;

    /// As the rows say.
    pub(super) async fn of(user: User, db: &mut Reader) -> QueryResult<Self> {
        // Twice as long as an access token lives, since clocks differ.
        let ended_sessions = Session::list_ended(db, user.id, Utc::now() - 2 * ACCESS_TTL).await?;
        let User { token_epoch, is_active, is_staff, .. } = user;
        Ok(Self { token_epoch, is_active, is_staff, ended_sessions })
    }

    /// What the same rows always make the same of: sessions that have ended long ago are left out.
    pub(super) const fn of_rows_alone(&self) -> (i32, bool, bool) {
        (self.token_epoch, self.is_active, self.is_staff)
    }

    /// Whether a token of this session and epoch is still good.
    #[must_use]
    pub fn admits(&self, session: SessionId, token_epoch: i32) -> bool {
        self.is_active && token_epoch >= self.token_epoch && !self.ended_sessions.contains(&session)
    }
}

/// The sign-in state of a user.
#[derive(Debug)]
pub struct SignInStateOf(pub UserId);

impl CachedQuery for SignInStateOf {
    type Value = Json<SignInState>;
    const KIND: Kind = Kind::User;

    fn key(&self) -> Key {
        Key::new("user", self.0.as_uuid(), SignInState::SCHEMA).suffix("sign-in")
    }

    fn tags(&self) -> Vec<Tag> {
        vec![tags::user(self.0), tags::user_sessions(self.0)]
    }

    async fn load(&self, db: &mut Reader, _learned: &mut Vec<Tag>) -> QueryResult<Option<Self::Value>> {
        let Some(user) = User::find(db, self.0).await? else { return Ok(None) };
        Ok(Some(Json(SignInState::of(user, db).await?)))
    }

    fn compared(value: &Self::Value) -> Option<Vec<u8>> {
        Json(value.0.of_rows_alone()).encode()
    }
}

/// Whether one user may see another's profile: they share a workspace.
#[derive(Debug)]
pub struct MaySee {
    pub viewer: UserId,
    pub user: UserId,
}

impl CachedQuery for MaySee {
    type Value = Json<bool>;
    const KIND: Kind = Kind::Members;

    fn key(&self) -> Key {
        Key::new("user", self.user.as_uuid(), 1).suffix("seen-by").sub_id(self.viewer.as_uuid())
    }

    fn tags(&self) -> Vec<Tag> {
        vec![tags::user_workspaces(self.viewer), tags::user_workspaces(self.user)]
    }

    async fn load(&self, db: &mut Reader, _learned: &mut Vec<Tag>) -> QueryResult<Option<Self::Value>> {
        Ok(Some(Json(User::share_workspace(db, self.viewer, self.user).await?)))
    }
}
