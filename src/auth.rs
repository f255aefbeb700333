//! Who may do what.

pub mod password;
pub mod token;

use crate::{
    cache::{LoadError, Token},
    db::Tx,
    domain::{
        id::{ChannelId, SessionId, UserId, WorkspaceId},
        role::Role,
    },
    error::AppError,
    models::{channels::ChannelReader, members::Member, users::Author},
    queries::{
        Queries,
        channels::ReadershipOf,
        members::{RoleOf, StandingOf},
        users::{SignInState, SignInStateOf},
    },
};

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Actor {
    /// The user.
    pub user_id: UserId,
}

/// What somebody has shown to be let in, and for how long it is good.
#[derive(Debug, Clone, Copy)]
pub struct Credential {
    pub session_id: SessionId,
    pub token_epoch: i32,
    /// In seconds since 1970.
    pub expires_at: u64,
}

/// The actor's role in a workspace, for reading: from the cache.
///
/// # Errors
/// [`AppError::NotFound`] for whoever is no member: to them the workspace does not exist.
pub async fn membership(
    queries: &Queries,
    actor: Actor,
    workspace: WorkspaceId,
    token: Option<&Token>,
) -> Result<Role, AppError> {
    let user = actor.user_id;
    let role = if queries.keeps_anything() {
        // The same that is asked for to let him in.
        let read = queries.get(StandingOf { workspace, user }, token).await?;
        read.value.map(|standing| standing.0.role)
    } else {
        queries.get(RoleOf { workspace, user }, token).await?.value.map(|role| role.0)
    };
    role.ok_or(AppError::NotFound)
}

/// What comes of looking at what somebody has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedIn {
    /// It is good.
    Yes { is_staff: bool },
    /// It is good no more.
    NoLonger,
    /// There is no such user.
    Nobody,
}

impl SignedIn {
    fn by(state: Option<&SignInState>, credential: &Credential) -> Self {
        match state {
            None => Self::Nobody,
            Some(state) if state.admits(credential.session_id, credential.token_epoch) => {
                Self::Yes { is_staff: state.is_staff }
            }
            Some(_) => Self::NoLonger,
        }
    }
}

/// Whether what somebody has shown is still good: from the cache. For what he reads in a workspace, of which his role has
/// to be known as well, both are read as one.
///
/// # Errors
/// When it is not cached and cannot be loaded.
pub async fn sign_in(
    queries: &Queries,
    user: UserId,
    credential: &Credential,
    workspace: Option<WorkspaceId>,
    token: Option<&Token>,
) -> Result<SignedIn, LoadError> {
    if let Some(workspace) = workspace.filter(|_| queries.keeps_anything())
        && let Some(standing) = queries.get(StandingOf { workspace, user }, token).await?.value
    {
        return Ok(SignedIn::by(Some(&standing.0.sign_in), credential));
    }
    let state = queries.get(SignInStateOf(user), token).await?.value;
    Ok(SignedIn::by(state.as_deref().map(|state| &state.0), credential))
}

/// The same at once. `None`: memory does not have it.
#[must_use]
pub fn recall_sign_in(
    queries: &Queries,
    user: UserId,
    credential: &Credential,
    workspace: Option<WorkspaceId>,
    token: Option<&Token>,
) -> Option<SignedIn> {
    let standing = workspace.and_then(|workspace| queries.recall(&StandingOf { workspace, user }, token));
    if let Some(standing) = standing.and_then(|read| read.value) {
        return Some(SignedIn::by(Some(&standing.0.sign_in), credential));
    }
    // Whoever is known to be signed in no more is told so, whichever workspace he names.
    let state = queries.recall(&SignInStateOf(user), token)?.value;
    Some(SignedIn::by(state.as_deref().map(|state| &state.0), credential))
}

/// The actor's role in a workspace, for writing: from the rows that the write is based on. At least `least` is required.
///
/// # Errors
/// [`AppError::NotFound`] for whoever is no member, [`AppError::Forbidden`] for too low a role.
pub async fn require(
    tx: &mut Tx,
    actor: Actor,
    workspace: WorkspaceId,
    least: Role,
) -> Result<Role, AppError> {
    let role = Member::find_role(tx, workspace, actor.user_id).await?.ok_or(AppError::NotFound)?;
    if role.at_least(least) {
        Ok(role)
    } else {
        Err(AppError::Forbidden(match least {
            Role::Owner => "Only an owner may do this.",
            Role::Admin => "Only an admin or an owner may do this.",
            Role::Guest | Role::Member => "Guests may not do this.",
        }))
    }
}

/// The actor's role as a reader of a channel, for reading: from the cache.
///
/// # Errors
/// [`AppError::NotFound`] for whoever does not read it, and if it is in another workspace.
pub async fn readership(
    queries: &Queries,
    actor: Actor,
    workspace: WorkspaceId,
    channel: ChannelId,
    token: Option<&Token>,
) -> Result<Role, AppError> {
    let read = queries.get(ReadershipOf { channel, user: actor.user_id }, token).await?;
    let readership = read.value.map(|readership| readership.0);
    let here = readership.filter(|readership| readership.workspace_id == workspace);
    here.map(|readership| readership.role).ok_or(AppError::NotFound)
}

/// The actor as a reader of a channel, for writing: from the rows that the write is based on.
///
/// # Errors
/// [`AppError::NotFound`] for whoever does not read it, and if it is in another workspace.
pub async fn require_reader(
    tx: &mut Tx,
    actor: Actor,
    workspace: WorkspaceId,
    channel: ChannelId,
) -> Result<ChannelReader, AppError> {
    let reader = ChannelReader::find(tx, channel, actor.user_id).await?;
    reader.filter(|reader| reader.workspace_id == workspace).ok_or(AppError::NotFound)
}

/// The same for whoever is to be shown as the author of what he writes there: as he is called at this moment, before he
/// writes it, and at which time he does.
///
/// # Errors
/// [`AppError::NotFound`] for whoever does not read it, and if it is in another workspace.
pub async fn require_author(
    tx: &mut Tx,
    actor: Actor,
    workspace: WorkspaceId,
    channel: ChannelId,
) -> Result<Author, AppError> {
    let found = ChannelReader::find_author(tx, channel, actor.user_id).await?;
    found.filter(|(at, _)| *at == workspace).map(|(_, author)| author).ok_or(AppError::NotFound)
}
