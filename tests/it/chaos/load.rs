//! Those who read and write while something goes wrong, and write down what they did and saw.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    history::{Answer, Failure, FailureKind, History, Read, Write},
    outside::Outside,
    register::{Kind, Register},
    stage::{INSTANCES, Stage, place_of},
};
use crate::support::{Client, Reply};

pub const WRITERS: usize = 20;
pub const READERS: usize = 60;

/// Mean pauses while answers come at once. Two cores have to carry all of this, and what is to be found is not how much
/// the service can bear: who waits for an answer waits longer before he asks again, so that few wait at a time.
const WRITER_PAUSE: Duration = Duration::from_millis(700);
const READER_PAUSE: Duration = Duration::from_millis(240);
const OUTSIDE_PAUSE: Duration = Duration::from_millis(300);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const PATIENT: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Whoever waits longer gives up. Longer than anything stands still.
const PATIENCE: Duration = Duration::from_secs(60);

/// What all of them know.
pub struct World {
    pub registers: Vec<Arc<Register>>,
    /// The user at each instance, by its place.
    pub singly: Vec<Client>,
    pub balancer: Client,
    stop: CancellationToken,
}

/// The load, until it is told to stop.
pub struct Load {
    pub world: Arc<World>,
    tasks: Vec<JoinHandle<History>>,
}

impl Load {
    /// Starts it. Each register that is not only copied has a writer.
    pub fn start(stage: &Stage, registers: Vec<Arc<Register>>, seed: u64) -> Self {
        let (singly, balancer) = stage.clients();
        let world = Arc::new(World { registers, singly, balancer, stop: CancellationToken::new() });
        let mut rng = StdRng::seed_from_u64(seed);
        let mut tasks = Vec::new();
        for register in (0..world.registers.len()).filter(|k| world.registers[*k].kind != Kind::Copied) {
            tasks.push(tokio::spawn(write(Arc::clone(&world), register, StdRng::from_rng(&mut rng))));
        }
        for _ in 0..READERS {
            tasks.push(tokio::spawn(read(Arc::clone(&world), StdRng::from_rng(&mut rng))));
        }
        let outside = Outside::new(&stage.postgres.url);
        tasks.push(tokio::spawn(change(outside, Arc::clone(&world), StdRng::from_rng(&mut rng))));
        tasks.push(tokio::spawn(look(Outside::new(&stage.postgres.url), Arc::clone(&world))));
        Self { world, tasks }
    }

    /// Lets everybody finish what he is at; returns what they have written down.
    pub async fn stop(self) -> History {
        self.world.stop.cancel();
        let mut history = History::default();
        for task in self.tasks {
            history.merge(task.await.unwrap());
        }
        history
    }
}

impl World {
    /// A pause around `mean`, and longer after an answer that took long. `None`: it is time to stop.
    async fn pause(&self, rng: &mut StdRng, mean: Duration, waited: Duration) -> Option<()> {
        let pause = (mean + waited * PATIENT).mul_f64(2.0 * rng.random::<f64>());
        self.stop.run_until_cancelled(tokio::time::sleep(pause.min(LONGEST_PAUSE))).await
    }

    /// An instance, or the balancer as often as any of them.
    fn anybody(&self, rng: &mut StdRng) -> (Option<usize>, &Client) {
        let place = rng.random_range(0..=INSTANCES);
        match self.singly.get(place) {
            Some(client) => (Some(place), client),
            None => (None, &self.balancer),
        }
    }
}

/// Asks; what goes wrong is written down.
async fn ask(
    history: &mut History,
    asked: Option<usize>,
    request: reqwest::RequestBuilder,
) -> Option<(Reply, Instant)> {
    let started = Instant::now();
    let answer = async {
        let response = request.timeout(PATIENCE).send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Reply { status, headers, text: response.text().await? })
    };
    let outcome: reqwest::Result<Reply> = answer.await;
    let ended = Instant::now();
    let mut asked = asked;
    let (kind, detail) = match outcome {
        Ok(reply) if reply.status < 500 => return Some((reply, started)),
        Ok(reply) => {
            let by = place_of(reply.header("x-served-by"));
            asked = by.or(asked);
            let kind = if by.is_some() { FailureKind::Refused } else { FailureKind::Gateway };
            (kind, format!("{} {} {}", reply.status, reply.header("x-served-by"), reply.text))
        }
        Err(err) => (FailureKind::Silence, format!("{err:?}")),
    };
    history.failures.push(Failure { kind, started, ended, asked, detail });
    // Whoever is refused does not come again at once.
    tokio::time::sleep(Duration::from_millis(50)).await;
    None
}

/// Something that nobody should have answered.
fn wrong(history: &mut History, asked: Option<usize>, started: Instant, reply: &Reply) {
    let (kind, ended) = (FailureKind::Wrong, Instant::now());
    history.failures.push(Failure { kind, started, ended, asked, detail: format!("{reply:?}") });
}

/// Writes a register again and again, and reads it at once: where it was written, or elsewhere with the token.
async fn write(world: Arc<World>, register: usize, mut rng: StdRng) -> History {
    let mut history = History::default();
    let subject = &world.registers[register];
    let mut waited = Duration::ZERO;
    while world.pause(&mut rng, WRITER_PAUSE, waited).await.is_some() {
        let number = subject.attempt();
        let (asked, client) = world.anybody(&mut rng);
        let request = client.request(reqwest::Method::PATCH, &subject.path()).json(&subject.patch(number));
        let request = request.header("if-match", "*");
        let Some((reply, started)) = ask(&mut history, asked, request).await else { continue };
        let known = Instant::now();
        waited = known - started;
        let view = reply.json();
        let (200, Some((version, written))) = (reply.status, subject.seen_in(&view)) else {
            wrong(&mut history, asked, started, &reply);
            continue;
        };
        if written != number {
            wrong(&mut history, asked, started, &reply);
        }
        let by = reply.header("x-served-by").to_owned();
        subject.acknowledged(version, reply.header("consistency-token"));
        let place = place_of(&by).unwrap();
        history.writes.push(Write { register, version, number: Some(number), started, known, by: Some(by) });
        if rng.random() {
            glance(&world, &mut history, register, Some(place), false).await;
        } else {
            let elsewhere = (place + rng.random_range(1..INSTANCES)) % INSTANCES;
            glance(&world, &mut history, register, Some(elsewhere), true).await;
        }
    }
    history
}

/// Reads anything anywhere.
async fn read(world: Arc<World>, mut rng: StdRng) -> History {
    let mut history = History::default();
    let mut waited = Duration::ZERO;
    while world.pause(&mut rng, READER_PAUSE, waited).await.is_some() {
        let started = Instant::now();
        let register = rng.random_range(0..world.registers.len());
        let (asked, _) = world.anybody(&mut rng);
        if rng.random_bool(0.1) {
            read_list(&world, &mut history, register, asked).await;
        } else {
            glance(&world, &mut history, register, asked, rng.random_bool(0.25)).await;
        }
        waited = started.elapsed();
    }
    history
}

/// Reads one register, perhaps with the token of its newest write.
pub async fn glance(
    world: &World,
    history: &mut History,
    register: usize,
    asked: Option<usize>,
    with_token: bool,
) {
    let subject = &world.registers[register];
    let client = asked.map_or(&world.balancer, |place| &world.singly[place]);
    let mut request = client.request(reqwest::Method::GET, &subject.path());
    let token = subject.token().filter(|_| with_token);
    if let Some((_, text)) = &token {
        request = request.header("consistency-token", text);
    }
    let Some((reply, started)) = ask(history, asked, request).await else { return };
    let view = reply.json();
    let seen = subject.seen_in(&view);
    // Only what others bring and take away may be missing.
    if reply.status != 200 && (reply.status != 404 || subject.kind != Kind::Copied)
        || (reply.status == 200) != seen.is_some()
    {
        return wrong(history, asked, started, &reply);
    }
    note(history, &reply, started, &[(register, seen)], token.map(|(version, _)| version));
}

/// Reads a list that a register is in.
async fn read_list(world: &World, history: &mut History, register: usize, asked: Option<usize>) {
    let subject = &world.registers[register];
    let client = asked.map_or(&world.balancer, |place| &world.singly[place]);
    let request = client.request(reqwest::Method::GET, &subject.list());
    let Some((reply, started)) = ask(history, asked, request).await else { return };
    if reply.status != 200 {
        return wrong(history, asked, started, &reply);
    }
    let (list, path) = (reply.json(), subject.list());
    let members = world.registers.iter().enumerate().filter(|(_, other)| other.list() == path);
    let seen: Vec<_> = members.map(|(other, member)| (other, member.seen_among(&list))).collect();
    note(history, &reply, started, &seen, None);
}

fn note(
    history: &mut History,
    reply: &Reply,
    started: Instant,
    seen: &[(usize, Option<(i64, u64)>)],
    token: Option<i64>,
) {
    let ended = Instant::now();
    history.answers.push(Answer { started, l1_hit: reply.is_l1_hit() });
    for (register, seen) in seen {
        let (by, how) = (reply.header("x-served-by").to_owned(), reply.header("cache-status").to_owned());
        history.reads.push(Read { register: *register, seen: *seen, started, ended, by, token, how });
    }
}

/// Changes rows behind the service's back.
async fn change(mut outside: Outside, world: Arc<World>, mut rng: StdRng) -> History {
    let mut history = History::default();
    let written: Vec<_> =
        (0..world.registers.len()).filter(|k| world.registers[*k].kind != Kind::Copied).collect();
    while world.pause(&mut rng, OUTSIDE_PAUSE, Duration::ZERO).await.is_some() {
        let Some(register) = written.choose(&mut rng) else { continue };
        history.writes.extend(outside.update(&world, *register).await);
    }
    history
}

/// Looks at what is committed, whether anybody was told of it or not.
async fn look(mut outside: Outside, world: Arc<World>) -> History {
    let mut history = History::default();
    while world.stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
        history.writes.extend(outside.look(&world).await);
    }
    history.writes.extend(outside.look(&world).await);
    history
}
