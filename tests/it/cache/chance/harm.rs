//! What goes wrong with Redis and on the way to it.

use std::{sync::Arc, time::Duration};

use rand::{Rng as _, rngs::StdRng};

use crate::support::{proxy::Weather, redis::PrivateRedis};

/// Does harm, again and again.
pub async fn harm(mut rng: StdRng, redis: Arc<PrivateRedis>, weather: Weather) {
    loop {
        let pause =
            |rng: &mut StdRng, most| tokio::time::sleep(Duration::from_millis(rng.random_range(0..most)));
        match rng.random_range(0..9) {
            0 | 1 => drop(redis.run::<i64>(&["CLIENT", "KILL", "TYPE", "pubsub"]).await),
            2 => drop(redis.run::<i64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await),
            3 => drop(redis.run::<String>(&["SCRIPT", "FLUSH"]).await),
            4 => drop(redis.run::<String>(&["FLUSHALL"]).await),
            5 | 6 => {
                weather.lose_messages(true);
                pause(&mut rng, 400).await;
                weather.lose_messages(false);
            }
            7 => {
                weather.delay(Duration::from_millis(rng.random_range(0..500)));
                pause(&mut rng, 400).await;
                weather.delay(Duration::ZERO);
            }
            _ => {
                redis.signal("STOP");
                pause(&mut rng, 700).await;
                redis.signal("CONT");
            }
        }
        pause(&mut rng, 600).await;
    }
}

/// Whatever was under way is over.
pub fn heal(redis: &PrivateRedis, weather: &Weather) {
    redis.signal("CONT");
    weather.delay(Duration::ZERO);
    weather.lose_messages(false);
}
