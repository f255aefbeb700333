//! The listener: start, serve, stop.
//!
//! It listens before the database is reached, so that a balancer sees a process that is alive and not yet ready; see
//! `/readyz`. On SIGTERM it says that it is leaving, waits until balancers have noticed, finishes what it has begun, and
//! stops the tasks behind it.

use std::{io, net::TcpListener, rc::Rc, sync::Arc, time::Duration};

use actix_web::{App as ActixApp, HttpServer, middleware::from_fn, web::Data};
use tokio::{
    runtime::Handle,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    api,
    app::{App, BuildError, State},
    config::Config,
    db::maintenance::{self, MaintenanceError},
    http::{
        middleware::{Worker, observe},
        params,
    },
    rate_limit::flood_guard::FloodGuard,
    telemetry::Chain,
};

/// How long balancers are given to notice that this instance leaves.
const NOTICE: Duration = Duration::from_secs(1);
/// How long requests under way are given to finish.
const FINISH_SECONDS: u64 = 10;
/// How long an idle connection is kept: longer than balancers and clients do, so that it is they who close it. Were it
/// the service, a request that was just being sent would be lost, and one that writes cannot be sent again in good faith.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a new connection may take to send its first request, which balancers open ahead of need.
const FIRST_REQUEST: Duration = Duration::from_secs(30);
/// Pause between attempts to reach the database at the start.
const RETRY: Duration = Duration::from_millis(500);

/// Why the service ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("LISTEN_ADDR: cannot listen on {address}")]
    Listen { address: std::net::SocketAddr, source: io::Error },
    #[error("the server failed")]
    Server(#[from] io::Error),
    #[error(transparent)]
    Migrate(#[from] MaintenanceError),
}

/// Serves until told to stop. `embedded_url`: the embedded database, migrated already, if that is used.
///
/// # Errors
/// When a setting cannot be used, the address is taken, or migrations fail.
pub async fn serve(config: &Config, embedded_url: Option<&str>, migrate: bool) -> Result<(), ServeError> {
    let address = config.server.listen_addr;
    let listener = TcpListener::bind(address).map_err(|source| ServeError::Listen { address, source })?;
    // Every listener is an open file. What the system allows, but programs have to ask for.
    if let Err(err) = rlimit::increase_nofile_limit(u64::MAX) {
        log::warn!("error.chain":% = Chain(&err); "the number of open files cannot be raised");
    }
    let main = Handle::current();
    let (mut state, tasks) = State::build(config, embedded_url, &main)?;
    if address.port() == 0 {
        // Only now is it known.
        state.public_url =
            state.public_url.replace(&address.to_string(), &listener.local_addr()?.to_string());
    }
    let app = App::new(state);
    let workers_app = app.clone();
    // Once for all workers, which would count apart.
    let proxies = &config.server.trusted_proxies;
    let guard = config.rate_limit.ip.and_then(|rate| FloodGuard::new(rate, proxies)).map(Arc::new);
    if let Some(guard) = &guard {
        tasks.spawn(&main, |stop| Arc::clone(guard).forget_idle(stop));
    }
    let address = listener.local_addr()?;
    let server = HttpServer::new(move || {
        let app = workers_app.share();
        app.cache.add_thread();
        let worker = Worker::new(app.clone(), guard.clone());
        ActixApp::new()
            .app_data(Data::new(app))
            .app_data(params::path_config())
            .app_data(params::query_config())
            // The last one is the outermost.
            .wrap(from_fn(move |request, next| observe(Rc::clone(&worker), request, next)))
            .configure(api::configure)
    })
    .listen(listener)?
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(FIRST_REQUEST)
    .shutdown_timeout(FINISH_SECONDS)
    .disable_signals()
    .run();
    let handle = server.handle();
    log::info!(address:% = address, instance = config.server.instance_id; "listening on http://{address}");

    let mut server = tokio::spawn(server);
    let mut signals = Signals::new()?;
    let outcome = tokio::select! {
        // Neither may die in silence.
        ended = &mut server => flatten(ended),
        started = start(&app, config, embedded_url.is_none(), migrate) => match started {
            Ok(()) => tokio::select! {
                ended = &mut server => flatten(ended),
                in_a_hurry = signals.stop() => {
                    app.readiness.set_draining();
                    if !in_a_hurry {
                        tokio::time::sleep(NOTICE).await;
                    }
                    handle.stop(true).await;
                    flatten(server.await)
                }
            },
            Err(err) => Err(err),
        },
        _ = signals.stop() => Ok(()),
    };
    tasks.stop().await;
    log::info!("stopped");
    outcome
}

/// Reaches the database, migrates, and says that the instance is ready.
async fn start(app: &App, config: &Config, wait_for_server: bool, migrate: bool) -> Result<(), ServeError> {
    if wait_for_server && let Some(url) = config.database.url.clone() {
        let mut complained = false;
        loop {
            let url = url.clone();
            // Blocking connections, which must not be used on a thread of the runtime.
            let prepared = tokio::task::spawn_blocking(move || prepare(&url, migrate));
            match prepared.await.map_err(io::Error::other)? {
                Ok(true) => break,
                Ok(false) if !complained => {
                    log::warn!("migrations are missing; waiting for somebody to apply them")
                }
                Err(err @ MaintenanceError::Unreachable(_)) if !complained => {
                    log::warn!("error.chain":% = Chain(&err); "waiting for PostgreSQL");
                }
                Ok(false) | Err(MaintenanceError::Unreachable(_)) => {}
                Err(err) => return Err(err.into()),
            }
            complained = true;
            tokio::time::sleep(RETRY).await;
        }
    }
    app.readiness.set_ready();
    log::info!("ready");
    Ok(())
}

/// Applies what is missing, or only looks. Returns whether the schema is there.
fn prepare(url: &str, migrate: bool) -> Result<bool, MaintenanceError> {
    let pool = maintenance::open(url, 1)?;
    if !migrate {
        return Ok(maintenance::status(&pool)?.iter().all(|(_, applied)| *applied));
    }
    for version in maintenance::migrate_up(&pool)? {
        log::info!(version = version; "migrated");
    }
    Ok(true)
}

/// The signals that end the service.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for SIGTERM, or for SIGINT from somebody at a keyboard, who is in a hurry: `true`.
    async fn stop(&mut self) -> bool {
        tokio::select! {
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => true,
        }
    }
}

fn flatten(ended: Result<io::Result<()>, tokio::task::JoinError>) -> Result<(), ServeError> {
    Ok(ended.map_err(io::Error::other)??)
}
