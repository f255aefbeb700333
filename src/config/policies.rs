//! Kinds of cached data and their policies: the one table that says how long what is kept, and how it is renewed.
//!
//! The times to live in both levels, and the fail-safe age, have variables of their own; the rest of a row can be
//! changed, a part at a time, with `CACHE_POLICY_…`.

use std::{fmt::Write as _, time::Duration};

use humantime::format_duration;

use super::{
    parse::{self, Parsed, Refused},
    variables::{self as vars, Variable},
};
use crate::cache::PolicyOptions;

/// Kinds of cached data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Workspaces.
    Workspace,
    /// Member lists, memberships, standings.
    Members,
    /// Documents, lists of them, their versions.
    Document,
    /// Profiles, sign-in states.
    User,
    /// Channels, who reads them, pages of their messages.
    Messages,
    /// Search results.
    Search,
}

/// A row of the table: what holds unless a variable says something else.
struct Row {
    kind: Kind,
    /// Name in metrics and in `lockstep config`.
    name: &'static str,
    ttl: &'static Variable,
    overrides: &'static Variable,
    /// How long it is remembered that there is nothing.
    absent: Duration,
    /// Percentage of a life after which an entry that is asked for is renewed; 100: never.
    refresh_at: u8,
    /// Whether every change invalidates it; if not, only time does.
    invalidated: bool,
}

#[rustfmt::skip]
const TABLE: [Row; 6] = [
    row(Kind::Workspace, "workspace", vars::CACHE_TTL_WORKSPACE, vars::CACHE_POLICY_WORKSPACE, 30, 80,  true),
    row(Kind::Members,   "members",   vars::CACHE_TTL_MEMBERS,   vars::CACHE_POLICY_MEMBERS,   30, 80,  true),
    row(Kind::Document,  "document",  vars::CACHE_TTL_DOCUMENT,  vars::CACHE_POLICY_DOCUMENT,  30, 80,  true),
    row(Kind::User,      "user",      vars::CACHE_TTL_USER,      vars::CACHE_POLICY_USER,      30, 80,  true),
    row(Kind::Messages,  "messages",  vars::CACHE_TTL_MESSAGES,  vars::CACHE_POLICY_MESSAGES,  30, 80,  true),
    // Renewing what time ends anyway would only make PostgreSQL search again for whoever reloads.
    row(Kind::Search,    "search",    vars::CACHE_TTL_SEARCH,    vars::CACHE_POLICY_SEARCH,    30, 100, false),
];

const fn row(
    kind: Kind,
    name: &'static str,
    ttl: &'static Variable,
    overrides: &'static Variable,
    absent_seconds: u64,
    refresh_at: u8,
    invalidated: bool,
) -> Row {
    Row { kind, name, ttl, overrides, absent: Duration::from_secs(absent_seconds), refresh_at, invalidated }
}

/// The policy of every kind, in the order of [`Kind`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policies([PolicyOptions; TABLE.len()]);

impl Policies {
    /// `None` if a variable is at fault, which has been noted.
    pub(super) fn read(
        reader: &mut super::reader::Reader<'_>,
        l1_ttl: Option<Duration>,
        fail_safe: Option<Duration>,
    ) -> Option<Self> {
        let rows = TABLE.each_ref().map(|row| {
            let l2 = reader.read(row.ttl, parse::duration(super::assemble::TTL));
            let changes = reader.read_optional(row.overrides, changes);
            let (l1, l2, fail_safe, changes) = (l1_ttl?, l2?, fail_safe?, changes?.unwrap_or_default());
            let mut options = row.options(l1, l2, fail_safe);
            for change in changes {
                change.apply(&mut options);
            }
            // What L2 would have thrown away is not kept longer in memory; what only time ends, not beyond its time.
            options.l1 = options.l1.min(options.l2);
            if options.ends_by_time {
                options.fail_safe = Duration::ZERO;
            }
            Some(options)
        });
        let [a, b, c, d, e, f] = rows;
        Some(Self([a?, b?, c?, d?, e?, f?]))
    }

    /// The kinds with their names and policies, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &'static str, &PolicyOptions)> {
        TABLE.iter().zip(&self.0).map(|(row, options)| (row.kind, row.name, options))
    }

    /// As aligned lines, below a heading.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<10} {:>8} {:>8} {:>8} {:>7} {:>9} {:>8} {:>6} {:>6}\n",
            "policy", "l1", "l2", "absent", "jitter", "failsafe", "refresh", "soft", "hard"
        );
        for (_, name, options) in self.iter() {
            let PolicyOptions { l1, l2, absent, jitter, fail_safe, refresh_at, soft, hard, .. } = options;
            let refresh = if *refresh_at < 100 { format!("{refresh_at}%") } else { "never".to_owned() };
            let time = |duration: &Duration| format_duration(*duration).to_string().replace(' ', "");
            // Writing to a text does not fail.
            let _ = writeln!(
                text,
                "{name:<10} {:>8} {:>8} {:>8} {:>7} {:>9} {refresh:>8} {:>6} {:>6}",
                time(l1),
                time(l2),
                time(absent),
                format!("{jitter}%"),
                time(fail_safe),
                time(soft),
                time(hard),
            );
        }
        text
    }
}

impl Row {
    const fn options(&self, l1: Duration, l2: Duration, fail_safe: Duration) -> PolicyOptions {
        PolicyOptions {
            absent: self.absent,
            fail_safe,
            refresh_at: self.refresh_at,
            ends_by_time: !self.invalidated,
            ..PolicyOptions::new(l1, l2)
        }
    }
}

/// One part of a policy that is to be another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    L1(Duration),
    L2(Duration),
    Absent(Duration),
    Jitter(u8),
    FailSafe(Duration),
    Refresh(u8),
    Soft(Duration),
    Hard(Duration),
}

impl Change {
    const fn apply(self, options: &mut PolicyOptions) {
        match self {
            Self::L1(l1) => options.l1 = l1,
            Self::L2(l2) => options.l2 = l2,
            Self::Absent(absent) => options.absent = absent,
            Self::Jitter(jitter) => options.jitter = jitter,
            Self::FailSafe(fail_safe) => options.fail_safe = fail_safe,
            Self::Refresh(refresh_at) => options.refresh_at = refresh_at,
            Self::Soft(soft) => options.soft = soft,
            Self::Hard(hard) => options.hard = hard,
        }
    }
}

/// `l1=10s refresh=70% soft=300ms`.
fn changes(text: &str) -> Parsed<Vec<Change>> {
    let parts = text.split([' ', ',']).filter(|part| !part.is_empty());
    parts.map(change).collect()
}

fn change(part: &str) -> Parsed<Change> {
    let within = |name: &str| {
        let name = name.to_owned();
        move |refused: Refused| Refused {
            problem: format!("has a value of {name} that {}", refused.problem),
            ..refused
        }
    };
    let (name, value) = part.split_once('=').unwrap_or((part, ""));
    let ttl = |make: fn(Duration) -> Change| parse::duration(super::assemble::TTL)(value).map(make);
    let timeout = |make: fn(Duration) -> Change| {
        parse::duration(Duration::from_millis(10)..=Duration::from_secs(60))(value).map(make)
    };
    let change = match name {
        "l1" => ttl(Change::L1),
        "l2" => ttl(Change::L2),
        "absent" => ttl(Change::Absent),
        "jitter" => percentage(value, 50).map(Change::Jitter),
        "failsafe" => parse::duration(Duration::ZERO..=parse::DAYS_30)(value).map(Change::FailSafe),
        "refresh" if value == "never" => Ok(Change::Refresh(100)),
        "refresh" => percentage(value, 100).map(Change::Refresh),
        "soft" => timeout(Change::Soft),
        "hard" => timeout(Change::Hard),
        _ => {
            return Err(Refused {
                problem: format!("names {}, which is no part of a policy", super::reader::quoted(name)),
                expected: "l1, l2, absent, jitter, failsafe, refresh, soft or hard, each with = and a value, such as \
                           l1=10s refresh=70%"
                    .to_owned(),
            });
        }
    };
    change.map_err(within(name))
}

/// `70%`.
fn percentage(text: &str, most: u8) -> Parsed<u8> {
    let number = text.strip_suffix('%').unwrap_or(text);
    parse::whole(0..=most)(number)
        .map_err(|refused| Refused { expected: format!("a percentage from 0% to {most}%"), ..refused })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const S: Duration = Duration::from_secs(1);

    fn config(name: &'static str, value: &'static str) -> Result<Config, String> {
        Config::from_lookup(|asked| (asked == name).then(|| value.to_owned())).map_err(|err| err.to_string())
    }

    fn options(config: &Config, wanted: Kind) -> PolicyOptions {
        *config.cache.policies.iter().find(|(kind, ..)| *kind == wanted).unwrap().2
    }

    #[test]
    fn a_part_of_a_policy_is_changed_and_the_rest_is_left() {
        let before = config("NOTHING", "").unwrap();
        let after =
            config("CACHE_POLICY_MEMBERS", "l1=5s, absent=2s refresh=70% soft=300ms jitter=0%").unwrap();
        let expected = PolicyOptions {
            l1: 5 * S,
            absent: 2 * S,
            refresh_at: 70,
            soft: Duration::from_millis(300),
            jitter: 0,
            ..options(&before, Kind::Members)
        };
        assert_eq!(options(&after, Kind::Members), expected);
        assert_eq!(options(&after, Kind::Workspace), options(&before, Kind::Workspace));
    }

    #[test]
    fn nothing_is_kept_in_memory_longer_than_in_redis_and_results_of_searches_never_beyond_their_time() {
        let config = config("CACHE_POLICY_SEARCH", "l1=1h l2=5s failsafe=1h").unwrap();
        let search = options(&config, Kind::Search);
        assert_eq!((search.l1, search.fail_safe), (5 * S, Duration::ZERO));
    }

    #[test]
    fn a_wrong_part_is_named() {
        for (value, said) in [
            ("ttl=5s", "names \"ttl\""),
            ("l1", "a value of l1 that is not a duration"),
            ("l1=soon", "a value of l1 that is not a duration"),
            ("refresh=170%", "a value of refresh that is out of range"),
            ("hard=1h", "a value of hard that is out of range"),
        ] {
            let fault = config("CACHE_POLICY_USER", value).unwrap_err();
            assert!(fault.starts_with("CACHE_POLICY_USER: ") && fault.contains(said), "{fault}");
        }
    }

    #[test]
    fn the_table_has_the_order_of_the_kinds() {
        assert!(TABLE.iter().enumerate().all(|(index, row)| row.kind as usize == index));
    }

    #[test]
    fn the_table_shows_every_kind() {
        let table = config("NOTHING", "").unwrap().cache.policies.table();
        assert_eq!(table.lines().count(), 1 + TABLE.len(), "{table}");
        assert!(table.contains("search"), "{table}");
    }
}
