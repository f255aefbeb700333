//! Requests that were answered from memory lately, so that the next ones like them need not be taken apart again.
//!
//! What is remembered of a request is who asked, and what was read for it; never its answer. To the next one with the same
//! URL and the same access token the same entries of L1 are shown, if L1 would still give just these: each of them is
//! judged as in any read, see [`recording`](crate::cache::recording). So whatever ends an entry ends what is remembered with
//! it: a change of the row, of the caller's role, of his session. He is charged and counted, and the answer is made, as
//! ever. What is spared is to look for the URL, to parse it, and to look each entry up by its name.
//!
//! **Invariant.** Nothing is remembered but what a handler has said with [`reply::view`], having read nothing but L1; and
//! somebody is charged once, whichever way his request goes.

use std::{
    cell::{Cell, RefCell},
    hash::BuildHasher as _,
    time::{Duration, Instant},
};

use actix_web::{
    Error, HttpMessage as _, HttpResponse, ResponseError as _,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::Method,
    middleware::Next,
};

use super::{
    caller::{CONSISTENCY_TOKEN, Caller},
    gate::{bearer, settle},
    reply::{self, MadeOf},
};
use crate::{
    app::App,
    auth::token::{Digest, is_still_in_time},
    cache::recording::{Recall, recorded},
    metrics::Route,
    rate_limit::{Charge, Pending, Verdict},
    sharded::RandomState,
};

/// Requests that are remembered; a power of two.
const SLOTS: usize = 4096;
/// Parts in which they are tidied up.
pub const PARTS: u32 = 8;
const PART: usize = SLOTS / PARTS as usize;
/// What has read a larger entry is not remembered: entries may outlive their places in L1, if only for a moment.
const LARGEST: u32 = 64 * 1024;
/// So is none with a longer URL.
const LONGEST: usize = 1024;
/// So often L1 is told what is in use.
const TOLD: Duration = Duration::from_secs(1);

/// What one worker remembers.
pub struct Memo {
    slots: RefCell<Box<[Slot]>>,
    hasher: RandomState,
    /// Which part of the slots is tidied up next.
    tidied: Cell<usize>,
}

#[derive(Default)]
struct Slot {
    /// The request that came last and is not remembered: only what comes again is worth it.
    seen: u64,
    known: Option<Box<Known>>,
}

struct Known {
    hash: u64,
    token: Digest,
    target: Box<str>,
    caller: Caller,
    reads: Box<[Recall]>,
    /// Which of the reads the answer shows.
    shown: usize,
    route: Route,
    /// When L1 was told last that the entries are in use.
    told: Instant,
}

/// What makes one request another than the next, as far as a handler can see before it answers.
struct Asked<'r> {
    token: &'r [u8],
    /// Path and query.
    target: &'r str,
    hash: u64,
}

/// Why a handler has to be asked.
enum Missed {
    /// There is nothing to be had from remembering it.
    New,
    /// It has come before.
    Again { hash: u64 },
}

/// What a handler would have said.
struct Answer {
    /// Where.
    route: Route,
    charge: Charge,
    charged: Option<Pending>,
    response: HttpResponse,
}

impl Default for Memo {
    fn default() -> Self {
        let slots = (0..SLOTS).map(|_| Slot::default()).collect();
        Self { slots: RefCell::new(slots), hasher: RandomState::default(), tidied: Cell::default() }
    }
}

impl Memo {
    /// Answers a request that began at `now`. Also returns the route of one that was not sent there.
    ///
    /// # Errors
    /// Those of what is inside.
    pub async fn answer(
        &self,
        app: &App,
        now: Instant,
        request: ServiceRequest,
        next: Next<impl MessageBody + 'static>,
    ) -> Result<(ServiceResponse<BoxBody>, Option<Route>), Error> {
        let hash = match self.recall(app, now, &request) {
            Ok(Answer { route, charge, charged, response }) => {
                let mut response = request.into_response(response);
                if let Some(charged) = charged {
                    response = settle(app, charge, &charged.await, response);
                }
                return Ok((response, Some(route)));
            }
            Err(Missed::Again { hash }) => hash,
            Err(Missed::New) => return Ok((next.call(request).await?.map_into_boxed_body(), None)),
        };
        let mut response = recorded(next.call(request)).await?.map_into_boxed_body();
        let made_of = response.response_mut().extensions_mut().remove::<MadeOf>();
        if let Some(made_of) = made_of {
            self.remember(Known::new(hash, now, &response, made_of));
        }
        Ok((response, None))
    }

    /// Lets go of what would not be given again, which L1 may have taken out for the memory that it takes. Looks at a part
    /// of the slots each time, so that no request has to wait for it.
    pub fn forget_what_is_over(&self, now: Instant) {
        let part = self.tidied.replace((self.tidied.get() + 1) % PARTS as usize);
        for slot in self.slots.borrow_mut().iter_mut().skip(part * PART).take(PART) {
            slot.known.take_if(|known| known.reads.iter().any(|read| read.is_over(now)));
        }
    }

    fn recall(&self, app: &App, now: Instant, request: &ServiceRequest) -> Result<Answer, Missed> {
        let asked = if app.cache.has_l1() { self.asked(request) } else { None }.ok_or(Missed::New)?;
        let hash = asked.hash;
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(place(hash)).ok_or(Missed::New)?;
        if let Some(known) = slot.known.as_mut().filter(|known| known.hash == hash) {
            let answer = known.is_of(&asked).then(|| known.answer(app, now, request)).flatten();
            return answer.ok_or(Missed::Again { hash });
        }
        if slot.seen == hash {
            return Err(Missed::Again { hash });
        }
        slot.seen = hash;
        Err(Missed::New)
    }

    fn remember(&self, known: Option<Known>) {
        let Some(known) = known else { return };
        if let Some(slot) = self.slots.borrow_mut().get_mut(place(known.hash)) {
            slot.known = Some(Box::new(known));
        }
    }

    /// `None`: another one like it is not to be answered from here.
    fn asked<'r>(&self, request: &'r ServiceRequest) -> Option<Asked<'r>> {
        let headers = request.headers();
        let is_plain = request.method() == Method::GET && !headers.contains_key(&CONSISTENCY_TOKEN);
        let token = bearer(headers).ok().filter(|_| is_plain)?;
        let target = request.uri().path_and_query()?.as_str();
        if target.len() > LONGEST {
            return None;
        }
        Some(Asked { token, target, hash: self.hasher.hash_one((token, target)) })
    }
}

impl Known {
    /// What is to be remembered of a request that was answered.
    fn new(
        hash: u64,
        now: Instant,
        response: &ServiceResponse<BoxBody>,
        MadeOf { reads, shown }: MadeOf,
    ) -> Option<Self> {
        let request = response.request();
        let caller = request.extensions().get::<Caller>().copied()?;
        let is_fit = |read: &Recall| read.bytes() <= LARGEST && !read.is_over(now);
        if caller.is_staff.is_none() || !reads.iter().all(is_fit) {
            return None;
        }
        let token = Digest::of(bearer(request.headers()).ok()?);
        let target = request.uri().path_and_query()?.as_str().into();
        let route = request.app_data::<Route>()?.clone();
        Some(Self { hash, token, target, caller, reads: reads.into(), shown, route, told: now })
    }

    fn is_of(&self, asked: &Asked<'_>) -> bool {
        *self.target == *asked.target && self.token == Digest::of(asked.token)
    }

    /// What a handler would say now. `None`: it has to be asked.
    fn answer(&mut self, app: &App, now: Instant, request: &ServiceRequest) -> Option<Answer> {
        let is_good = is_still_in_time(self.caller.credential.expires_at);
        if now.saturating_duration_since(self.told) >= TOLD {
            app.cache.touch(&self.reads);
            self.told = now;
        }
        let read = self.reads.get(self.shown)?;
        let view = read.value().filter(|_| is_good && app.cache.repeats(&self.reads, now))?;
        let (caller, charge) = (&self.caller, self.caller.charge);
        let charged = app.limits.charge(caller.actor.user_id, charge);
        let response = match charged.as_ref().and_then(Pending::refused).and_then(Verdict::refusal) {
            Some(refusal) => refusal.error_response(),
            None => {
                self.reads.iter().for_each(Recall::count);
                app.metrics.repeated();
                reply::show(app, request.request(), caller, view, read.status(now))
                    .unwrap_or_else(|err| err.error_response())
            }
        };
        Some(Answer { route: self.route.clone(), charge, charged, response })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "any bits of the hash will do")]
const fn place(hash: u64) -> usize {
    hash as usize % SLOTS
}
