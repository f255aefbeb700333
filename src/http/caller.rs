//! Who asks. Signing in and charging are done in front of a handler that has a caller among its arguments, so that neither
//! can be forgotten: see [`let_in`].

use std::{
    future::{Ready, ready},
    ops::Deref,
};

use actix_web::{
    Error, FromRequest, HttpMessage as _, HttpRequest, ResponseError as _,
    body::{BoxBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    web::{Data, Query},
};
use serde::Deserialize;

use crate::{
    app::App,
    auth::{Actor, Credential},
    cache::Token,
    domain::id::UserId,
    error::{AppError, SignIn},
    queries::users::SignInStateOf,
    rate_limit::{Charge, Verdict, headers},
    services::events::take_ticket,
};

const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");

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

/// A caller who sends a message, which is limited apart.
#[derive(Debug, Clone, Copy)]
pub struct Sender(Caller);

/// A caller who only asks how much he may ask, which is free.
#[derive(Debug, Clone, Copy)]
pub struct Unmetered(Caller);

/// A caller who listens, signed in by an access token or by a ticket.
#[derive(Debug, Clone, Copy)]
pub struct Listener(Caller);

/// A caller who may use the operations API.
#[derive(Debug, Clone, Copy)]
pub struct Staff(Caller);

/// What stands in front of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    pub charge: Charge,
    /// A ticket will do instead of an access token.
    pub by_ticket: bool,
}

/// A caller among the arguments of a handler.
pub trait CallerArgument {
    /// What has to be in front.
    const ACCESS: Access;
}

macro_rules! callers {
    ($($name:ident: $charge:ident, $by_ticket:literal;)+) => {$(
        impl CallerArgument for $name {
            const ACCESS: Access = Access { charge: Charge::$charge, by_ticket: $by_ticket };
        }

        impl FromRequest for $name {
            type Error = AppError;
            type Future = Ready<Result<Self, AppError>>;

            fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
                let caller = request.extensions().get::<Caller>().copied();
                ready(caller.map(Self::from).ok_or_else(|| AppError::internal("nobody was let in")))
            }
        }
    )+};
}

callers! {
    Caller: Request, false;
    Sender: Message, false;
    Unmetered: Free, false;
    Listener: Request, true;
}

impl CallerArgument for Staff {
    const ACCESS: Access = <Caller as CallerArgument>::ACCESS;
}

impl FromRequest for Staff {
    type Error = AppError;
    type Future = Ready<Result<Self, AppError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let caller = Caller::from_request(request, payload).into_inner();
        let staff = caller.and_then(|caller| match caller.actor.is_staff {
            true => Ok(Self(caller)),
            false => Err(AppError::Forbidden("Only staff may do this.")),
        });
        ready(staff)
    }
}

macro_rules! wrappers {
    ($($name:ident),+) => {$(
        impl From<Caller> for $name {
            fn from(caller: Caller) -> Self {
                Self(caller)
            }
        }

        impl Deref for $name {
            type Target = Caller;

            fn deref(&self) -> &Caller {
                &self.0
            }
        }
    )+};
}

wrappers!(Sender, Unmetered, Listener, Staff);

/// Signs in and charges, before anything else is looked at: neither what a stranger sends nor what there is matters to
/// whoever may not ask. What only reads is worked on while the limits are asked, and held back until they have answered.
///
/// # Errors
/// Those of what is inside.
pub async fn let_in(
    access: Access,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(app) = request.app_data::<Data<App>>().cloned() else {
        return Ok(refuse(request, &AppError::internal("no application data")));
    };
    let caller = match identify(&app, access, &request).await {
        Ok(caller) => caller,
        Err(err) => return Ok(refuse(request, &err)),
    };
    request.extensions_mut().insert(caller);
    let Some(charged) = app.limits.charge(caller.actor.user_id, access.charge) else {
        return Ok(next.call(request).await?.map_into_boxed_body());
    };
    let worth_beginning = charged.refused().is_none();
    let (verdict, mut response) = if request.method().is_safe() && worth_beginning {
        let http_request = request.request().clone();
        let response = next.call(request).await?.map_into_boxed_body();
        let verdict = charged.await;
        match verdict.refusal() {
            None => (verdict, response),
            Some(refusal) => (verdict, ServiceResponse::new(http_request, refusal.error_response())),
        }
    } else {
        let verdict = charged.await;
        match verdict.refusal() {
            None => (verdict, next.call(request).await?.map_into_boxed_body()),
            Some(refusal) => (verdict, refuse(request, &refusal)),
        }
    };
    headers::add(response.headers_mut(), app.limits.plan(access.charge), &verdict);
    Ok(response)
}

fn refuse(request: ServiceRequest, err: &AppError) -> ServiceResponse<BoxBody> {
    request.into_response(err.error_response())
}

async fn identify(app: &App, access: Access, request: &ServiceRequest) -> Result<Caller, AppError> {
    let token = consistency_token(request.headers())?;
    let (user_id, credential) = match ticket(access, request) {
        Some(ticket) => take_ticket(app, &ticket).await?,
        None => verify(app, bearer(request.headers())?)?,
    };
    let invalid = || AppError::Unauthenticated(SignIn::InvalidToken);
    // Fails closed: whoever cannot be checked is not let in.
    let state = app.queries.get(SignInStateOf(user_id), token.as_ref()).await?.value.ok_or_else(invalid)?;
    if !state.0.admits(credential.session_id, credential.token_epoch) {
        app.metrics.sign_in_failed("revoked");
        return Err(invalid());
    }
    Ok(Caller { actor: Actor { user_id, is_staff: state.0.is_staff }, token, credential })
}

/// A browser's `EventSource` sends no headers of its own.
fn ticket(access: Access, request: &ServiceRequest) -> Option<String> {
    #[derive(Deserialize)]
    struct Ticket {
        ticket: Option<String>,
    }
    let query = access.by_ticket.then(|| Query::<Ticket>::from_query(request.query_string()).ok())??;
    query.into_inner().ticket
}

fn verify(app: &App, access_token: &[u8]) -> Result<(UserId, Credential), AppError> {
    let claims = app.access_tokens.verify(access_token).map_err(|reason| {
        // Told to the operator, not to the caller.
        app.metrics.sign_in_failed(reason.reason());
        AppError::Unauthenticated(SignIn::InvalidToken)
    })?;
    let credential = Credential { session_id: claims.sid, token_epoch: claims.epoch, expires_at: claims.exp };
    Ok((claims.sub, credential))
}

/// As bytes: whether it is text matters only if it is not known already.
fn bearer(headers: &HeaderMap) -> Result<&[u8], AppError> {
    let sent = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let (scheme, token) = match sent.iter().position(|byte| *byte == b' ') {
        Some(end) => sent.split_at(end),
        None => (sent, [].as_slice()),
    };
    // Another scheme brings no token that could be invalid: RFC 6750, section 3.1.
    if scheme.eq_ignore_ascii_case(b"bearer") {
        Ok(token.trim_ascii())
    } else {
        Err(AppError::Unauthenticated(SignIn::Missing))
    }
}

/// The `Consistency-Token` of a request.
///
/// # Errors
/// When it is none of ours.
pub fn consistency_token(headers: &HeaderMap) -> Result<Option<Token>, AppError> {
    let Some(header) = headers.get(&CONSISTENCY_TOKEN) else { return Ok(None) };
    Ok(Some(header.to_str().unwrap_or_default().parse::<Token>()?))
}

impl Verdict {
    /// What a request that does not pass is told.
    #[must_use]
    pub fn refusal(&self) -> Option<AppError> {
        let violated = self.violated();
        let first = violated.first().filter(|_| !self.granted)?;
        let (policy, rate) = (first.policy.name, first.policy.rate);
        let violated = violated.iter().map(|quota| quota.policy.name).collect();
        Some(AppError::RateLimited { policy, rate, wait: self.retry, violated })
    }
}
