//! What one thread has found in L1 last. To find it here touches nothing that other threads write to.
//!
//! It must never return what L1 would not: an entry that L1 has let go of says so, see [`Entry::is_settled`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::cache::{entry::Entry, key::Key};

/// Entries that a thread remembers; a power of two.
const SLOTS: usize = 512;
/// Larger ones are not remembered: they may outlive their place in L1 for as long as nothing else takes their slot.
const LARGEST: u32 = 16 * 1024;
/// So often a look goes to L1 all the same, which pushes out what nobody has asked for lately.
const REPORTED: Duration = Duration::from_secs(1);

/// Empty until it is first used.
#[derive(Default)]
pub(super) struct Recent {
    slots: Box<[Option<Slot>]>,
}

struct Slot {
    key: Key,
    entry: Arc<Entry>,
    found_at: Instant,
}

impl Recent {
    /// The entry of a key, if it is remembered and needs nothing. `hash`: the key's.
    pub(super) fn get(&self, key: &Key, hash: u64, now: Instant) -> Option<&Entry> {
        let slot = self.slots.get(place(hash))?.as_ref().filter(|slot| slot.key == *key)?;
        let is_reported = now.saturating_duration_since(slot.found_at) < REPORTED;
        (is_reported && slot.entry.is_settled(now)).then_some(&*slot.entry)
    }

    /// Remembers an entry that was found in L1, in the place of another.
    pub(super) fn put(&mut self, key: &Key, hash: u64, entry: Arc<Entry>, now: Instant) {
        if entry.bytes > LARGEST || !entry.is_settled(now) {
            return;
        }
        if self.slots.is_empty() {
            self.slots = (0..SLOTS).map(|_| None).collect();
        }
        if let Some(slot) = self.slots.get_mut(place(hash)) {
            *slot = Some(Slot { key: *key, entry, found_at: now });
        }
    }

    /// Gives back the memory of what would not be returned any more.
    pub(super) fn forget_unsettled(&mut self, now: Instant) {
        for slot in &mut self.slots {
            slot.take_if(|slot| !slot.entry.is_settled(now));
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "any bits of the hash will do")]
const fn place(hash: u64) -> usize {
    hash as usize % SLOTS
}
