//! A [`Key`] as L1 holds it, of which there are as many as entries: its names and version, which are the program's and few,
//! are kept once for all keys. Equal to the key that it is, and hashed like it.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::{LazyLock, PoisonError, RwLock},
};

use equivalent::Equivalent;
use uuid::Uuid;

use super::{ArgumentsHash, Key};
use crate::sharded::RandomState;

/// What the program says of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Form {
    entity: &'static str,
    suffix: &'static str,
    schema: u16,
    has_id: bool,
}

/// A key in less memory.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::cache) struct KeptKey {
    form: &'static Form,
    /// Nil if it has none.
    id: Uuid,
    rest: Rest,
}

/// What a key may say beside its id. Those of single things, of which there are most, say nothing else or another id.
#[derive(Clone, PartialEq, Eq)]
enum Rest {
    Nothing,
    SubId(Uuid),
    Arguments(Box<(Option<Uuid>, ArgumentsHash)>),
}

impl KeptKey {
    /// The key that it is.
    pub(in crate::cache) fn key(&self) -> Key {
        let &Form { entity, suffix, schema, has_id } = self.form;
        let (sub_id, arguments) = match &self.rest {
            Rest::Nothing => (None, None),
            Rest::SubId(sub_id) => (Some(*sub_id), None),
            Rest::Arguments(both) => (both.0, Some(both.1)),
        };
        Key { entity, id: has_id.then_some(self.id), suffix, sub_id, arguments, schema }
    }

    /// How many bytes of its own it has elsewhere, as the allocator rounds them up.
    pub(in crate::cache) const fn bytes_apart(&self) -> u32 {
        if matches!(self.rest, Rest::Arguments(_)) { 64 } else { 0 }
    }
}

impl From<Key> for KeptKey {
    fn from(key: Key) -> Self {
        let Key { entity, id, suffix, sub_id, arguments, schema } = key;
        let rest = match (sub_id, arguments) {
            (None, None) => Rest::Nothing,
            (Some(sub_id), None) => Rest::SubId(sub_id),
            (sub_id, Some(arguments)) => Rest::Arguments(Box::new((sub_id, arguments))),
        };
        let form = kept(Form { entity, suffix, schema, has_id: id.is_some() });
        Self { form, id: id.unwrap_or_default(), rest }
    }
}

impl Hash for KeptKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl Equivalent<KeptKey> for Key {
    fn equivalent(&self, kept: &KeptKey) -> bool {
        *self == kept.key()
    }
}

/// This form, once in this process: as many are let go of as there are in the program.
fn kept(form: Form) -> &'static Form {
    static KEPT: LazyLock<RwLock<HashMap<Form, &'static Form, RandomState>>> =
        LazyLock::new(Default::default);
    let known = KEPT.read().unwrap_or_else(PoisonError::into_inner).get(&form).copied();
    known.unwrap_or_else(|| {
        let mut kept = KEPT.write().unwrap_or_else(PoisonError::into_inner);
        *kept.entry(form).or_insert_with(|| Box::leak(Box::new(form)))
    })
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;

    use super::*;

    #[test]
    fn a_kept_key_is_the_key_that_it_was_made_of() {
        let hasher = RandomState::default();
        let hash = ArgumentsHash::of(&1);
        let keys = [
            Key::new("user", Uuid::max(), 1),
            Key::new("user", Uuid::max(), 2),
            Key::new("user", Uuid::max(), 2).arguments(hash),
            Key::new("user", Uuid::nil(), 1).suffix("own"),
            Key::new("workspace", Uuid::nil(), 1).suffix("own"),
            Key::new("workspace", Uuid::nil(), 1).suffix("own").sub_id(Uuid::max()),
            Key::new("workspace", Uuid::nil(), 1).suffix("own").sub_id(Uuid::max()).arguments(hash),
            Key::hashed("function", "rate", hash, 1),
        ];
        for (index, key) in keys.iter().enumerate() {
            for (other_index, other) in keys.iter().enumerate() {
                let kept = KeptKey::from(*other);
                assert_eq!(key.equivalent(&kept), index == other_index, "{key} and {other}");
                assert_eq!(KeptKey::from(*key) == kept, index == other_index, "{key} and {other}");
            }
            let kept = KeptKey::from(*key);
            assert_eq!(kept.key(), *key);
            assert_eq!(hasher.hash_one(&kept), hasher.hash_one(key));
        }
    }

    #[test]
    fn it_takes_less() {
        assert!(
            size_of::<KeptKey>() + 16 <= 64,
            "with moka's counts, half of what the allocator has for a key"
        );
    }
}
