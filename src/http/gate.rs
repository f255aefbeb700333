//! What stands in front of every handler that has a caller among its arguments: signing in, and charging.
//!
//! **Invariant.** No answer leaves that was made for somebody who may not ask. What only reads is worked on while it is
//! still being found out whether he may, and held back until that is known; so what Redis has to say of it all is asked
//! for at once. What does nothing but write begins before it is known whether he has asked too much, and writes after.
//! Nothing else begins before.

use actix_web::{
    Error, HttpMessage as _, ResponseError as _,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::header::{AUTHORIZATION, HeaderMap, HeaderValue},
    middleware::Next,
    web::{Data, Query},
};
use futures_util::{FutureExt as _, future};
use serde::Deserialize;

use super::{
    caller::{Access, Caller, consistency_token},
    reply,
};
use crate::{
    app::App,
    auth::{Actor, Credential, SignedIn, recall_sign_in, sign_in},
    cache::LoadError,
    db::with_leave,
    domain::id::{UserId, WorkspaceId},
    error::{AppError, SignIn},
    rate_limit::{Charge, Meter, Verdict, headers},
    services::events::take_ticket,
};

/// Signs in and charges: neither what a stranger sends nor what there is matters to the answer of whoever may not ask.
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
    let mut caller = match recognise(&app, access, &request).await {
        Ok(caller) => caller,
        Err(err) => return Ok(refuse(request, &err)),
    };
    let (user, token) = (caller.actor.user_id, caller.token);
    let workspace = workspace_of(access, &request);
    let recalled = recall_sign_in(&app.queries, user, &caller.credential, workspace, token.as_ref());
    let sign_in = match recalled {
        Some(sign_in) => Ok(sign_in),
        None => {
            // With a token it is the caller who decides how much of this would be found in no memory.
            if access.may_begin && token.is_none() && request.method().is_safe() {
                let meter = app.limits.meter(user, access.charge);
                if !meter.as_ref().is_some_and(Meter::refuses) {
                    // Apart, so that a hit does not carry about what only this needs.
                    return Box::pin(begin(&app, caller, meter, workspace, request, next)).await;
                }
            }
            sign_in(&app.queries, user, &caller.credential, workspace, token.as_ref()).await
        }
    };
    match is_staff(&app, sign_in) {
        Ok(is_staff) => caller.is_staff = Some(is_staff),
        Err(err) => return Ok(refuse(request, &err)),
    }
    request.extensions_mut().insert(caller);
    charge(&app, access, &caller, request, next).await
}

/// Charges somebody who is signed in. What only reads is worked on meanwhile, and so is what waits for it before it writes.
async fn charge(
    app: &App,
    access: Access,
    caller: &Caller,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(charged) = app.limits.charge(caller.actor.user_id, caller.charge) else {
        return Ok(next.call(request).await?.map_into_boxed_body());
    };
    if request.method().is_safe() && charged.refused().is_none() {
        let response = next.call(request).await?.map_into_boxed_body();
        return Ok(settle(app, caller.charge, &charged.await, response));
    }
    if access.only_writes && charged.refused().is_none() {
        // Known where it is waited for, without waking this thread.
        let charged = charged.shared();
        let leave = charged.clone().map(|verdict| verdict.granted).boxed().shared();
        let response = with_leave(leave, next.call(request)).await?.map_into_boxed_body();
        return Ok(settle(app, caller.charge, &charged.await, response));
    }
    let verdict = charged.await;
    let mut response = match verdict.refusal() {
        None => next.call(request).await?.map_into_boxed_body(),
        Some(refusal) => refuse(request, &refusal),
    };
    headers::add(response.headers_mut(), app.limits.plan(caller.charge), &verdict);
    Ok(response)
}

/// Gives out an answer that was held back until it was known whether the caller passes, or the refusal in its place.
pub(super) fn settle(
    app: &App,
    charge: Charge,
    verdict: &Verdict,
    mut response: ServiceResponse<BoxBody>,
) -> ServiceResponse<BoxBody> {
    if let Some(refusal) = verdict.refusal() {
        response = response.into_response(refusal.error_response());
    }
    headers::add(response.headers_mut(), app.limits.plan(charge), verdict);
    response
}

/// Works on what only reads while it is being found out whether the caller is still signed in. As soon as that is known he
/// is charged, or told that he is not and the work ends.
async fn begin(
    app: &App,
    caller: Caller,
    meter: Option<Meter<'_>>,
    workspace: Option<WorkspaceId>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let http_request = request.request().clone();
    let answer_with = |err: &AppError| ServiceResponse::new(http_request.clone(), err.error_response());
    request.extensions_mut().insert(caller);
    let user = caller.actor.user_id;
    let admitting = async {
        let (credential, token) = (&caller.credential, caller.token.as_ref());
        let is_staff = is_staff(app, sign_in(&app.queries, user, credential, workspace, token).await)?;
        let verdict = match meter {
            Some(meter) => Some(meter.charge().await),
            None => None,
        };
        Ok::<_, AppError>((is_staff, verdict))
    };
    let working = async { Ok(next.call(request).await) };
    let ((is_staff, verdict), response) = match future::try_join(admitting, working).await {
        Ok(both) => both,
        Err(err) => return Ok(answer_with(&err)),
    };
    let mut response = response?.map_into_boxed_body();
    reply::show_status(app, is_staff, response.response_mut())?;
    let Some(verdict) = verdict else { return Ok(response) };
    Ok(settle(app, caller.charge, &verdict, response))
}

fn refuse(request: ServiceRequest, err: &AppError) -> ServiceResponse<BoxBody> {
    request.into_response(err.error_response())
}

/// Who it is by what he shows, which may have ended meanwhile.
async fn recognise(app: &App, access: Access, request: &ServiceRequest) -> Result<Caller, AppError> {
    let token = consistency_token(request.headers())?;
    let (user_id, credential) = match ticket(access, request) {
        Some(ticket) => take_ticket(app, &ticket).await?,
        None => verify(app, bearer(request.headers())?)?,
    };
    Ok(Caller { actor: Actor { user_id }, is_staff: None, token, credential, charge: access.charge })
}

/// Whether a caller is staff, if what he shows is still good.
fn is_staff(app: &App, sign_in: Result<SignedIn, LoadError>) -> Result<bool, AppError> {
    // Fails closed: whoever cannot be checked is not let in.
    match sign_in? {
        SignedIn::Yes { is_staff } => Ok(is_staff),
        refused => {
            if refused == SignedIn::NoLonger {
                app.metrics.sign_in_failed("revoked");
            }
            Err(AppError::Unauthenticated(SignIn::InvalidToken))
        }
    }
}

/// The workspace that a caller wants to read something in for which his role there is needed. Who reads a channel is asked
/// in another way.
fn workspace_of(access: Access, request: &ServiceRequest) -> Option<WorkspaceId> {
    let path = request.match_info();
    let by_role = access.may_begin && request.method().is_safe() && path.get("channel").is_none();
    path.get("workspace").filter(|_| by_role)?.parse().ok()
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
pub(super) fn bearer(headers: &HeaderMap) -> Result<&[u8], AppError> {
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
