//! Three instances behind a balancer, with a PostgreSQL and a Redis of their own, and between each of them and each
//! store a network that can fail.

use super::{
    balancer::Balancer,
    postgres::PrivatePostgres,
    proxy::{Proxy, Target},
};
use crate::support::{Client, Instance, instance::usual_settings, redis::PrivateRedis};

pub const INSTANCES: usize = 3;
/// The first letter of an instance's name is its place. One that takes the place of another has another name: it has
/// acknowledged nothing yet.
const PLACES: [&str; INSTANCES] = ["a", "b", "c"];

/// The place of the instance with this name.
pub fn place_of(name: &str) -> Option<usize> {
    PLACES.iter().position(|place| name.starts_with(place))
}

/// A member of the cluster, and its ways to the stores.
pub struct Member {
    pub instance: Instance,
    pub to_redis: Proxy,
    pub to_postgres: Proxy,
    settings: Vec<(String, String)>,
    /// How many were in its place before.
    predecessors: usize,
}

/// Everything that can be hurt.
pub struct Stage {
    pub members: Vec<Member>,
    pub redis: PrivateRedis,
    pub postgres: PrivatePostgres,
    balancer: Balancer,
    /// Of the only user, at the balancer.
    pub ada: Client,
}

impl Stage {
    /// Everything in its place. The last instance gets settings of its own.
    pub async fn set(odd: &[(&str, &str)]) -> Self {
        let (redis, postgres) = tokio::join!(PrivateRedis::start(), PrivatePostgres::start());
        let mut members = Vec::new();
        for place in PLACES {
            let last = members.len() + 1 == INSTANCES;
            members.push(Member::start(place, &redis, &postgres, if last { odd } else { &[] }).await);
        }
        let addresses: Vec<_> = members.iter().map(|member| member.address().to_owned()).collect();
        let balancer = Balancer::start(&addresses).await;
        let ada = members[0].instance.client().register("ada").await;
        Self { members, redis, postgres, balancer, ada }
    }

    /// Signs in again: a long run outlives an access token.
    pub async fn sign_in(&mut self) {
        self.ada = self.members[0].instance.client().log_in("ada").await;
    }

    /// The user at each instance by its place, and at the balancer.
    pub fn clients(&self) -> (Vec<Client>, Client) {
        let singly = self.members.iter().map(|member| self.ada.at(&member.instance)).collect();
        (singly, self.ada.at_url(&self.balancer.url))
    }

    /// Every way to Redis.
    pub fn to_redis(&self) -> impl Iterator<Item = &Proxy> {
        self.members.iter().map(|member| &member.to_redis)
    }

    /// Leads all instances to another Redis. Returns the former one.
    pub fn replace_redis(&mut self, redis: PrivateRedis) -> PrivateRedis {
        self.to_redis().for_each(|proxy| proxy.lead_to(socket_of(&redis)));
        std::mem::replace(&mut self.redis, redis)
    }

    /// Starts a new instance in the place of a dead one, at its address.
    pub async fn replace_instance(&mut self, place: usize) {
        let member = &mut self.members[place];
        member.predecessors += 1;
        let mut settings = member.settings.clone();
        settings.push(("LISTEN_ADDR".to_owned(), member.address().to_owned()));
        settings.push(("INSTANCE_ID".to_owned(), format!("{}.{}", PLACES[place], member.predecessors)));
        member.instance = Instance::start(&settings).await;
    }

    /// What the instances have logged of a time, for whoever has to find out what went wrong.
    pub fn logs(&self) -> String {
        let logs = self.members.iter().map(|member| {
            let log = member.instance.log();
            let lines: Vec<_> = log.lines().collect();
            format!("--- {}\n{}\n", member.instance.url, lines[lines.len().saturating_sub(60)..].join("\n"))
        });
        logs.collect()
    }
}

/// Where a Redis listens.
pub fn socket_of(redis: &PrivateRedis) -> Target {
    Target::Socket(redis.folder.join("socket"))
}

impl Member {
    async fn start(
        name: &str,
        redis: &PrivateRedis,
        postgres: &PrivatePostgres,
        odd: &[(&str, &str)],
    ) -> Self {
        let to_redis = Proxy::start(socket_of(redis)).await;
        let to_postgres = Proxy::start(Target::Port(postgres.port())).await;
        let database = postgres
            .url
            .replace(&format!(":{}/", postgres.port()), &format!(":{}/", to_postgres.address.port()));
        let settings = [
            ("DATABASE_URL", database),
            ("REDIS_URL", format!("redis://{}/", to_redis.address)),
            ("INSTANCE_ID", name.to_owned()),
            ("RUST_LOG", "info,lockstep::access=off,lockstep::cache::bus=debug".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        let odd = odd.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings: Vec<_> = settings.into_iter().chain(usual_settings()).chain(odd).collect();
        let instance = Instance::start(&settings).await;
        Self { instance, to_redis, to_postgres, settings, predecessors: 0 }
    }

    fn address(&self) -> &str {
        self.instance.url.trim_start_matches("http://")
    }
}
