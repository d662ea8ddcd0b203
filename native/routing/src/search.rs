//! One call's way through the table: which rule, and which gateway next.

use smallvec::SmallVec;

use crate::quality::{QualityRules, Worth};
use crate::table::{CARRIER, Rule, Sort, Table};

/// Destinations that a call may go to: gateways and carriers by name, the latter with `#` in front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whitelist(Vec<u32>);

impl Whitelist {
    /// Looks the names up; those that are not there fit nothing.
    pub fn new(table: &Table, names: &[String]) -> Self {
        let find = |name: &String| match name.strip_prefix('#') {
            Some(carrier) => table.carrier(carrier).map(|index| index | CARRIER),
            None => table.gateway(name),
        };
        Self(names.iter().filter_map(find).collect())
    }

    pub(crate) fn has(&self, destination: u32) -> bool {
        self.0.contains(&destination)
    }
}

/// How a search goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchOptions {
    /// Once a rule's gateways are used up the next rule is tried, then those of shorter prefixes (flag F).
    pub fall_back: bool,
    /// The prefix must be the whole number (flag L).
    pub whole_number: bool,
    /// Sorts every rule by weight, whatever its row says (flag W).
    pub by_weight: bool,
    /// Where it may go, if not everywhere.
    pub whitelist: Option<Whitelist>,
    /// What [`Sort::Hash`] goes by.
    pub key: u64,
}

/// What a search asks of whoever runs it.
pub trait Guide {
    /// Whether calls may go to a gateway now.
    fn is_usable(&self, gateway: u32) -> bool;
    /// Whether gateways of carriers that are switched off are wanted too.
    fn takes_all(&self) -> bool {
        false
    }
    /// Calls that a gateway has now.
    fn live(&self, gateway: u32) -> u32;
    /// What a gateway is worth to a rule that is sorted by quality.
    fn worth(&mut self, rule: &Rule, gateway: u32) -> Worth;
    /// How quality decides.
    fn rules(&self) -> &QualityRules;
    /// A number that nobody can guess.
    fn random(&mut self) -> u64;
}

/// One gateway to try, and the carrier by which it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// The gateway's number.
    pub gateway: u32,
    /// The carrier's.
    pub carrier: Option<u32>,
}

/// A search under way. It names rules and gateways by their places in one table, so it goes with that.
#[derive(Clone, Debug)]
pub struct Search {
    /// First rules of prefixes not yet looked at, the shortest first.
    prefixes: SmallVec<[u32; 8]>,
    /// The rule to look at next, of the prefix at hand.
    next: Option<u32>,
    rule: Option<u32>,
    found: bool,
    /// Gateways of the rule at hand, the last one first.
    picks: SmallVec<[Pick; 4]>,
    options: SearchOptions,
    wall_seconds: i64,
    /// The place of a character that no prefix can have.
    pub unexpected: Option<usize>,
}

impl Search {
    /// Looks `number` up among the rules of `group`; [`Search::rule`] says whether one holds at `wall_seconds`.
    pub fn new(table: &Table, group: u32, number: &[u8], options: SearchOptions, wall_seconds: i64) -> Self {
        // Where nothing shorter can ever be wanted, the longest prefix is found in a third of the time.
        let first = if options.fall_back || options.whole_number { None } else { table.longest(group, number) };
        let (prefixes, unexpected) = first.map_or_else(
            || {
                let walk = table.walk(group, number);
                let mut prefixes = walk.found;
                if options.whole_number {
                    let last = prefixes.pop();
                    prefixes.clear();
                    prefixes.extend(last.filter(|_| walk.whole));
                }
                (prefixes, walk.unexpected)
            },
            |first| (SmallVec::from_slice(&[first]), number.iter().position(|byte| !table.alphabet.has(*byte))),
        );
        let mut search = Self { prefixes, next: None, rule: None, found: false, picks: SmallVec::new(), options, wall_seconds, unexpected };
        search.next_rule(table);
        search.found = search.rule.is_some();
        search
    }

    /// Whether there was any rule for the number, however many have been used up since.
    pub fn has_found(&self) -> bool {
        self.found
    }

    /// The place of the rule at hand.
    pub fn rule(&self) -> Option<u32> {
        self.rule
    }

    /// Goes to the next rule that holds: of the same prefix, then of shorter ones.
    fn next_rule(&mut self, table: &Table) {
        self.rule = None;
        while self.rule.is_none() {
            let Some(index) = self.next.take().or_else(|| self.prefixes.pop()) else { return };
            let Some(rule) = table.rule(index) else { return };
            self.next = (!rule.last).then_some(index + 1);
            self.rule = table.holds(rule, self.wall_seconds).then_some(index);
        }
    }

    /// Sorts the destinations of the rule at hand; to be called once before the first [`Search::pick`].
    pub fn begin(&mut self, table: &Table, guide: &mut impl Guide) {
        let Some(rule) = self.rule.and_then(|index| table.rule(index)) else { return };
        self.picks = self.picks_of(table, rule, guide);
        self.picks.reverse();
    }

    /// The next gateway that is usable now; where a rule has none left, of the next rule if the search may fall back.
    pub fn pick(&mut self, table: &Table, guide: &mut impl Guide) -> Option<Pick> {
        self.pick_that(table, guide, |_| true)
    }

    /// The next one of those that `has_place` too: what has none is passed over like one that is down.
    pub fn pick_that(&mut self, table: &Table, guide: &mut impl Guide, mut has_place: impl FnMut(Pick) -> bool) -> Option<Pick> {
        loop {
            while let Some(pick) = self.picks.pop() {
                if guide.is_usable(pick.gateway) && has_place(pick) {
                    if let Some(index) = pick.carrier.filter(|index| table.carriers.get(*index as usize).is_some_and(|carrier| carrier.first_only)) {
                        self.picks.retain(|other| other.carrier != Some(index));
                    }
                    return Some(pick);
                }
            }
            if !self.options.fall_back || self.rule.is_none() {
                return None;
            }
            self.next_rule(table);
            self.begin(table, guide);
        }
    }

    /// Whether nothing is left that could still be picked.
    pub fn is_spent(&self) -> bool {
        self.picks.is_empty() && (!self.options.fall_back || self.next.is_none() && self.prefixes.is_empty())
    }

    fn picks_of(&self, table: &Table, rule: &Rule, guide: &mut impl Guide) -> SmallVec<[Pick; 4]> {
        let allowed = |destination: u32| self.options.whitelist.as_ref().is_none_or(|list| list.has(destination));
        let mut destinations: Destinations = table.destinations_of(rule).collect();
        let by = if self.options.by_weight { Sort::Weight } else { rule.sort };
        let state = |destination: u32| table.gateways.get(destination as usize).map(|gateway| &gateway.state);
        match by {
            Sort::Order => {}
            Sort::Weight => by_weight(&mut destinations, guide),
            Sort::Quality => by_quality(table, rule, &mut destinations, guide),
            // The highest of all hashes, in the share of the weights: where a machine goes, only its own calls go elsewhere.
            Sort::Hash => destinations.sort_by(|one, other| {
                let rank = |(index, weight): &(u32, u16)| {
                    let hash = state(*index).map_or(0, |state| mixed(self.options.key, state.id.as_bytes()));
                    // Of as many draws as its weight the best: the logarithm of an even one is exponential, and the least of those wins.
                    (*weight == 0, -((hash as f64 + 1.0) / 2.0_f64.powi(64)).ln() / f64::from((*weight).max(1)))
                };
                let ((last, mine), (other_last, theirs)) = (rank(one), rank(other));
                last.cmp(&other_last).then(mine.total_cmp(&theirs))
            }),
            Sort::Calls => destinations.sort_by_key(|(index, weight)| {
                let load = u64::from(guide.live(*index)) * u64::from(u16::MAX) / u64::from((*weight).max(1));
                (*weight == 0, load)
            }),
        }
        let mut picks = SmallVec::new();
        for (destination, _) in destinations {
            let index = destination & !CARRIER;
            if destination & CARRIER == 0 {
                if allowed(destination) {
                    picks.push(Pick { gateway: index, carrier: None });
                }
                continue;
            }
            let Some(carrier) = table.carriers.get(index as usize).filter(|carrier| allowed(destination) && (guide.takes_all() || !carrier.state.is_off()))
            else {
                continue;
            };
            let mut gateways: Destinations = carrier.gateways.iter().copied().collect();
            match carrier.sort {
                Sort::Weight => by_weight(&mut gateways, guide),
                Sort::Quality => by_quality(table, rule, &mut gateways, guide),
                Sort::Order | Sort::Hash | Sort::Calls => {}
            }
            picks.extend(gateways.iter().map(|(gateway, _)| Pick { gateway: *gateway, carrier: Some(index) }));
        }
        picks
    }
}

/// Destinations with their weights.
type Destinations = SmallVec<[(u32, u16); 8]>;

/// Sorts by what each is worth: the best first, or by a draw in which scores are weights. What is on probation comes first in a
/// small share of calls, and not at all in the others.
fn by_quality(table: &Table, rule: &Rule, destinations: &mut Destinations, guide: &mut impl Guide) {
    let mut first = None;
    let mut left_out: SmallVec<[(u32, u16); 4]> = SmallVec::new();
    let mut scored: SmallVec<[(u32, f32); 8]> = SmallVec::new();
    for (destination, _) in destinations.iter() {
        let worth = if destination & CARRIER == 0 {
            guide.worth(rule, *destination)
        } else {
            // A carrier is worth what its gateways are on average that could take a call.
            let gateways = table.carriers.get((destination & !CARRIER) as usize).map(|carrier| carrier.gateways.as_slice()).unwrap_or_default();
            let scores = gateways.iter().filter(|(gateway, _)| guide.is_usable(*gateway)).map(|(gateway, _)| *gateway).collect::<SmallVec<[u32; 8]>>();
            let sum: f32 = scores.iter().map(|gateway| if let Worth::Score(score) = guide.worth(rule, *gateway) { score } else { 0.0 }).sum();
            Worth::Score(sum / scores.len().max(1) as f32)
        };
        match worth {
            Worth::Score(score) => scored.push((*destination, score)),
            Worth::Probation if first.is_none() && guide.random() % 1_000 < u64::from(guide.rules().probation_permille) => first = Some(*destination),
            // Where nobody else is left, one that does badly is better than none.
            Worth::Probation => left_out.push((*destination, 0)),
            Worth::Nothing => {}
        }
    }
    if guide.rules().best_first {
        scored.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    }
    let best_first = guide.rules().best_first;
    let mut sorted: Destinations = scored.into_iter().map(|(destination, score)| (destination, (score * f32::from(u16::MAX)) as u16)).collect();
    if !best_first {
        by_weight(&mut sorted, guide);
    }
    sorted.insert_many(0, first.map(|destination| (destination, 0)));
    sorted.extend(left_out);
    *destinations = sorted;
}

/// A hash of a name with a key (FNV-1a, mixed once more): keys are unguessable already.
fn mixed(key: u64, name: &[u8]) -> u64 {
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325 ^ key, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Sorts destinations by weight: each place is drawn among those left, in the share of their weights; those without any come
/// last, in random order.
fn by_weight(destinations: &mut [(u32, u16)], guide: &mut impl Guide) {
    for place in 0..destinations.len() {
        let left = &destinations[place..];
        let sum: u64 = left.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let chosen = if sum == 0 {
            (guide.random() % left.len() as u64) as usize
        } else {
            let mut drawn = guide.random() % sum;
            left.iter()
                .position(|(_, weight)| {
                    let below = drawn < u64::from(*weight);
                    drawn = drawn.wrapping_sub(u64::from(*weight));
                    below
                })
                .unwrap_or(0)
        };
        destinations.swap(place, place + chosen);
    }
}
