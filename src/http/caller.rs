//! Who asks: the access token, checked against the cached sign-in state, and the `Consistency-Token`.

use std::{future::Future, pin::Pin};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::header::{AUTHORIZATION, HeaderMap},
    web::Data,
};

use crate::{
    app::App,
    auth::Actor,
    cache::Token,
    domain::id::{SessionId, UserId},
    error::{AppError, SignIn},
    queries::users::SignInStateOf,
};

/// A signed-in caller.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// Who.
    pub actor: Actor,
    /// A write that no answer may be older than.
    pub token: Option<Token>,
    /// What he has shown to be let in.
    pub credential: Credential,
}

/// What somebody has shown to be let in, and for how long it is good.
#[derive(Debug, Clone, Copy)]
pub struct Credential {
    pub session_id: SessionId,
    pub token_epoch: i32,
    /// In seconds since 1970.
    pub expires_at: u64,
}

impl FromRequest for Caller {
    type Error = AppError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, AppError>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let app =
                request.app_data::<Data<App>>().ok_or_else(|| AppError::internal("no application data"))?;
            let token = consistency_token(request.headers())?;
            let (actor, credential) = sign_in(app, bearer(request.headers())?, token.as_ref()).await?;
            Ok(Self { actor, token, credential })
        })
    }
}

async fn sign_in(
    app: &App,
    access_token: &str,
    token: Option<&Token>,
) -> Result<(Actor, Credential), AppError> {
    let claims = app.access_tokens.verify(access_token).map_err(|reason| {
        // Told to the operator, not to the caller.
        app.metrics.sign_in_failed(reason.reason());
        AppError::Unauthenticated(SignIn::InvalidToken)
    })?;
    let credential = Credential { session_id: claims.sid, token_epoch: claims.epoch, expires_at: claims.exp };
    let actor = admit(app, claims.sub, &credential, token).await?;
    Ok((actor, credential))
}

/// Lets in whoever has a credential that was not revoked.
///
/// # Errors
/// When it was, or when that cannot be found out.
pub async fn admit(
    app: &App,
    user_id: UserId,
    credential: &Credential,
    token: Option<&Token>,
) -> Result<Actor, AppError> {
    let invalid = || AppError::Unauthenticated(SignIn::InvalidToken);
    // Fails closed: whoever cannot be checked is not let in.
    let state = app.queries.get(SignInStateOf(user_id), token).await?.value.ok_or_else(invalid)?;
    if !state.0.admits(credential.session_id, credential.token_epoch) {
        app.metrics.sign_in_failed("revoked");
        return Err(invalid());
    }
    Ok(Actor { user_id, is_staff: state.0.is_staff })
}

fn bearer(headers: &HeaderMap) -> Result<&str, AppError> {
    let sent = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (scheme, token) = sent.split_once(' ').unwrap_or((sent, ""));
    // Another scheme brings no token that could be invalid: RFC 6750, section 3.1.
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(token.trim())
    } else {
        Err(AppError::Unauthenticated(SignIn::Missing))
    }
}

/// The `Consistency-Token` of a request.
///
/// # Errors
/// When it is none of ours.
pub fn consistency_token(headers: &HeaderMap) -> Result<Option<Token>, AppError> {
    let Some(header) = headers.get("consistency-token") else { return Ok(None) };
    Ok(Some(header.to_str().unwrap_or_default().parse::<Token>()?))
}
