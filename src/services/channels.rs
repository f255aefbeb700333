//! Channels and who is in them. Members of the workspace make and change channels, guests read them; a private channel
//! exists only for its own members. Whoever made a channel, and every admin who sees it, may delete it and take people
//! out of it; anybody may leave. Who may do what is looked at under the channel's lock, so that nobody acts on a seat that was
//! taken away a moment ago.

use diesel::result::{DatabaseErrorKind, Error as QueryError};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::{self, Actor},
    db::{Tx, Written},
    domain::{
        id::{ChannelId, UserId, WorkspaceId},
        notification::NotificationKind,
        role::Role,
        text::{ChannelName, ChannelTopic},
    },
    error::{AppError, Faults},
    http::body::{Creation, required},
    models::{
        channels::{Channel, ChannelChanges, ChannelDetails, ChannelMember, ChannelReader, NewChannel},
        members::Member,
    },
    queries::{
        channels::{ChannelMemberView, ChannelView},
        view::View,
    },
    services::{
        notifications::{self, Subject},
        once::{self, Created},
    },
};

/// A new channel.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateChannel {
    name: String,
    topic: Option<String>,
    /// Seen by its own members only.
    #[serde(default)]
    is_private: bool,
}

/// A merge patch of a channel.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeChannel {
    #[serde(default, deserialize_with = "required")]
    #[schema(value_type = String, required = false)]
    name: Option<String>,
    #[serde(default, deserialize_with = "required")]
    #[schema(value_type = String, required = false)]
    topic: Option<String>,
    #[serde(default, deserialize_with = "required")]
    #[schema(value_type = bool, required = false)]
    is_private: Option<bool>,
}

/// Makes a channel, whose first member is the caller.
pub async fn create(
    app: &App,
    actor: Actor,
    workspace: WorkspaceId,
    new: Creation<CreateChannel>,
) -> Result<Written<Created>, AppError> {
    let input = new.body;
    let mut faults = Faults::default();
    let name = faults.member("name", ChannelName::parse(&input.name));
    let topic = faults.member("topic", ChannelTopic::parse(input.topic.as_deref().unwrap_or_default()));
    let (name, topic) = faults.check(name.zip(topic))?;
    once::create(app, actor, new.once, async move |tx| {
        auth::require(tx, actor, workspace, Role::Member).await?;
        let new = NewChannel {
            id: ChannelId::new(),
            workspace_id: workspace,
            name: name.as_str(),
            topic: topic.as_str(),
            is_private: input.is_private,
            created_by: actor.user_id,
        };
        let channel = Channel::insert(tx, new).await.map_err(name_taken)?;
        let id = channel.ok_or_else(|| AppError::internal("a channel was not inserted"))?.id;
        seat(tx, workspace, id, actor.user_id).await?;
        Ok(Created::new(format!("/v1/workspaces/{workspace}/channels/{id}"), view(tx, id).await?))
    })
    .await
}

/// Changes a channel. A patch that names nothing raises no version.
pub async fn change(
    app: &App,
    actor: Actor,
    (workspace, id): (WorkspaceId, ChannelId),
    patch: ChangeChannel,
) -> Result<Written<View>, AppError> {
    let mut faults = Faults::default();
    let name = faults.optional("name", patch.name.as_deref().map(ChannelName::parse));
    let topic = faults.optional("topic", patch.topic.as_deref().map(ChannelTopic::parse));
    faults.check(Some(()))?;
    app.db
        .write(async move |tx| {
            Channel::lock(tx, id).await?.ok_or(AppError::NotFound)?;
            require_member(tx, actor, workspace, id).await?;
            let changes = ChannelChanges {
                name: name.as_ref().map(ChannelName::as_str),
                topic: topic.as_ref().map(ChannelTopic::as_str),
                is_private: patch.is_private,
            };
            if !changes.is_empty() {
                Channel::update(tx, id, &changes).await.map_err(name_taken)?.ok_or(AppError::NotFound)?;
            }
            if changes.is_private == Some(true) {
                // Whoever closes the door stays inside.
                seat(tx, workspace, id, actor.user_id).await?;
            }
            view(tx, id).await
        })
        .await
}

/// Deletes a channel and everything in it.
pub async fn delete(
    app: &App,
    actor: Actor,
    (workspace, id): (WorkspaceId, ChannelId),
) -> Result<Written<()>, AppError> {
    app.db
        .write(async move |tx| {
            let channel = Channel::lock(tx, id).await?.ok_or(AppError::NotFound)?;
            let reader = auth::require_reader(tx, actor, workspace, id).await?;
            if !manages(actor, &reader, &channel) {
                return Err(AppError::Forbidden("Only who made a channel or an admin may delete it."));
            }
            Channel::delete(tx, id).await?.map(drop).ok_or(AppError::NotFound)
        })
        .await
}

/// Puts a member of the workspace into a channel: anybody himself into a public one, members anybody into any they see.
pub async fn add_member(
    app: &App,
    actor: Actor,
    (workspace, channel, user): (WorkspaceId, ChannelId, UserId),
) -> Result<Written<Created>, AppError> {
    app.db
        .write(async move |tx| {
            Channel::lock(tx, channel).await?.ok_or(AppError::NotFound)?;
            let reader = if user == actor.user_id {
                auth::require_reader(tx, actor, workspace, channel).await?
            } else {
                require_member(tx, actor, workspace, channel).await?
            };
            Member::find_role(tx, workspace, user).await?.ok_or(AppError::NotFound)?;
            let inserted = seat(tx, workspace, channel, user).await?;
            if inserted.is_some() && reader.is_private {
                let subject = Subject::channel(workspace, channel);
                notifications::notify(tx, actor, subject, NotificationKind::ChannelAdded, [user]).await?;
            }
            let path = format!("/v1/workspaces/{workspace}/channels/{channel}/members/{user}");
            let found = ChannelMember::find_with_user(tx, channel, user).await?;
            let (member, user) = found.ok_or(AppError::NotFound)?;
            let view = View::object(member.version, &ChannelMemberView::new(member, user));
            Ok(if inserted.is_some() { Created::new(path, view) } else { Created::before(path, view) })
        })
        .await
}

/// Takes somebody out of a channel, or leaves it.
pub async fn remove_member(
    app: &App,
    actor: Actor,
    (workspace, channel, user): (WorkspaceId, ChannelId, UserId),
) -> Result<Written<()>, AppError> {
    app.db
        .write(async move |tx| {
            let present = Channel::lock(tx, channel).await?.ok_or(AppError::NotFound)?;
            let reader = auth::require_reader(tx, actor, workspace, channel).await?;
            if user != actor.user_id && !manages(actor, &reader, &present) {
                return Err(AppError::Forbidden("Only who made a channel or an admin may do this."));
            }
            ChannelMember::delete(tx, channel, user).await?.ok_or(AppError::NotFound)?;
            if present.is_private && ChannelMember::count(tx, channel).await? == 0 {
                return Err(AppError::Conflict("Nobody would see this channel any more: delete it instead."));
            }
            Ok(())
        })
        .await
}

/// The actor as a reader of the channel who is no guest.
async fn require_member(
    tx: &mut Tx,
    actor: Actor,
    workspace: WorkspaceId,
    channel: ChannelId,
) -> Result<ChannelReader, AppError> {
    let reader = auth::require_reader(tx, actor, workspace, channel).await?;
    if reader.role.at_least(Role::Member) {
        return Ok(reader);
    }
    Err(AppError::Forbidden("Guests may not do this."))
}

/// Puts a user into a channel. `None`: he is in it.
async fn seat(
    tx: &mut Tx,
    workspace: WorkspaceId,
    channel: ChannelId,
    user: UserId,
) -> Result<Option<ChannelMember>, AppError> {
    ChannelMember::insert(tx, workspace, channel, user).await.map_err(|err| match err {
        // The user left the workspace a moment ago.
        QueryError::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _) => AppError::NotFound,
        other => other.into(),
    })
}

fn manages(actor: Actor, reader: &ChannelReader, channel: &Channel) -> bool {
    reader.role.at_least(Role::Admin) || channel.created_by == actor.user_id
}

fn name_taken(err: QueryError) -> AppError {
    match err {
        QueryError::DatabaseError(DatabaseErrorKind::UniqueViolation, _) => {
            AppError::Conflict("Another channel of this workspace has this name.")
        }
        // The workspace was deleted a moment ago.
        QueryError::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _) => AppError::NotFound,
        other => other.into(),
    }
}

/// The channel as this transaction has left it.
async fn view(tx: &mut Tx, id: ChannelId) -> Result<View, AppError> {
    let row = ChannelDetails::find(tx, id).await?.ok_or(AppError::NotFound)?;
    Ok(View::object(row.version, &ChannelView::from(row)))
}
