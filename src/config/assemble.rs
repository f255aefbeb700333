//! Puts the parts of a [`Config`](super::Config) together, a function per part.
//!
//! Each function reads all of its variables before it gives up on a missing one, so that faults
//! are reported together.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::policies::Policies;
use super::reader::Reader;
use super::{
    AuthConfig, CacheConfig, CacheMode, CacheStatusAudience, DatabaseConfig, LogConfig, LogFormat,
    RateLimitConfig, RedisConfig, ServerConfig, parse, variables,
};

const MILLISECOND: Duration = Duration::from_millis(1);

/// Times to live. Redis counts in milliseconds.
pub(super) const TTL: RangeInclusive<Duration> = MILLISECOND..=parse::DAYS_30;

pub(super) fn server(reader: &mut Reader<'_>) -> Option<ServerConfig> {
    let listen_addr = reader.read(variables::LISTEN_ADDR, parse::socket_addr);
    let public_url = reader.read_optional(variables::PUBLIC_URL, parse::public_url);
    let instance_id = reader.read_optional(variables::INSTANCE_ID, parse::word("._-"));
    let trusted_proxies = reader.read_optional(variables::TRUSTED_PROXIES, parse::networks);
    let max_instances = reader.read(variables::MAX_INSTANCES, parse::whole(1..=1000));

    let listen_addr = listen_addr?;
    let public_url = public_url?.unwrap_or_else(|| {
        let url = format!("http://{listen_addr}");
        reader.derived(variables::PUBLIC_URL, &url);
        url
    });
    let instance_id = instance_id?.unwrap_or_else(|| {
        let id = format!("{:08x}", rand::random::<u32>());
        reader.derived(variables::INSTANCE_ID, &id);
        id
    });
    Some(ServerConfig {
        listen_addr,
        public_url,
        instance_id,
        trusted_proxies: trusted_proxies?.unwrap_or_default(),
        max_instances: max_instances?,
    })
}

pub(super) fn database(reader: &mut Reader<'_>) -> Option<DatabaseConfig> {
    let url = reader.read_optional(variables::DATABASE_URL, parse::database_url);
    let pool_size = reader.read(variables::DATABASE_POOL_SIZE, parse::whole(1..=1000));
    let data_dir = reader.read(variables::DATA_DIR, |text| Ok(PathBuf::from(text)));
    Some(DatabaseConfig { url: url?, pool_size: pool_size?, data_dir: data_dir? })
}

pub(super) fn redis(reader: &mut Reader<'_>) -> Option<RedisConfig> {
    let range = MILLISECOND..=Duration::from_secs(10);
    let url = reader.read_optional(variables::REDIS_URL, parse::redis_url);
    let timeout = reader.read(variables::REDIS_TIMEOUT, parse::duration(range));
    Some(RedisConfig { url: url?, timeout: timeout? })
}

pub(super) fn auth(reader: &mut Reader<'_>) -> Option<AuthConfig> {
    let secret = reader.read_optional(variables::AUTH_SECRET, parse::secret);
    let previous = reader.read_optional(variables::AUTH_SECRET_PREVIOUS, parse::secrets);
    if !reader.is_set(variables::AUTH_SECRET) && reader.is_set(variables::DATABASE_URL) {
        // A secret in DATA_DIR is private to a machine, while a database is shared by instances.
        reader.fault(
            variables::AUTH_SECRET,
            "is not set, although DATABASE_URL is",
            "the same 32 or more bytes on every instance, for example from `openssl rand -hex 32`",
        );
    }
    Some(AuthConfig { secret: secret?, previous_secrets: previous?.unwrap_or_default() })
}

pub(super) fn cache(reader: &mut Reader<'_>) -> Option<CacheConfig> {
    const MODES: &[(&str, CacheMode)] =
        &[("on", CacheMode::On), ("l1", CacheMode::L1), ("l2", CacheMode::L2), ("off", CacheMode::Off)];
    const AUDIENCES: &[(&str, CacheStatusAudience)] = &[
        ("staff", CacheStatusAudience::Staff),
        ("all", CacheStatusAudience::All),
        ("none", CacheStatusAudience::None),
    ];
    let mode = reader.read(variables::CACHE, parse::choice(MODES));
    let namespace = reader.read(variables::CACHE_NAMESPACE, parse::word("_.:-"));
    let l1_max_bytes = reader.read(variables::CACHE_L1_MAX, parse::size(1 << 10..=1 << 40));
    let l1_ttl = reader.read(variables::CACHE_L1_TTL, parse::duration(TTL));
    let fail_safe = reader.read(variables::CACHE_FAILSAFE, parse::duration(Duration::ZERO..=parse::DAYS_30));
    let policies = Policies::read(reader, l1_ttl, fail_safe);
    let status = reader.read(variables::CACHE_STATUS, parse::choice(AUDIENCES));
    Some(CacheConfig {
        mode: mode?,
        namespace: namespace?,
        l1_max_bytes: l1_max_bytes?,
        policies: policies?,
        status: status?,
    })
}

pub(super) fn rate_limit(reader: &mut Reader<'_>) -> Option<RateLimitConfig> {
    let mut rate = |variable| reader.read(variable, parse::rate);
    let burst = rate(variables::RATE_LIMIT_BURST);
    let sustained = rate(variables::RATE_LIMIT_SUSTAINED);
    let message = rate(variables::RATE_LIMIT_MESSAGE);
    let ip = rate(variables::RATE_LIMIT_IP);
    let login = rate(variables::RATE_LIMIT_LOGIN);
    Some(RateLimitConfig { burst: burst?, sustained: sustained?, message: message?, ip: ip?, login: login? })
}

pub(super) fn log(reader: &mut Reader<'_>) -> Option<LogConfig> {
    const FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = reader.read(variables::LOG_FORMAT, parse::choice(FORMATS));
    let filter = reader.read(variables::RUST_LOG, parse::log_filter);
    Some(LogConfig { format: format?, filter: filter? })
}
