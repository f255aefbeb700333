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

    /// The entry and the lock of a key.
    pub(super) fn entry_and_lock(&self, key: &Key) -> [String; 2] {
        let mut text = String::with_capacity(128);
        // A text takes whatever is written to it.
        let _ = key.write_to(&mut text);
        [":entry:", ":lock:"].map(|kind| [&self.namespace, kind, &text].concat())
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

    pub(in crate::cache) fn channel(&self) -> &str {
        &self.channel
    }
}
