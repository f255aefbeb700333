//! Signing up, in and out.

use std::{net::IpAddr, sync::Arc};

use chrono::Utc;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::{
        Actor,
        password::{PasswordError, needs_rehash},
        token::{ACCESS_TTL, AccessTokens, RefreshToken},
    },
    db::{Tx, Written},
    domain::{
        id::{SessionId, UserId},
        text::{Email, Password, PersonName},
    },
    error::{AppError, Faults, SignIn},
    models::{
        sessions::{SESSION_LIFE, Session, StoredRefreshToken},
        users::{Credentials, NewUser, User},
    },
    queries::users::UserView,
    services::events,
};

/// Somebody new.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Register {
    email: String,
    password: String,
    name: String,
}

/// Somebody known.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogIn {
    email: String,
    password: String,
}

/// A refresh token, to be used up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    refresh_token: String,
}

/// A new password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    current_password: String,
    new_password: String,
}

/// What whoever signs in gets.
#[derive(Debug, Serialize, ToSchema)]
pub struct Grant {
    user: UserView,
    access_token: String,
    token_type: &'static str,
    /// Seconds.
    expires_in: u64,
    refresh_token: String,
}

impl Grant {
    /// Who has signed in.
    #[must_use]
    pub const fn user_id(&self) -> UserId {
        self.user.id
    }
}

impl From<PasswordError> for AppError {
    fn from(err: PasswordError) -> Self {
        match err {
            PasswordError::Busy | PasswordError::Interrupted(_) => Self::Unavailable(err.into()),
            other => Self::internal(other),
        }
    }
}

/// Makes an account and signs it in.
pub async fn register(app: &App, address: IpAddr, input: Register) -> Result<Written<Grant>, AppError> {
    let mut faults = Faults::default();
    let email = faults.member("email", Email::parse(&input.email));
    let password = faults.member("password", Password::parse(&input.password));
    let name = faults.member("name", PersonName::parse(&input.name));
    let parsed = faults.check(email.zip(password).zip(name));
    let ((email, password), name) = parsed?;
    let attempt = app.limits.charge_address(address).await?;
    let hash = app.passwords.hash(password).await?;
    let from = app.limits.address_digest(address);
    let tokens = Arc::clone(&app.access_tokens);
    let outcome = app
        .db
        .write(async move |tx| {
            let new = NewUser {
                id: UserId::new(),
                email: email.as_str(),
                name: name.as_str(),
                password_hash: &hash,
            };
            let taken = AppError::Conflict("There is an account with this e-mail address.");
            let user = User::insert(tx, new).await?.ok_or(taken)?;
            begin_session(&tokens, tx, user, &from).await
        })
        .await;
    attempt.settle(&outcome);
    outcome
}

/// Signs in. Unknown accounts and wrong passwords get the same answer after the same time.
///
/// Each attempt is charged to its address and to the account before the password is looked at, so that of many at once no
/// more get through than the limits allow; both get it back if the password is right.
pub async fn log_in(app: &App, address: IpAddr, input: LogIn) -> Result<Written<Grant>, AppError> {
    let refused = || AppError::Unauthenticated(SignIn::WrongCredentials);
    let (Ok(email), Ok(password)) = (Email::parse(&input.email), Password::parse(&input.password)) else {
        return Err(refused());
    };
    let attempt = app.limits.charge_address(address).await?;
    let outcome = log_in_from(app, &app.limits.address_digest(address), &email, password).await;
    attempt.settle(&outcome);
    outcome
}

async fn log_in_from(
    app: &App,
    from: &[u8],
    email: &Email,
    password: Password,
) -> Result<Written<Grant>, AppError> {
    let (credentials, is_known) = app
        .db
        .read(async |db| {
            let credentials = Credentials::find_by_email(db, email.as_str()).await?;
            let is_known = match &credentials {
                Some(found) => Session::is_known_address(db, found.id, from).await?,
                None => false,
            };
            Ok((credentials, is_known))
        })
        .await?;
    let attempt = app.limits.charge_account(email.as_str(), is_known.then_some(from)).await?;
    let outcome = sign_in(app, from, credentials, password).await;
    attempt.settle(&outcome);
    outcome
}

async fn sign_in(
    app: &App,
    from: &[u8],
    credentials: Option<Credentials>,
    password: Password,
) -> Result<Written<Grant>, AppError> {
    let refused = || AppError::Unauthenticated(SignIn::WrongCredentials);
    let hash = credentials.as_ref().map(|found| found.password_hash.clone());
    let matches = app.passwords.verify(password.clone(), hash).await?;
    let known = credentials.filter(|found| matches && found.is_active).ok_or_else(refused)?;
    let newer =
        if needs_rehash(&known.password_hash) { Some(app.passwords.hash(password).await?) } else { None };
    let (from, tokens) = (from.to_vec(), Arc::clone(&app.access_tokens));
    app.db
        .write(async move |tx| {
            // The password may have been changed while it was checked, which was to end every session.
            let present = Credentials::lock(tx, known.id).await?.ok_or_else(refused)?;
            if present.password_hash != known.password_hash || !present.is_active {
                return Err(refused());
            }
            if let Some(newer) = &newer {
                User::rehash_password(tx, known.id, &known.password_hash, newer).await?;
            }
            let user = User::find(tx, known.id).await?.ok_or_else(refused)?;
            begin_session(&tokens, tx, user, &from).await
        })
        .await
}

/// What became of a refresh token.
enum Refreshed {
    Renewed(Box<Grant>),
    /// The token was used before: somebody else has it too, so that the whole session had to end.
    Reused,
}

/// Takes a refresh token and gives the next one.
pub async fn refresh(app: &App, address: IpAddr, input: Refresh) -> Result<Written<Grant>, AppError> {
    let attempt = app.limits.charge_address(address).await?;
    let outcome = exchange(app, &input).await;
    attempt.settle(&outcome);
    outcome
}

async fn exchange(app: &App, input: &Refresh) -> Result<Written<Grant>, AppError> {
    let refused = || AppError::Unauthenticated(SignIn::InvalidToken);
    let token = RefreshToken::parse(&input.refresh_token).ok_or_else(refused)?;
    let tokens = Arc::clone(&app.access_tokens);
    let written = app
        .db
        .write(async move |tx| {
            let Some(used) = StoredRefreshToken::replace(tx, &token.digest()).await? else {
                let known = StoredRefreshToken::find(tx, &token.digest()).await?.ok_or_else(refused)?;
                end(tx, known.session_id).await?;
                return Ok(Refreshed::Reused);
            };
            let until = Utc::now() + SESSION_LIFE;
            let session = Session::extend(tx, used.session_id, until).await?.ok_or_else(refused)?;
            let user =
                User::find(tx, session.user_id).await?.filter(|user| user.is_active).ok_or_else(refused)?;
            Ok::<_, AppError>(Refreshed::Renewed(Box::new(grant(&tokens, tx, user, session.id).await?)))
        })
        .await?;
    match written.value {
        Refreshed::Renewed(grant) => Ok(Written { value: *grant, token: written.token }),
        Refreshed::Reused => {
            log::warn!("a refresh token was used twice; its session was ended");
            Err(refused())
        }
    }
}

/// Ends the session of a refresh token. A token that nobody knows has no session, which is what was wanted.
pub async fn log_out(app: &App, input: Refresh) -> Result<Written<()>, AppError> {
    let token = RefreshToken::parse(&input.refresh_token);
    app.db
        .write(async move |tx| {
            if let Some(token) = &token
                && let Some(known) = StoredRefreshToken::find(tx, &token.digest()).await?
            {
                end(tx, known.session_id).await?;
            }
            Ok(())
        })
        .await
}

/// Ends every session of the caller.
pub async fn log_out_everywhere(app: &App, actor: Actor) -> Result<Written<()>, AppError> {
    app.db
        .write(async move |tx| {
            User::raise_token_epoch(tx, actor.user_id).await?;
            Session::end_all(tx, actor.user_id).await?;
            events::end_streams(tx, actor.user_id, None)
        })
        .await
}

/// Sets a new password and ends every session of the caller. Whoever has only a token may not guess the password either.
pub async fn change_password(
    app: &App,
    actor: Actor,
    input: ChangePassword,
) -> Result<Written<()>, AppError> {
    let wrong = || AppError::Forbidden("The current password is another one.");
    let mut faults = Faults::default();
    let new = faults.member("new_password", Password::parse(&input.new_password));
    let new = faults.check(new)?;
    let current = Password::parse(&input.current_password).map_err(|_no_password| wrong())?;
    let attempt = app.limits.charge_password(actor.user_id).await?;
    let outcome = replace_password(app, actor, current, new).await;
    attempt.settle(&outcome);
    outcome
}

async fn replace_password(
    app: &App,
    actor: Actor,
    current: Password,
    new: Password,
) -> Result<Written<()>, AppError> {
    let wrong = || AppError::Forbidden("The current password is another one.");
    let credentials = app.db.read(async |db| Credentials::find(db, actor.user_id).await).await?;
    let credentials = credentials.ok_or(AppError::NotFound)?;
    if !app.passwords.verify(current, Some(credentials.password_hash.clone())).await? {
        return Err(wrong());
    }
    let hash = app.passwords.hash(new).await?;
    app.db
        .write(async move |tx| {
            let present = Credentials::lock(tx, actor.user_id).await?.ok_or(AppError::NotFound)?;
            if present.password_hash != credentials.password_hash {
                return Err(wrong());
            }
            User::set_password(tx, actor.user_id, &hash).await?;
            Session::end_all(tx, actor.user_id).await?;
            events::end_streams(tx, actor.user_id, None)
        })
        .await
}

/// Ends a session, and the streams that were opened in it.
async fn end(tx: &mut Tx, session: SessionId) -> Result<(), AppError> {
    match Session::end(tx, session).await? {
        Some(ended) => events::end_streams(tx, ended.user_id, Some(session)),
        None => Ok(()),
    }
}

async fn begin_session(
    tokens: &AccessTokens,
    tx: &mut Tx,
    user: User,
    from: &[u8],
) -> Result<Grant, AppError> {
    let session = Session::insert(tx, user.id, Utc::now() + SESSION_LIFE, from).await?;
    let session = session.ok_or_else(|| AppError::internal("a session was not inserted"))?;
    grant(tokens, tx, user, session.id).await
}

async fn grant(
    tokens: &AccessTokens,
    tx: &mut Tx,
    user: User,
    session: SessionId,
) -> Result<Grant, AppError> {
    let refresh_token = RefreshToken::new();
    StoredRefreshToken::insert(tx, session, &refresh_token.digest()).await?;
    let access_token = tokens.issue(user.id, session, user.token_epoch).map_err(AppError::internal)?;
    Ok(Grant {
        user: UserView::own(user),
        access_token,
        token_type: "Bearer",
        expires_in: ACCESS_TTL.as_secs(),
        refresh_token: refresh_token.reveal(),
    })
}
