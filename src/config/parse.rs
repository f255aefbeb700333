//! From the text of a variable to its value.
//!
//! Every function refuses what it does not understand and says what it would have taken. None
//! repeats the value: whether it may be shown is for [`super::reader`] to know.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use humantime::format_duration;
use ipnet::IpNet;
use log::LevelFilter;
use url::Url;

use super::Rate;

/// The shortest secret that is accepted: the key length that RFC 7518 §3.2 asks of HS256.
const SECRET_MIN_BYTES: usize = 32;

/// The most that a rate may admit in its window. The limiter keeps eight bytes for each.
const RATE_MAX: u32 = 1_000_000;

/// Why a value is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// What is wrong: follows the value, as in `"0" is out of range`.
    pub(super) problem: String,
    /// What would be right: follows "expected".
    pub(super) expected: String,
}

pub(super) type Parsed<T> = Result<T, Refused>;

fn refused(problem: impl Into<String>, expected: impl Into<String>) -> Refused {
    Refused { problem: problem.into(), expected: expected.into() }
}

/// `127.0.0.1:8080`, `[::]:8080`.
pub(super) fn socket_addr(text: &str) -> Parsed<SocketAddr> {
    text.parse().or(Err(refused(
        "is not an address with a port",
        "an IP address and a port, such as 127.0.0.1:8080 or [::]:8080",
    )))
}

/// An absolute HTTP URL to which paths can be appended. Comes back without its trailing slash.
pub(super) fn public_url(text: &str) -> Parsed<String> {
    let expected = "http:// or https://, a host and nothing after the path, such as https://api.example.com";
    let url = Url::parse(text).or(Err(refused("is not a URL", expected)))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused("is not an HTTP URL", expected));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("contains a user or password", expected));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refused("has a query or fragment", expected));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// `postgres://…`. What follows the scheme is left to the driver, which knows it better.
pub(super) fn database_url(text: &str) -> Parsed<String> {
    with_scheme(text, &["postgres://", "postgresql://"], "postgres://user:password@host/database")
}

/// `redis://…`, `rediss://…`, `unix://…`. The rest is left to the driver.
pub(super) fn redis_url(text: &str) -> Parsed<String> {
    with_scheme(text, &["redis://", "rediss://", "unix://"], "redis://localhost:6379")
}

fn with_scheme(text: &str, schemes: &[&str], example: &str) -> Parsed<String> {
    if schemes.iter().any(|scheme| text.len() > scheme.len() && text.starts_with(scheme)) {
        return Ok(text.to_owned());
    }
    let expected = format!("a URL that begins with {}, such as {example}", listed(schemes));
    Err(refused("is not such a URL", expected))
}

/// Networks separated by commas; a bare address is a network of one. `none` and nothing: none.
pub(super) fn networks(text: &str) -> Parsed<Vec<IpNet>> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let network = |item: &str| match item.parse::<IpAddr>() {
        Ok(address) => Ok(IpNet::from(address)),
        Err(_) => item.parse::<IpNet>().map(|network| network.trunc()),
    };
    items(text).map(network).collect::<Result<_, _>>().or(Err(refused(
        "is not a list of networks",
        "CIDRs separated by commas, such as 10.0.0.0/8,fd00::/8",
    )))
}

/// 1 to 64 ASCII letters, digits and characters of `more`: safe in headers, keys and labels.
pub(super) fn word(more: &'static str) -> impl Fn(&str) -> Parsed<String> {
    move |text| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
        if (1..=64).contains(&text.len()) && text.chars().all(allowed) {
            return Ok(text.to_owned());
        }
        let shown: Vec<String> = more.chars().map(String::from).collect();
        let expected = format!("1 to 64 characters of A-Z a-z 0-9 {}", shown.join(" "));
        Err(refused("is too long or has other characters than these", expected))
    }
}

/// A whole number within `range`.
pub(super) fn whole<N>(range: RangeInclusive<N>) -> impl Fn(&str) -> Parsed<N>
where
    N: FromStr + PartialOrd + Display,
{
    move |text| {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        match text.parse::<N>() {
            Ok(number) if range.contains(&number) => Ok(number),
            Ok(_) => Err(refused("is out of range", expected)),
            // Too many digits for the type are a number all the same.
            Err(_) if text.bytes().all(|b| b.is_ascii_digit()) => Err(refused("is out of range", expected)),
            Err(_) => Err(refused("is not a whole number", expected)),
        }
    }
}

/// `64MiB`, `1GB` or plain bytes, within `range`.
pub(super) fn size(range: RangeInclusive<u64>) -> impl Fn(&str) -> Parsed<u64> {
    move |text| {
        let (least, most) = (ByteSize(*range.start()), ByteSize(*range.end()));
        let expected = format!(
            "a size from {} to {}, such as 64MiB or 1GB",
            least.display().iec(),
            most.display().iec()
        );
        match text.parse::<ByteSize>() {
            Ok(ByteSize(bytes)) if range.contains(&bytes) => Ok(bytes),
            Ok(_) => Err(refused("is out of range", expected)),
            Err(_) => Err(refused("is not a size", expected)),
        }
    }
}

/// `500ms`, `30s`, `10m`, `1h`, within `range`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&str) -> Parsed<Duration> {
    move |text| {
        let (least, most) = (format_duration(*range.start()), format_duration(*range.end()));
        let expected = format!("a duration from {least} to {most}, such as 500ms, 30s, 10m or 1h");
        match humantime::parse_duration(text) {
            Ok(duration) if range.contains(&duration) => Ok(duration),
            Ok(_) => Err(refused("is out of range", expected)),
            Err(_) => Err(refused("is not a duration", expected)),
        }
    }
}

/// `60/min`, `5/15min`, `10/second`, or `off` for no limit. Windows are whole seconds, because
/// the `RateLimit-Policy` header can say no other.
pub(super) fn rate(text: &str) -> Parsed<Option<Rate>> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    let expected = "a number per time, such as 60/min, 1000/hour or 5/15min, or off";
    let shape = || refused("is not a rate", expected);
    let (count, window) = text.split_once('/').ok_or_else(shape)?;
    let (count, window) = (count.trim(), window.trim());
    let count: u32 = count.parse().or(Err(shape()))?;
    let window = if window.starts_with(|c: char| c.is_ascii_digit()) {
        humantime::parse_duration(window)
    } else {
        humantime::parse_duration(&format!("1{window}"))
    };
    let window = window.or(Err(shape()))?;
    if !(1..=RATE_MAX).contains(&count) {
        return Err(refused("is out of range", format!("1 to {RATE_MAX} per time, or off")));
    }
    if window.subsec_nanos() != 0 || !(1..=DAYS_30.as_secs()).contains(&window.as_secs()) {
        return Err(refused("is out of range", "a time in whole seconds, from 1second to 30days"));
    }
    Ok(Some(Rate { count, window }))
}

/// The longest time that any setting accepts.
pub(super) const DAYS_30: Duration = Duration::from_hours(30 * 24);

/// One of a few words, in upper or lower case.
pub(super) fn choice<T: Copy>(choices: &'static [(&'static str, T)]) -> impl Fn(&str) -> Parsed<T> {
    move |text| {
        let chosen = choices.iter().find(|(word, _)| text.eq_ignore_ascii_case(word));
        chosen.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            refused("is not a choice", listed(&words))
        })
    }
}

/// Directives as `env_logger` takes them. It would only print its complaints, so they are looked
/// for here: what stands after `=` has to be a level.
pub(super) fn log_filter(text: &str) -> Parsed<String> {
    // What follows a slash is matched against the message.
    let directives = text.split('/').next().unwrap_or_default();
    let is_level = |directive: &str| match directive.split_once('=') {
        Some((target, level)) => !target.is_empty() && level.parse::<LevelFilter>().is_ok(),
        None => true,
    };
    if items(directives).all(is_level) {
        return Ok(text.to_owned());
    }
    Err(refused(
        "is not a log filter",
        "levels (off, error, warn, info, debug, trace), such as info or info,lockstep=debug",
    ))
}

/// A secret of 32 bytes or more.
pub(super) fn secret(text: &str) -> Parsed<Vec<u8>> {
    if text.len() >= SECRET_MIN_BYTES {
        return Ok(text.as_bytes().to_vec());
    }
    let expected = format!("at least {SECRET_MIN_BYTES} bytes, for example from `openssl rand -hex 32`");
    Err(refused(format!("has {} bytes", text.len()), expected))
}

/// Secrets separated by commas.
pub(super) fn secrets(text: &str) -> Parsed<Vec<Vec<u8>>> {
    let numbered = items(text).zip(1..).map(|(item, number)| {
        secret(item).map_err(|err| refused(format!("{} in secret {number}", err.problem), err.expected))
    });
    numbered.collect()
}

/// What stands between commas, without blanks and empty items.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// `a`, `a or b`, `a, b or c`.
fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}
