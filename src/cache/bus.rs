//! Hearing what is invalidated, and noticing when one does not.
//!
//! With Redis: [`Bus::run`] listens, compares the sequence in Redis with what it has heard several times a second,
//! and renews the lease when both agree. Any doubt (a gap, a lost connection, another epoch, a message that it
//! cannot read) ends the session: trust is lost, and a new session begins with nothing. A message carries no
//! values, so one that is late or comes twice does no harm.
//!
//! Without Redis, or while it is away: whoever hears changes by other means begins a generation with
//! [`Cache::trust_alone`] or [`Cache::trust_journal`].

use std::{
    pin::pin,
    str,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use tokio_util::sync::CancellationToken;

use super::{
    Cache,
    envelope::FORMAT,
    generation::{Beginning, Generation, Heard, Source},
    key::Tag,
    l2::{Link, LinkError},
};
use crate::{redis::Redis, telemetry::Chain};

/// How often the sequence is compared. Several times per lease.
const POLL_EVERY: Duration = Duration::from_millis(200);
/// How long a message may take longer than the poll that tells of it.
const CATCH_UP: Duration = Duration::from_millis(150);
/// Pauses between attempts to connect.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// What has to be done on a new connection before L2 is used: announcing what could not be announced before. Returns the
/// position in the journal below which everything was announced by then, by whomever.
pub type BeforeUse = Box<
    dyn Fn(Arc<Link>) -> BoxFuture<'static, Result<u64, Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Sync,
>;

/// The bus of all instances.
pub struct Bus {
    /// Whose trust it keeps.
    cache: Arc<Cache>,
    /// Where it listens.
    redis: Redis,
    /// Run on every new connection.
    before_use: BeforeUse,
    /// The epoch of the last connection; 0 before the first.
    known_epoch: AtomicU64,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("Redis cannot be reached")]
    Connect(#[from] redis::RedisError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("what was left unannounced could not be announced")]
    BeforeUse(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the subscription ended")]
    Unsubscribed,
    #[error("a message was lost")]
    Gap,
    #[error("the sequence went backwards")]
    Backwards,
    #[error("a message could not be read")]
    Unreadable,
    #[error("the connection was given up")]
    Broken,
}

impl Lost {
    const fn cause(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Link(_) => "link",
            Self::BeforeUse(_) => "before_use",
            Self::Unsubscribed => "unsubscribed",
            Self::Gap => "gap",
            Self::Backwards => "backwards",
            Self::Unreadable => "unreadable",
            Self::Broken => "broken",
        }
    }
}

impl Bus {
    /// A bus that is not running yet.
    #[must_use]
    pub const fn new(cache: Arc<Cache>, redis: Redis, before_use: BeforeUse) -> Self {
        Self { cache, redis, before_use, known_epoch: AtomicU64::new(0) }
    }

    /// Keeps the cache's trust until stopped. To be run on the main runtime.
    pub async fn run(self, stop: CancellationToken) {
        let (mut retry, mut first) = (FIRST_RETRY, true);
        loop {
            let begun = Instant::now();
            let Some(lost) = stop.run_until_cancelled(self.session()).await else { return };
            let generation = self.cache.trust.generation();
            // What stands in for this bus is not affected.
            let had_trust = matches!(generation.source, Source::Shared(_));
            if had_trust {
                self.cache.distrust(&generation, lost.cause());
            }
            // Once per outage.
            let level = if had_trust || first { log::Level::Warn } else { log::Level::Debug };
            first = false;
            log::log!(level, "error.chain":% = Chain(&lost); "cache bus lost; reconnecting");
            if begun.elapsed() > LONGEST_RETRY {
                retry = FIRST_RETRY;
            }
            let pause = retry.mul_f64(0.5 + 0.5 * rand::random::<f64>());
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            retry = (retry * 2).min(LONGEST_RETRY);
        }
    }

    async fn session(&self) -> Lost {
        match self.try_session().await {
            Ok(never) => match never {},
            Err(lost) => lost,
        }
    }

    async fn try_session(&self) -> Result<std::convert::Infallible, Lost> {
        // Subscribed before the sequence is read, so that nothing falls between.
        let pubsub = self.redis.listen(self.cache.names.channel()).await?;
        let mut messages = pin!(pubsub.into_on_message());
        let link = Arc::new(Link::open(&self.redis, &self.cache.names, &self.cache.instance).await?);
        link.probe().await?;
        // What is known here needs nobody else: the database may be away.
        self.announce_own(&link).await?;
        let horizon = (self.before_use)(Arc::clone(&link)).await.map_err(Lost::BeforeUse)?;
        let known_epoch = self.known_epoch.load(Ordering::Acquire);
        if known_epoch != 0 && known_epoch != link.epoch() {
            // While this process was talking to the former Redis, others may have filled this one with what it knew no
            // better.
            link.announce(&[Tag::all()]).await?;
        }
        self.known_epoch.store(link.epoch(), Ordering::Release);
        let (generation, applied) = self.begin(&link, horizon).await?;
        // What was announced until then is not heard of any more.
        self.cache.invalidated.notify_one();
        log::info!("cache.epoch":% = format_args!("{:016x}", link.epoch()), sequence = applied; "cache bus connected");

        let mut poll = pin!(poll_after(Duration::ZERO, &link, &generation).fuse());
        // A poll whose sequence has not been heard yet.
        let mut pending: Option<(Instant, u64, Instant)> = None;
        let mut newest = applied;
        let mut threads = self.cache.threads.subscribe();
        threads.mark_changed();
        let mut connected = 0;
        loop {
            let catch_up_ends = pending.map_or_else(Instant::now, |(.., answered)| answered + CATCH_UP);
            tokio::select! {
                biased;
                message = messages.next() => {
                    let message = message.ok_or(Lost::Unsubscribed)?;
                    self.hear(&generation, message.get_payload_bytes())?;
                }
                Poll { asked, heard, answer } = &mut poll => {
                    let sequence = answer?;
                    if sequence < newest.max(heard) {
                        // It only ever grows: behind this connection is another Redis, or an older state of this one, in
                        // which numbers that entries carry would be given out again.
                        link.renew().await?;
                        return Err(Lost::Backwards);
                    }
                    newest = sequence;
                    pending = Some((asked, sequence, Instant::now()));
                    poll.set(poll_after(POLL_EVERY, &link, &generation).fuse());
                }
                () = link.broken() => return Err(Lost::Broken),
                Ok(()) = threads.changed(), if self.cache.uses_l2 => {
                    let threads = threads.borrow_and_update();
                    threads.iter().skip(connected).for_each(|thread| link.open_for(thread, &self.redis));
                    connected = threads.len();
                }
                () = tokio::time::sleep_until(catch_up_ends.into()), if pending.is_some() => return Err(Lost::Gap),
            }
            if let Some((asked, sequence, _)) = pending
                && generation.applied() >= sequence
            {
                self.cache.trust.renew_lease(&generation, asked);
                pending = None;
            }
        }
    }

    /// Begins a generation, with a lease, once nothing of this process is left unannounced. Returns its sequence too.
    async fn begin(&self, link: &Arc<Link>, horizon: u64) -> Result<(Arc<Generation>, u64), Lost> {
        let trust = &self.cache.trust;
        loop {
            let asked = Instant::now();
            let applied = link.poll().await?;
            let source = Source::Shared(Arc::clone(link));
            if let Some(generation) = trust.begin(Beginning { source, epoch: link.epoch(), applied, horizon })
            {
                trust.renew_lease(&generation, asked);
                return Ok((generation, applied));
            }
            self.announce_own(link).await?;
        }
    }

    /// Announces what this process has changed, or heard of, and could not announce.
    async fn announce_own(&self, link: &Link) -> Result<(), Lost> {
        let unannounced = self.cache.trust.take_unannounced();
        if unannounced.is_empty() {
            return Ok(());
        }
        let announced = link.announce(&unannounced).await;
        if announced.is_err() {
            self.cache.trust.put_back_unannounced(unannounced);
        }
        Ok(announced?)
    }

    fn hear(&self, generation: &Generation, message: &[u8]) -> Result<(), Lost> {
        let message = Message::read(message).ok_or(Lost::Unreadable)?;
        if message.epoch != generation.epoch {
            return Err(Lost::Gap);
        }
        let is_own = message.origin == self.cache.instance;
        if is_own {
            self.cache.stats.bus_lag.note(message.sequence, Instant::now());
        }
        // Applied here, as one's own mostly is by now, or from before this generation, in which all is stamped with more.
        if message.sequence <= generation.applied() {
            return Ok(());
        }
        let tags = message.tags().ok_or(Lost::Unreadable)?;
        if !is_own {
            self.cache.stats.invalidated("bus", tags.len());
        }
        let heard = generation.hear(message.sequence, &tags);
        self.cache.forget_matching(&tags);
        self.cache.invalidated.notify_one();
        match heard {
            Heard::InOrder => Ok(()),
            Heard::Gap => Err(Lost::Gap),
        }
    }
}

/// A look at the sequence.
struct Poll {
    asked: Instant,
    /// The sequence that had been heard by then: it cannot be less in Redis.
    heard: u64,
    answer: Result<u64, LinkError>,
}

/// Polls after a pause. A slow answer may be an accident: one more try.
async fn poll_after(pause: Duration, link: &Link, generation: &Generation) -> Poll {
    tokio::time::sleep(pause).await;
    let (asked, heard) = (Instant::now(), generation.applied());
    match link.poll().await {
        Err(LinkError::Redis(err)) if err.is_timeout() => {
            let asked = Instant::now();
            Poll { asked, heard, answer: link.poll().await }
        }
        answer => Poll { asked, heard, answer },
    }
}

/// An invalidation on the wire: `lockstep1 EPOCH SEQUENCE ORIGIN tag tag…`, as `bump.lua` writes it.
struct Message<'a> {
    epoch: u64,
    sequence: u64,
    origin: &'a str,
    names: str::Split<'a, char>,
}

impl<'a> Message<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut words = str::from_utf8(bytes).ok()?.split(' ');
        if words.next()? != FORMAT {
            return None;
        }
        let epoch = u64::from_str_radix(words.next()?, 16).ok()?;
        let sequence = words.next()?.parse().ok()?;
        let origin = words.next()?;
        Some(Self { epoch, sequence, origin, names: words })
    }

    /// `None`: not all are names of tags.
    fn tags(&self) -> Option<Vec<Tag>> {
        self.names.clone().map(Tag::parse).collect()
    }
}

impl Cache {
    /// Begins a generation for a process that is alone with its database: it hears of every change by making it.
    pub fn trust_alone(&self) {
        let beginning = Beginning { source: Source::Local, epoch: self.local_epoch, applied: 0, horizon: 0 };
        if let Some(generation) = self.trust.begin(beginning) {
            self.trust.renew_lease_for_ever(&generation);
        }
    }

    /// Whether reading the journal would be of use: nothing else tells what is invalidated.
    #[must_use]
    pub fn needs_journal(&self) -> bool {
        matches!(self.trust.generation().source, Source::Untrusted)
    }

    /// Begins a generation that hears by reading the journal. Without a lease until [`Hearing::caught_up`]. `None`: there
    /// is something better.
    pub fn trust_journal(&self) -> Option<Hearing<'_>> {
        let beginning =
            Beginning { source: Source::Journal, epoch: self.local_epoch, applied: 0, horizon: 0 };
        let generation = self.trust.stand_in(beginning)?;
        Some(Hearing { cache: self, generation })
    }
}

/// A generation that is told of changes by whoever reads them.
pub struct Hearing<'a> {
    cache: &'a Cache,
    generation: Arc<Generation>,
}

impl Hearing<'_> {
    /// A change was found.
    pub fn heard(&self, tags: &[Tag]) {
        self.cache.stats.invalidated("journal", tags.len());
        self.generation.hear_local(tags);
        if self.cache.has_bus {
            // L2 may not know of it yet. Once Redis is back, this process must not answer from there what it knows to be
            // old.
            self.cache.trust.leave_unannounced(&self.generation, tags);
        }
        self.cache.forget_matching(tags);
        self.cache.invalidated.notify_one();
    }

    /// Every change that was visible at `asked` has been heard; these are at least all below `horizon`.
    pub fn caught_up(&self, asked: Instant, horizon: u64) {
        self.generation.read_up_to(horizon);
        self.cache.trust.renew_lease(&self.generation, asked);
    }

    /// What was heard says nothing about what is there now.
    pub fn give_up(&self) {
        self.cache.distrust(&self.generation, "journal");
    }

    /// Something better has begun.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.cache.trust.generation().number() != self.generation.number()
    }
}
