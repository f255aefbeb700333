//! The write path: what a committed change makes stale is made stale everywhere, before it is acknowledged.

use std::{sync::Arc, time::Instant};

use wildmatch::WildMatch;

use super::{
    Cache,
    generation::{Generation, Source},
    key::Tag,
    l2::{Link, LinkError},
    stats::Stats,
    token::Token,
};

/// What became of an invalidation.
#[derive(Debug, Clone, Copy)]
pub struct Invalidated {
    /// What a reader needs so as to see at least this write.
    pub token: Token,
    /// Every instance is sure to hear of it. If not, the relay has to make up for it.
    pub announced: bool,
    /// The life of Redis, or of this process, in which it was announced.
    pub epoch: u64,
}

impl Cache {
    /// Invalidates `tags` here and on every instance. Never fails: what cannot be announced is left to the relay,
    /// and this process no longer believes its own memory.
    ///
    /// To be called after the commit and before the acknowledgement. `source` names the cause in metrics.
    pub async fn invalidate(&self, tags: &[Tag], source: &str) -> Invalidated {
        self.invalidate_recorded(tags, None, source).await
    }

    /// The same for what the journal has recorded at `position`.
    pub async fn invalidate_recorded(
        &self,
        tags: &[Tag],
        position: Option<u64>,
        source: &str,
    ) -> Invalidated {
        self.stats.invalidated(source, tags.len());
        loop {
            let generation = self.trust.generation();
            let outcome = self.invalidate_in(&generation, tags, position).await;
            self.forget_matching(tags);
            // A generation that began meanwhile has not heard; its loads may have begun before the commit.
            if let Some(invalidated) = outcome
                && self.trust.generation().number() == generation.number()
            {
                self.invalidated.notify_one();
                return invalidated;
            }
        }
    }

    /// `None`: the generation is over.
    async fn invalidate_in(
        &self,
        generation: &Arc<Generation>,
        tags: &[Tag],
        position: Option<u64>,
    ) -> Option<Invalidated> {
        match &generation.source {
            Source::Shared(link) => match announce(link, generation, tags, &self.stats).await {
                Ok(sequence) => {
                    let epoch = link.epoch();
                    Some(Invalidated { token: Token::new(epoch, sequence), announced: true, epoch })
                }
                Err(err) => {
                    log::warn!("error.chain":% = crate::telemetry::Chain(&err);
                        "invalidation was not announced; the relay will");
                    self.distrust(generation, "bump_failed");
                    link.give_up();
                    None
                }
            },
            Source::Local => {
                generation.hear_local(tags);
                let token = Token::new(generation.epoch, generation.applied());
                Some(Invalidated { token, announced: true, epoch: generation.epoch })
            }
            Source::Journal | Source::Untrusted => {
                // Whoever is there hears of it at once, also loads under way that readers who come later must not join.
                generation.hear_local(tags);
                let token = match (position, &generation.source) {
                    (Some(position), _) => Token::recorded(position),
                    (None, Source::Journal) => Token::new(generation.epoch, generation.applied()),
                    (None, _) => Token::unknown(),
                };
                if !self.has_bus {
                    return Some(Invalidated { token, announced: true, epoch: generation.epoch });
                }
                // L2 must not be used again before it was told.
                let left = self.trust.leave_unannounced(generation, tags);
                left.then_some(Invalidated { token, announced: false, epoch: 0 })
            }
        }
    }

    /// Takes entries out of L1 whose keys an operator has named.
    pub(super) fn forget_matching(&self, tags: &[Tag]) {
        let patterns: Vec<_> = tags.iter().filter_map(Tag::as_pattern).map(WildMatch::new).collect();
        if let (Some(l1), false) = (&self.l1, patterns.is_empty()) {
            let count = l1.remove_matching(&patterns);
            log::info!(entries = count; "entries were deleted by pattern");
        }
    }

    /// Gives up all of L1, if it was trusted until now.
    pub(super) fn distrust(&self, lost: &Generation, cause: &str) {
        if matches!(lost.source, Source::Untrusted) {
            return;
        }
        self.stats.distrusts.with_label_values(&[cause]).inc();
        self.trust.distrust(lost);
    }

    /// The life of Redis in which what others have left unannounced can be announced now, if it can.
    pub fn relay_epoch(&self) -> Option<u64> {
        let generation = self.trust.generation();
        matches!(generation.source, Source::Shared(_)).then_some(generation.epoch)
    }

    /// Announces what others have left unannounced. Returns the life of Redis in which it was; `None`: it could not be
    /// done now.
    pub async fn relay(&self, tags: &[Tag]) -> Option<u64> {
        self.relay_epoch()?;
        let invalidated = self.invalidate(tags, "relay").await;
        if invalidated.announced && tags.iter().any(|tag| tag.as_pattern().is_some()) {
            // Not waited for: it looks at every key there is.
            let (generation, tags) = (self.trust.generation(), tags.to_vec());
            self.main.spawn(async move { delete_in(&generation, &tags).await });
        }
        invalidated.announced.then_some(invalidated.epoch)
    }

    /// Deletes entries from L2 whose keys an operator has named.
    pub async fn delete_from_l2(&self, tags: &[Tag]) {
        delete_in(&self.trust.generation(), tags).await;
    }
}

async fn delete_in(generation: &Generation, tags: &[Tag]) {
    if let Source::Shared(link) = &generation.source {
        link.delete_named(tags).await;
    }
}

/// The sequence of the invalidation. Of none at all: the present one, so that the token covers what others have
/// acknowledged, which the answer may show.
async fn announce(
    link: &Link,
    generation: &Generation,
    tags: &[Tag],
    stats: &Stats,
) -> Result<u64, LinkError> {
    if tags.is_empty() {
        link.poll().await
    } else {
        let sent = Instant::now();
        link.bump(tags, |at, part| {
            generation.hear_own(at, part);
            stats.bus_lag.note(at, sent);
        })
        .await
    }
}
