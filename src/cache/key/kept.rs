//! A [`Key`] as L1 holds it, of which there are as many as entries: its names, which are the program's and few, are kept
//! once for all keys. Equal to the key that it is, and hashed like it.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::{LazyLock, PoisonError, RwLock},
};

use equivalent::Equivalent;
use uuid::Uuid;

use super::{ArgumentsHash, Key};
use crate::sharded::RandomState;

/// Entity and suffix.
type Names = (&'static str, &'static str);

/// A key in less memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::cache) struct KeptKey {
    names: &'static Names,
    id: Option<Uuid>,
    sub_id: Option<Uuid>,
    arguments: Option<ArgumentsHash>,
    schema: u16,
}

impl KeptKey {
    /// The key that it is.
    pub(in crate::cache) const fn key(&self) -> Key {
        let Self { names: &(entity, suffix), id, sub_id, arguments, schema } = *self;
        Key { entity, id, suffix, sub_id, arguments, schema }
    }
}

impl From<Key> for KeptKey {
    fn from(key: Key) -> Self {
        let Key { entity, id, suffix, sub_id, arguments, schema } = key;
        Self { names: kept((entity, suffix)), id, sub_id, arguments, schema }
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

/// These names, once in this process: as many are let go of as there are in the program.
fn kept(names: Names) -> &'static Names {
    static KEPT: LazyLock<RwLock<HashMap<Names, &'static Names, RandomState>>> =
        LazyLock::new(Default::default);
    let known = KEPT.read().unwrap_or_else(PoisonError::into_inner).get(&names).copied();
    known.unwrap_or_else(|| {
        let mut kept = KEPT.write().unwrap_or_else(PoisonError::into_inner);
        *kept.entry(names).or_insert_with(|| Box::leak(Box::new(names)))
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
            assert_eq!(hasher.hash_one(kept), hasher.hash_one(key));
        }
    }

    #[test]
    fn it_takes_less() {
        assert!(size_of::<KeptKey>() + 16 <= 96, "one size of the allocator less than that of a key");
    }
}
