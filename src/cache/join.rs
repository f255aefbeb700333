//! A load that the process has under way for another share of the cache, or for a batch, is waited for and not repeated.
//!
//! It must never bring anything older than the reader's own load would: what was joined is judged on arrival, and what was
//! no use is not joined again.

use std::{sync::Arc, time::Instant};

use super::{
    Loaded,
    entry::{Entry, Stored},
    flight::{Boarding, Joined, Landing, Leader, Leaders, landed},
    generation::Required,
    l2::LockOwner,
    load::{BoxError, Plan, Trip},
    read::Held,
    status::Status,
};

impl Trip {
    /// A load, unless another thread of this process is at it.
    pub(super) async fn load_or_join<T, F, L>(
        mut self,
        mut plan: Plan,
        owner: LockOwner,
        load: F,
        of_share: Leader,
    ) where
        T: Stored,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<Loaded<T>, BoxError>> + Send + 'static,
    {
        let key = self.cache.loads.hashed(self.key);
        loop {
            let (loads, trust) = (&self.cache.loads, &self.cache.trust);
            match loads.board(key, &self.generation, &plan.interest, self.required, trust) {
                Boarding::Lead(of_process) => {
                    let leaders = Leaders { of_process, of_share };
                    return match self.landed_meanwhile::<T>(&plan) {
                        Some(landed) => leaders.land(Ok(landed)),
                        None => self.begin_load(plan, owner, load, Some(leaders)),
                    };
                }
                Boarding::Join(joined) => {
                    if let Some(landing) = self.wait_for(joined, &of_share).await {
                        self.let_go_of_lock(plan, owner);
                        return of_share.land(landing);
                    }
                }
            }
            // The interest first, as for any load. The old one is held until then, so that nothing heard is forgotten.
            plan.interest = self.generation.interest(&self.tags);
            plan.as_of = plan.as_of.max(self.generation.applied());
        }
    }

    /// What another thread of this process is loading, once it has.
    pub(super) async fn join_other_thread(&mut self, of_share: &Leader) -> Option<Landing> {
        let (loads, trust) = (&self.cache.loads, &self.cache.trust);
        let joined = loads.join(&loads.hashed(self.key), &self.generation, self.required, trust)?;
        self.wait_for(joined, of_share).await
    }

    /// What the load of another thread brings to those who wait for this one.
    async fn wait_for(&mut self, joined: Joined, of_share: &Leader) -> Option<Landing> {
        of_share.wait_for(&joined);
        let landing = landed(joined.end).await;
        let attempt = self.joined;
        self.joined += 1;
        let landing = self.cache.for_who_joined(landing?, self.required, attempt)?;
        Some(landing.map(|(entry, status)| (entry, status.of_who_joined(self.status.l1))))
    }

    /// What another thread has loaded since it was looked for here, where no L2 could tell. What is due to be renewed is not
    /// it, but what this load may be there to renew.
    fn landed_meanwhile<T: Stored>(&self, plan: &Plan) -> Option<(Arc<Entry>, Status)> {
        if plan.link.is_some() {
            return None;
        }
        let Held { read, entry, .. } = self.cache.find_in_l1::<T>(&self.key, self.required).ok()?;
        let is_new = !entry.times.is_to_be_renewed(Instant::now());
        is_new.then(|| (entry, read.status.of_who_joined(self.status.l1)))
    }

    /// The lock that came with a plan to load, if one was asked for. Nobody here waits until it is done.
    fn let_go_of_lock(&self, plan: Plan, owner: LockOwner) {
        if let Some(link) = plan.link.filter(|_| self.required != Required::Load) {
            let key = self.key;
            self.cache.main.spawn(async move {
                // At worst others wait until the lock's time is up.
                let _ = link.unlock(&key, owner).await;
            });
        }
    }
}
