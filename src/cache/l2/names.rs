//! What the cache calls its things in Redis.

use crate::cache::key::Key;

/// Every name that the cache uses in Redis.
#[derive(Debug, Clone)]
pub(in crate::cache) struct Names {
    pub(super) namespace: String,
    meta: String,
    tag_prefix: String,
    channel: String,
}

/// The entry and the lock of a key, in one text.
#[derive(Debug)]
pub(super) struct EntryNames {
    text: String,
    lock_at: usize,
}

impl Names {
    pub(in crate::cache) fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            meta: format!("{namespace}:meta"),
            tag_prefix: format!("{namespace}:tag:"),
            channel: format!("{namespace}:invalidations"),
        }
    }

    /// Marker and sequence, in one key so that they are lost together.
    pub(in crate::cache) fn meta(&self) -> &str {
        &self.meta
    }

    pub(super) fn entry_and_lock(&self, key: &Key) -> EntryNames {
        let mut text = String::with_capacity(256);
        text.push_str(&self.namespace);
        text.push_str(":entry:");
        let key_at = text.len();
        // A text takes whatever is written to it.
        let _ = key.write_to(&mut text);
        let lock_at = text.len();
        text.push_str(&self.namespace);
        text.push_str(":lock:");
        text.extend_from_within(key_at..lock_at);
        EntryNames { text, lock_at }
    }

    /// The namespace as a part of a pattern.
    pub(in crate::cache) fn escaped(&self) -> String {
        let special = |c| matches!(c, '*' | '?' | '[' | ']' | '\\');
        self.namespace.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
    }

    pub(super) fn tag_prefix(&self) -> &str {
        &self.tag_prefix
    }

    pub(super) fn heartbeat(&self, instance: &str) -> String {
        format!("{}:instance:{instance}", self.namespace)
    }

    /// Who compares at present, of all monitors.
    pub(super) fn turn(&self) -> String {
        format!("{}:monitor", self.namespace)
    }

    pub(in crate::cache) fn channel(&self) -> &str {
        &self.channel
    }
}

impl EntryNames {
    /// Both.
    pub(super) fn both(&self) -> [&str; 2] {
        let (entry, lock) = self.text.split_at(self.lock_at);
        [entry, lock]
    }
}
