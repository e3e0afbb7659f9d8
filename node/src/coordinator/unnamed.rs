//! Erases modules that the registry names no more.
//!
//! A module is on the disks of all nodes before the registry names it, so not to be named means nothing for a
//! while: one goes only if it was kept long ago and has not been named for as long. Bytes that are kept anew count
//! as new. Whoever needs an erased module after all fetches it from a node that has it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sibyl_core::id::Digest;
use tokio::time::Instant;

use super::Coordinator;
use super::modules::PREPARE_TIMEOUT;
use crate::outside;
use crate::tasks::registry::View;

/// How long a module may be unnamed. An upload compiles for at most 180 s, is pushed for at most 210 s, and then
/// waits for a change of the registry: twice a push is beyond all of it.
pub const UNNAMED_GRACE: Duration = PREPARE_TIMEOUT.saturating_mul(2);
/// How often this is looked at.
pub const UNNAMED_EVERY: Duration = Duration::from_secs(60);

/// Since when modules have been without a name.
#[derive(Default)]
struct Unnamed(BTreeMap<Digest, Instant>);

impl Unnamed {
    /// Those of the `kept` that have been without a name for `grace`.
    fn due(
        &mut self,
        kept: Vec<Digest>,
        named: &BTreeSet<Digest>,
        now: Instant,
        grace: Duration,
    ) -> Vec<Digest> {
        let unnamed: BTreeSet<Digest> = kept.into_iter().filter(|it| !named.contains(it)).collect();
        self.0.retain(|digest, _| unnamed.contains(digest));
        unnamed.iter().for_each(|digest| {
            self.0.entry(*digest).or_insert(now);
        });
        let due = |(digest, since): (&Digest, &Instant)| {
            (now.saturating_duration_since(*since) >= grace).then_some(*digest)
        };
        self.0.iter().filter_map(due).collect()
    }
}

impl Coordinator {
    /// Erases modules that have been without a name for `grace`, looking `every` so often, for as long as the
    /// node runs.
    pub async fn erase_unnamed(self, grace: Duration, every: Duration) {
        let mut unnamed = Unnamed::default();
        let mut tick = tokio::time::interval(every);
        loop {
            tick.tick().await;
            if !self.registry().view().forming() {
                unnamed = self.erase_round(unnamed, grace).await;
            }
        }
    }

    async fn erase_round(&self, mut unnamed: Unnamed, grace: Duration) -> Unnamed {
        let (platform, registry) = (self.platform().clone(), self.registry().clone());
        let round = outside::aside(move || {
            let kept = platform.kept_for(grace);
            let kept = kept.inspect_err(|error| tracing::warn!(%error, "cannot list resolvers"));
            // The registry is looked at after the disk: what was kept and named meanwhile is seen as named.
            let named = named(&registry.view());
            let due = unnamed.due(kept.unwrap_or_default(), &named, Instant::now(), grace);
            for digest in due {
                match platform.forget(&digest) {
                    Ok(()) => tracing::info!(%digest, "erased a resolver that nothing names"),
                    Err(error) => tracing::warn!(%error, %digest, "cannot erase a resolver"),
                }
            }
            unnamed
        });
        // A panic begins the waiting anew.
        round.await.unwrap_or_default()
    }
}

/// What resolvers list and what buckets use.
fn named(view: &View) -> BTreeSet<Digest> {
    let document = view.document();
    let listed = document.resolvers.values();
    let listed = listed.flat_map(|resolver| resolver.versions.keys().copied());
    let bindings = document.buckets.values();
    let bound = bindings.filter_map(|bucket| Some(bucket.config.resolver.as_ref()?.version));
    listed.chain(bound).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_goes_when_it_was_unnamed_for_long_enough_and_all_the_time() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let begin = Instant::now();
        let mut unnamed = Unnamed::default();
        let mut check = |at_s: u64, kept: &[Digest], named: &[Digest], due: &[Digest]| {
            let now = begin + Duration::from_secs(at_s);
            let named = named.iter().copied().collect();
            let found = unnamed.due(kept.to_vec(), &named, now, Duration::from_secs(10));
            assert_eq!(found, due, "{at_s}");
        };
        check(0, &[a, b], &[b], &[]);
        check(9, &[a, b], &[b], &[]);
        check(10, &[a, b], &[b], &[a]);
        check(11, &[b], &[], &[]);
        check(15, &[a, b], &[b], &[]);
        check(21, &[a, b], &[], &[]);
        check(25, &[a, b], &[], &[a]);
        check(31, &[b], &[], &[b]);
    }
}
