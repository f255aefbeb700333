//! What goes wrong.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use diesel::{QueryableByName, sql_query, sql_types::Integer};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use futures_util::future::join_all;
use rand::{Rng as _, rngs::StdRng};
use tokio::time::sleep;

use super::{
    checker::BOUND,
    history::{Excuses, GONE, History, Write},
    load::{World, glance},
    outside::Outside,
    postgres::End,
    proxy::Proxy,
    register::Kind,
    stage::{INSTANCES, Stage, socket_of},
};
use crate::support::{eventually, redis::PrivateRedis};

/// Makes the list of faults, each with its name for the command line and what happens.
macro_rules! faults {
    ($($fault:ident: $name:literal, $says:literal;)+) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $($fault),+ }

        impl Fault {
            pub const ALL: &[Self] = &[$(Self::$fault),+];

            pub const fn name(self) -> &'static str {
                match self { $(Self::$fault => $name),+ }
            }

            pub const fn says(self) -> &'static str {
                match self { $(Self::$fault => $says),+ }
            }
        }
    };
}

faults! {
    Nothing: "nothing", "everything is healthy";
    RedisKilled: "redis-killed", "Redis is killed, and a new one knows nothing";
    RedisOldSnapshot: "redis-old-snapshot", "Redis is killed, and starts from an old snapshot, twice from the same";
    RedisPaused: "redis-paused", "Redis stands still, for 5 s at least";
    RedisCut: "redis-cut", "all connections to Redis are reset, again and again";
    RedisHalfOpen: "redis-half-open", "nothing passes to or from Redis, and nobody is told; then it passes, then it breaks";
    RedisOlder: "redis-older", "failover to a Redis with an older state, and back";
    RedisClockBehind: "redis-clock-behind", "failover to a Redis whose clock is far behind";
    RedisPromoted: "redis-promoted", "Redis dies, and a replica that lags behind is promoted";
    InstanceAlone: "instance-alone", "one instance alone is cut off from Redis, then half-open";
    SubscribersKilled: "subscribers-killed", "CLIENT KILL TYPE pubsub, again and again";
    RedisFlushed: "redis-flushed", "FLUSHALL, three times";
    ScriptsFlushed: "scripts-flushed", "SCRIPT FLUSH, three times";
    InstancePaused: "instance-paused", "an instance stands still in the middle of writes";
    InstanceKilled: "instance-killed", "an instance is killed between commits and their announcements, and replaced";
    PostgresRestarted: "postgres-restarted", "PostgreSQL restarts, then crashes and recovers";
    RowsChanged: "rows-changed", "psql: bulk UPDATE, COPY, DELETE";
    CommitUnanswered: "commit-unanswered", "connections break under COMMIT, some before and some after it has arrived";
    ClaimerPaused: "claimer-paused", "an instance stands still while it has claimed rows of the journal";
}

/// Writes that an instance is at when it is struck.
const UNANNOUNCED: usize = 6;

/// What has to be done while nothing is wrong yet.
pub enum Prepared {
    Nothing,
    Snapshot(Vec<u8>),
    Replica(PrivateRedis, Proxy),
}

/// Where a fault happens.
pub struct Scene<'a> {
    pub stage: &'a mut Stage,
    pub world: &'a World,
    /// How long things stay wrong.
    pub hold: Duration,
    pub rng: StdRng,
    pub excuses: Excuses,
    /// What the fault itself wrote.
    pub history: History,
}

impl Fault {
    pub async fn prepare(self, stage: &Stage) -> Prepared {
        match self {
            Self::RedisOldSnapshot | Self::RedisOlder => {
                // With entries in it that will be out of date.
                sleep(Duration::from_millis(500)).await;
                stage.redis.run::<()>(&["SAVE"]).await;
                Prepared::Snapshot(std::fs::read(stage.redis.folder.join("dump.rdb")).unwrap())
            }
            Self::RedisPromoted => {
                let (replica, link) =
                    (PrivateRedis::start().await, Proxy::start(socket_of(&stage.redis)).await);
                let (host, port) = (link.address.ip().to_string(), link.address.port().to_string());
                replica.run::<()>(&["REPLICAOF", &host, &port]).await;
                eventually("the replica follows", Duration::from_secs(20), async || {
                    let info: String = replica.run(&["INFO", "replication"]).await;
                    info.contains("master_link_status:up").then_some(())
                })
                .await;
                Prepared::Replica(replica, link)
            }
            _ => Prepared::Nothing,
        }
    }
}

impl Scene<'_> {
    /// Does it, and makes it good again.
    pub async fn play(&mut self, fault: Fault, prepared: Prepared) {
        let hold = self.hold;
        match (fault, prepared) {
            (Fault::RedisKilled, _) => {
                self.stage.redis.kill();
                sleep(hold).await;
                self.stage.redis.restart_empty().await;
            }
            (Fault::RedisOldSnapshot, Prepared::Snapshot(snapshot)) => {
                for _ in 0..2 {
                    self.stage.redis.kill();
                    std::fs::write(self.stage.redis.folder.join("dump.rdb"), &snapshot).unwrap();
                    self.stage.redis.restart().await;
                    sleep(hold / 2).await;
                }
            }
            (Fault::RedisPaused, _) => {
                self.stage.redis.signal("STOP");
                sleep(hold.max(Duration::from_secs(5))).await;
                self.stage.redis.signal("CONT");
            }
            (Fault::RedisCut, _) => {
                for _ in 0..8 {
                    self.stage.to_redis().for_each(Proxy::cut);
                    self.pause(hold / 8).await;
                }
            }
            (Fault::RedisHalfOpen, _) => {
                self.stage.to_redis().for_each(Proxy::silence);
                sleep(hold).await;
                self.stage.to_redis().for_each(Proxy::open);
                sleep(Duration::from_secs(1)).await;
                self.stage.to_redis().for_each(Proxy::silence);
                sleep(hold / 2).await;
                self.stage.to_redis().for_each(Proxy::cut);
                self.stage.to_redis().for_each(Proxy::open);
            }
            (Fault::RedisOlder, Prepared::Snapshot(snapshot)) => {
                let mut older = PrivateRedis::start().await;
                std::fs::write(older.folder.join("dump.rdb"), &snapshot).unwrap();
                older.restart().await;
                let newer = self.stage.replace_redis(older);
                sleep(hold / 2).await;
                // By now it is the one that has missed something.
                let _older = self.stage.replace_redis(newer);
                sleep(hold / 2).await;
            }
            (Fault::RedisClockBehind, _) => {
                let other = PrivateRedis::start().await;
                let meta = ["HSET", "lockstep:meta", "marker", "another life", "sequence", "7"];
                other.run::<()>(&meta).await;
                let _former = self.stage.replace_redis(other);
                sleep(hold).await;
            }
            (Fault::RedisPromoted, Prepared::Replica(replica, link)) => {
                link.silence();
                sleep(Duration::from_millis(300)).await;
                self.stage.redis.kill();
                link.close();
                replica.run::<()>(&["REPLICAOF", "NO", "ONE"]).await;
                let _dead = self.stage.replace_redis(replica);
                sleep(hold).await;
            }
            (Fault::InstanceAlone, _) => {
                let place = self.any_place();
                self.stage.members[place].to_redis.close();
                sleep(hold).await;
                self.stage.members[place].to_redis.open();
                sleep(Duration::from_secs(1)).await;
                self.stage.members[place].to_redis.silence();
                sleep(hold / 2).await;
                self.stage.members[place].to_redis.open();
            }
            (Fault::SubscribersKilled, _) => self.tell_redis(5, &["CLIENT", "KILL", "TYPE", "pubsub"]).await,
            (Fault::RedisFlushed, _) => self.tell_redis(3, &["FLUSHALL"]).await,
            (Fault::ScriptsFlushed, _) => self.tell_redis(3, &["SCRIPT", "FLUSH"]).await,
            (Fault::InstancePaused, _) => {
                let place = self.any_place();
                self.strike_unannounced(place, "STOP", 20..80).await;
                self.stage.members[place].to_redis.open();
                self.stand_still(place).await;
            }
            (Fault::InstanceKilled, _) => {
                let (place, from) = (self.any_place(), Instant::now());
                self.strike_unannounced(place, "KILL", 40..200).await;
                self.stage.members[place].to_redis.open();
                sleep(hold / 2).await;
                self.stage.replace_instance(place).await;
                self.excuses.instance_away.push((place, from, Instant::now()));
            }
            (Fault::PostgresRestarted, _) => {
                for end in [End::Fast, End::Immediate] {
                    let from = Instant::now();
                    self.stage.postgres.restart(end).await;
                    self.excuses.postgres_away.push((from, Instant::now()));
                    sleep(hold / 2).await;
                }
            }
            (Fault::RowsChanged, _) => self.change_rows().await,
            (Fault::CommitUnanswered, _) => {
                const CUTS: u32 = 12;
                for number in 0..CUTS {
                    let place = self.any_place();
                    self.stage.members[place].to_postgres.cut_a_commit(number % 2 == 0);
                    self.pause(hold / CUTS).await;
                }
                let spared: usize =
                    self.stage.members.iter().map(|member| member.to_postgres.spare_commits()).sum();
                self.excuses.requests_cut = CUTS as usize - spared;
                assert!(self.excuses.requests_cut > 0, "nobody has committed");
            }
            (Fault::ClaimerPaused, _) => {
                let place = self.pause_a_claimer().await;
                self.stand_still(place).await;
            }
            (Fault::Nothing | Fault::RedisOldSnapshot | Fault::RedisOlder | Fault::RedisPromoted, _) => {
                sleep(hold).await;
            }
        }
    }

    fn any_place(&mut self) -> usize {
        self.rng.random_range(0..INSTANCES)
    }

    /// A pause around `mean`.
    async fn pause(&mut self, mean: Duration) {
        sleep(mean.mul_f64(2.0 * self.rng.random::<f64>())).await;
    }

    async fn tell_redis(&mut self, times: u32, command: &[&str]) {
        for _ in 0..times {
            self.stage.redis.run::<redis::Value>(command).await;
            self.pause(self.hold / times).await;
        }
    }

    /// Lets an instance go on that was stopped a moment ago. When it wakes, reads of everything wait for it, and it has yet
    /// to hear of what was written so long ago that they have to show it.
    async fn stand_still(&mut self, place: usize) {
        let from = Instant::now();
        sleep(self.hold + BOUND).await;
        let (world, instance) = (self.world, &self.stage.members[place].instance);
        let reading = (0..world.registers.len()).map(async |register| {
            let mut seen = History::default();
            glance(world, &mut seen, register, Some(place), false).await;
            seen
        });
        let waking = async {
            sleep(Duration::from_millis(50)).await;
            instance.signal("CONT");
        };
        let (seen, ()) = tokio::join!(join_all(reading), waking);
        self.excuses.instance_paused.push((place, from, Instant::now()));
        seen.into_iter().for_each(|seen| self.history.merge(seen));
    }

    /// Strikes an instance when it has committed what it cannot announce, after so many milliseconds. In less than a
    /// hundred it has neither acknowledged that nor lost its trust.
    async fn strike_unannounced(&mut self, place: usize, signal: &str, after: Range<u64>) {
        let member = &self.stage.members[place];
        member.to_redis.silence();
        for subject in self.world.registers.iter().take(UNANNOUNCED) {
            let client = &self.world.singly[place];
            let request = client.request(reqwest::Method::PATCH, &subject.path());
            let request = request.json(&subject.patch(subject.attempt()));
            // Its commit is seen in PostgreSQL; nobody waits for its answer.
            tokio::spawn(async move { drop(request.send().await) });
        }
        sleep(Duration::from_millis(self.rng.random_range(after))).await;
        member.instance.signal(signal);
    }

    /// Rows come, change and go by another program, all of them at once or one.
    async fn change_rows(&mut self) {
        let step = self.hold.max(BOUND + Duration::from_millis(200));
        let copied: Vec<_> = (0..self.world.registers.len())
            .filter(|k| self.world.registers[*k].kind == Kind::Copied)
            .collect();
        for register in &copied {
            let subject = &self.world.registers[*register];
            let number = subject.attempt();
            let columns = "COPY documents (id, workspace_id, title, author_id, last_edited_by) FROM STDIN";
            let user = &self.stage.ada.user_id;
            let row = format!("{}\t{}\t{number}\t{user}\t{user}\n", subject.id, subject.workspace);
            let started = Instant::now();
            self.stage.postgres.psql(columns, &row).unwrap();
            self.wrote(*register, 1, Some(number), started);
        }
        self.change_all("workspaces", "name").await;
        sleep(step).await;
        self.change_all("documents", "title").await;
        self.change_all("workspaces", "name").await;
        sleep(step).await;
        for register in copied {
            let started = Instant::now();
            let delete = format!("DELETE FROM documents WHERE id = '{}'", self.world.registers[register].id);
            self.stage.postgres.psql(&delete, "").unwrap();
            self.wrote(register, GONE, None, started);
        }
    }

    async fn change_all(&mut self, table: &str, column: &str) {
        let (number, started) = (1_000_000_000 + u64::from(self.rng.random::<u32>()), Instant::now());
        let update =
            format!("UPDATE {table} SET {column} = '{number}', version = version + 1 RETURNING id, version");
        // Others hold locks on rows, in another order.
        let rows = eventually("psql changes all rows", Duration::from_secs(10), async || {
            self.stage.postgres.psql(&update, "").ok()
        })
        .await;
        for (id, version) in rows.lines().filter_map(|line| line.split_once('|')) {
            if let Some(register) = self.world.registers.iter().position(|register| register.id == id) {
                self.wrote(register, version.parse().unwrap(), Some(number), started);
            }
        }
    }

    fn wrote(&mut self, register: usize, version: i64, number: Option<u64>, started: Instant) {
        let known = Instant::now();
        self.history.writes.push(Write { register, version, number, started, known, by: None });
    }

    /// Stops an instance while it holds the locks of a claim. Claims are short; so that one can be caught before it is
    /// announced, nothing passes to Redis for moments that are shorter than anybody's patience.
    async fn pause_a_claimer(&mut self) -> usize {
        let mut outside = Outside::new(&self.stage.postgres.url);
        let mut watching = AsyncPgConnection::establish(&self.stage.postgres.url).await.unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            let register = self.rng.random_range(0..self.world.registers.len());
            let written = outside.update(self.world, register).await;
            self.history.writes.extend(written);
            self.stage.to_redis().for_each(Proxy::silence);
            let paused = self.stop_a_claimer(&mut watching, Instant::now() + Duration::from_millis(35)).await;
            self.stage.to_redis().for_each(Proxy::open);
            if let Some(place) = paused {
                return place;
            }
            sleep(Duration::from_millis(70)).await;
        }
        panic!("no claim was seen");
    }

    async fn stop_a_claimer(&self, watching: &mut AsyncPgConnection, until: Instant) -> Option<usize> {
        while Instant::now() < until {
            let Some(port) = claimer(watching).await else { continue };
            let place = self.stage.members.iter().position(|member| member.to_postgres.comes_from(port))?;
            let instance = &self.stage.members[place].instance;
            instance.signal("STOP");
            // Both as long as it stands still: that it was stopped in time.
            if claimer(watching).await == Some(port) {
                return Some(place);
            }
            instance.signal("CONT");
        }
        None
    }
}

#[derive(QueryableByName)]
struct Port {
    #[diesel(sql_type = Integer)]
    port: i32,
}

/// The port of a connection that has claimed rows of the journal and not let go of them.
async fn claimer(watching: &mut AsyncPgConnection) -> Option<u16> {
    let claims = sql_query(
        "SELECT client_port AS port FROM pg_stat_activity \
         WHERE state = 'idle in transaction' AND query LIKE '%cache_journal%' AND query LIKE '%SKIP LOCKED%'",
    );
    let ports: Vec<Port> = claims.load(watching).await.unwrap();
    ports.as_slice().first().and_then(|row| u16::try_from(row.port).ok())
}
