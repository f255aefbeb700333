//! Demo data: the same data for the same seed (times aside), and no more of it when run again.
//!
//! Written in bulk past the models; the journal's triggers see it, so that instances that run hear of it too.

mod channels;
mod texts;

use std::{
    collections::BTreeSet,
    io::IsTerminal as _,
    panic::resume_unwind,
    thread,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use diesel::{Connection, QueryResult, RunQueryDsl, prelude::*};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{
    maintenance::{BlockingConnection, BlockingPool, MaintenanceError},
    schema::{document_versions, documents, members, users, workspaces},
};
use crate::{
    auth::password::{PasswordError, hash_blocking},
    domain::{
        id::{DocumentId, UserId, WorkspaceId},
        role::Role,
        text::{Password, TextError},
    },
};

/// How much to write. Totals for users and workspaces, per workspace for the rest.
#[derive(Debug, Clone, Args)]
pub struct SeedOptions {
    /// Users in all.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub users: u32,
    /// Workspaces in all.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub workspaces: u32,
    /// Members of each workspace, at most as many as there are users.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub members: u32,
    /// Documents of each workspace, of about 4 KB.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub documents: u32,
    /// Channels of each workspace [default: 20; in the embedded database 2].
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub channels: Option<u32>,
    /// Messages of each channel [default: 1000; in the embedded database 50].
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub messages: Option<u32>,
    /// The same seed makes the same data.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Channels of each workspace, and messages of each channel.
#[derive(Debug, Clone, Copy)]
struct Conversations {
    channels: u32,
    messages: u32,
}

impl Conversations {
    /// As asked for. The embedded database, which has a single connection, is for a first look.
    fn new(options: &SeedOptions, connections: u32) -> Self {
        let (channels, messages) = if connections == 1 { (2, 50) } else { (20, 1000) };
        Self {
            channels: options.channels.unwrap_or(channels),
            messages: options.messages.unwrap_or(messages),
        }
    }

    fn total(self) -> u64 {
        u64::from(self.channels) * u64::from(self.messages)
    }
}

/// The password of every seeded user.
pub const DEMO_PASSWORD: &str = "lockstep-demo";

/// Rows in one statement; PostgreSQL takes 65,535 parameters.
const BATCH: usize = 1000;

/// Why seeding failed.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    #[error(transparent)]
    Database(#[from] MaintenanceError),
    #[error("the demo password is no password")]
    Password(#[from] TextError),
    #[error("the demo password cannot be hashed")]
    Hash(#[from] PasswordError),
}

impl From<diesel::result::Error> for SeedError {
    fn from(err: diesel::result::Error) -> Self {
        MaintenanceError::from(err).into()
    }
}

/// Writes the data and says how to log in.
///
/// # Errors
/// When the database fails; what was written stays, and another run goes on from there.
pub fn run(pool: &BlockingPool, options: &SeedOptions) -> Result<(), SeedError> {
    let started = Instant::now();
    let user_ids = seed_users(&mut *pool.get().map_err(MaintenanceError::from)?, options)?;
    seed_workspaces(pool, options, &user_ids)?;
    println!(
        "seeded in {:.1} s; log in as user1@example.com / {DEMO_PASSWORD}",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

fn seed_users(connection: &mut BlockingConnection, options: &SeedOptions) -> Result<Vec<UserId>, SeedError> {
    let rng = &mut StdRng::seed_from_u64(options.seed);
    // Hashed once: it is what takes the time.
    let hash = hash_blocking(&Password::parse(DEMO_PASSWORD)?)?;
    let bar = progress("users", options.users.into());
    let numbers: Vec<u32> = (1..=options.users).collect();
    let mut ids = Vec::with_capacity(numbers.len());
    for batch in numbers.chunks(BATCH) {
        let rows: Vec<_> = batch
            .iter()
            .map(|number| {
                (
                    users::id.eq(UserId::from(id_in_order(*number, rng))),
                    users::email.eq(email(*number)),
                    users::name.eq(texts::person(rng)),
                    users::password_hash.eq(&hash),
                )
            })
            .collect();
        let emails: Vec<_> = batch.iter().map(|number| email(*number)).collect();
        connection.transaction::<_, SeedError, _>(|connection| {
            let insert = diesel::insert_into(users::table).values(rows).on_conflict_do_nothing();
            insert.execute(connection)?;
            let found = users::table.filter(users::email.eq_any(&emails)).select((users::email, users::id));
            let mut found: Vec<(String, UserId)> = found.load(connection)?;
            found.sort_by_key(|(email, _)| (email.len(), email.clone()));
            ids.extend(found.into_iter().map(|(_, id)| id));
            Ok(())
        })?;
        bar.inc(batch.len() as u64);
    }
    bar.finish();
    Ok(ids)
}

/// Workspaces side by side, on as many connections as there are: most of the work is PostgreSQL's.
fn seed_workspaces(pool: &BlockingPool, options: &SeedOptions, user_ids: &[UserId]) -> Result<(), SeedError> {
    let bars = MultiProgress::new();
    let bar = bars.add(progress("workspaces", options.workspaces.into()));
    let conversations = Conversations::new(options, pool.max_size());
    let said = bars.add(progress("messages", u64::from(options.workspaces) * conversations.total()));
    let work = |first: u32, step: usize| {
        let mut connection = pool.get().map_err(MaintenanceError::from)?;
        for number in (first..=options.workspaces).step_by(step) {
            seed_workspace(&mut connection, number, (options, conversations), user_ids, &said)?;
            bar.inc(1);
        }
        Ok(())
    };
    let threads = pool.max_size();
    let outcome = thread::scope(|scope| {
        let step = threads as usize;
        let workers: Vec<_> = (1..=threads).map(|first| scope.spawn(move || work(first, step))).collect();
        let outcomes =
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        outcomes.collect()
    });
    bar.finish();
    said.finish();
    outcome
}

/// A workspace and everything in it, or nothing if it is there.
fn seed_workspace(
    connection: &mut BlockingConnection,
    number: u32,
    (options, conversations): (&SeedOptions, Conversations),
    user_ids: &[UserId],
    said: &ProgressBar,
) -> Result<(), SeedError> {
    // Its own, so that it does not matter which connection writes it.
    let rng = &mut StdRng::seed_from_u64(options.seed.wrapping_mul(1_000_003).wrapping_add(number.into()));
    let id = WorkspaceId::from(id_in_order(number, rng));
    let team = pick_members(number, options.members, user_ids, rng);
    let name = texts::team(rng);
    let documents: Vec<_> =
        (0..options.documents).map(|number| random_document(number, id, &team, rng)).collect();
    // Long ago, so that whoever joins now stands behind.
    let first_joined = Utc::now() - TimeDelta::days(30);
    connection.transaction(|connection| {
        if insert_workspace(connection, number, id, &name, &team, first_joined)? {
            insert_documents(connection, &documents)?;
            channels::insert_channels(connection, conversations, id, &team, rng, |count| said.inc(count))?;
        } else {
            said.inc(conversations.total());
        }
        QueryResult::Ok(())
    })?;
    Ok(())
}

fn insert_workspace(
    connection: &mut BlockingConnection,
    number: u32,
    id: WorkspaceId,
    name: &str,
    team: &[UserId],
    first_joined: DateTime<Utc>,
) -> QueryResult<bool> {
    let row = (
        workspaces::id.eq(id),
        workspaces::name.eq(name),
        workspaces::slug.eq(format!("demo-{number}")),
        workspaces::description.eq(format!("Demo workspace {number}.")),
    );
    let inserted =
        diesel::insert_into(workspaces::table).values(row).on_conflict_do_nothing().execute(connection)?;
    if inserted == 0 {
        return Ok(false);
    }
    let rows: Vec<_> = team
        .iter()
        .zip(0_i64..)
        .map(|(user, place)| {
            let joined = first_joined + TimeDelta::minutes(place);
            let role = match place {
                0 => Role::Owner,
                1 | 2 => Role::Admin,
                place if place % 10 == 9 => Role::Guest,
                _ => Role::Member,
            };
            (
                members::workspace_id.eq(id),
                members::user_id.eq(*user),
                members::role.eq(role),
                members::joined_at.eq(joined),
            )
        })
        .collect();
    for batch in rows.chunks(BATCH) {
        diesel::insert_into(members::table).values(batch).execute(connection)?;
    }
    Ok(true)
}

/// A document and its only version.
struct SeededDocument {
    id: DocumentId,
    workspace_id: WorkspaceId,
    author_id: UserId,
    title: String,
    content: String,
}

fn random_document(
    number: u32,
    workspace_id: WorkspaceId,
    team: &[UserId],
    rng: &mut StdRng,
) -> SeededDocument {
    const ABOUT_BYTES: usize = 4000;
    let content = texts::prose(ABOUT_BYTES, rng);
    let author_id = team.choose(rng).copied().unwrap_or_else(UserId::new);
    let title = texts::title(rng);
    SeededDocument { id: DocumentId::from(id_in_order(number, rng)), workspace_id, author_id, title, content }
}

fn insert_documents(connection: &mut BlockingConnection, seeded: &[SeededDocument]) -> QueryResult<()> {
    for batch in seeded.chunks(BATCH) {
        let rows: Vec<_> = batch
            .iter()
            .map(|document| {
                (
                    documents::id.eq(document.id),
                    documents::workspace_id.eq(document.workspace_id),
                    documents::title.eq(&document.title),
                    documents::content.eq(&document.content),
                    documents::author_id.eq(document.author_id),
                    documents::last_edited_by.eq(document.author_id),
                )
            })
            .collect();
        diesel::insert_into(documents::table).values(rows).execute(connection)?;
        let versions: Vec<_> = batch
            .iter()
            .map(|document| {
                (
                    document_versions::document_id.eq(document.id),
                    document_versions::version.eq(1_i64),
                    document_versions::title.eq(&document.title),
                    document_versions::content.eq(&document.content),
                    document_versions::edited_by.eq(document.author_id),
                )
            })
            .collect();
        diesel::insert_into(document_versions::table).values(versions).execute(connection)?;
    }
    Ok(())
}

/// The members of workspace `number`, its owner first. User 1 is in every tenth, so that whoever logs in sees something.
fn pick_members(number: u32, count: u32, user_ids: &[UserId], rng: &mut StdRng) -> Vec<UserId> {
    let count = user_ids.len().min(count as usize);
    let owner = user_ids.iter().cycle().nth(number.saturating_sub(1) as usize).copied();
    let mut team: Vec<_> = owner.into_iter().collect();
    let mut taken: BTreeSet<_> = owner.into_iter().collect();
    let shown = user_ids.first().filter(|_| number % 10 == 1);
    let random = std::iter::repeat_with(|| user_ids.choose(rng)).flatten();
    for user in shown.into_iter().chain(random) {
        if team.len() >= count {
            break;
        }
        if taken.insert(*user) {
            team.push(*user);
        }
    }
    team
}

fn email(number: u32) -> String {
    format!("user{number}@example.com")
}

/// A version 7 id whose random part comes from the seed. Its time is that of the project's first day, so that what is made
/// in earnest comes later; ids of higher numbers come after those of lower ones.
fn id_in_order(number: u32, rng: &mut StdRng) -> uuid::Uuid {
    const EPOCH_MS: u64 = 1_790_000_000_000;
    uuid::Builder::from_unix_timestamp_millis(EPOCH_MS + u64::from(number), &rng.random()).into_uuid()
}

fn progress(what: &'static str, count: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix:>12} [{bar:40}] {pos}/{len} {eta}");
    let bar = ProgressBar::new(count).with_prefix(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    match style {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}
