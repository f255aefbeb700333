//! The clients of this instance, and what they are told. One task owns all of it: no lock, and no order in doubt.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use prometheus::{IntCounter, IntGauge, Registry};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{audience::Audiences, frame, position::Position};
use crate::{
    auth::Credential,
    db::{Db, DbError, snapshot::Snapshot},
    domain::{
        event::{EventKind, SessionsEnded},
        id::UserId,
    },
    models::events::{Event, Reading},
    queries::{
        Queries,
        users::{SignInState, SignInStateOf},
    },
    telemetry::Chain,
};

/// Frames that wait for one client. Whoever is further behind is dropped.
const QUEUE: usize = 256;
/// How often the log is read though nobody said that there is anything new, and how often clients are looked after.
const TICK: Duration = Duration::from_secs(1);
/// Each client is looked after in one of this many ticks: it gets a sign of life, and must still be signed in.
const TICKS_PER_ROUND: u64 = 15;
/// Pause between readings, in which what happens is gathered.
const GATHER: Duration = Duration::from_millis(5);
/// More events than this are not told at once: clients come again and read them page by page.
const MANY_EVENTS: i64 = 5000;
/// Longest wait to be let in.
const JOIN: Duration = Duration::from_secs(5);

/// Lets clients in. Clones lead to the same hub.
#[derive(Clone)]
pub struct Hub {
    commands: mpsc::Sender<Command>,
}

/// No more clients: the process is about to end.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the service is about to stop")]
pub struct Closed;

enum Command {
    Join {
        user: UserId,
        credential: Credential,
        /// What was visible then is covered.
        asked: Instant,
        joined: oneshot::Sender<Result<Joined, Arc<DbError>>>,
    },
    Leave(u64),
}

/// A place among the clients.
#[derive(Debug)]
pub struct Joined {
    /// What became visible after this will be in `frames`; what was visible before will not.
    pub position: Position,
    pub frames: mpsc::Receiver<Bytes>,
    pub seat: Seat,
}

/// Leaves the hub when dropped.
#[derive(Debug)]
pub struct Seat {
    id: u64,
    commands: mpsc::Sender<Command>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        // If there is no room, the next frame will tell.
        let _ = self.commands.try_send(Command::Leave(self.id));
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}

/// Why a client could not be let in.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Closed(#[from] Closed),
    #[error("the log of events cannot be read")]
    Database(#[source] Arc<DbError>),
    #[error("the log of events was not read in time")]
    Late,
}

impl Hub {
    /// A hub, and the task that has to be run for it.
    ///
    /// # Errors
    /// When its metrics are in the registry already.
    pub fn new(registry: &Registry) -> prometheus::Result<(Self, HubTask)> {
        let (commands, inbox) = mpsc::channel(1024);
        let connections = IntGauge::new("lockstep_sse_connections", "Clients that listen to events.")?;
        let dropped =
            IntCounter::new("lockstep_sse_dropped_total", "Clients that were dropped for being slow.")?;
        let sent = IntCounter::new("lockstep_sse_frames_total", "Events sent to clients.")?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(dropped.clone()))?;
        registry.register(Box::new(sent.clone()))?;
        let hub = Self { commands: commands.clone() };
        let task = HubTask {
            commands,
            inbox,
            clients: HashMap::new(),
            of_user: HashMap::new(),
            next_id: 0,
            read_so_far: None,
            read_at: Instant::now(),
            numbers: Numbers { connections, dropped, sent },
        };
        Ok((hub, task))
    }

    /// Lets a client in.
    ///
    /// # Errors
    /// When the log cannot be read, or the process is about to end.
    pub async fn join(&self, user: UserId, credential: Credential) -> Result<Joined, JoinError> {
        let (joined, answer) = oneshot::channel();
        let join = Command::Join { user, credential, asked: Instant::now(), joined };
        self.commands.send(join).await.map_err(|_gone| Closed)?;
        let answer = tokio::time::timeout(JOIN, answer).await.map_err(|_late| JoinError::Late)?;
        answer.map_err(|_gone| Closed)?.map_err(JoinError::Database)
    }
}

struct Client {
    user: UserId,
    credential: Credential,
    frames: mpsc::Sender<Bytes>,
}

struct Numbers {
    connections: IntGauge,
    dropped: IntCounter,
    sent: IntCounter,
}

/// The state of a hub.
pub struct HubTask {
    commands: mpsc::Sender<Command>,
    inbox: mpsc::Receiver<Command>,
    clients: HashMap<u64, Client>,
    of_user: HashMap<UserId, BTreeSet<u64>>,
    next_id: u64,
    /// What all clients were told of; nothing while there are none.
    read_so_far: Option<(Snapshot, i64)>,
    /// When that reading began.
    read_at: Instant,
    numbers: Numbers,
}

impl HubTask {
    /// Tells clients what happens, until stopped. `invalidated` rings when something was invalidated by any instance:
    /// whatever causes an event invalidates something.
    pub async fn run(mut self, db: Db, queries: Queries, invalidated: Arc<Notify>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut round: u64 = 0;
        let mut lost = false;
        loop {
            let due = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                command = self.inbox.recv() => {
                    let Some(command) = command else { return };
                    self.obey(command, &db).await;
                    false
                }
                _ = ticks.tick() => {
                    round = (round + 1) % TICKS_PER_ROUND;
                    self.look_after(round, &queries);
                    true
                }
                () = invalidated.notified(), if !self.clients.is_empty() => true,
            };
            if !due || self.clients.is_empty() {
                continue;
            }
            let begun = Instant::now();
            match self.read(&db).await {
                Ok(()) => lost = false,
                Err(err) => {
                    if !lost {
                        log::warn!("error.chain":% = Chain(&err); "events cannot be read; clients wait");
                    }
                    lost = true;
                }
            }
            tokio::time::sleep(GATHER.saturating_sub(begun.elapsed())).await;
        }
    }

    async fn obey(&mut self, command: Command, db: &Db) {
        match command {
            // Whoever has gone meanwhile is not worth a reading.
            Command::Join { joined, .. } if joined.is_closed() => {}
            Command::Join { user, credential, asked, joined } => {
                let answer = self.join(user, credential, asked, db).await.map_err(Arc::new);
                // Whoever has gone meanwhile drops his seat, which makes him leave.
                let _ = joined.send(answer);
            }
            Command::Leave(id) => self.leave(id),
        }
    }

    async fn join(
        &mut self,
        user: UserId,
        credential: Credential,
        asked: Instant,
        db: &Db,
    ) -> Result<Joined, DbError> {
        // Another instance may have told him more than was read here. One reading serves all who have asked before it.
        if self.read_at < asked && self.read_so_far.is_some() {
            self.read(db).await?;
        }
        let (seen, at_ms) = match self.read_so_far.clone() {
            Some(read) => read,
            None => {
                self.read_at = Instant::now();
                let reading = db.journal(async |db| Event::list_since(db, None, 1).await).await?;
                self.read_so_far.insert((reading.snapshot, reading.at_ms)).clone()
            }
        };
        let id = self.next_id;
        self.next_id += 1;
        let (frames, receiver) = mpsc::channel(QUEUE);
        self.clients.insert(id, Client { user, credential, frames });
        self.of_user.entry(user).or_default().insert(id);
        self.numbers.connections.inc();
        let seat = Seat { id, commands: self.commands.clone() };
        Ok(Joined { position: Position::after(seen, at_ms), frames: receiver, seat })
    }

    fn leave(&mut self, id: u64) {
        let Some(client) = self.clients.remove(&id) else { return };
        self.numbers.connections.dec();
        if let Some(ids) = self.of_user.get_mut(&client.user) {
            ids.remove(&id);
            if ids.is_empty() {
                self.of_user.remove(&client.user);
            }
        }
        if self.clients.is_empty() {
            self.read_so_far = None;
        }
    }

    /// Reads what has become visible and tells it.
    async fn read(&mut self, db: &Db) -> Result<(), DbError> {
        let Some((seen, _)) = self.read_so_far.clone() else { return Ok(()) };
        let connected: Vec<UserId> = self.of_user.keys().copied().collect();
        let begun = Instant::now();
        let (reading, audiences) = db
            .journal(async |db| {
                let reading = Event::list_since(db, Some(&seen), MANY_EVENTS).await?;
                // After the events: whoever was removed before one of them is in none of these.
                let audiences = Audiences::of(db, &reading.events, &connected).await?;
                Ok((reading, audiences))
            })
            .await?;
        self.read_at = begun;
        let too_many = i64::try_from(reading.events.len()).is_ok_and(|count| count >= MANY_EVENTS);
        if too_many || reading.snapshot.end() < seen.end() {
            log::warn!(too_many = too_many; "clients have to come again: the log of events has gone far ahead, or back");
            self.clients.clear();
            self.of_user.clear();
            self.numbers.connections.set(0);
            self.read_so_far = None;
            return Ok(());
        }
        self.tell(&seen, &reading, &audiences);
        self.read_so_far = self.read_so_far.as_ref().map(|_| (reading.snapshot, reading.at_ms));
        Ok(())
    }

    fn tell(&mut self, seen: &Snapshot, reading: &Reading, audiences: &Audiences) {
        let last = reading.events.len().saturating_sub(1);
        for (index, event) in reading.events.iter().enumerate() {
            if event.kind == EventKind::SessionsEnded {
                self.end_streams(event);
                continue;
            }
            let mut frame_once = None;
            let (of_user, clients) = (&self.of_user, &self.clients);
            let ids = audiences.of_event(event).filter_map(|user| of_user.get(&user)).flatten();
            let mut slow = Vec::new();
            for id in ids.collect::<BTreeSet<_>>() {
                let Some(client) = clients.get(id) else { continue };
                let frame = frame_once.get_or_insert_with(|| {
                    let partly = (index < last).then(|| (event.id, reading.snapshot.clone()));
                    let position = match partly {
                        Some(_) => Position { at_ms: reading.at_ms, seen: seen.clone(), partly },
                        None => Position::after(reading.snapshot.clone(), reading.at_ms),
                    };
                    frame(&position, event)
                });
                match client.frames.try_send(frame.clone()) {
                    Ok(()) => self.numbers.sent.inc(),
                    Err(_full_or_gone) => slow.push(*id),
                }
            }
            slow.into_iter().for_each(|id| self.drop_client(id));
        }
    }

    fn drop_client(&mut self, id: u64) {
        if self.clients.get(&id).is_some_and(|client| !client.frames.is_closed()) {
            self.numbers.dropped.inc();
        }
        self.leave(id);
    }

    fn end_streams(&mut self, event: &Event) {
        let ended: SessionsEnded = serde_json::from_str(&event.data).unwrap_or_default();
        let ids = event.user_id.and_then(|user| self.of_user.get(&user)).cloned().unwrap_or_default();
        for id in ids {
            let session = self.clients.get(&id).map(|client| client.credential.session_id);
            if ended.session_id.is_none() || ended.session_id == session {
                self.leave(id);
            }
        }
    }

    /// A sign of life for some clients, and an end for those who are no longer signed in.
    fn look_after(&mut self, round: u64, queries: &Queries) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let position = self.read_so_far.clone().map(|(seen, at_ms)| Position::after(seen, at_ms));
        let sign_of_life: Bytes = match position {
            Some(position) => format!(": ping\nid: {position}\n\n").into(),
            None => Bytes::from_static(b": ping\n\n"),
        };
        let some = self.clients.iter().filter(|(id, _)| **id % TICKS_PER_ROUND == round);
        let some: Vec<_> = some.map(|(id, client)| (*id, client.user, client.credential)).collect();
        for (id, _, credential) in &some {
            if credential.expires_at <= now {
                self.leave(*id);
            } else if let Some(client) = self.clients.get(id)
                && client.frames.try_send(sign_of_life.clone()).is_err()
            {
                self.drop_client(*id);
            }
        }
        // Beside the telling, which must not wait for it.
        tokio::spawn(end_revoked(some, queries.clone(), self.commands.clone()));
    }
}

/// Ends the streams of those who are no longer signed in. What cannot be found out now is asked again in the next round.
async fn end_revoked(
    some: Vec<(u64, UserId, Credential)>,
    queries: Queries,
    commands: mpsc::Sender<Command>,
) {
    for (id, user, credential) in some {
        let Ok(read) = queries.get(SignInStateOf(user), None).await else { continue };
        let admits = |state: &SignInState| state.admits(credential.session_id, credential.token_epoch);
        if !read.value.is_some_and(|state| admits(&state.0))
            && commands.send(Command::Leave(id)).await.is_err()
        {
            return;
        }
    }
}
