//! The command line.

mod cache;

use std::{
    error::Error,
    io::{self, Write as _},
    process::ExitCode,
    thread,
};

use clap::{Args, Parser, Subcommand};
use diesel::{RunQueryDsl, prelude::*};
use tokio::runtime::{self, Runtime};

use crate::{
    api::openapi,
    config::{Config, DatabaseConfig},
    db::{
        maintenance::{self, BlockingPool},
        schema::users,
        seed::{self, SeedOptions},
    },
    server, telemetry,
};

type AnyError = Box<dyn Error + Send + Sync>;

/// A REST API for team workspaces whose two-tier cache never lies.
#[derive(Debug, Parser)]
#[command(name = "lockstep", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Migrate and serve (the default).
    Serve(Serve),
    /// Migrate the database, or see where it stands.
    Migrate {
        #[arg(value_enum, default_value = "up")]
        direction: Direction,
    },
    /// Write demo data.
    Seed(SeedOptions),
    /// Manage users.
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
    /// See and change what is cached, on every instance.
    Cache {
        #[command(subcommand)]
        command: cache::CacheCommand,
    },
    /// Print the OpenAPI document.
    Openapi,
    /// Print the effective configuration, secrets hidden.
    Config,
    /// Serve what benchmarks compare with.
    #[cfg(feature = "bench")]
    Ceiling(crate::ceiling::CeilingOptions),
}

#[derive(Debug, Args, Default)]
struct Serve {
    /// Leave migrations to somebody else.
    #[arg(long)]
    no_migrate: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Direction {
    /// Apply what is missing.
    Up,
    /// Take back the newest.
    Down,
    /// List all.
    Status,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Let a user use the operations API.
    Staff {
        /// E-mail address of the user.
        email: String,
    },
}

/// Runs the command that the process was called with.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(err) => {
            err.lines().for_each(|line| eprintln!("lockstep: {line}"));
            return ExitCode::from(2);
        }
    };
    let outcome = execute(cli.command.unwrap_or(Command::Serve(Serve::default())), &config);
    // The error is the last line.
    telemetry::flush();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("lockstep: {}", telemetry::Chain(&*err));
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command, config: &Config) -> Result<(), AnyError> {
    match command {
        Command::Serve(options) => serve(config, !options.no_migrate),
        Command::Migrate { direction } => with_database(&config.database, |pool| migrate(pool, direction)),
        Command::Seed(options) => with_database(&config.database, |pool| {
            maintenance::migrate_up(pool)?;
            Ok(seed::run(pool, &options)?)
        }),
        Command::User { command: UserCommand::Staff { email } } => {
            with_database(&config.database, |pool| make_staff(pool, &email))
        }
        Command::Cache { command } => cache::manage(config, command),
        Command::Openapi => print(&openapi::document().to_pretty_json()?),
        Command::Config => print(&config.table().to_string()),
        #[cfg(feature = "bench")]
        Command::Ceiling(options) => {
            let runtime = main_runtime()?;
            Ok(runtime.block_on(crate::ceiling::serve(&options, config))?)
        }
    }
}

/// Whoever has read enough may close the pipe.
fn print(text: &str) -> Result<(), AnyError> {
    match writeln!(io::stdout(), "{}", text.trim_end()) {
        Err(err) if err.kind() != io::ErrorKind::BrokenPipe => Err(err.into()),
        _ => Ok(()),
    }
}

/// It waits for PostgreSQL and Redis more than it works, beside as many Actix workers as there are cores: with as many
/// threads, each would be woken again and again to look for work that another one has.
fn main_runtime() -> io::Result<Runtime> {
    let threads = (thread::available_parallelism().map_or(1, usize::from) / 2).max(1);
    runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

fn serve(config: &Config, migrate: bool) -> Result<(), AnyError> {
    telemetry::init(&config.log)?;
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    let runtime = main_runtime()?;
    if config.database.url.is_some() {
        runtime.block_on(server::serve(config, None, migrate))?;
        return Ok(());
    }
    let embedded = Embedded::start(&config.database.data_dir)?;
    if migrate {
        maintenance::migrate_up(&maintenance::open(&embedded.url(), 1)?)?;
    }
    let served = runtime.block_on(server::serve(config, Some(&embedded.url()), migrate));
    // Closes the connection, without which the embedded server would wait for it.
    drop(runtime);
    drop(embedded);
    Ok(served?)
}

/// Runs a maintenance command on the database of the settings.
fn with_database(
    config: &DatabaseConfig,
    work: impl FnOnce(&BlockingPool) -> Result<(), AnyError>,
) -> Result<(), AnyError> {
    if let Some(url) = &config.url {
        return work(&maintenance::open(url, 2)?);
    }
    let embedded = Embedded::start(&config.data_dir)?;
    let pool = maintenance::open(&embedded.url(), 1)?;
    let outcome = work(&pool);
    drop(pool);
    drop(embedded);
    outcome
}

fn migrate(pool: &BlockingPool, direction: Direction) -> Result<(), AnyError> {
    match direction {
        Direction::Up => {
            let versions = maintenance::migrate_up(pool)?;
            versions.iter().for_each(|version| println!("applied {version}"));
            if versions.is_empty() {
                println!("nothing to apply");
            }
        }
        Direction::Down => match maintenance::migrate_down(pool)? {
            Some(version) => println!("took back {version}"),
            None => println!("nothing to take back"),
        },
        Direction::Status => {
            for (name, applied) in maintenance::status(pool)? {
                println!("{} {name}", if applied { "applied" } else { "missing" });
            }
        }
    }
    Ok(())
}

/// Written past the models, like any other program would: the journal's triggers see it, and instances that run hear of
/// it within 1.5 s.
fn make_staff(pool: &BlockingPool, email: &str) -> Result<(), AnyError> {
    let user = users::table.filter(users::email.eq(email.trim().to_lowercase()));
    let changed = diesel::update(user).set(users::is_staff.eq(true)).execute(&mut pool.get()?)?;
    if changed == 0 {
        return Err(
            io::Error::new(io::ErrorKind::NotFound, format!("no user has the address {email}")).into()
        );
    }
    println!("{email} is staff");
    Ok(())
}

#[cfg(feature = "embedded")]
use crate::db::embedded::Embedded;

/// Stands in for the embedded database in builds without it.
#[cfg(not(feature = "embedded"))]
struct Embedded;

#[cfg(not(feature = "embedded"))]
impl Embedded {
    fn start(config: &std::path::Path) -> Result<Self, io::Error> {
        let _ = config;
        Err(io::Error::other("DATABASE_URL: must be set, since this build has no embedded database"))
    }

    fn url(&self) -> String {
        String::new()
    }
}
