//! What a search for a gateway asks of a worker: who is usable, what each is worth, and chance.

use std::collections::HashMap;
use std::sync::Arc;

use routing::{Guide, HealthRules, Pair, QualityRules, Rule, Worth};

use crate::routing_table::Partition;

/// Pairs of rule and gateway as one worker knows them, by partition, rule and gateway's number; `None` for one that has had no
/// calls so far.
pub(crate) type Pairs = HashMap<(usize, u32, u32), Option<Arc<Pair>>>;

pub(crate) struct Chooser<'a> {
    pub(crate) there: &'a Partition,
    pub(crate) health: &'a HealthRules,
    pub(crate) quality: &'a QualityRules,
    /// Those of the tables at hand; nothing for an older one.
    pub(crate) pairs: Option<&'a mut Pairs>,
    /// The place of `there`.
    pub(crate) partition: usize,
    /// Microseconds of the monotonic clock.
    pub(crate) now: u64,
    /// For a call for help, which may come to one that is down too: who picks passes it over as long as there are others.
    pub(crate) for_help: bool,
    /// Begins with an unguessable number.
    pub(crate) state: u64,
}

impl Guide for Chooser<'_> {
    fn is_usable(&self, gateway: u32) -> bool {
        self.for_help || self.there.is_usable(gateway, self.now, self.health)
    }

    fn takes_all(&self) -> bool {
        self.for_help
    }

    fn live(&self, gateway: u32) -> u32 {
        self.there.live(gateway)
    }

    fn worth(&mut self, rule: &Rule, gateway: u32) -> Worth {
        let Some(profile) = self.there.table.profile(rule) else { return Worth::Score(1.0) };
        let known = || self.there.table.gateways.get(gateway as usize).and_then(|gateway| self.there.table.quality.known(rule.id, gateway.id()));
        let key = (self.partition, rule.id, gateway);
        let pair = match &mut self.pairs {
            Some(pairs) => pairs.entry(key).or_insert_with(known).clone(),
            None => known(),
        };
        pair.map_or(Worth::Score(1.0), |pair| pair.worth(self.now, self.quality, profile))
    }

    fn rules(&self) -> &QualityRules {
        self.quality
    }

    fn random(&mut self) -> u64 {
        // SplitMix64: one unguessable number is enough for all draws of a call.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) >> 1
    }
}
