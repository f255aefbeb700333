//! Names of cached things: [`Key`] for an entry, [`Tag`] for a group of rows that entries depend on.
//!
//! Both are typed builders, so that a handler cannot misspell one. Tag names are a contract between
//! versions of the service that run side by side during a deploy and never carry a schema version;
//! keys do, so that a release that changes a stored type never meets the old one under its key.

mod kept;

use std::{
    borrow::Borrow,
    cell::RefCell,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

pub(super) use kept::KeptKey;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::hex::write_hex;

/// Name of one cache entry. Copied, compared and hashed without allocating.
///
/// Its text, `entity[:id][:suffix][:sub-id][:arguments]:vN`, is what L2 and the tools use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key {
    entity: &'static str,
    id: Option<Uuid>,
    suffix: &'static str,
    sub_id: Option<Uuid>,
    arguments: Option<ArgumentsHash>,
    schema: u16,
}

impl Key {
    /// The entry of `entity` with this id; `schema` is the version of the stored type.
    #[must_use]
    pub const fn new(entity: &'static str, id: Uuid, schema: u16) -> Self {
        Self { entity, id: Some(id), suffix: "", sub_id: None, arguments: None, schema }
    }

    /// An entry that is about what its arguments say: `function:exchange-rate:HASH`.
    #[must_use]
    pub const fn hashed(
        entity: &'static str,
        name: &'static str,
        arguments: ArgumentsHash,
        schema: u16,
    ) -> Self {
        Self { entity, id: None, suffix: name, sub_id: None, arguments: Some(arguments), schema }
    }

    /// One of several entries about the same thing: `workspace:ID:members`.
    #[must_use]
    pub const fn suffix(self, suffix: &'static str) -> Self {
        Self { suffix, ..self }
    }

    /// An entry about two things: `workspace:ID:member:USER`.
    #[must_use]
    pub const fn sub_id(self, sub_id: Uuid) -> Self {
        Self { sub_id: Some(sub_id), ..self }
    }

    /// An entry that also depends on arguments, such as a page's limit and cursor.
    #[must_use]
    pub const fn arguments(self, arguments: ArgumentsHash) -> Self {
        Self { arguments: Some(arguments), ..self }
    }

    /// Its text. Without what formatting costs: each look into Redis needs it.
    pub(super) fn write_to(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let mut uuid = Uuid::encode_buffer();
        out.write_str(self.entity)?;
        if let Some(id) = self.id {
            out.write_str(":")?;
            out.write_str(id_text(id, &mut uuid))?;
        }
        if !self.suffix.is_empty() {
            out.write_str(":")?;
            out.write_str(self.suffix)?;
        }
        if let Some(sub_id) = self.sub_id {
            out.write_str(":")?;
            out.write_str(id_text(sub_id, &mut uuid))?;
        }
        if let Some(arguments) = &self.arguments {
            out.write_str(":")?;
            write_hex(&arguments.0, out)?;
        }
        out.write_str(":v")?;
        out.write_str(itoa::Buffer::new().format(self.schema))
    }
}

fn id_text(id: Uuid, buffer: &mut [u8]) -> &str {
    id.hyphenated().encode_lower(buffer)
}

/// In one piece, and without what the rest implies: an id belongs to one entity.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut bytes = [0; 48];
        let (ids, arguments) = bytes.split_at_mut(32);
        let (id, sub_id) = ids.split_at_mut(16);
        if let Some(own) = &self.id {
            id.copy_from_slice(own.as_bytes());
        }
        if let Some(other) = &self.sub_id {
            sub_id.copy_from_slice(other.as_bytes());
        }
        if let Some(hash) = &self.arguments {
            arguments.iter_mut().zip(hash.0).for_each(|(byte, hashed)| *byte = hashed);
        }
        state.write(&bytes);
        state.write(self.suffix.as_bytes());
        state.write_u16(self.schema);
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_to(f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// SHA-256 of arguments in canonical JSON: the same in every process and after every restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ArgumentsHash([u8; 32]);

impl ArgumentsHash {
    /// Hashes anything that serialises to JSON; the order of map keys does not matter.
    ///
    /// # Panics
    /// When the value has no JSON form, such as a map whose keys are not strings: two such values must not share an
    /// entry.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a matter of the type, found by the first test that uses it")]
    pub fn of(arguments: &impl Serialize) -> Self {
        let json = serde_json::to_vec(arguments).expect("arguments of a cached call have a JSON form");
        if !json.contains(&b'{') {
            // Without an object it is canonical as it is.
            return Self(Sha256::digest(&json).into());
        }
        let value = serde_json::to_value(arguments).expect("arguments of a cached call have a JSON form");
        let mut canonical = String::new();
        write_canonical(&value, &mut canonical);
        Self(Sha256::digest(canonical.as_bytes()).into())
    }
}

/// A SHA-256 that was made otherwise.
impl From<[u8; 32]> for ArgumentsHash {
    fn from(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

impl fmt::Display for ArgumentsHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

/// Objects with sorted keys, no white space. Does not rely on the order in which `serde_json`
/// keeps keys, which another crate can change by switching on one of its features.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (index, (name, member)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write_canonical(member, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// Name of a group of rows. Every entry carries the tags of everything it was built from.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

/// Begins the names of tags that are patterns of keys.
const PATTERN: &str = "pattern:";

impl Tag {
    /// `entity:id`.
    #[must_use]
    pub fn new(entity: &'static str, id: Uuid) -> Self {
        Self::joined([entity, id_text(id, &mut Uuid::encode_buffer())])
    }

    /// `entity:id:suffix`.
    #[must_use]
    pub fn suffixed(entity: &'static str, id: Uuid, suffix: &'static str) -> Self {
        Self::joined([entity, id_text(id, &mut Uuid::encode_buffer()), suffix])
    }

    /// `entity:id:suffix:sub-id`.
    #[must_use]
    pub fn pair(entity: &'static str, id: Uuid, suffix: &'static str, sub_id: Uuid) -> Self {
        let (mut id_buffer, mut sub_id_buffer) = (Uuid::encode_buffer(), Uuid::encode_buffer());
        let (id, sub_id) = (id_text(id, &mut id_buffer), id_text(sub_id, &mut sub_id_buffer));
        Self::joined([entity, id, suffix, sub_id])
    }

    /// Without what formatting costs, and with a single allocation: a page has a tag for each person on it.
    fn joined<const N: usize>(parts: [&str; N]) -> Self {
        thread_local! {
            static NAME: RefCell<String> = const { RefCell::new(String::new()) };
        }
        NAME.with_borrow_mut(|name| {
            name.clear();
            for (index, part) in parts.into_iter().enumerate() {
                if index > 0 {
                    name.push(':');
                }
                name.push_str(part);
            }
            Self(name.as_str().into())
        })
    }

    /// `entity:name`, of a name that the program has chosen.
    #[must_use]
    pub fn named(entity: &'static str, name: &str) -> Self {
        let tag = format!("{entity}:{name}");
        // What cannot be told to others under this name, is told under another.
        Self::parse(&tag).unwrap_or_else(|| {
            let hash = ArgumentsHash(Sha256::digest(name).into());
            Self(format!("{entity}:{hash}").into())
        })
    }

    /// The tag that every entry carries: to invalidate it is to invalidate everything.
    #[must_use]
    pub fn all() -> Self {
        Self(Self::ALL.into())
    }

    pub(super) const ALL: &str = "all";
    /// Longest name.
    pub(super) const MAX_BYTES: usize = 200;

    /// Not a group of rows but of entries: those of L1 whose keys match, with `*` for any characters and `?` for one. To
    /// invalidate it is to take them out of every memory.
    ///
    /// `None` if it is no pattern: as for [`Tag::parse`], and with a bracket or a backslash, which mean something in Redis.
    #[must_use]
    pub fn pattern(pattern: &str) -> Option<Self> {
        let plain = !pattern.is_empty() && !pattern.contains(['[', ']', '\\']);
        plain.then(|| Self::parse(&format!("{PATTERN}{pattern}")))?
    }

    /// The pattern, if it is one.
    #[must_use]
    pub fn as_pattern(&self) -> Option<&str> {
        self.0.strip_prefix(PATTERN)
    }

    /// A tag by its name, as it comes from the bus, from L2 or from an operator.
    ///
    /// `None` if it cannot be one: empty, too long, or with a space or control character, which
    /// separate tags in messages.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::is_legal(name).then(|| Self(name.into()))
    }

    /// Whether a tag can be called so.
    pub(super) fn is_legal(name: &str) -> bool {
        !name.is_empty() && name.len() <= Self::MAX_BYTES && name.bytes().all(Self::is_letter)
    }

    /// Whether it can stand in a name.
    pub(super) const fn is_letter(byte: u8) -> bool {
        byte.is_ascii_graphic()
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Tag {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({self})")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_reads_like_a_path_from_the_thing_to_the_entry() {
        let key = Key::new("workspace", Uuid::nil(), 3).suffix("member").sub_id(Uuid::max());
        let text =
            "workspace:00000000-0000-0000-0000-000000000000:member:ffffffff-ffff-ffff-ffff-ffffffffffff:v3";
        assert_eq!(key.to_string(), text);
    }

    #[test]
    fn another_schema_version_is_another_key() {
        assert_ne!(
            Key::new("user", Uuid::nil(), 1).to_string(),
            Key::new("user", Uuid::nil(), 2).to_string()
        );
    }

    #[test]
    fn the_hash_of_arguments_is_stable_and_ignores_the_order_of_map_keys() {
        let one = ArgumentsHash::of(&json!({"limit": 50, "cursor": null, "in": {"b": 1, "a": [1, 2]}}));
        let two = ArgumentsHash::of(&json!({"in": {"a": [1, 2], "b": 1}, "cursor": null, "limit": 50}));
        assert_eq!(one, two);
        // sha256sum of {"cursor":null,"in":{"a":[1,2],"b":1},"limit":50}
        assert_eq!(one.to_string(), "3b56d82a621b1a870cca64427606b2a499e290ce69a2cf56b348d5eedd2c55f0");
    }

    #[test]
    fn arguments_without_objects_hash_as_their_canonical_form() {
        for value in [json!([50, null]), json!("a\"{\u{e9}"), json!([1.5, -3, true, ["x", []]]), json!(null)]
        {
            let mut canonical = String::new();
            write_canonical(&value, &mut canonical);
            let expected: [u8; 32] = Sha256::digest(canonical.as_bytes()).into();
            assert_eq!(ArgumentsHash::of(&value), ArgumentsHash(expected), "{canonical}");
        }
    }

    #[test]
    fn arguments_that_differ_in_one_value_or_in_the_order_of_a_list_differ_in_hash() {
        let hash = |value| ArgumentsHash::of(&value);
        assert_ne!(hash(json!({"limit": 50})), hash(json!({"limit": 51})));
        assert_ne!(hash(json!({"limit": 50})), hash(json!({"limit": "50"})));
        assert_ne!(hash(json!([1, 2])), hash(json!([2, 1])));
    }

    #[test]
    fn a_name_that_could_split_a_message_is_no_tag() {
        for name in ["", "two words", "line\nbreak", "nul\0", &"x".repeat(201)] {
            assert!(Tag::parse(name).is_none(), "{name:?}");
        }
        assert!(Tag::parse("workspace:1:members").is_some());
    }
}
