//! What engineers cache with: functions, Diesel queries, many at once, invalidation by hand. Two applications in this
//! process, as two instances would be, on one PostgreSQL and one Redis.

mod functions;
mod selects;
mod views;

use std::time::Duration;

use lockstep::{
    app::{App, State, Tasks},
    config::Config,
};
use tokio::runtime::Handle;

use crate::support::{TestDatabase, eventually, test_setting, unique_name};

/// Two instances without their HTTP servers.
struct Pair {
    a: App,
    b: App,
    database: TestDatabase,
    _tasks: [Tasks; 2],
}

impl Pair {
    async fn start() -> Self {
        let database = TestDatabase::new().await;
        let namespace = unique_name("toolkit");
        let build = |name: &str| {
            let value = |asked: &str| match asked {
                "DATABASE_URL" => Some(database.url.clone()),
                "DATABASE_POOL_SIZE" => Some("4".to_owned()),
                "REDIS_URL" => Some(test_setting("TEST_REDIS_URL")),
                "REDIS_TIMEOUT" => Some("2s".to_owned()),
                "CACHE_NAMESPACE" => Some(namespace.clone()),
                "AUTH_SECRET" => Some("a secret that is long enough for tests".to_owned()),
                "INSTANCE_ID" => Some(name.to_owned()),
                _ => None,
            };
            let config = Config::from_lookup(value).unwrap();
            let (state, tasks) = State::build(&config, None, &Handle::current()).unwrap();
            (App::new(state), tasks)
        };
        let ((a, of_a), (b, of_b)) = (build("a"), build("b"));
        for app in [&a, &b] {
            app.readiness.set_ready();
            eventually("the cache trusts itself", Duration::from_secs(10), async || {
                (!app.cache.is_degraded()).then_some(())
            })
            .await;
        }
        Self { a, b, database, _tasks: [of_a, of_b] }
    }
}

/// How long an instance may take to hear of another's invalidation when all is well.
const BUS: Duration = Duration::from_secs(1);
