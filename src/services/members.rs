//! Who is in a workspace. Admins manage members; only owners make and unmake owners; anybody may leave. The last owner
//! can neither leave nor be demoted: every change that could end an ownership holds the workspace's lock, and looks only
//! then who may do what, so that nobody acts in a role that was taken away a moment ago.

use diesel::result::{DatabaseErrorKind, Error as QueryError};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::{self, Actor},
    db::{Tx, Written},
    domain::{
        event::{Audience, EventKind},
        id::{UserId, WorkspaceId},
        notification::NotificationKind,
        role::Role,
        text::Email,
    },
    error::{AppError, Faults},
    http::body::{Creation, required},
    models::{
        channels::{Channel, ChannelMember},
        members::Member,
        users::User,
        workspaces::Workspace,
    },
    queries::{members::MemberView, view::View},
    services::{
        events,
        notifications::{self, Subject},
        once::{self, Created},
    },
};

/// A new member, by id or by address.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddMember {
    user_id: Option<UserId>,
    email: Option<String>,
    #[serde(default = "AddMember::default_role")]
    role: Role,
}

impl AddMember {
    const fn default_role() -> Role {
        Role::Member
    }
}

/// A merge patch of a membership.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeMember {
    #[serde(default, deserialize_with = "required")]
    #[schema(value_type = Role, required = false)]
    role: Option<Role>,
}

/// Who is meant.
enum Person {
    Id(UserId),
    Email(Email),
}

/// Adds a member.
pub async fn add(
    app: &App,
    actor: Actor,
    workspace: WorkspaceId,
    new: Creation<AddMember>,
) -> Result<Written<Created>, AppError> {
    let input = new.body;
    let person = match (input.user_id, &input.email) {
        (Some(id), None) => Person::Id(id),
        (None, Some(email)) => {
            let mut faults = Faults::default();
            let email = faults.member("email", Email::parse(email));
            Person::Email(faults.check(email)?)
        }
        _ => return Err(AppError::member("#", "must have either user_id or email")),
    };
    once::create(app, actor, new.once, async move |tx| {
        let own = auth::require(tx, actor, workspace, Role::Admin).await?;
        may_grant(own, input.role)?;
        let user = match &person {
            Person::Id(id) => {
                User::find(tx, *id).await?.ok_or_else(|| AppError::member("#/user_id", "is nobody's id"))?
            }
            Person::Email(email) => {
                let user = User::find_by_email(tx, email.as_str()).await?;
                user.ok_or_else(|| AppError::member("#/email", "is nobody's address here"))?
            }
        };
        let inserted = Member::insert(tx, workspace, user.id, input.role).await.map_err(|err| match err {
            // It was deleted a moment ago.
            QueryError::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _) => AppError::NotFound,
            other => other.into(),
        })?;
        let member = inserted.ok_or(AppError::Conflict("This user is a member already."))?;
        let path = format!("/v1/workspaces/{workspace}/members/{}", user.id);
        let (version, added) = (member.version, user.id);
        let view = View::object(version, &MemberView::new(member, user));
        let audience = Audience::Workspace(workspace, Some(added));
        events::tell_view(tx, EventKind::MemberAdded, audience, &view)?;
        let subject = Subject::workspace(workspace);
        notifications::notify(tx, actor, subject, NotificationKind::WorkspaceAdded, [added]).await?;
        Ok(Created::new(path, view))
    })
    .await
}

/// Gives a member another role.
pub async fn change(
    app: &App,
    actor: Actor,
    workspace: WorkspaceId,
    user: UserId,
    patch: ChangeMember,
) -> Result<Written<View>, AppError> {
    app.db
        .write(async move |tx| {
            Workspace::lock(tx, workspace).await?.ok_or(AppError::NotFound)?;
            let own = auth::require(tx, actor, workspace, Role::Admin).await?;
            let present = Member::find_role(tx, workspace, user).await?.ok_or(AppError::NotFound)?;
            if let Some(role) = patch.role
                && role != present
            {
                may_grant(own, role)?;
                may_take(tx, own, workspace, present).await?;
                Member::set_role(tx, workspace, user, role).await?;
            }
            let (member, user) =
                Member::find_with_user(tx, workspace, user).await?.ok_or(AppError::NotFound)?;
            Ok(View::object(member.version, &MemberView::new(member, user)))
        })
        .await
}

/// Removes a member, or leaves.
pub async fn remove(
    app: &App,
    actor: Actor,
    workspace: WorkspaceId,
    user: UserId,
) -> Result<Written<()>, AppError> {
    app.db
        .write(async move |tx| {
            let leaves = user == actor.user_id;
            let least = if leaves { Role::Guest } else { Role::Admin };
            Workspace::lock(tx, workspace).await?.ok_or(AppError::NotFound)?;
            let own = auth::require(tx, actor, workspace, least).await?;
            let (member, person) =
                Member::find_with_user(tx, workspace, user).await?.ok_or(AppError::NotFound)?;
            may_take(tx, own, workspace, member.role).await?;
            hand_over_channels(tx, actor, workspace, user).await?;
            Member::delete(tx, workspace, user).await?.ok_or(AppError::NotFound)?;
            let audience = Audience::Workspace(workspace, Some(user));
            events::tell(tx, EventKind::MemberRemoved, audience, &MemberView::new(member, person))
        })
        .await
}

/// A private channel that nobody else is in would be seen by nobody: an owner of the workspace is put into it.
async fn hand_over_channels(
    tx: &mut Tx,
    actor: Actor,
    workspace: WorkspaceId,
    user: UserId,
) -> Result<(), AppError> {
    // Nobody else leaves them meanwhile.
    Channel::lock_private_of(tx, workspace, user).await?;
    let channels = Channel::list_private_of_one(tx, workspace, user).await?;
    let Some(heir) = Member::find_other_owner(tx, workspace, user).await? else { return Ok(()) };
    for channel in channels {
        ChannelMember::insert(tx, workspace, channel, heir).await?;
        let subject = Subject::channel(workspace, channel);
        notifications::notify(tx, actor, subject, NotificationKind::ChannelAdded, [heir]).await?;
    }
    Ok(())
}

fn may_grant(own: Role, role: Role) -> Result<(), AppError> {
    if role == Role::Owner && own != Role::Owner {
        return Err(AppError::Forbidden("Only an owner may make owners."));
    }
    Ok(())
}

/// Whether a role may be taken away. To be asked under the workspace's lock.
async fn may_take(tx: &mut Tx, own: Role, workspace: WorkspaceId, present: Role) -> Result<(), AppError> {
    if present != Role::Owner {
        return Ok(());
    }
    if own != Role::Owner {
        return Err(AppError::Forbidden("Only an owner may take an owner's role."));
    }
    if Member::count_owners(tx, workspace).await? <= 1 {
        return Err(AppError::LastOwner);
    }
    Ok(())
}
