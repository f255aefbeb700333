//! The listener: start, serve, stop.
//!
//! It listens before the database is reached, so that a balancer sees a process that is alive and not yet ready; see
//! `/readyz`. On SIGTERM it says that it is leaving, waits until balancers have noticed, finishes what it has begun, and
//! stops the tasks behind it.

use std::{io, net::TcpListener, sync::Arc, time::Duration};

use actix_web::{App as ActixApp, HttpServer, middleware::from_fn, web::Data};
use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
};

use crate::{
    api,
    app::{App, BuildError},
    config::Config,
    db::maintenance::{self, MaintenanceError},
    http::{middleware::observe, params},
    rate_limit::flood_guard::FloodGuard,
    telemetry::Chain,
};

/// How long balancers are given to notice that this instance leaves.
const NOTICE: Duration = Duration::from_secs(1);
/// How long requests under way are given to finish.
const FINISH_SECONDS: u64 = 10;
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
    let main = Handle::current();
    let (mut app, tasks) = App::build(config, embedded_url, &main)?;
    if address.port() == 0 {
        // Only now is it known.
        app.public_url = app.public_url.replace(&address.to_string(), &listener.local_addr()?.to_string());
    }
    // Shared by all workers, so that it exists once.
    let app = Data::new(app);
    let workers_app = app.clone();
    // So does the guard: one for each worker would count apart.
    let proxies = &config.server.trusted_proxies;
    let guard = config.rate_limit.ip.and_then(|rate| FloodGuard::new(rate, proxies)).map(Arc::new);
    if let Some(guard) = &guard {
        tasks.spawn(&main, |stop| Arc::clone(guard).forget_idle(stop));
    }
    let address = listener.local_addr()?;
    let server = HttpServer::new(move || {
        ActixApp::new()
            .app_data(workers_app.clone())
            .app_data(params::path_config())
            .app_data(params::query_config())
            // The last one is the outermost.
            .wrap(from_fn(observe))
            .configure(|routes| api::configure(routes, guard.as_deref()))
    })
    .listen(listener)?
    .shutdown_timeout(FINISH_SECONDS)
    .disable_signals()
    .run();
    let handle = server.handle();
    log::info!(address:% = address, instance = config.server.instance_id; "listening on http://{address}");

    let mut server = tokio::spawn(server);
    let starting = start(&app, config, embedded_url.is_none(), migrate);
    let outcome = tokio::select! {
        // Neither may die in silence.
        ended = &mut server => flatten(ended),
        started = starting => match started {
            Ok(()) => tokio::select! {
                ended = &mut server => flatten(ended),
                waited = stop_signal() => match waited {
                    Ok(in_a_hurry) => {
                        app.readiness.set_draining();
                        if !in_a_hurry {
                            tokio::time::sleep(NOTICE).await;
                        }
                        handle.stop(true).await;
                        flatten(server.await)
                    }
                    Err(err) => Err(err.into()),
                },
            },
            Err(err) => Err(err),
        },
        waited = stop_signal() => waited.map(drop).map_err(ServeError::from),
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
            let reached = tokio::task::spawn_blocking(move || {
                let pool = maintenance::open(&url, 1)?;
                if migrate { maintenance::migrate_up(&pool) } else { Ok(Vec::new()) }
            });
            match reached.await.map_err(io::Error::other)? {
                Ok(versions) => {
                    for version in versions {
                        log::info!(version = version; "migrated");
                    }
                    break;
                }
                Err(MaintenanceError::Connect(err)) => {
                    if !complained {
                        log::warn!("error.chain":% = Chain(&err); "PostgreSQL cannot be reached (DATABASE_URL); trying on");
                    }
                    complained = true;
                    tokio::time::sleep(RETRY).await;
                }
                Err(err) => return Err(err.into()),
            }
        }
    }
    app.readiness.set_ready();
    log::info!("ready");
    Ok(())
}

/// Waits for SIGTERM, or for SIGINT from somebody at a keyboard, who is in a hurry.
async fn stop_signal() -> io::Result<bool> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok(false),
        _ = interrupt.recv() => Ok(true),
    }
}

fn flatten(ended: Result<io::Result<()>, tokio::task::JoinError>) -> Result<(), ServeError> {
    Ok(ended.map_err(io::Error::other)??)
}
