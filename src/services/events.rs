//! Telling listeners: an event is written in the transaction that causes it, so that it is told if and only if it
//! happened.

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::{Actor, Credential, token::Ticket},
    db::{Tx, Written},
    domain::{
        event::{Audience, EventKind, SessionsEnded},
        id::{SessionId, UserId},
    },
    error::{AppError, SignIn},
    models::events::{Event, EventTicket, NewEvent},
    queries::view::View,
};

/// Tells an audience what happened; `data` is what they see of it.
pub fn tell(tx: &mut Tx, kind: EventKind, audience: Audience, data: &impl Serialize) -> Result<(), AppError> {
    let data = serde_json::to_string(data).map_err(AppError::internal)?;
    Event::insert(tx, NewEvent::new(kind, audience, data));
    Ok(())
}

/// The same of what is answered too, so that it is put into words once.
pub fn tell_view(tx: &mut Tx, kind: EventKind, audience: Audience, view: &View) -> Result<(), AppError> {
    Event::insert(tx, about_view(kind, audience, view)?);
    Ok(())
}

/// An event that is told with its cause.
pub fn about_view(kind: EventKind, audience: Audience, view: &View) -> Result<NewEvent, AppError> {
    let data = String::from_utf8(view.body()).map_err(AppError::internal)?;
    Ok(NewEvent::new(kind, audience, data))
}

/// Ends the streams of sessions that have ended.
pub fn end_streams(tx: &mut Tx, user: UserId, session_id: Option<SessionId>) -> Result<(), AppError> {
    tell(tx, EventKind::SessionsEnded, Audience::User(user, None), &SessionsEnded { session_id })
}

/// How long a ticket waits to be used.
const TICKET_LIFE: TimeDelta = TimeDelta::seconds(60);

/// A ticket as it is given out.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventTicket)]
pub struct IssuedTicket {
    pub object: &'static str,
    /// For the parameter `ticket` of the stream.
    pub ticket: String,
    /// Seconds.
    pub expires_in: i64,
    pub expires_at: DateTime<Utc>,
}

/// Gives out a ticket that lets its bearer listen once, as whom asks and for as long as his access token lives.
pub async fn issue_ticket(
    app: &App,
    actor: Actor,
    credential: &Credential,
) -> Result<Written<IssuedTicket>, AppError> {
    let ticket = Ticket::new();
    let expires_at = (Utc::now() + TICKET_LIFE).trunc_subsecs(6);
    let token_expires = i64::try_from(credential.expires_at).map_err(AppError::internal)?;
    let row = EventTicket {
        digest: ticket.digest().to_vec(),
        user_id: actor.user_id,
        session_id: credential.session_id,
        token_epoch: credential.token_epoch,
        token_expires_at: DateTime::from_timestamp(token_expires, 0).unwrap_or(expires_at),
        expires_at,
    };
    app.db
        .write(async move |tx| {
            row.insert(tx).await?;
            let (ticket, expires_in) = (ticket.reveal(), TICKET_LIFE.num_seconds());
            Ok(IssuedTicket { object: "event_ticket", ticket, expires_in, expires_at })
        })
        .await
}

/// Uses a ticket up: whom it lets in, and what he had shown to get it.
///
/// # Errors
/// When it is no ticket, was used before, or is too old.
pub async fn take_ticket(app: &App, ticket: &str) -> Result<(UserId, Credential), AppError> {
    let refused = || AppError::Unauthenticated(SignIn::InvalidToken);
    let ticket = Ticket::parse(ticket).ok_or_else(refused)?;
    let taken = app
        .db
        .write(async move |tx| {
            // Where there is none, nothing has happened that anybody would have to hear of.
            let taken = EventTicket::take(tx, &ticket.digest()).await?.ok_or_else(refused)?;
            let is_good = taken.expires_at > Utc::now() && taken.token_expires_at > Utc::now();
            is_good.then_some(taken).ok_or_else(refused)
        })
        .await?
        .value;
    let credential = Credential {
        session_id: taken.session_id,
        token_epoch: taken.token_epoch,
        expires_at: u64::try_from(taken.token_expires_at.timestamp()).unwrap_or_default(),
    };
    Ok((taken.user_id, credential))
}
