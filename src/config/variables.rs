//! The table of variables: names, defaults and what each is for, written once.
//!
//! The reader takes names and defaults from here, `lockstep config` prints them, and a test
//! compares `.env.example` with them. What a value may look like is decided in `parse`.

/// One environment variable.
#[derive(Debug)]
pub struct Variable {
    /// Its name in the environment and in `.env`.
    pub name: &'static str,
    /// What holds while it is unset.
    pub default: Default,
    /// Whether its value may be shown.
    pub privacy: Privacy,
    /// What it is for, in lines short enough for `.env.example`.
    pub doc: &'static str,
}

/// What holds while a variable is unset.
#[derive(Debug, Clone, Copy)]
pub enum Default {
    /// This value, parsed like any other.
    Value(&'static str),
    /// No value; the text says what happens instead.
    Unset(&'static str),
}

/// How much of a value may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privacy {
    /// All of it.
    Public,
    /// A URL: all but user, password and the like.
    Url,
    /// Nothing.
    Secret,
}

/// Variables that belong together.
#[derive(Debug)]
pub struct Section {
    /// Its heading in `.env.example`.
    pub title: &'static str,
    /// Its variables, in the order in which they are listed.
    pub variables: &'static [&'static Variable],
}

/// Every variable, in the order in which they are listed.
pub fn all() -> impl Iterator<Item = &'static Variable> {
    SECTIONS.iter().flat_map(|section| section.variables.iter().copied())
}

/// Declares a constant for each variable and the list of them all, so that none can be read
/// without being listed.
macro_rules! variables {
    ($($title:literal { $($name:ident: $privacy:ident, $default:ident($value:literal), $doc:literal;)+ })+) => {
        $($(
            #[doc = concat!("The variable `", stringify!($name), "`.")]
            pub const $name: &Variable = &Variable {
                name: stringify!($name),
                default: Default::$default($value),
                privacy: Privacy::$privacy,
                doc: $doc,
            };
        )+)+

        /// Every variable, by section.
        pub const SECTIONS: &[Section] = &[
            $(Section { title: $title, variables: &[$($name),+] }),+
        ];
    };
}

variables! {
    "Server" {
        LISTEN_ADDR: Public, Value("127.0.0.1:8080"),
            "Address and port to listen on.";
        PUBLIC_URL: Public, Unset("http://LISTEN_ADDR"),
            "Base of the links that clients see. Unset: http://LISTEN_ADDR.";
        INSTANCE_ID: Public, Unset("random"),
            "Name of this instance in X-Served-By, logs and metrics. Unset: random.";
        TRUSTED_PROXIES: Public, Unset("none"),
            "Networks whose X-Forwarded-For is believed: CIDRs, separated by commas,\n\
             for example 10.0.0.0/8,fd00::/8. Unset: none.";
        MAX_INSTANCES: Public, Value("4"),
            "The most instances that run at once: while Redis is down, each admits its\n\
             share of a rate limit.";
    }
    "PostgreSQL" {
        DATABASE_URL: Url, Unset("embedded PostgreSQL in DATA_DIR"),
            "For example postgres://lockstep:password@localhost/lockstep.\n\
             Unset: an embedded PostgreSQL in DATA_DIR.";
        DATABASE_POOL_SIZE: Public, Value("16"),
            "Connections to PostgreSQL for requests, per instance; the journal has three more.";
        DATA_DIR: Public, Value("./data"),
            "Home of the embedded PostgreSQL and of the secret made for it.";
    }
    "Redis" {
        REDIS_URL: Url, Unset("no L2, coherence by the journal"),
            "redis://, rediss:// or unix://, for example redis://localhost:6379.\n\
             Unset: no second cache level; instances agree through PostgreSQL.";
        REDIS_TIMEOUT: Public, Value("50ms"),
            "How long one Redis call may take while a request waits for it.";
    }
    "Sign-in" {
        AUTH_SECRET: Secret, Unset("made and kept in DATA_DIR"),
            "Signs access tokens: 32 bytes or more, the same on every instance, for\n\
             example from `openssl rand -hex 32`. Required with DATABASE_URL.\n\
             Unset: made and kept in DATA_DIR.";
        AUTH_SECRET_PREVIOUS: Secret, Unset("none"),
            "Earlier secrets, separated by commas, whose tokens are still accepted while\n\
             AUTH_SECRET is being replaced.";
    }
    "Cache" {
        CACHE: Public, Value("on"),
            "Cache levels in use: on (both), l1 (memory), l2 (Redis), off.";
        CACHE_NAMESPACE: Public, Value("lockstep"),
            "Prefix of every Redis key and channel.";
        CACHE_L1_MAX: Public, Value("64MiB"),
            "Size of the first level, by weight in bytes.";
        CACHE_L1_TTL: Public, Value("30s"),
            "Time to live in the first level.";
        CACHE_TTL_WORKSPACE: Public, Value("10m"),
            "Time to live in the second level, by kind of data: workspaces.";
        CACHE_TTL_MEMBERS: Public, Value("5m"),
            "The same: member lists, memberships, and standings: roles with the sign-in\n\
             state of whoever reads in a workspace.";
        CACHE_TTL_DOCUMENT: Public, Value("5m"),
            "The same: documents and lists of documents.";
        CACHE_TTL_USER: Public, Value("15m"),
            "The same: user profiles, and sign-in states for all other requests.";
        CACHE_TTL_SEARCH: Public, Value("1m"),
            "The same: search results.";
        CACHE_TTL_MESSAGES: Public, Value("2m"),
            "The same: channels and their messages.";
        CACHE_FAILSAFE: Public, Value("1h"),
            "How old an expired, not invalidated, entry may be served while PostgreSQL is\n\
             down. 0s: never.";
        CACHE_POLICY_WORKSPACE: Public, Unset("as in the table of policies"),
            "Changes parts of the policy of workspaces, for example\n\
             l1=10s absent=5s jitter=0% refresh=70% soft=300ms. Parts: l1, l2, absent\n\
             (time to live in the process, in Redis, of knowing that there is nothing);\n\
             jitter (share of it that chance takes away); failsafe; refresh (share of it\n\
             after which an entry in use is renewed, or never); soft and hard (how long\n\
             a load may take with and without something older to serve).";
        CACHE_POLICY_MEMBERS: Public, Unset("as in the table of policies"),
            "The same: member lists, memberships and standings.";
        CACHE_POLICY_DOCUMENT: Public, Unset("as in the table of policies"),
            "The same: documents and lists of documents.";
        CACHE_POLICY_USER: Public, Unset("as in the table of policies"),
            "The same: user profiles and sign-in states.";
        CACHE_POLICY_SEARCH: Public, Unset("as in the table of policies"),
            "The same: search results.";
        CACHE_POLICY_MESSAGES: Public, Unset("as in the table of policies"),
            "The same: channels and their messages.";
        CACHE_STATUS: Public, Value("staff"),
            "Who gets Cache-Status headers: staff, all, none.";
    }
    "Rate limits (off: no limit)" {
        RATE_LIMIT_BURST: Public, Value("60/min"),
            "Requests per user, short term.";
        RATE_LIMIT_SUSTAINED: Public, Value("1000/hour"),
            "Requests per user, long term.";
        RATE_LIMIT_MESSAGE: Public, Value("30/min"),
            "Messages sent per user.";
        RATE_LIMIT_IP: Public, Value("600/min"),
            "Requests per client address and instance, before authentication.";
        RATE_LIMIT_LOGIN: Public, Value("5/15min"),
            "Attempts to sign in per account.";
    }
    "Logs" {
        LOG_FORMAT: Public, Value("text"),
            "text or json (one object per line).";
        RUST_LOG: Public, Value("info"),
            "Log levels, for example info,lockstep=debug.";
    }
}
