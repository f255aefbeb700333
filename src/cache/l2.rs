//! L2: Redis behind one connection, and the sequence that all instances share.
//!
//! A [`Link`] is one connection and the epoch that was found on it. It never outlives the connection, and every
//! script checks the epoch's marker, so that nothing of another life of the data is ever used. Each operation is
//! done by a script in one round trip, or a few if it is large; none scans.

mod entries;
mod names;
mod reads;
mod threads;
mod together;
mod watch;

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use redis::{
    Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, Script, ScriptInvocation,
    aio::MultiplexedConnection,
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

pub(super) use self::{
    entries::{Filling, L2Read, Left, Lock, LockOwner, Peeked, Wanted},
    names::Names,
};
use self::{
    reads::{Asking, Reading},
    threads::Threads,
    together::Together,
    watch::Watch,
};
use super::{breaker::PROBES, key::Tag};
use crate::redis::{Redis, is_unknown_script, run_script, script_call};

/// How long a tag's version is kept after it was last written or depended on. Longer than entries live unless the
/// settings say otherwise, which saves misses; correctness does not depend on it.
const VERSION_LIFE: Duration = Duration::from_secs(2 * 60 * 60);
/// How long what no request waits for may take: a busy machine is not a broken connection.
const PATIENCE: Duration = Duration::from_millis(500);
const HEARTBEAT_LIFE: Duration = Duration::from_secs(5);
/// Tags that one call of the bump script takes, so that Redis is never held up.
const BUMP_TAGS: usize = 500;

static OPEN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/open.lua")));
static RENEW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/renew.lua")));
static POLL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/poll.lua")));
static BUMP: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/bump.lua")));

/// Why L2 gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// The call failed or took too long.
    #[error("the call to Redis failed")]
    Redis(#[from] RedisError),
    /// The calls take too long to be of use.
    #[error("Redis answers too slowly")]
    Slow,
    /// Redis was emptied or replaced.
    #[error("Redis holds another life of the data")]
    OtherEpoch,
}

/// One connection to Redis and the epoch found on it.
pub struct Link {
    connection: MultiplexedConnection,
    /// The same connection, for what no request waits for.
    patient: MultiplexedConnection,
    /// Those of threads that have one for themselves.
    threads: Arc<Threads>,
    asking: Arc<Asking>,
    /// Single reads.
    reads: Together<Reading, Option<L2Read>>,
    instance: String,
    epoch: u64,
    timeout: Duration,
    watch: Arc<Watch>,
}

impl Link {
    /// Connects, and finds out the epoch. To be called on the main runtime.
    pub(super) async fn open(redis: &Redis, names: &Names, instance: &str) -> Result<Self, RedisError> {
        let connection = redis.connect().await?;
        let mut patient = connection.clone();
        patient.set_response_timeout(redis.timeout().max(PATIENCE));
        let (marker, epoch) = identify(&mut patient, names).await?;
        let asking = Arc::new(Asking { names: names.clone(), marker, epoch: format!("{epoch:016x}") });
        let watch = Arc::new(Watch::new(redis.timeout()));
        let threads = Arc::new(Threads::new(&connection, &asking, &watch, redis.timeout()));
        Ok(Self {
            reads: threads::reads(&threads),
            threads,
            connection,
            patient,
            asking,
            instance: instance.to_owned(),
            epoch,
            timeout: redis.timeout(),
            watch,
        })
    }

    /// Sees whether a new connection is good enough to be used: requests would have their answers in time.
    ///
    /// # Errors
    /// When Redis does not answer, or does so too slowly.
    pub(super) async fn probe(&self) -> Result<(), LinkError> {
        for _ in 0..PROBES {
            let begun = Instant::now();
            self.poll().await?;
            if begun.elapsed() >= self.timeout {
                return Err(LinkError::Slow);
            }
        }
        Ok(())
    }

    /// The epoch that this connection has found.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Ends when the connection should be given up.
    pub(super) async fn broken(&self) {
        self.watch.given_up().await;
    }

    /// Ends this life of the data for everybody.
    pub(super) async fn renew(&self) -> Result<(), LinkError> {
        let mut call = RENEW.key(self.asking.names.meta());
        call.arg(&self.asking.marker).arg(fresh_marker());
        self.call(&call).await
    }

    /// Gives the connection up; a new one will be opened.
    pub(super) fn give_up(&self) {
        self.watch.give_up();
    }

    /// Announces what others have left unannounced.
    ///
    /// # Errors
    /// When Redis does not confirm it.
    pub async fn announce(&self, tags: &[Tag]) -> Result<(), LinkError> {
        self.bump(tags, |_, _| ()).await.map(drop)
    }

    /// Where the sequence stands.
    pub(super) async fn poll(&self) -> Result<u64, LinkError> {
        let mut call = POLL.key(self.asking.names.meta());
        call.key(self.asking.names.heartbeat(&self.instance))
            .arg(&self.asking.marker)
            .arg(milliseconds(HEARTBEAT_LIFE));
        let answer = call.invoke_async(&mut self.patient.clone()).await;
        // It says nothing of how requests fare, but that a connection is lost.
        if let Err(err) = &answer {
            self.watch.notice(err);
        }
        self.sequence(answer?)
    }

    /// Whether it is this instance's turn to compare, for so long, and no other's.
    pub(super) async fn claim_turn(&self, lasts: Duration) -> Result<bool, LinkError> {
        let mut call = redis::cmd("SET");
        call.arg(self.asking.names.turn()).arg(&self.instance).arg("NX").arg("PX").arg(milliseconds(lasts));
        Ok(call.query_async(&mut self.patient.clone()).await?)
    }

    async fn call<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Result<T, LinkError> {
        Ok(self.watch.call(call.invoke_async(&mut self.connection.clone())).await?)
    }

    /// A call of a script that was written in one piece.
    async fn run<T: FromRedisValue>(&self, script: &Script, call: &Cmd) -> Result<T, LinkError> {
        Ok(self.watch.call(run_script(&mut self.connection.clone(), script, call)).await?)
    }

    /// Several of them in one round trip.
    async fn run_all<T: FromRedisValue>(
        &self,
        script: &Script,
        calls: impl IntoIterator<Item = Cmd>,
    ) -> Result<Vec<T>, LinkError> {
        let mut pipe = redis::pipe();
        for call in calls {
            pipe.add_command(call);
        }
        let mut connection = self.connection.clone();
        let calls = async {
            match pipe.query_async(&mut connection).await {
                Err(err) if is_unknown_script(&err) => {
                    let _: String = script.load_async(&mut connection).await?;
                    pipe.query_async(&mut connection).await
                }
                outcome => outcome,
            }
        };
        Ok(self.watch.call(calls).await?)
    }

    /// Invalidates tags for all instances. Returns the (last) sequence.
    ///
    /// `heard` is told each part that was done, so that this process need not wait for the echo.
    pub(super) async fn bump(&self, tags: &[Tag], heard: impl Fn(u64, &[Tag])) -> Result<u64, LinkError> {
        let mut last = 0;
        for part in tags.chunks(BUMP_TAGS) {
            last = match self.bump_part(part).await {
                // One more try: a bump done twice costs a miss, one not done has to wait for the relay.
                Err(LinkError::Redis(err)) if err.is_timeout() => self.bump_part(part).await?,
                outcome => outcome?,
            };
            heard(last, part);
        }
        Ok(last)
    }

    async fn bump_part(&self, tags: &[Tag]) -> Result<u64, LinkError> {
        let Asking { names, marker, epoch } = &*self.asking;
        let mut call = script_call(&BUMP, 1, 6 + tags.len(), 256 + tags.len() * 64);
        call.arg(names.meta()).arg(marker).arg(epoch).arg(names.channel()).arg(&self.instance);
        call.arg(names.tag_prefix()).arg(milliseconds(VERSION_LIFE));
        for tag in tags {
            call.arg(tag.as_str());
        }
        let sequence: i64 = self.run(&BUMP, &call).await?;
        self.sequence(sequence)
    }

    fn sequence(&self, answer: i64) -> Result<u64, LinkError> {
        u64::try_from(answer).map_err(|_negative| self.other_epoch())
    }

    fn other_epoch(&self) -> LinkError {
        self.watch.give_up();
        LinkError::OtherEpoch
    }
}

/// The marker of the life of the data that a connection leads to, and its epoch.
async fn identify(connection: &mut MultiplexedConnection, names: &Names) -> RedisResult<(String, u64)> {
    let info: redis::InfoDict = redis::cmd("INFO").arg("everything").query_async(&mut *connection).await?;
    // The run id changes with a restart, the replication id with each promotion, also of a server that was primary
    // before and had been given up.
    let identity = info.get::<String>("run_id").zip(info.get::<String>("master_replid"));
    let no_identity = (ErrorKind::UnexpectedReturnType, "INFO has no run_id or master_replid");
    let (run_id, replication_id) = identity.ok_or(no_identity)?;
    let (marker, _): (String, u64) =
        OPEN.key(names.meta()).arg(fresh_marker()).invoke_async(connection).await?;
    let digest = Sha256::new().chain_update(format!("{run_id}/{replication_id}/{marker}")).finalize();
    let epoch = digest.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte));
    Ok((marker, epoch))
}

fn fresh_marker() -> String {
    Uuid::new_v4().simple().to_string()
}

/// As Redis has numbers, which are signed.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).unsigned_abs()
}
