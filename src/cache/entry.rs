//! What is kept: values in L1, and their wire format in L2.
//!
//! The format is text up to the payload, so that the scripts in Redis and people with `redis-cli` can read it:
//!
//! ```text
//! lockstep1 EPOCH AS-OF CREATED-MS KIND\n
//! tag tag tag\n
//! payload
//! ```
//!
//! `EPOCH` is hexadecimal, `AS-OF` the sequence before the load began, `KIND` is `value` or `absent`. Whatever
//! does not read like this is a miss, never an error.

use std::{any::Any, sync::Arc, time::Instant};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::{generation::Stamp, key::Tag};

/// A value that both tiers can keep.
pub trait Stored: Send + Sync + Sized + 'static {
    /// The payload for L2. `None`: this value cannot be stored.
    fn encode(&self) -> Option<Vec<u8>>;

    /// Reads a payload. `None` counts as a miss.
    fn decode(payload: Bytes) -> Option<Self>;

    /// About how many bytes it takes in memory.
    fn weight(&self) -> usize;
}

/// A typed value, kept in L2 as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Stored for Json<T> {
    fn encode(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(&self.0).ok()
    }

    fn decode(payload: Bytes) -> Option<Self> {
        serde_json::from_slice(&payload).ok().map(Self)
    }

    fn weight(&self) -> usize {
        // Values of this kind are small and flat: roles, flags, a few numbers.
        size_of::<T>() + 64
    }
}

/// An entry of L1, and what a load hands to those who wait for it.
pub(super) struct Entry {
    /// `None`: it is known that there is nothing.
    value: Option<Arc<dyn Any + Send + Sync>>,
    /// `None`: nothing says for how long it may be used; it serves those who have asked, and is not kept.
    pub(super) stamp: Option<Stamp>,
    pub(super) expires_at: Instant,
    /// How long it may serve while the database is away.
    pub(super) usable_until: Instant,
    /// When its time was really up, if it serves although it was.
    pub(super) overdue_since: Option<Instant>,
    pub(super) bytes: u32,
}

impl Entry {
    pub(super) fn new<T: Stored>(
        value: Option<T>,
        stamp: Option<Stamp>,
        expires_at: Instant,
        usable_until: Instant,
    ) -> Self {
        // Besides the value: key, counters, the map's node, and a pointer for each tag.
        const OVERHEAD: usize = 320;
        let tags = stamp.as_ref().map_or(0, Stamp::tag_count);
        let bytes = OVERHEAD + tags * size_of::<usize>() + value.as_ref().map_or(0, Stored::weight);
        let value = value.map(|value| Arc::new(value) as Arc<dyn Any + Send + Sync>);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Self { value, stamp, expires_at, usable_until, overdue_since: None, bytes }
    }

    /// The same entry for a little longer, since there is no other.
    pub(super) fn prolonged(&self, until: Instant) -> Self {
        Self {
            value: self.value.clone(),
            stamp: self.stamp.clone(),
            expires_at: until.min(self.usable_until),
            usable_until: self.usable_until,
            overdue_since: Some(self.overdue_since.unwrap_or(self.expires_at)),
            bytes: self.bytes,
        }
    }

    /// It is known that there is nothing.
    pub(super) const fn is_absent(&self) -> bool {
        self.value.is_none()
    }

    /// The value, or that there is none. The outer `None`: it is of another type.
    pub(super) fn value<T: Stored>(&self) -> Option<Option<Arc<T>>> {
        match &self.value {
            None => Some(None),
            Some(value) => Arc::clone(value).downcast().ok().map(Some),
        }
    }
}

/// An entry as it is in L2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) epoch: u64,
    pub(super) as_of: u64,
    pub(super) created_ms: u64,
    pub(super) tags: Vec<Tag>,
    /// `None`: it is known that there is nothing.
    pub(super) payload: Option<Bytes>,
}

/// First word of the wire format, with its version; the scripts and the bus know it too.
pub(super) const FORMAT: &str = "lockstep1";

impl Envelope {
    pub(super) fn write(&self) -> Vec<u8> {
        let Self { epoch, as_of, created_ms, .. } = self;
        let kind = if self.payload.is_some() { "value" } else { "absent" };
        let tags = self.tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(" ");
        let mut bytes = format!("{FORMAT} {epoch:016x} {as_of} {created_ms} {kind}\n{tags}\n").into_bytes();
        bytes.extend_from_slice(self.payload.as_deref().unwrap_or_default());
        bytes
    }

    pub(super) fn read(bytes: &Bytes) -> Option<Self> {
        let header_end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (header, rest) = (bytes.get(..header_end)?, bytes.get(header_end + 1..)?);
        let tags_length = rest.iter().position(|byte| *byte == b'\n')?;
        let tags = std::str::from_utf8(rest.get(..tags_length)?).ok()?;
        let payload = bytes.slice(header_end + 1 + tags_length + 1..);

        let mut words = std::str::from_utf8(header).ok()?.split(' ');
        if words.next()? != FORMAT {
            return None;
        }
        let epoch = u64::from_str_radix(words.next()?, 16).ok()?;
        let as_of = words.next()?.parse().ok()?;
        let created_ms = words.next()?.parse().ok()?;
        let payload = match words.next()? {
            "value" => Some(payload),
            "absent" => None,
            _ => return None,
        };
        let tags = tags.split_ascii_whitespace().map(Tag::parse).collect::<Option<_>>()?;
        Some(Self { epoch, as_of, created_ms, tags, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            epoch: 0xfeed,
            as_of: 41,
            created_ms: 1_790_000_000_000,
            tags: vec![Tag::all(), Tag::parse("workspace:1").unwrap()],
            payload: Some(Bytes::from_static(b"{\"a\":\n1}")),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(Envelope::read(&envelope().write().into()), Some(envelope()));
        let absent = Envelope { payload: None, tags: vec![], ..envelope() };
        assert_eq!(Envelope::read(&absent.write().into()), Some(absent));
    }

    /// Instances of several releases share one Redis: a change of this text needs a new format version.
    #[test]
    fn the_wire_format_is_this() {
        let text = b"lockstep1 000000000000feed 41 1790000000000 value\nall workspace:1\n{\"a\":\n1}";
        assert_eq!(envelope().write(), text);
    }

    #[test]
    fn anything_else_is_a_miss() {
        let good = envelope().write();
        for length in 0..good.len() - b"{\"a\":\n1}".len() {
            assert_eq!(
                Envelope::read(&Bytes::copy_from_slice(&good[..length])),
                None,
                "cut after {length} bytes"
            );
        }
        for text in [
            "lockstep2 1 2 3 value\n\n",
            "lockstep1 1 2 3 other\n\n",
            "lockstep1 g 2 3 value\n\n",
            "\n\n",
            "{}",
        ] {
            assert_eq!(Envelope::read(&Bytes::from_static(text.as_bytes())), None, "{text:?}");
        }
    }
}
