//! The configuration: the only module that reads the environment.
//!
//! [`Config::from_env`] takes the process environment and a `.env` in the working directory, of
//! which the former wins. It collects every fault instead of stopping at the first, each in one
//! line that names the variable. Values are parsed here once; what comes out needs no further
//! check. It never prints, logs or returns a secret as text: not in faults, not in
//! [`Config::describe`], not in `Debug`.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

mod assemble;
mod dotenv;
mod parse;
pub mod policies;
mod reader;
pub mod variables;

#[cfg(test)]
mod tests;

use policies::Policies;
use reader::{HIDDEN, Reader, without_credentials};

/// Everything that can be set from outside.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where this instance listens and what it is called.
    pub server: ServerConfig,
    /// PostgreSQL, embedded or not.
    pub database: DatabaseConfig,
    /// Redis, if there is one.
    pub redis: RedisConfig,
    /// Secrets that sign tokens.
    pub auth: AuthConfig,
    /// Both cache levels.
    pub cache: CacheConfig,
    /// How much a client may ask.
    pub rate_limit: RateLimitConfig,
    /// Log lines.
    pub log: LogConfig,
    /// What is allowed but probably not meant, a line each. Written to the log at start.
    pub warnings: Vec<String>,
    settings: Vec<Setting>,
}

/// `LISTEN_ADDR`, `PUBLIC_URL`, `INSTANCE_ID`, `TRUSTED_PROXIES`, `MAX_INSTANCES`.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Address and port to listen on.
    pub listen_addr: SocketAddr,
    /// Base of `Link` and `Location`, without a trailing slash.
    pub public_url: String,
    /// Name of this instance; fit for headers and labels.
    pub instance_id: String,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The most instances that run at once: divides rate limits while Redis is down.
    pub max_instances: u32,
}

/// `DATABASE_URL`, `DATABASE_POOL_SIZE`, `DATA_DIR`.
#[derive(Clone)]
pub struct DatabaseConfig {
    /// `None`: an embedded PostgreSQL in `data_dir`. May contain a password.
    pub url: Option<String>,
    /// Connections of this instance.
    pub pool_size: usize,
    /// Home of the embedded PostgreSQL and of the secret made for it.
    pub data_dir: PathBuf,
}

/// `REDIS_URL`, `REDIS_TIMEOUT`.
#[derive(Clone)]
pub struct RedisConfig {
    /// `None`: no second cache level. May contain a password.
    pub url: Option<String>,
    /// How long one call may take while a request waits for it.
    pub timeout: Duration,
}

/// `AUTH_SECRET`, `AUTH_SECRET_PREVIOUS`.
#[derive(Clone)]
pub struct AuthConfig {
    /// Signs and verifies. `None`, which only the embedded PostgreSQL allows: one is made and
    /// kept in `DATA_DIR`.
    pub secret: Option<Vec<u8>>,
    /// Earlier secrets, which still verify.
    pub previous_secrets: Vec<Vec<u8>>,
}

/// `CACHE`, `CACHE_NAMESPACE`, `CACHE_L1_MAX`, `CACHE_L1_TTL`, `CACHE_TTL_…`, `CACHE_FAILSAFE`, `CACHE_POLICY_…`,
/// `CACHE_STATUS`.
#[derive(Debug, Clone)]
pub struct CacheConfig {
    /// Levels in use. The second also needs `REDIS_URL`.
    pub mode: CacheMode,
    /// Prefix of every Redis key and channel.
    pub namespace: String,
    /// Size of the first level, by weight.
    pub l1_max_bytes: u64,
    /// How long each kind of data is kept, and how it is renewed.
    pub policies: Policies,
    /// Who gets `Cache-Status` headers.
    pub status: CacheStatusAudience,
}

/// Cache levels in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheMode {
    /// Both.
    On,
    /// Memory only.
    L1,
    /// Redis only.
    L2,
    /// None.
    Off,
}

impl CacheMode {
    /// Whether the level in memory is used.
    pub fn l1(self) -> bool {
        matches!(self, Self::On | Self::L1)
    }

    /// Whether the level in Redis is used, provided that there is a Redis.
    pub fn l2(self) -> bool {
        matches!(self, Self::On | Self::L2)
    }
}

/// Who gets `Cache-Status` headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheStatusAudience {
    /// Users who are staff.
    Staff,
    /// Everybody.
    All,
    /// Nobody.
    None,
}

/// `RATE_LIMIT_BURST`, `RATE_LIMIT_SUSTAINED`, `RATE_LIMIT_MESSAGE`, `RATE_LIMIT_IP`,
/// `RATE_LIMIT_LOGIN`; `None` is off.
#[derive(Debug, Clone, Copy)]
pub struct RateLimitConfig {
    /// Requests per user, short term.
    pub burst: Option<Rate>,
    /// Requests per user, long term.
    pub sustained: Option<Rate>,
    /// Messages sent per user.
    pub message: Option<Rate>,
    /// Requests per process and client address, before authentication.
    pub ip: Option<Rate>,
    /// Attempts to sign in per account.
    pub login: Option<Rate>,
}

/// So many in any window of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub count: u32,
    /// Whole seconds, at least one.
    pub window: Duration,
}

/// `LOG_FORMAT`, `RUST_LOG`.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// How a line looks.
    pub format: LogFormat,
    /// Which lines are written, as `env_logger` reads it.
    pub filter: String,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// One variable and what it came to. Secrets are hidden already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Name of the variable.
    pub name: &'static str,
    /// Effective value; in parentheses what happens without one.
    pub value: String,
    /// Whether the variable is unset.
    pub is_default: bool,
}

/// One thing that is wrong with the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    subject: Cow<'static, str>,
    problem: String,
    expected: String,
}

/// Everything that is wrong with the environment. Displayed as one line per fault.
#[derive(Debug, Clone)]
pub struct ConfigErrors(Vec<Fault>);

impl ConfigErrors {
    /// One line per fault.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(ToString::to_string)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; expected {}", self.subject, self.problem, self.expected)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl Config {
    /// Reads the environment and the `.env` of the working directory.
    pub fn from_env() -> Result<Self, ConfigErrors> {
        let (values, faults) = dotenv::environment();
        Self::read(|name| values.get(name).cloned(), values.keys().map(String::as_str), faults)
    }

    /// Reads variables from anywhere. Cannot see names, so it cannot warn of unknown ones.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigErrors> {
        Self::read(lookup, [], Vec::new())
    }

    /// What every variable came to, in the order of the table, secrets hidden.
    pub fn describe(&self) -> Vec<Setting> {
        let find = |name| self.settings.iter().find(|setting| setting.name == name);
        variables::all().filter_map(|variable| find(variable.name)).cloned().collect()
    }

    /// [`Config::describe`] as aligned lines: name, value, and whether it is the default; then the cache's policies.
    pub fn table(&self) -> String {
        let settings = self.describe();
        let widest = |length: fn(&Setting) -> usize| settings.iter().map(length).max().unwrap_or(0);
        let names = widest(|setting| setting.name.len());
        let values = widest(|setting| setting.value.chars().count()).min(TABLE_WIDTH);
        let line = |setting: &Setting| {
            let Setting { name, value, is_default } = setting;
            let mark = if *is_default { "default" } else { "" };
            let line = format!("{name:names$}  {value:values$}  {mark}");
            format!("{}\n", line.trim_end())
        };
        let settings: String = settings.iter().map(line).collect();
        format!("{settings}\n{}", self.cache.policies.table())
    }

    fn read<'a>(
        lookup: impl Fn(&str) -> Option<String>,
        names: impl IntoIterator<Item = &'a str>,
        faults: Vec<Fault>,
    ) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(&lookup, faults);
        // All are read before any is missed: faults are reported together.
        let server = assemble::server(&mut reader);
        let database = assemble::database(&mut reader);
        let redis = assemble::redis(&mut reader);
        let auth = assemble::auth(&mut reader);
        let cache = assemble::cache(&mut reader);
        let rate_limit = assemble::rate_limit(&mut reader);
        let log = assemble::log(&mut reader);

        let (settings, faults) = reader.finish();
        let assembled = (|| {
            Some(Self {
                server: server?,
                database: database?,
                redis: redis?,
                auth: auth?,
                cache: cache?,
                rate_limit: rate_limit?,
                log: log?,
                warnings: unknown(names),
                settings,
            })
        })();
        match assembled {
            Some(mut config) if faults.is_empty() => {
                config.warn();
                Ok(config)
            }
            _ => Err(ConfigErrors(faults)),
        }
    }

    fn warn(&mut self) {
        if self.cache.mode == CacheMode::L2 && self.redis.url.is_none() {
            self.warnings.push("CACHE is l2 and REDIS_URL is not set: nothing is cached".to_owned());
        }
        if self.auth.secret.as_ref().is_some_and(|secret| secret.contains(&b',')) {
            let text = "AUTH_SECRET contains a comma: AUTH_SECRET_PREVIOUS could not hold it later";
            self.warnings.push(text.to_owned());
        }
    }
}

/// Longer values than this do not widen the column of values in [`Config::table`].
const TABLE_WIDTH: usize = 48;

/// Warnings of variables that look like ours and are not.
fn unknown<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let ours = |name: &str| name.starts_with("CACHE_") || name.starts_with("RATE_LIMIT_");
    let known = |name: &str| variables::all().any(|variable| variable.name == name);
    let mut names: Vec<&str> = names.into_iter().filter(|name| ours(name) && !known(name)).collect();
    names.sort_unstable();
    let warning = |name| format!("{name:?} is not a setting and changes nothing");
    names.into_iter().map(warning).collect()
}

impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseConfig")
            .field("url", &self.url.as_deref().map(without_credentials))
            .field("pool_size", &self.pool_size)
            .field("data_dir", &self.data_dir)
            .finish()
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("url", &self.url.as_deref().map(without_credentials))
            .field("timeout", &self.timeout)
            .finish()
    }
}

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig")
            .field("secret", &self.secret.as_ref().map(|_| HIDDEN))
            .field("previous_secrets", &self.previous_secrets.len())
            .finish()
    }
}
