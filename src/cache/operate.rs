//! What operators see of the cache. Reads whatever is there and judges it by the same rules as a reader would; nothing here
//! serves requests, and nothing is changed.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use prometheus::core::Collector;

use super::{
    Cache,
    generation::Source,
    l1::L1,
    l2::{LinkError, Names, Peeked},
    trust::Verdict,
};
use crate::redis::Redis;

/// How one instance's cache is doing.
#[derive(Debug)]
pub struct Report {
    /// Whether L1 may be used at present.
    pub lease: bool,
    /// Where invalidations come from: `redis`, `journal`, `process` or `none`.
    pub source: &'static str,
    pub epoch: u64,
    /// Every invalidation up to this one was applied here.
    pub sequence: u64,
    /// Entries and bytes of L1; nothing if it is off.
    pub l1: Option<(u64, u64)>,
    /// Reads by kind of data, tier and result.
    pub requests: BTreeMap<String, BTreeMap<String, BTreeMap<String, u64>>>,
    /// Tags invalidated, by source.
    pub invalidations: BTreeMap<String, u64>,
}

const TIME_IS_UP: &str = "its time is up; it is kept for when the database is away";

/// What each tier holds under a key, and whether a reader would get it.
#[derive(Debug)]
pub struct Explanation {
    pub l1: Option<L1Entry>,
    pub l2: Option<L2Entry>,
}

/// An entry of L1.
#[derive(Debug)]
pub struct L1Entry {
    /// It is known that there is nothing.
    pub absent: bool,
    pub bytes: u32,
    pub expires_in: Duration,
    /// The sequence before it was loaded.
    pub as_of: Option<u64>,
    pub tag_count: usize,
    /// Why it is fresh, or is not.
    pub verdict: String,
    pub fresh: bool,
}

/// An entry of L2.
#[derive(Debug)]
pub struct L2Entry {
    pub bytes: usize,
    pub expires_in: Duration,
    pub epoch: Option<u64>,
    /// The sequence before it was loaded.
    pub as_of: Option<u64>,
    /// When it was stored, in milliseconds since 1970.
    pub created_ms: Option<u64>,
    /// The instance that stored it.
    pub origin: Option<String>,
    pub absent: bool,
    /// Its tags and their versions.
    pub tags: Vec<(String, Option<u64>)>,
    /// Why it is fresh, or is not.
    pub verdict: String,
    pub fresh: bool,
}

impl Cache {
    /// How this instance's cache is doing.
    #[must_use]
    pub fn report(&self) -> Report {
        let generation = self.trust.generation();
        let source = match generation.source {
            Source::Shared(_) => "redis",
            Source::Local => "process",
            Source::Journal => "journal",
            Source::Untrusted => "none",
        };
        Report {
            lease: self.trust.has_lease(),
            source,
            epoch: generation.epoch,
            sequence: generation.applied(),
            l1: self.l1.as_ref().map(L1::size),
            requests: self.requests(),
            invalidations: self.invalidations(),
        }
    }

    fn requests(&self) -> BTreeMap<String, BTreeMap<String, BTreeMap<String, u64>>> {
        let mut kinds = BTreeMap::<_, BTreeMap<_, BTreeMap<_, _>>>::new();
        for (labels, count) in counts(&self.stats.requests) {
            let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
            kinds
                .entry(label("kind"))
                .or_default()
                .entry(label("tier"))
                .or_default()
                .insert(label("result"), count);
        }
        kinds
    }

    fn invalidations(&self) -> BTreeMap<String, u64> {
        let sources = counts(&self.stats.invalidations);
        sources
            .into_iter()
            .map(|(mut labels, count)| (labels.remove("source").unwrap_or_default(), count))
            .collect()
    }

    /// What both tiers hold under a key, as its text, and why it is or is not fresh.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn explain(&self, key: &str) -> Result<Explanation, LinkError> {
        let l1 = self.l1.as_ref().and_then(|l1| l1.find(key)).map(|entry| {
            let judged = entry.stamp.as_ref().map(|stamp| self.trust.judge(stamp));
            let expires_in = entry.times.left(Instant::now());
            let (fresh, verdict) = match judged {
                Some(Verdict::Fresh) if expires_in.is_zero() => (false, TIME_IS_UP),
                Some(Verdict::Fresh) => (true, "fresh"),
                Some(Verdict::NoLease) => (false, "this instance has no lease at present"),
                Some(Verdict::Outdated) => {
                    (false, "a tag was invalidated after it was loaded, or trust was lost since")
                }
                None => (false, "nothing says for how long it may be used"),
            };
            L1Entry {
                absent: entry.is_absent(),
                bytes: entry.bytes,
                expires_in,
                as_of: entry.stamp.as_ref().map(|stamp| stamp.as_of()),
                tag_count: entry.stamp.as_ref().map_or(0, |stamp| stamp.tag_count()),
                verdict: verdict.to_owned(),
                fresh,
            }
        });
        let generation = self.trust.generation();
        let l2 = match &generation.source {
            Source::Shared(link) if self.uses_l2 => {
                link.peek(key).await?.map(|peeked| judge(peeked, generation.epoch))
            }
            _ => None,
        };
        Ok(Explanation { l1, l2 })
    }
}

/// What a namespace has in Redis.
#[derive(Debug, Default)]
pub struct Survey {
    sequence: Option<u64>,
    instances: Vec<String>,
    /// Entries by what they are about.
    entries: BTreeMap<String, usize>,
    tags: usize,
}

impl std::fmt::Display for Survey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sequence = self.sequence.map_or_else(|| "none".to_owned(), |sequence| sequence.to_string());
        writeln!(f, "sequence   {sequence}")?;
        writeln!(
            f,
            "instances  {}",
            if self.instances.is_empty() { "none".to_owned() } else { self.instances.join(", ") }
        )?;
        writeln!(f, "tags       {}", self.tags)?;
        writeln!(f, "entries    {}", self.entries.values().sum::<usize>())?;
        self.entries.iter().try_for_each(|(entity, count)| writeln!(f, "  {entity:<10} {count}"))
    }
}

/// Looks at everything that a namespace has in Redis, step by step.
///
/// # Errors
/// When Redis does not answer.
pub async fn survey(redis: &Redis, namespace: &str) -> redis::RedisResult<Survey> {
    let mut connection = redis.connect().await?;
    let names = Names::new(namespace);
    let mut found = Survey {
        sequence: redis::cmd("HGET").arg(names.meta()).arg("sequence").query_async(&mut connection).await?,
        ..Survey::default()
    };
    let (prefix, mut cursor) = (format!("{namespace}:"), 0_u64);
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{}:*", names.escaped())).arg("COUNT").arg(1000);
        let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await?;
        for name in keys.iter().filter_map(|key| key.strip_prefix(&prefix)) {
            match name.split_once(':') {
                Some(("entry", rest)) => {
                    let entity = rest.split(':').next().unwrap_or_default();
                    *found.entries.entry(entity.to_owned()).or_default() += 1;
                }
                Some(("tag", _)) => found.tags += 1,
                Some(("instance", instance)) => found.instances.push(instance.to_owned()),
                _ => {}
            }
        }
        if next == 0 {
            found.instances.sort_unstable();
            return Ok(found);
        }
        cursor = next;
    }
}

fn counts(counter: &impl Collector) -> Vec<(BTreeMap<String, String>, u64)> {
    let families = counter.collect();
    let metrics = families.iter().flat_map(|family| family.get_metric());
    let counts = metrics.map(|metric| {
        let labels =
            metric.get_label().iter().map(|label| (label.name().to_owned(), label.value().to_owned()));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let count = metric.get_counter().get_value() as u64;
        (labels.collect(), count)
    });
    counts.filter(|(_, count)| *count > 0).collect()
}

/// As `lua/read.lua` does.
fn judge(peeked: Peeked, present_epoch: u64) -> L2Entry {
    let Peeked { bytes, left, envelope, versions } = peeked;
    let kept_ms = envelope.as_ref().map_or(0, |envelope| envelope.kept_ms);
    let left = left.saturating_sub(Duration::from_millis(kept_ms));
    let (fresh, verdict) = match &envelope {
        None => (false, "it cannot be read".to_owned()),
        Some(envelope) if envelope.epoch != present_epoch => (false, "it is of another epoch".to_owned()),
        Some(envelope) => {
            let newer =
                versions.iter().find(|(_, version)| version.is_none_or(|version| version > envelope.as_of));
            match newer {
                None if left.is_zero() => (false, TIME_IS_UP.to_owned()),
                None => (true, "fresh".to_owned()),
                Some((tag, None)) => (false, format!("tag {tag} has no version")),
                Some((tag, Some(version))) => (
                    false,
                    format!("tag {tag} was invalidated at {version}, it was loaded as of {}", envelope.as_of),
                ),
            }
        }
    };
    L2Entry {
        bytes,
        expires_in: left,
        epoch: envelope.as_ref().map(|envelope| envelope.epoch),
        as_of: envelope.as_ref().map(|envelope| envelope.as_of),
        created_ms: envelope.as_ref().map(|envelope| envelope.created_ms),
        absent: envelope.as_ref().is_some_and(|envelope| envelope.payload.is_none()),
        origin: envelope.map(|envelope| envelope.origin).filter(|origin| !origin.is_empty()),
        tags: versions.into_iter().map(|(tag, version)| (tag.to_string(), version)).collect(),
        verdict,
        fresh,
    }
}
