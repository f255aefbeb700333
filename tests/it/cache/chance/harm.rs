//! What goes wrong with Redis and on the way to it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::support::{proxy::Weather, redis::PrivateRedis};

/// Does harm, again and again: for some seconds only of a few kinds, since each of them hides others.
pub async fn harm(mut rng: StdRng, redis: Arc<PrivateRedis>, weather: Weather) {
    loop {
        let kinds: Vec<u8> = (0..7).filter(|_| rng.random_ratio(1, 3)).collect();
        let period = Instant::now() + Duration::from_millis(rng.random_range(1000..4000));
        while Instant::now() < period {
            match kinds.choose(&mut rng) {
                Some(kind) => harm_once(*kind, &mut rng, &redis, &weather).await,
                None => break,
            }
            pause(&mut rng, 400).await;
        }
    }
}

async fn pause(rng: &mut StdRng, most_ms: u64) {
    tokio::time::sleep(Duration::from_millis(rng.random_range(0..most_ms))).await;
}

async fn harm_once(kind: u8, rng: &mut StdRng, redis: &PrivateRedis, weather: &Weather) {
    match kind {
        0 => drop(redis.run::<i64>(&["CLIENT", "KILL", "TYPE", "pubsub"]).await),
        1 => drop(redis.run::<i64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await),
        2 => drop(redis.run::<String>(&["SCRIPT", "FLUSH"]).await),
        3 => drop(redis.run::<String>(&["FLUSHALL"]).await),
        4 => {
            weather.lose_messages(true);
            pause(rng, 3000).await;
            weather.lose_messages(false);
        }
        5 => {
            weather.delay(Duration::from_millis(rng.random_range(0..500)));
            pause(rng, 400).await;
            weather.delay(Duration::ZERO);
        }
        _ => {
            redis.signal("STOP");
            pause(rng, 700).await;
            redis.signal("CONT");
        }
    }
}

/// Whatever was under way is over.
pub fn heal(redis: &PrivateRedis, weather: &Weather) {
    redis.signal("CONT");
    weather.delay(Duration::ZERO);
    weather.lose_messages(false);
}
