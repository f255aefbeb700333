//! The wire format of an entry in L2.
//!
//! Text up to the payload, so that the scripts in Redis and people with `redis-cli` can read it:
//!
//! ```text
//! lockstep1 EPOCH AS-OF CREATED-MS KIND ORIGIN KEPT-MS\n
//! tag tag tag\n
//! payload
//! ```
//!
//! `EPOCH` is hexadecimal, `AS-OF` the sequence before the load began, `KIND` is `value`, `lz4` (a value that was worth
//! compressing) or `absent`; `ORIGIN` is the instance that stored it, and `KEPT-MS` says for how long it is kept beyond
//! its time. Words that are missing at the end are unknown, further ones mean nothing. Whatever does not read like this is
//! a miss, never an error. Instances of several releases share one Redis: a change that the former release would
//! misunderstand needs another first word, and `tests/envelopes` keeps samples of every one there was.

use std::mem;

use bytes::Bytes;
use lz4_flex::block;

use super::key::Tag;

/// First word of the wire format, with its version; the scripts and the bus know it too.
pub(super) const FORMAT: &str = "lockstep1";
/// Smaller payloads are not worth the trouble.
const COMPRESSED_FROM: usize = 1024;
/// A payload that claims to be larger than this was not written by us.
const LARGEST: usize = 16 * 1024 * 1024;

/// An entry as it is in L2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub epoch: u64,
    pub as_of: u64,
    pub created_ms: u64,
    /// The instance that stored it; may be unknown.
    pub origin: String,
    /// How long it is kept beyond its time.
    pub kept_ms: u64,
    pub tags: Vec<Tag>,
    /// `None`: it is known that there is nothing.
    pub payload: Option<Bytes>,
}

impl Envelope {
    /// As bytes.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let Self { epoch, as_of, created_ms, origin, kept_ms, .. } = self;
        let payload = self.payload.as_deref().unwrap_or_default();
        let compressed = (payload.len() >= COMPRESSED_FROM).then(|| block::compress_prepend_size(payload));
        let compressed = compressed.filter(|compressed| compressed.len() < payload.len());
        let kind = match (&self.payload, &compressed) {
            (None, _) => "absent",
            (Some(_), None) => "value",
            (Some(_), Some(_)) => "lz4",
        };
        let tags = self.tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(" ");
        let header =
            format!("{FORMAT} {epoch:016x} {as_of} {created_ms} {kind} {origin} {kept_ms}\n{tags}\n");
        let mut bytes = header.into_bytes();
        bytes.extend_from_slice(compressed.as_deref().unwrap_or(payload));
        bytes
    }

    /// From bytes; `None`: they are no envelope.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let opened = Opened::read(bytes)?;
        let tags = opened.tags().map(Tag::parse).collect::<Option<_>>()?;
        let Opened { epoch, as_of, created_ms, origin, kept_ms, payload, .. } = opened;
        Some(Self { epoch, as_of, created_ms, origin: origin.to_owned(), kept_ms, tags, payload })
    }
}

/// An envelope that was opened: its payload is taken out, the rest is read where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opened<'a> {
    pub(super) epoch: u64,
    pub(super) as_of: u64,
    pub(super) created_ms: u64,
    pub(super) origin: &'a str,
    pub(super) kept_ms: u64,
    pub(super) payload: Option<Bytes>,
    tags: &'a str,
}

impl<'a> Opened<'a> {
    /// From bytes; `None`: they are no envelope.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = split_line(bytes)?;
        let (tags, payload) = split_line(rest)?;
        let mut words = words(header);
        if words.next()? != FORMAT {
            return None;
        }
        let epoch = u64::from_str_radix(words.next()?, 16).ok()?;
        let as_of = words.next()?.parse().ok()?;
        let created_ms = words.next()?.parse().ok()?;
        let payload = match words.next()? {
            // A copy, which does not keep header and tags along for as long as it is kept itself.
            "value" => Some(Bytes::copy_from_slice(payload)),
            "lz4" => Some(decompress(payload)?),
            "absent" => None,
            _ => return None,
        };
        let origin = words.next().unwrap_or_default();
        let kept_ms = words.next().map_or(Some(0), |word| word.parse().ok())?;
        let opened = Self { epoch, as_of, created_ms, origin, kept_ms, payload, tags };
        opened.has_legal_tags().then_some(opened)
    }

    /// The names of its tags.
    pub(super) fn tags(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        words(self.tags).filter(|tag| !tag.is_empty())
    }

    /// As [`Tag::is_legal`], with a single look at all letters, of which there are thousands.
    fn has_legal_tags(&self) -> bool {
        let legal = |legal, letter| legal & (Tag::is_letter(letter) | (letter == b' '));
        self.tags.bytes().fold(true, legal) && self.tags().all(|tag| tag.len() <= Tag::MAX_BYTES)
    }
}

/// What is between single spaces. As `str::split` does it, which looks for one letter at a time.
pub(super) fn words(line: &str) -> impl Iterator<Item = &str> {
    let ends = memchr::memchr_iter(b' ', line.as_bytes()).chain([line.len()]);
    ends.scan(0, |begin, end| line.get(mem::replace(begin, end + 1)..end))
}

/// The first line, which must be text, and what is behind it.
fn split_line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = memchr::memchr(b'\n', bytes)?;
    let (line, rest) = bytes.split_at_checked(end)?;
    Some((std::str::from_utf8(line).ok()?, rest.get(1..)?))
}

fn decompress(payload: &[u8]) -> Option<Bytes> {
    // Looked at first: memory is taken for as much as it claims.
    let (size, _) = block::uncompressed_size(payload).ok()?;
    let plain = (size <= LARGEST).then(|| block::decompress_size_prepended(payload))?.ok()?;
    // Less comes out of a payload that was cut off.
    (plain.len() == size).then(|| Bytes::from(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            epoch: 0xfeed,
            as_of: 41,
            created_ms: 1_790_000_000_000,
            origin: "a1".to_owned(),
            kept_ms: 3_600_000,
            tags: vec![Tag::all(), Tag::parse("workspace:1").unwrap()],
            payload: Some(Bytes::from_static(b"{\"a\":\n1}")),
        }
    }

    fn compressible() -> Envelope {
        Envelope { payload: Some("lockstep ".repeat(200).into()), ..envelope() }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let absent = Envelope { payload: None, tags: vec![], ..envelope() };
        for envelope in [envelope(), absent, compressible()] {
            assert_eq!(Envelope::read(&envelope.write()), Some(envelope));
        }
    }

    #[test]
    fn a_large_payload_is_compressed_and_only_if_that_makes_it_smaller() {
        let size = |payload: Vec<u8>| Envelope { payload: Some(payload.into()), ..envelope() }.write().len();
        assert!(size("lockstep ".repeat(200).into()) < 300);
        let noise: Vec<u8> = std::iter::repeat_with(rand::random).take(5000).collect();
        let header = size(Vec::new());
        assert_eq!(size(noise), header + 5000);
        assert_eq!(size(vec![b'a'; COMPRESSED_FROM - 1]), header + COMPRESSED_FROM - 1);
    }

    /// What releases have stored. A sample is never changed: it is what is out there.
    #[test]
    fn samples_of_every_format_are_read() {
        let short: &[u8] = include_bytes!("../../tests/envelopes/lockstep1-short");
        let value: &[u8] = include_bytes!("../../tests/envelopes/lockstep1-value");
        let lz4: &[u8] = include_bytes!("../../tests/envelopes/lockstep1-lz4");
        let absent: &[u8] = include_bytes!("../../tests/envelopes/lockstep1-absent");
        let read = Envelope::read;
        assert_eq!(read(short), Some(Envelope { origin: String::new(), kept_ms: 0, ..envelope() }));
        assert_eq!(read(value), Some(envelope()));
        assert_eq!(read(lz4), Some(compressible()));
        assert_eq!(read(absent), Some(Envelope { payload: None, ..envelope() }));
        // And the present release writes what it wrote before.
        assert_eq!((envelope().write(), compressible().write()), (value.to_vec(), lz4.to_vec()));
    }

    #[test]
    fn anything_else_is_a_miss() {
        let good = envelope().write();
        let is_a_miss = |bytes: &[u8]| Envelope::read(bytes).is_none();
        for length in 0..good.len() - b"{\"a\":\n1}".len() {
            assert!(is_a_miss(&good[..length]), "cut after {length} bytes");
        }
        for text in [
            "lockstep2 1 2 3 value\n\n",
            "lockstep1 1 2 3 other\n\n",
            "lockstep1 g 2 3 value\n\n",
            "lockstep1 1 2 3 value a x\n\n",
            "lockstep1 1 2 3 lz4 a 0\n\n",
            "lockstep1 1 2 3 lz4 a 0\n\n\0\0\0\0garbage",
            // Claims to be of 4 GB.
            "lockstep1 1 2 3 lz4 a 0\n\n\u{7f}\u{7f}\u{7f}\u{7f}garbage",
            "\n\n",
            "{}",
        ] {
            assert!(is_a_miss(text.as_bytes()), "{text:?}");
        }
        let lz4 = compressible().write();
        assert!((0..lz4.len()).all(|length| is_a_miss(&lz4[..length])));
    }
}
