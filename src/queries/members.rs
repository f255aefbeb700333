//! Cached reads about members: the list, and the role of one, which every request to a workspace needs.

use chrono::{DateTime, Utc};
use diesel::QueryResult;
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use super::{
    CachedQuery, Kind, tags, timestamp,
    users::{PersonView, SignInState},
    view::{Page, View},
};
use crate::{
    cache::{ArgumentsHash, Json, Key, Stored as _, Tag},
    db::Reader,
    domain::{
        id::{UserId, WorkspaceId},
        role::Role,
    },
    http::cursor::{CursorKey, Scope},
    models::{
        members::{Member, MemberPosition},
        users::User,
    },
};

/// A member of a workspace.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Member)]
pub struct MemberView {
    /// The user's id: a person is a member once.
    pub id: UserId,
    pub object: &'static str,
    pub workspace_id: WorkspaceId,
    pub user: PersonView,
    pub role: Role,
    #[serde(serialize_with = "timestamp::serialize")]
    pub joined_at: DateTime<Utc>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub updated_at: DateTime<Utc>,
    pub version: i64,
}

impl MemberView {
    /// A member and the person.
    #[must_use]
    pub fn new(member: Member, user: User) -> Self {
        let Member { workspace_id, user_id, role, version, joined_at, updated_at } = member;
        let user = PersonView::from(user);
        Self {
            id: user_id,
            object: "member",
            workspace_id,
            user,
            role,
            joined_at,
            created_at: joined_at,
            updated_at,
            version,
        }
    }
}

/// What has to be known of whoever reads something in a workspace, in one entry: nearly each such request needs both.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Standing {
    pub role: Role,
    pub sign_in: SignInState,
}

/// As [`SignInState`] is.
impl Serialize for Standing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.role, &self.sign_in).serialize(serializer)
    }
}

/// The standing of a user in a workspace; nothing if the user is no member or there is no such workspace.
#[derive(Debug)]
pub struct StandingOf {
    pub workspace: WorkspaceId,
    pub user: UserId,
}

impl CachedQuery for StandingOf {
    type Value = Json<Standing>;
    const KIND: Kind = Kind::Members;

    fn key(&self) -> Key {
        let schema = SignInState::SCHEMA;
        Key::new("workspace", self.workspace.as_uuid(), schema).suffix("standing").sub_id(self.user.as_uuid())
    }

    fn tags(&self) -> Vec<Tag> {
        let member = tags::workspace_member(self.workspace, self.user);
        vec![member, tags::user(self.user), tags::user_sessions(self.user)]
    }

    async fn load(&self, db: &mut Reader, _learned: &mut Vec<Tag>) -> QueryResult<Option<Self::Value>> {
        let row = Member::find_with_user(db, self.workspace, self.user).await?;
        let Some((Member { role, .. }, user)) = row else { return Ok(None) };
        Ok(Some(Json(Standing { role, sign_in: SignInState::of(user, db).await? })))
    }

    fn compared(value: &Self::Value) -> Option<Vec<u8>> {
        Json((value.0.role, value.0.sign_in.of_rows_alone())).encode()
    }
}

/// The role of a user in a workspace; nothing if the user is no member or there is no such workspace.
#[derive(Debug)]
pub struct RoleOf {
    pub workspace: WorkspaceId,
    pub user: UserId,
}

impl CachedQuery for RoleOf {
    type Value = Json<Role>;
    const KIND: Kind = Kind::Members;

    fn key(&self) -> Key {
        Key::new("workspace", self.workspace.as_uuid(), 1).suffix("role").sub_id(self.user.as_uuid())
    }

    fn tags(&self) -> Vec<Tag> {
        vec![tags::workspace_member(self.workspace, self.user)]
    }

    async fn load(&self, db: &mut Reader, _learned: &mut Vec<Tag>) -> QueryResult<Option<Self::Value>> {
        Ok(Member::find_role(db, self.workspace, self.user).await?.map(Json))
    }
}

/// One member.
#[derive(Debug)]
pub struct MemberByUser {
    pub workspace: WorkspaceId,
    pub user: UserId,
}

impl CachedQuery for MemberByUser {
    type Value = View;
    const KIND: Kind = Kind::Members;

    fn key(&self) -> Key {
        Key::new("workspace", self.workspace.as_uuid(), 1).suffix("member").sub_id(self.user.as_uuid())
    }

    fn tags(&self) -> Vec<Tag> {
        vec![tags::workspace_member(self.workspace, self.user), tags::user(self.user)]
    }

    async fn load(&self, db: &mut Reader, _learned: &mut Vec<Tag>) -> QueryResult<Option<View>> {
        let row = Member::find_with_user(db, self.workspace, self.user).await?;
        Ok(row.map(|(member, user)| View::object(member.version, &MemberView::new(member, user))))
    }
}

/// A page of a workspace's members, longest standing first.
#[derive(Debug)]
pub struct MembersOfWorkspace {
    pub workspace: WorkspaceId,
    pub after: Option<MemberPosition>,
    pub limit: u16,
    pub cursors: CursorKey,
}

impl MembersOfWorkspace {
    /// What its cursors are for.
    #[must_use]
    pub fn scope(workspace: WorkspaceId) -> Scope {
        Scope::new("members", workspace.as_uuid())
    }
}

impl CachedQuery for MembersOfWorkspace {
    type Value = View;
    const KIND: Kind = Kind::Members;

    fn key(&self) -> Key {
        Key::new("workspace", self.workspace.as_uuid(), 1)
            .suffix("members")
            .arguments(ArgumentsHash::of(&(self.limit, self.after)))
    }

    fn tags(&self) -> Vec<Tag> {
        vec![tags::workspace_members(self.workspace)]
    }

    async fn load(&self, db: &mut Reader, learned: &mut Vec<Tag>) -> QueryResult<Option<View>> {
        let rows = Member::list_with_users(db, self.workspace, self.after, i64::from(self.limit) + 1).await?;
        let sign =
            |(last, _): &(Member, User)| self.cursors.sign(Self::scope(self.workspace), &last.position());
        let page = Page::new(rows, self.limit, sign);
        learned.extend(page.data.iter().map(|(member, _)| tags::user(member.user_id)));
        Ok(Some(View::page(page.map(|(member, user)| MemberView::new(member, user)))))
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::id::SessionId;

    use super::*;

    #[test]
    fn a_standing_is_kept_without_names_and_read_with_them_too() {
        let session = SessionId::new();
        let sign_in =
            SignInState { token_epoch: 7, is_active: true, is_staff: false, ended_sessions: vec![session] };
        let standing = Standing { role: Role::Admin, sign_in };
        let kept = format!(r#"["admin",[7,true,false,["{session}"]]]"#);
        assert_eq!(serde_json::to_string(&standing).unwrap(), kept);
        let named = format!(
            r#"{{"role":"admin","sign_in":{{"token_epoch":7,"is_active":true,"is_staff":false,
                "ended_sessions":["{session}"]}}}}"#
        );
        for text in [&kept, &named] {
            assert_eq!(serde_json::from_str::<Standing>(text).unwrap(), standing);
        }
        for short in [r#"["admin"]"#, r#"["admin",[7,true,false]]"#, r#"["admin",[7,true]]"#] {
            assert!(serde_json::from_str::<Standing>(short).is_err(), "what is missing is not assumed");
        }
    }
}
