use std::collections::HashMap;

use super::variables::{Default, Privacy};
use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn read(pairs: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let values: HashMap<String, String> =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::read(|name| values.get(name).cloned(), values.keys().map(String::as_str), Vec::new())
}

fn config(pairs: &[(&str, &str)]) -> Config {
    read(pairs).unwrap()
}

/// The one line that a single wrong variable is reported by.
#[track_caller]
fn fault(name: &str, value: &str) -> String {
    let lines: Vec<String> = read(&[(name, value)]).unwrap_err().lines().collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines[0].clone()
}

#[test]
fn without_any_variable_the_defaults_hold() {
    let config = Config::from_lookup(|_| None).unwrap();
    assert_eq!(config.server.listen_addr.to_string(), "127.0.0.1:8080");
    assert_eq!(config.server.public_url, "http://127.0.0.1:8080");
    assert_eq!(config.server.instance_id.len(), 8);
    assert!(config.server.trusted_proxies.is_empty());
    assert_eq!(config.server.max_instances, 4);
    assert_eq!((config.database.url, config.database.pool_size), (None, 16));
    assert_eq!(config.database.data_dir, PathBuf::from("./data"));
    assert_eq!((config.redis.url, config.redis.timeout), (None, Duration::from_millis(50)));
    assert!(config.auth.secret.is_none() && config.auth.previous_secrets.is_empty());
    assert_eq!((config.cache.mode, config.cache.namespace.as_str()), (CacheMode::On, "lockstep"));
    assert_eq!((config.cache.l1_max_bytes, config.cache.status), (64 << 20, CacheStatusAudience::Staff));
    let lives = config.cache.policies.iter().map(|(_, name, options)| (name, options.l2, options.fail_safe));
    let expected = [
        ("workspace", 10, 60),
        ("members", 5, 60),
        ("document", 5, 60),
        ("user", 15, 60),
        ("messages", 2, 60),
        ("search", 1, 0),
    ];
    let minutes = Duration::from_mins;
    assert!(lives.eq(expected.map(|(name, l2, fail_safe)| (name, minutes(l2), minutes(fail_safe)))));
    assert!(config.cache.policies.iter().all(|(.., options)| options.l1 == Duration::from_secs(30)));
    let limits = config.rate_limit;
    let limits = [limits.burst, limits.sustained, limits.message, limits.ip, limits.login];
    let limits = limits.map(|rate| rate.map(|rate| (rate.count, rate.window.as_secs())));
    assert_eq!(limits, [(60, 60), (1000, 3600), (30, 60), (600, 60), (5, 900)].map(Some));
    assert_eq!((config.log.format, config.log.filter.as_str()), (LogFormat::Text, "info"));
    assert!(config.warnings.is_empty());
}

#[test]
fn an_empty_value_is_no_value() {
    let empty: Vec<(&str, &str)> = variables::all().map(|variable| (variable.name, " ")).collect();
    assert!(config(&empty).describe().iter().all(|setting| setting.is_default));
}

#[test]
fn values_are_parsed() {
    let config = config(&[
        ("LISTEN_ADDR", "[::1]:9000"),
        ("PUBLIC_URL", "HTTPS://API.example.com/base//"),
        ("TRUSTED_PROXIES", "10.1.2.3/8, 192.0.2.7,fd00::/8,"),
        ("DATABASE_URL", "postgres://u:p@db/lockstep"),
        ("AUTH_SECRET", SECRET),
        ("AUTH_SECRET_PREVIOUS", &format!("{SECRET}1, {SECRET}2")),
        ("REDIS_URL", "unix:///run/redis.sock"),
        ("CACHE", "L2"),
        ("CACHE_L1_MAX", "1GB"),
        ("CACHE_TTL_USER", "1h 30m"),
        ("CACHE_FAILSAFE", "0s"),
        ("CACHE_STATUS", "none"),
        ("RATE_LIMIT_BURST", "10/second"),
        ("RATE_LIMIT_IP", "off"),
        ("LOG_FORMAT", "json"),
        ("RUST_LOG", "warn,lockstep=debug,lockstep::cache=trace"),
    ]);
    assert_eq!(config.server.public_url, "https://api.example.com/base");
    let networks: Vec<String> = config.server.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8"]);
    assert_eq!(config.auth.secret.as_deref(), Some(SECRET.as_bytes()));
    assert_eq!(config.auth.previous_secrets.len(), 2);
    assert_eq!((config.cache.mode.l1(), config.cache.mode.l2()), (false, true));
    assert_eq!(config.cache.l1_max_bytes, 1_000_000_000);
    let user = config.cache.policies.iter().find(|(_, name, _)| *name == "user").unwrap().2;
    assert_eq!((user.l2, user.fail_safe), (Duration::from_mins(90), Duration::ZERO));
    assert_eq!(config.rate_limit.burst, Some(Rate { count: 10, window: Duration::from_secs(1) }));
    assert_eq!(config.rate_limit.ip, None);
    assert_eq!(self::config(&[("LISTEN_ADDR", "[::1]:9000")]).server.public_url, "http://[::1]:9000");
}

#[test]
fn all_faults_are_reported_at_once_in_one_line_each() {
    // DATA_DIR takes any text.
    let free = |name: &str| name == "DATA_DIR";
    let names: Vec<&str> =
        variables::all().map(|variable| variable.name).filter(|name| !free(name)).collect();
    let wrong: Vec<(&str, &str)> = names.iter().map(|name| (*name, "wr\nong=: ü")).collect();
    let errors = read(&wrong).unwrap_err();
    let lines: Vec<String> = errors.lines().collect();
    assert_eq!(errors.to_string(), lines.join("\n"));
    assert!(lines.iter().all(|line| !line.contains('\n') && line.contains("expected ")));
    let mut reported: Vec<&str> = lines.iter().map(|line| line.split(':').next().unwrap()).collect();
    reported.sort_unstable();
    let mut names = names;
    names.sort_unstable();
    assert_eq!(reported, names);
}

#[test]
fn a_fault_names_the_variable_the_value_and_what_is_right() {
    assert_eq!(
        fault("DATABASE_POOL_SIZE", "0"),
        "DATABASE_POOL_SIZE: \"0\" is out of range; expected a whole number from 1 to 1000"
    );
    assert_eq!(fault("CACHE", "yes"), "CACHE: \"yes\" is not a choice; expected on, l1, l2 or off");
    assert_eq!(
        fault("REDIS_TIMEOUT", "11s"),
        "REDIS_TIMEOUT: \"11s\" is out of range; expected a duration from 1ms to 10s, such as 500ms, 30s, 10m or 1h"
    );
    assert_eq!(
        fault("CACHE_L1_MAX", "0"),
        "CACHE_L1_MAX: \"0\" is out of range; expected a size from 1.0 KiB to 1.0 TiB, such as 64MiB or 1GB"
    );
    assert_eq!(
        fault("REDIS_URL", "localhost:6379"),
        "REDIS_URL: its value is not such a URL; expected a URL that begins with redis://, rediss:// or unix://, such as redis://localhost:6379"
    );
}

#[test]
fn wrong_values_are_refused() {
    for (name, values) in [
        ("LISTEN_ADDR", ["localhost:8080", "127.0.0.1", ":8080"].as_slice()),
        (
            "PUBLIC_URL",
            &["example.com", "ftp://example.com", "http://u@example.com", "http://a/?b", "http://a/#b"],
        ),
        ("INSTANCE_ID", &["a b", "a\r\nb", "ä", "a:b"]),
        ("CACHE_NAMESPACE", &["a b", "a{b}", "a*"]),
        ("TRUSTED_PROXIES", &["10.0.0.0/33", "proxy"]),
        ("MAX_INSTANCES", &["0", "-1", "1.5", "99999999999"]),
        ("DATABASE_POOL_SIZE", &["1001", "many"]),
        ("REDIS_TIMEOUT", &["0s", "50", "50 parsecs"]),
        ("CACHE_L1_TTL", &["0s", "-1s"]),
        ("CACHE_L1_MAX", &["lots", "-1", "2TiB", "64XB"]),
        (
            "RATE_LIMIT_BURST",
            &["60", "0/min", "60/", "/min", "60/fortnight", "-1/min", "1/0s", "1/500ms", "1/1y"],
        ),
        ("CACHE_STATUS", &["nobody"]),
        ("LOG_FORMAT", &["xml"]),
        ("RUST_LOG", &["lockstep=loud", "=debug"]),
        ("REDIS_URL", &["redis://", "http://redis"]),
        ("AUTH_SECRET_PREVIOUS", &["short", "0123456789abcdef0123456789abcdef,short"]),
    ] {
        for value in values {
            let line = fault(name, value);
            assert!(line.starts_with(&format!("{name}: ")), "{line}");
        }
    }
    assert!(read(&[("INSTANCE_ID", &"a".repeat(64))]).is_ok());
    assert!(read(&[("INSTANCE_ID", &"a".repeat(65))]).is_err());
}

#[test]
fn a_long_value_is_cut_in_its_fault() {
    let line = fault("CACHE", &"x".repeat(10_000));
    assert!(line.len() < 200 && line.contains('…'), "{line}");
}

#[test]
fn the_secret_is_required_with_a_database_of_ones_own() {
    let url = ("DATABASE_URL", "postgresql://db/lockstep");
    let missing: Vec<String> = read(&[url]).unwrap_err().lines().collect();
    assert_eq!(missing.len(), 1);
    assert!(missing[0].starts_with("AUTH_SECRET: is not set, although DATABASE_URL is; expected"));
    assert!(read(&[url, ("AUTH_SECRET", &SECRET[1..])]).unwrap_err().to_string().contains("has 31 bytes"));
    assert!(read(&[url, ("AUTH_SECRET", SECRET)]).is_ok());
    // A wrong URL does not hide the missing secret.
    assert_eq!(read(&[("DATABASE_URL", "mysql://db")]).unwrap_err().lines().count(), 2);
}

#[test]
fn no_secret_is_ever_shown() {
    let good = [
        ("DATABASE_URL", "postgres://ada:hush/@1@db:5432/x?sslmode=require&password=hush2"),
        ("REDIS_URL", "redis://:hush3@cache:6379/0"),
        ("AUTH_SECRET", "hush4hush4hush4hush4hush4hush4hush4"),
        ("AUTH_SECRET_PREVIOUS", "hush5hush5hush5hush5hush5hush5hush5"),
    ];
    let config = config(&good);
    let shown = format!("{config:?}\n{config:#?}\n{}\n{:?}", config.table(), config.describe());
    assert!(!shown.contains("hush"), "{shown}");
    let value = |name| config.describe().into_iter().find(|setting| setting.name == name).unwrap().value;
    assert_eq!(value("DATABASE_URL"), "postgres://ada:***@db:5432/x?sslmode=require&password=***");
    assert_eq!(value("REDIS_URL"), "redis://:***@cache:6379/0");
    assert_eq!(value("AUTH_SECRET"), "***");

    let bad = good.map(|(name, _)| (name, "hush\nhush"));
    let errors = read(&bad).unwrap_err();
    assert_eq!(errors.lines().count(), 4);
    assert!(!format!("{errors} {errors:?}").contains("hush"), "{errors}");
}

#[test]
fn credentials_are_cut_out_of_urls_of_every_kind() {
    for (url, safe) in [
        ("redis://cache", "redis://cache"),
        ("redis://hush@cache", "redis://***@cache"),
        ("unix:///run/redis.sock?db=1&pass=hush", "unix:///run/redis.sock?db=1&pass=***"),
        ("postgres://a:hush@h1:1,h2:2/db", "postgres://a:***@h1:1,h2:2/db"),
        ("postgres://db/x?sslpassword=hush&a=b", "postgres://db/x?sslpassword=***&a=b"),
        ("hush", "***"),
    ] {
        assert_eq!(without_credentials(url), safe);
    }
}

#[test]
fn every_variable_is_described_in_the_order_of_the_table() {
    let config = config(&[("CACHE", "l1"), ("INSTANCE_ID", "blue-1")]);
    let described: Vec<&str> = config.describe().iter().map(|setting| setting.name).collect();
    assert_eq!(described, variables::all().map(|variable| variable.name).collect::<Vec<_>>());
    let given: Vec<Setting> = config.describe().into_iter().filter(|setting| !setting.is_default).collect();
    let setting = |name, value: &str| Setting { name, value: value.to_owned(), is_default: false };
    assert_eq!(given, [setting("INSTANCE_ID", "blue-1"), setting("CACHE", "l1")]);
    let table = config.table();
    for line in [
        "PUBLIC_URL              http://127.0.0.1:8080                     default",
        "DATABASE_URL            (unset: embedded PostgreSQL in DATA_DIR)  default",
        "CACHE                   l1",
    ] {
        assert!(table.lines().any(|known| known == line), "{table}");
    }
}

#[test]
fn probable_mistakes_are_warned_of() {
    let config = config(&[
        ("CACHE_TLL_USER", "1m"),
        ("RATE_LIMIT_BRUST", "1/min"),
        ("RATE_LIMIT_IP", "1/min"),
        ("CACHED", "x"),
        ("CACHE", "l2"),
        ("AUTH_SECRET", "a,b 0123456789abcdef0123456789abcdef"),
    ]);
    assert_eq!(
        config.warnings,
        [
            "\"CACHE_TLL_USER\" is not a setting and changes nothing",
            "\"RATE_LIMIT_BRUST\" is not a setting and changes nothing",
            "CACHE is l2 and REDIS_URL is not set: nothing is cached",
            "AUTH_SECRET contains a comma: AUTH_SECRET_PREVIOUS could not hold it later",
        ]
    );
}

#[test]
fn an_env_file_is_read() {
    let text = "\u{feff}# comment\nA=1\nexport B='two $A' # why\nA=2\nC=\n";
    let (values, faults) = dotenv::parse(text.as_bytes());
    assert!(faults.is_empty(), "{faults:?}");
    let value = |name: &str| values.get(name).map(String::as_str);
    assert_eq!([value("A"), value("B"), value("C")], [Some("1"), Some("two $A"), Some("")]);
}

#[test]
fn a_wrong_line_of_an_env_file_is_named_by_its_number_only() {
    for (text, number) in [
        ("A=1\n\nAUTH_SECRET hush\nB=2\n", 3),
        ("A=hush hush\n", 1),
        ("# A\nA=1\nB=hush hush # why\n", 3),
        ("A=1\r\nB='hush\r\nhush\r\n", 2),
        ("A='1\n2\n3'\n# hush hush\n \nB='hush\nhush' hush\nC=hush", 6),
        (&format!("A={0}\nB={0} hush hush", "x".repeat(20_000)), 2),
    ] {
        let (_, faults) = dotenv::parse(text.as_bytes());
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(lines.len(), 1);
        assert!(
            lines[0].starts_with(&format!(".env: line {number} cannot be understood; expected NAME=value")),
            "{lines:?}"
        );
        assert!(!lines[0].contains("hush"));
    }
    assert_eq!(dotenv::parse(b"A=\xff\n").1.len(), 1);
}

/// `.env.example` as the table has it. `#NAME=value` is a variable, `# text` a comment.
fn example() -> String {
    let mut text = String::from(
        "# Settings of lockstep, each with its default. Copy this file to `.env`, and take the # off what\n\
         # you change; variables of the environment win over the file. `lockstep config` shows the outcome.\n\
         #\n\
         # An empty value means unset. Durations: 500ms, 30s, 10m, 1h. Sizes: 64MiB, 1GB. Rates: 60/min,\n\
         # 5/15min. A value with spaces, quotes, # or $ belongs in single quotes.\n",
    );
    for section in variables::SECTIONS {
        text.push_str(&format!("\n\n## {}\n", section.title));
        for variable in section.variables {
            text.push('\n');
            for line in variable.doc.lines() {
                text.push_str(&format!("# {line}\n"));
            }
            let value = match variable.default {
                Default::Value(value) => value,
                Default::Unset(_) => "",
            };
            text.push_str(&format!("#{}={value}\n", variable.name));
        }
    }
    text
}

#[test]
fn the_example_file_agrees_with_the_table() {
    let file = include_str!("../../.env.example");
    assert!(file == example(), "make .env.example this:\n{}", example());
}

#[test]
fn the_example_file_uncommented_changes_nothing() {
    let is_variable = |line: &&str| line.starts_with(|c: char| c.is_ascii_uppercase());
    let lines = include_str!("../../.env.example").lines().filter_map(|line| line.strip_prefix('#'));
    let text = lines.filter(is_variable).collect::<Vec<_>>().join("\n");
    let (values, faults) = dotenv::parse(text.as_bytes());
    assert!(faults.is_empty());
    assert_eq!(values.len(), variables::all().count());
    let value = |config: &Config| -> Vec<String> {
        let public = config.describe().into_iter().filter(|setting| setting.name != "INSTANCE_ID");
        public.map(|setting| setting.value).collect()
    };
    let uncommented = Config::from_lookup(|name| values.get(name).cloned()).unwrap();
    assert_eq!(value(&uncommented), value(&config(&[])));
}

#[test]
fn what_may_hold_a_secret_is_marked_as_such() {
    for variable in variables::all() {
        let private = ["SECRET", "DATABASE_URL", "REDIS_URL"].iter().any(|word| variable.name.contains(word));
        assert_eq!(variable.privacy != Privacy::Public, private, "{}", variable.name);
    }
}
