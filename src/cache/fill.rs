//! From what was loaded, or found in L2, to entries of both tiers.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

use super::{
    Loaded,
    entry::{Entry, Stored},
    envelope::{Envelope, Opened},
    generation::{Interest, Source, Stamp},
    key::Tag,
    l1::L1,
    l2::{Filling, Link, LockOwner, milliseconds},
    load::{RETRY, Trip},
    times::Times,
};

/// Larger values are served and not stored.
const MAX_VALUE_BYTES: usize = 1024 * 1024;

impl Trip {
    /// An entry of L2, as of the sequence at which Redis has just vouched for it, whatever the time of its load.
    pub(super) fn decode<T: Stored>(
        &self,
        interest: &Interest,
        sequence: u64,
        ttl: Duration,
        envelope: &Bytes,
    ) -> Option<Arc<Entry>> {
        let (value, stamp) = self.decoded::<T>(interest, sequence, envelope)?;
        Some(self.entry(value, stamp, ttl))
    }

    /// An entry of L2 whose time is up, to serve for a moment.
    pub(super) fn decode_expired<T: Stored>(
        &self,
        interest: &Interest,
        sequence: u64,
        kept: Duration,
        envelope: &Bytes,
    ) -> Option<Arc<Entry>> {
        let (value, stamp) = self.decoded::<T>(interest, sequence, envelope)?;
        let now = Instant::now();
        let fail_safe = self.policy.options.fail_safe;
        let times = Times::ended(now, fail_safe.saturating_sub(kept), fail_safe).prolonged(now + RETRY);
        Some(self.entry_of(value, stamp, times))
    }

    /// What an envelope holds, and the stamp for it.
    fn decoded<T: Stored>(
        &self,
        interest: &Interest,
        sequence: u64,
        envelope: &Bytes,
    ) -> Option<(Option<T>, Option<Stamp>)> {
        let stats = &self.policy.stats;
        stats.l2_read_bytes.inc_by(u64::try_from(envelope.len()).unwrap_or_default());
        let opened = Opened::read(envelope)?;
        let age_ms = unix_milliseconds().saturating_sub(opened.created_ms);
        stats.age_seconds.observe(Duration::from_millis(age_ms).as_secs_f64());
        let value = match &opened.payload {
            Some(payload) => Some(T::decode(payload)?),
            None => None,
        };
        let stamp = if opened.has_just(&self.tags) {
            self.generation.stamp(interest, [], sequence)
        } else {
            let is_known =
                |name: &&str| *name == Tag::ALL || self.tags.iter().any(|tag| tag.as_str() == *name);
            self.generation.stamp(interest, opened.tags()?.filter(|name| !is_known(name)), sequence)
        };
        Some((value, stamp))
    }

    /// What L2 is to keep. `None`: nothing, it is too large or has no form there.
    pub(super) fn envelope<T: Stored>(
        &self,
        link: &Link,
        loaded: &Loaded<T>,
        as_of: u64,
    ) -> Option<Envelope> {
        let payload = match &loaded.value {
            None => None,
            Some(value) => Some(value.encode().filter(|payload| payload.len() <= MAX_VALUE_BYTES)?),
        };
        let mut tags = vec![Tag::all()];
        tags.extend(self.tags.iter().chain(&loaded.tags).cloned());
        Some(Envelope {
            epoch: link.epoch(),
            as_of,
            created_ms: unix_milliseconds(),
            origin: self.cache.instance.clone(),
            kept_ms: milliseconds(self.policy.options.fail_safe),
            tags,
            payload,
        })
    }

    pub(super) async fn fill_l2<T: Stored>(
        &mut self,
        link: &Link,
        loaded: &Loaded<T>,
        as_of: u64,
        life: Duration,
        owner: LockOwner,
    ) {
        let outcome = match self.envelope(link, loaded, as_of) {
            Some(envelope) => {
                let fail_safe = self.policy.options.fail_safe;
                let bytes = envelope.write();
                let filling = Filling { key: &self.key, envelope: &envelope, bytes: &bytes, life, fail_safe };
                link.fill(&filling, owner).await.map(|stored| if stored { bytes.len() } else { 0 })
            }
            None => {
                self.policy.stats.oversized.inc();
                link.unlock(&self.key, owner).await.map(|()| 0)
            }
        };
        match outcome {
            Ok(bytes) => self.note_stored(bytes),
            Err(err) => {
                log::warn!("cache.key":% = self.key, "error.chain":% = crate::telemetry::Chain(&err);
                    "L2 was not filled");
            }
        }
    }

    /// L2 has stored so many bytes; none if there was something newer.
    pub(super) fn note_stored(&mut self, bytes: usize) {
        self.status.stored_l2 = bytes > 0;
        self.policy.stats.l2_written_bytes.inc_by(u64::try_from(bytes).unwrap_or_default());
    }

    /// An entry for L1, of something that L2 keeps for so long.
    pub(super) fn entry<T: Stored>(
        &self,
        value: Option<T>,
        stamp: Option<Stamp>,
        l2_left: Duration,
    ) -> Arc<Entry> {
        let absent = value.is_none();
        let life = self.policy.l1_life(absent, l2_left);
        let refresh_after = self.policy.refresh_after(life).filter(|_| !absent);
        let times = Times::new(Instant::now(), life, refresh_after, self.policy.options.fail_safe);
        self.entry_of(value, stamp, times)
    }

    /// An entry whose value is weighed, if there is anything that would ask.
    fn entry_of<T: Stored>(&self, value: Option<T>, stamp: Option<Stamp>, times: Times) -> Arc<Entry> {
        let weight = value.as_ref().filter(|_| self.cache.l1.is_some()).map_or(0, Stored::weight);
        Entry::new(value, weight, stamp, times)
    }

    /// Puts the entry into L1 if anything could vouch for it there.
    pub(super) fn keep(&mut self, entry: Arc<Entry>) -> Arc<Entry> {
        let trusted = !matches!(self.generation.source, Source::Untrusted);
        let current = entry.stamp.as_ref().is_some_and(|stamp| self.cache.trust.is_current(stamp));
        let small = usize::try_from(entry.bytes).is_ok_and(|bytes| bytes <= MAX_VALUE_BYTES);
        if let (true, true, true, Some(l1)) = (trusted, current, small, &self.cache.l1) {
            L1::put(l1, self.key, Arc::clone(&entry));
            self.status.stored_l1 = true;
        }
        entry
    }
}

fn unix_milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}
