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
            let actor = sign_in(app, bearer(request.headers())?, token.as_ref()).await?;
            Ok(Self { actor, token })
        })
    }
}

async fn sign_in(app: &App, access_token: &str, token: Option<&Token>) -> Result<Actor, AppError> {
    let invalid = || AppError::Unauthenticated(SignIn::InvalidToken);
    let claims = app.access_tokens.verify(access_token).map_err(|reason| {
        // Told to the operator, not to the caller.
        app.metrics.sign_in_failed(reason.reason());
        invalid()
    })?;
    // Fails closed: whoever cannot be checked is not let in.
    let state = app.queries.get(SignInStateOf(claims.sub), token).await?.value.ok_or_else(invalid)?;
    let state = &state.0;
    if !state.is_active || claims.epoch < state.token_epoch || state.ended_sessions.contains(&claims.sid) {
        app.metrics.sign_in_failed("revoked");
        return Err(invalid());
    }
    Ok(Actor { user_id: claims.sub, is_staff: state.is_staff })
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
