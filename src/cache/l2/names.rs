//! What the cache calls its things in Redis.

use crate::cache::key::Key;

/// Every name that the cache uses in Redis.
#[derive(Debug, Clone)]
pub(in crate::cache) struct Names {
    pub(super) namespace: String,
}

impl Names {
    pub(in crate::cache) fn new(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned() }
    }

    /// Marker and sequence, in one key so that they are lost together.
    pub(in crate::cache) fn meta(&self) -> String {
        format!("{}:meta", self.namespace)
    }

    pub(super) fn entry(&self, key: &Key) -> String {
        format!("{}:entry:{key}", self.namespace)
    }

    pub(super) fn lock(&self, key: &Key) -> String {
        format!("{}:lock:{key}", self.namespace)
    }

    /// The namespace as a part of a pattern.
    pub(in crate::cache) fn escaped(&self) -> String {
        let special = |c| matches!(c, '*' | '?' | '[' | ']' | '\\');
        self.namespace.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
    }

    pub(super) fn tag_prefix(&self) -> String {
        format!("{}:tag:", self.namespace)
    }

    pub(super) fn heartbeat(&self, instance: &str) -> String {
        format!("{}:instance:{instance}", self.namespace)
    }

    pub(in crate::cache) fn channel(&self) -> String {
        format!("{}:invalidations", self.namespace)
    }
}
