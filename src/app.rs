//! Everything that the workers share, built once; and the tasks behind it.
//!
//! The composition root: here, and only here, what a commit announces is connected to the cache.

use std::{ops::Deref, sync::Arc, time::Duration};

use actix_web::http::header::HeaderValue;
use ipnet::IpNet;
use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::{
        password::{PasswordError, PasswordHasher},
        token::{AccessTokens, derive_key, load_or_create_secret},
    },
    cache::{
        self, Cache,
        bus::{BeforeUse, Bus},
    },
    config::{CacheStatusAudience, Config},
    db::{Announce, Committed, Db},
    http::cursor::CursorKey,
    journal::{Announced, Journal, Marks, relay_before_use},
    metrics::Metrics,
    queries::{Queries, tags::tags_of_all},
    rate_limit::{Limits, shared::Shared},
    realtime::hub::Hub,
    redis::Redis,
    sharded::lasting_header,
};

/// What every request can reach. Each worker has a handle of its own, of which its requests may take more: counted in one
/// place, every request would take that place away from all other workers.
#[derive(Clone)]
pub struct App {
    state: Arc<State>,
    /// Those of the state, counted apart for each worker, since requests take them along.
    pub db: Db,
    pub queries: Queries,
}

impl App {
    /// The first handle.
    #[must_use]
    pub fn new(state: State) -> Self {
        Self { db: state.db.clone(), queries: state.queries.clone(), state: Arc::new(state) }
    }

    /// One for a worker.
    #[must_use]
    pub fn share(&self) -> Self {
        Self { state: Arc::clone(&self.state), db: self.db.share(), queries: self.queries.share() }
    }
}

impl Deref for App {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

/// What there is once in a process.
pub struct State {
    pub db: Db,
    pub cache: Arc<Cache>,
    pub queries: Queries,
    pub access_tokens: Arc<AccessTokens>,
    pub passwords: PasswordHasher,
    pub cursors: CursorKey,
    pub metrics: Metrics,
    /// Base of links, without a slash at the end.
    pub public_url: String,
    /// Name of this instance.
    pub served_by: HeaderValue,
    /// Who is told how the cache fared.
    pub cache_status: CacheStatusAudience,
    pub readiness: Readiness,
    /// Those who listen to events.
    pub hub: Hub,
    /// How much one caller may ask.
    pub limits: Limits,
    /// Whose word on client addresses counts.
    pub trusted_proxies: Box<[IpNet]>,
}

/// Why the application could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("DATABASE_URL: the connection pools cannot be built")]
    Pool(#[from] diesel_async::pooled_connection::deadpool::BuildError),
    #[error("REDIS_URL: is not the URL of a Redis")]
    Redis(#[from] ::redis::RedisError),
    #[error("DATA_DIR: the secret of access tokens cannot be kept there")]
    Secret(#[from] std::io::Error),
    #[error("passwords cannot be hashed")]
    Password(#[from] PasswordError),
    #[error("metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    #[error("INSTANCE_ID: cannot stand in a header")]
    InstanceId(#[from] actix_web::http::header::InvalidHeaderValue),
}

/// Tasks that outlive requests. They begin once the database is ready; stopping waits for their ends.
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    ready: CancellationToken,
}

impl Tasks {
    fn new(readiness: &Readiness) -> Self {
        Self { tracker: TaskTracker::new(), stop: CancellationToken::new(), ready: readiness.ready.clone() }
    }

    /// Runs a task until it ends, which it has to do when it is told to stop.
    pub fn spawn<T>(&self, main: &Handle, task: impl FnOnce(CancellationToken) -> T)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let (stop, ready) = (self.stop.clone(), self.ready.clone());
        let task = task(stop.clone());
        let when_ready = async move {
            if stop.run_until_cancelled(ready.cancelled()).await.is_some() {
                task.await;
            }
        };
        self.tracker.spawn_on(when_ready, main);
    }

    /// The same for a task that needs no database.
    pub fn spawn_at_once<T>(&self, main: &Handle, task: impl FnOnce(CancellationToken) -> T)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn_on(task(self.stop.clone()), main);
    }

    /// Stops all tasks and waits for their ends, though not for ever.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(Duration::from_secs(5), self.tracker.wait()).await.is_err() {
            log::warn!("background tasks did not end in time");
        }
    }
}

/// Passwords that may wait to be checked, for each core that checks them.
const PASSWORD_QUEUE: usize = 32;

impl State {
    /// Builds everything and starts what runs behind it. `embedded_url`: the embedded database, if that is used.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn build(
        config: &Config,
        embedded_url: Option<&str>,
        main: &Handle,
    ) -> Result<(Self, Tasks), BuildError> {
        let metrics = Metrics::new(&config.server.instance_id)?;
        let redis =
            config.redis.url.as_deref().map(|url| Redis::new(url, config.redis.timeout)).transpose()?;
        let settings = cache::Settings {
            l1: config.cache.mode.l1(),
            l2: config.cache.mode.l2() && redis.is_some(),
            bus: redis.is_some(),
            l1_max_bytes: config.cache.l1_max_bytes,
            namespace: config.cache.namespace.clone(),
            instance: config.server.instance_id.clone(),
        };
        let cache = Cache::new(settings, main.clone(), metrics.registry())?;

        let (marks, announced) = mpsc::unbounded_channel();
        let announce = announce(&cache, marks);
        let db = match (embedded_url, &config.database.url) {
            (None, Some(url)) => Db::connect(url, config.database.pool_size, main.clone(), announce)?,
            (embedded, _) => Db::connect_embedded(embedded.unwrap_or_default(), main.clone(), announce)?,
        };
        let readiness = Readiness::default();
        let tasks = Tasks::new(&readiness);
        let shared = redis.clone().map(|redis| Shared::new(redis, &config.cache.namespace));
        if let Some(shared) = &shared {
            tasks.spawn_at_once(main, |stop| Arc::clone(shared).keep_connected(stop));
        }
        start_tasks(&tasks, main, &cache, &db, redis, announced);
        let queries = Queries::new(&cache, &db, &config.cache.policies);
        let (hub, telling) = Hub::new(metrics.registry())?;
        {
            // Streams end when the instance begins to leave: requests under way would wait for them.
            let (db, queries, heard) = (db.clone(), queries.clone(), cache.invalidated());
            let draining = readiness.draining.clone();
            tasks.spawn(main, |stop| async move {
                let telling = telling.run(db, queries, heard, stop);
                draining.run_until_cancelled(telling).await;
            });
        }

        let secret = match &config.auth.secret {
            Some(secret) => secret.clone(),
            None => load_or_create_secret(&config.database.data_dir)?,
        };
        let limits = Limits::new(
            &config.rate_limit,
            shared.as_ref(),
            config.server.max_instances,
            derive_key(&secret, "lockstep rate limit"),
            main,
            metrics.registry(),
        )?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let state = Self {
            queries,
            db,
            cache,
            access_tokens: Arc::new(AccessTokens::new(&secret, &config.auth.previous_secrets)),
            passwords: PasswordHasher::new(main.clone(), cores, cores * PASSWORD_QUEUE)?,
            cursors: cursor_key(&secret, &config.auth.previous_secrets),
            metrics,
            public_url: config.server.public_url.clone(),
            served_by: lasting_header(&config.server.instance_id)?,
            cache_status: config.cache.status,
            readiness,
            hub,
            limits,
            trusted_proxies: config.server.trusted_proxies.clone().into(),
        };
        Ok((state, tasks))
    }
}

fn cursor_key(secret: &[u8], previous: &[Vec<u8>]) -> CursorKey {
    let key = |secret: &[u8]| derive_key(secret, "lockstep cursor");
    let previous: Vec<_> = previous.iter().map(|secret| key(secret)).collect();
    CursorKey::new(&key(secret), &previous)
}

/// Change → tags → cache, and the journal is told that it need not do the same.
fn announce(cache: &Arc<Cache>, marks: Marks) -> Announce {
    let cache = Arc::clone(cache);
    Arc::new(move |committed: Committed| {
        let (cache, marks) = (Arc::clone(&cache), marks.clone());
        Box::pin(async move {
            let Committed { changes, journal_ids, position } = committed;
            let invalidated = cache.invalidate_recorded(&tags_of_all(&changes), position, "write").await;
            if invalidated.announced && !journal_ids.is_empty() {
                // Nobody listens only while the process stops; the relay of another takes over.
                let _ = marks.send(Announced { ids: journal_ids, epoch: invalidated.epoch });
            }
            invalidated.token
        })
    })
}

fn start_tasks(
    tasks: &Tasks,
    main: &Handle,
    cache: &Arc<Cache>,
    db: &Db,
    redis: Option<Redis>,
    announced: mpsc::UnboundedReceiver<Announced>,
) {
    let journal = Arc::new(Journal { db: db.clone(), cache: Arc::clone(cache) });
    if let Some(redis) = redis {
        let before_use = {
            let db = db.clone();
            let before_use: BeforeUse = Box::new(move |link| {
                let db = db.clone();
                Box::pin(async move { relay_before_use(&db, &link).await })
            });
            before_use
        };
        let bus = Bus::new(Arc::clone(cache), redis, before_use);
        tasks.spawn(main, |stop| bus.run(stop));
        let (relaying, marking) = (Arc::clone(&journal), Arc::clone(&journal));
        tasks.spawn(main, |stop| async move { relaying.relay(stop).await });
        tasks.spawn(main, |stop| async move { marking.mark(announced, stop).await });
        if !db.is_embedded() {
            let standing_in = Arc::clone(&journal);
            tasks.spawn(main, |stop| async move { standing_in.stand_in(stop).await });
        }
    } else if db.is_embedded() {
        cache.trust_alone();
    } else {
        let listening = Arc::clone(&journal);
        tasks.spawn(main, |stop| async move { listening.listen(announced, stop).await });
    }
    let tidied = Arc::clone(cache);
    tasks.spawn_at_once(main, |stop| tidied.tidy_up(stop));
    let monitored = Arc::clone(cache);
    tasks.spawn(main, |stop| monitored.monitor(stop));
    tasks.spawn(main, |stop| async move { journal.prune(stop).await });
}

/// Whether a balancer should send requests here.
#[derive(Debug, Default)]
pub struct Readiness {
    ready: CancellationToken,
    draining: CancellationToken,
}

/// A state of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// PostgreSQL was not reached yet, or migrations are missing.
    Starting,
    /// At work, and to stay so even if PostgreSQL or Redis goes away: cached reads go on.
    Ready,
    /// On its way out.
    Draining,
}

impl Readiness {
    /// The present phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        if self.draining.is_cancelled() {
            Phase::Draining
        } else if self.ready.is_cancelled() {
            Phase::Ready
        } else {
            Phase::Starting
        }
    }

    /// The database is reached and migrated.
    pub fn set_ready(&self) {
        self.ready.cancel();
    }

    /// No more requests, please.
    pub fn set_draining(&self) {
        self.draining.cancel();
    }
}
