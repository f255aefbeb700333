//! Who asks. Signing in and charging are done in front of a handler that has a caller among its arguments, so that neither
//! can be forgotten: see [`super::gate`].

use std::{
    future::{Ready, ready},
    ops::Deref,
};

use actix_web::{
    FromRequest, HttpMessage as _, HttpRequest,
    dev::Payload,
    http::header::{HeaderMap, HeaderName},
};

use crate::{
    auth::{Actor, Credential},
    cache::Token,
    error::AppError,
    rate_limit::Charge,
};

pub(super) const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");

/// A signed-in caller.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// Who.
    pub actor: Actor,
    /// Whether he may use the operations API. `None`: it is still being found out whether he is signed in at all, and the
    /// answer is held back.
    pub is_staff: Option<bool>,
    /// A write that no answer may be older than.
    pub token: Option<Token>,
    /// What he has shown to be let in.
    pub credential: Credential,
    /// What he is charged for.
    pub charge: Charge,
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
    /// What only reads may begin before it is known whether the caller is signed in: it must have no effects.
    pub may_begin: bool,
    /// All that comes of it is written by [`Db::write`](crate::db::Db::write): it may begin before it is known whether the
    /// caller has asked too much, and what it writes waits for that.
    pub only_writes: bool,
}

/// A caller among the arguments of a handler.
pub trait CallerArgument {
    /// What has to be in front.
    const ACCESS: Access;
}

macro_rules! callers {
    ($($name:ident: $charge:ident, $by_ticket:literal, $may_begin:literal, $only_writes:literal;)+) => {$(
        impl CallerArgument for $name {
            const ACCESS: Access = Access {
                charge: Charge::$charge,
                by_ticket: $by_ticket,
                may_begin: $may_begin,
                only_writes: $only_writes,
            };
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
    Caller: Request, false, true, false;
    Sender: Message, false, false, true;
    Unmetered: Free, false, false, false;
    Listener: Request, true, false, false;
}

impl CallerArgument for Staff {
    const ACCESS: Access = Access { may_begin: false, ..<Caller as CallerArgument>::ACCESS };
}

impl FromRequest for Staff {
    type Error = AppError;
    type Future = Ready<Result<Self, AppError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let caller = Caller::from_request(request, payload).into_inner();
        let staff = caller.and_then(|caller| match caller.is_staff {
            Some(true) => Ok(Self(caller)),
            _ => Err(AppError::Forbidden("Only staff may do this.")),
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

/// The `Consistency-Token` of a request.
///
/// # Errors
/// When it is none of ours.
pub fn consistency_token(headers: &HeaderMap) -> Result<Option<Token>, AppError> {
    let Some(header) = headers.get(&CONSISTENCY_TOKEN) else { return Ok(None) };
    Ok(Some(header.to_str().unwrap_or_default().parse::<Token>()?))
}
