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

use std::borrow::Cow;

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
    pub payload: Option<Vec<u8>>,
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
        let tags = opened.tags()?.map(Tag::parse).collect::<Option<_>>()?;
        let epoch = u64::from_str_radix(std::str::from_utf8(opened.epoch).ok()?, 16).ok()?;
        let origin = std::str::from_utf8(opened.origin).ok()?.to_owned();
        let Opened { as_of, created_ms, kept_ms, payload, .. } = opened;
        let payload = payload.map(Cow::into_owned);
        Some(Self { epoch, as_of, created_ms, origin, kept_ms, tags, payload })
    }
}

/// An envelope that was opened, and is read where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opened<'a> {
    pub(super) as_of: u64,
    pub(super) created_ms: u64,
    pub(super) kept_ms: u64,
    pub(super) payload: Option<Cow<'a, [u8]>>,
    epoch: &'a [u8],
    origin: &'a [u8],
    tags: &'a [u8],
}

impl<'a> Opened<'a> {
    /// From bytes; `None`: they are no envelope.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = split_line(bytes)?;
        let (tags, payload) = split_line(rest)?;
        let mut words = words(header);
        if words.next()? != FORMAT.as_bytes() {
            return None;
        }
        let epoch = words.next()?;
        let as_of = number(words.next()?)?;
        let created_ms = number(words.next()?)?;
        let payload = match words.next()? {
            b"value" => Some(payload.into()),
            b"lz4" => Some(decompress(payload)?.into()),
            b"absent" => None,
            _ => return None,
        };
        let origin = words.next().unwrap_or_default();
        let kept_ms = words.next().map_or(Some(0), number)?;
        Some(Self { epoch, as_of, created_ms, origin, kept_ms, payload, tags })
    }

    /// Whether it has just these tags besides that of everything, in this order.
    pub(super) fn has_just(&self, tags: &[Tag]) -> bool {
        let mut names = words(self.tags);
        names.next() == Some(Tag::ALL.as_bytes()) && names.eq(tags.iter().map(|tag| tag.as_str().as_bytes()))
    }

    /// The names of its tags; `None`: they cannot be any.
    pub(super) fn tags(&self) -> Option<impl Iterator<Item = &'a str> + use<'a>> {
        // With a single look at all letters, of which there are thousands.
        let legal = |legal, letter: &u8| legal & (Tag::is_letter(*letter) | (*letter == b' '));
        let text = self.tags.iter().fold(true, legal).then(|| std::str::from_utf8(self.tags).ok())??;
        let names = || text.split(' ').filter(|tag| !tag.is_empty());
        names().all(|tag| tag.len() <= Tag::MAX_BYTES).then(names)
    }
}

/// What is between single spaces.
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b' ')
}

/// A decimal number, of no more digits than are sure to fit.
pub(super) fn number(word: &[u8]) -> Option<u64> {
    let add = |sum: u64, digit: &u8| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0'));
    (1..20).contains(&word.len()).then(|| word.iter().try_fold(0, add))?
}

/// The first line, and what is behind it.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', bytes)?;
    let (line, rest) = bytes.split_at_checked(end)?;
    Some((line, rest.get(1..)?))
}

fn decompress(payload: &[u8]) -> Option<Vec<u8>> {
    // Looked at first: memory is taken for as much as it claims.
    let (size, _) = block::uncompressed_size(payload).ok()?;
    let plain = (size <= LARGEST).then(|| block::decompress_size_prepended(payload))?.ok()?;
    // Less comes out of a payload that was cut off.
    (plain.len() == size).then_some(plain)
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
            payload: Some(b"{\"a\":\n1}".to_vec()),
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
        let size = |payload: Vec<u8>| Envelope { payload: Some(payload), ..envelope() }.write().len();
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
    fn tags_that_were_known_before_are_recognised_at_once_and_in_their_order_only() {
        let just = |text: &str, tags: &[&str]| {
            let tags: Vec<_> = tags.iter().map(|tag| Tag::parse(tag).unwrap()).collect();
            let bytes = format!("lockstep1 1 2 3 absent a 0\n{text}\n");
            Opened::read(bytes.as_bytes()).unwrap().has_just(&tags)
        };
        assert!(just("all a b", &["a", "b"]) && just("all", &[]));
        for other in ["", "all", "all b a", "all a b c", "all  a b", "a b all", "a b"] {
            assert!(!just(other, &["a", "b"]), "{other:?}");
        }
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
            "lockstep1 1 99999999999999999999999999999999999999999 3 value a 0\n\n",
            "lockstep1 1 +2 3 value a 0\n\n",
            "lockstep1 1  3 value a 0\n\n",
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
