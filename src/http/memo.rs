//! Requests that were answered from memory lately, so that the next ones like them need not be taken apart again.
//!
//! What is remembered of a request is who asked, and what was read for it; never its answer. To the next one with the same
//! URL and the same access token the same entries of L1 are shown, if L1 would still give just these: each of them is
//! judged as in any read, see [`recording`](crate::cache::recording). So whatever ends an entry ends what is remembered with
//! it: a change of the row, of the caller's role, of his session. He is charged and counted, and the answer is made, as
//! ever. What is spared is to look for the URL, to parse it, and to look each entry up by its name.
//!
//! **Invariant.** Nothing is remembered but what a handler has said with [`reply::view`], having read nothing but L1; and
//! nothing is done here that could not have been done in the handler's place.

use std::{
    cell::RefCell,
    hash::BuildHasher as _,
    ptr,
    time::{Duration, Instant},
};

use actix_web::{
    Error, HttpMessage as _, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::Method,
    middleware::Next,
};

use super::{
    caller::{CONSISTENCY_TOKEN, Caller},
    gate::{bearer, charge_for},
    reply::{self, Shown},
};
use crate::{
    app::App,
    auth::token::{Digest, is_still_in_time},
    cache::recording::{Recall, recorded},
    metrics::Route,
    queries::view::View,
    sharded::RandomState,
};

/// Requests that are remembered; a power of two.
const SLOTS: usize = 4096;
/// What has read a larger entry is not remembered: entries may outlive their places in L1, if only for a moment.
const LARGEST: u32 = 64 * 1024;
/// For so long. Then a request goes the whole way, from which L1 learns what is in use.
const REMEMBERED: Duration = Duration::from_secs(1);

/// What one worker remembers.
pub struct Memo {
    slots: RefCell<Box<[Slot]>>,
    hasher: RandomState,
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
    since: Instant,
}

/// What makes one request another than the next, as far as a handler can see before it answers.
struct Asked<'r> {
    token: &'r [u8],
    /// Path and query.
    target: &'r str,
    hash: u64,
}

enum Recalled {
    /// Whom it is for, and where it would have been made.
    Answer(Caller, Route, HttpResponse),
    /// It is worth remembering.
    Again {
        hash: u64,
        token: Digest,
    },
    New,
}

impl Default for Memo {
    fn default() -> Self {
        let slots = (0..SLOTS).map(|_| Slot::default()).collect();
        Self { slots: RefCell::new(slots), hasher: RandomState::default() }
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
        let (hash, token) = match self.recall(app, now, &request) {
            Recalled::Answer(caller, route, answer) => {
                app.metrics.repeated();
                return Ok((charge_for(app, &caller, request, answer).await, Some(route)));
            }
            Recalled::Again { hash, token } => (hash, token),
            Recalled::New => return Ok((next.call(request).await?.map_into_boxed_body(), None)),
        };
        let (response, reads) = recorded(next.call(request)).await;
        let response = response?.map_into_boxed_body();
        if let Some(known) = reads.and_then(|reads| Known::new(hash, token, now, &response, reads)) {
            self.remember(known);
        }
        Ok((response, None))
    }

    /// Lets go of what would not be given again, which may have been taken out of L1 for the memory that it takes.
    pub fn forget_what_is_over(&self, now: Instant) {
        for slot in &mut *self.slots.borrow_mut() {
            slot.known.take_if(|known| known.reads.iter().any(|read| read.is_over(now)));
        }
    }

    fn recall(&self, app: &App, now: Instant, request: &ServiceRequest) -> Recalled {
        let Some(asked) = self.asked(request) else { return Recalled::New };
        let hash = asked.hash;
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(place(hash)) else { return Recalled::New };
        if let Some(known) = slot.known.as_ref().filter(|known| known.hash == hash) {
            let token = Digest::of(asked.token);
            let answer = known.is_of(&token, asked.target).then(|| known.answer(app, now, request)).flatten();
            return answer.map_or(Recalled::Again { hash, token }, |answer| {
                Recalled::Answer(known.caller, known.route.clone(), answer)
            });
        }
        if slot.seen == hash {
            return Recalled::Again { hash, token: Digest::of(asked.token) };
        }
        slot.seen = hash;
        Recalled::New
    }

    fn remember(&self, known: Known) {
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
        Some(Asked { token, target, hash: self.hasher.hash_one((token, target)) })
    }
}

impl Known {
    /// What is to be remembered of a request that was answered, if that was done by a view.
    fn new(
        hash: u64,
        token: Digest,
        since: Instant,
        response: &ServiceResponse<BoxBody>,
        reads: Vec<Recall>,
    ) -> Option<Self> {
        let shown = response.response().extensions().get::<Shown>().cloned()?;
        let shows = |read: &Recall| read.value::<View>().is_some_and(|view| ptr::eq(view, &*shown.0));
        let shown = reads.iter().position(shows)?;
        let request = response.request();
        let caller = request.extensions().get::<Caller>().copied()?;
        let is_fit = caller.is_staff.is_some() && reads.iter().all(|read| read.bytes() <= LARGEST);
        is_fit.then(|| {
            let target = request.uri().path_and_query()?.as_str().into();
            let route = request.app_data::<Route>()?.clone();
            Some(Self { hash, token, target, caller, reads: reads.into(), shown, route, since })
        })?
    }

    fn is_of(&self, token: &Digest, target: &str) -> bool {
        self.token == *token && *self.target == *target
    }

    /// What a handler would say now. `None`: it has to be asked.
    fn answer(&self, app: &App, now: Instant, request: &ServiceRequest) -> Option<HttpResponse> {
        let is_young = now.saturating_duration_since(self.since) < REMEMBERED;
        let is_good = is_young && is_still_in_time(self.caller.credential.expires_at);
        let read = self.reads.get(self.shown)?;
        let view = read.value().filter(|_| is_good && app.cache.repeats(&self.reads, now))?;
        reply::show(app, request.request(), &self.caller, view, read.status(now)).ok()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "any bits of the hash will do")]
const fn place(hash: u64) -> usize {
    hash as usize % SLOTS
}
