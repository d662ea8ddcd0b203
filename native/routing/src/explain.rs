//! Why a number goes where it goes, for an operator to read.

use serde::Serialize;

use crate::gateway::Carrier;
use crate::quality::{QualityRules, Worth};
use crate::search::{Pick, SearchOptions};
use crate::state::HealthRules;
use crate::table::{CARRIER, Rule, Sort, Table};

/// One rule that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleStep {
    /// Its prefix; empty for a default rule.
    pub prefix: String,
    /// `ruleid`.
    pub rule: u32,
    /// Its priority.
    pub priority: i32,
    /// How its destinations are sorted.
    pub sort: Sort,
    /// Its attributes.
    pub attrs: String,
    /// The handler that decides on it, if one does.
    pub handler: String,
    /// Whether it is used.
    pub used: bool,
    /// Why, or why not.
    pub why: String,
    /// Its destinations, where it is used.
    pub destinations: Vec<DestinationStep>,
}

/// One gateway of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DestinationStep {
    /// Its name.
    pub gateway: String,
    /// The carrier by which it is found, if it is by one.
    pub carrier: String,
    /// Its weight, or that of the carrier.
    pub weight: u16,
    /// The Request-URI that it would get.
    pub request_uri: String,
    /// Whether a call would be tried there now.
    pub used: bool,
    /// Why, or why not.
    pub why: String,
}

/// All that was looked at, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The number.
    pub number: String,
    /// The group.
    pub group: u32,
    /// What is to be said of all of it.
    pub why: String,
    /// The rules, in the order in which they were looked at.
    pub rules: Vec<RuleStep>,
}

/// What is to be known of gateways beside the table.
pub struct Present<'a> {
    /// Microseconds of the monotonic clock.
    pub now: u64,
    /// When gateways count as down.
    pub health: &'a HealthRules,
    /// How quality decides.
    pub quality: &'a QualityRules,
    /// Why a gateway takes no call by a carrier, if it takes none.
    pub full: &'a dyn Fn(Pick) -> Option<&'static str>,
    /// Why nothing leads to a gateway, if nothing does.
    pub out_of_reach: &'a dyn Fn(u32) -> Option<String>,
}

/// Tells which rule and gateways `number` would get at `wall_seconds`, and why not others.
pub fn explain(table: &Table, group: u32, number: &str, options: &SearchOptions, wall_seconds: i64, present: &Present<'_>) -> Explanation {
    let bytes = number.as_bytes();
    let walk = table.walk(group, bytes);
    let mut why = match walk.unexpected {
        Some(place) => format!("the character at place {} is none that prefixes have; what follows it does not count", place + 1),
        None => String::new(),
    };
    if !table.groups.contains_key(&group) {
        why = "no rule is in this group".to_owned();
    }
    let mut rules = Vec::new();
    let mut chosen = false;
    for length in (0..=walk.unexpected.unwrap_or(bytes.len())).rev() {
        let prefix = &bytes[..length];
        let there = table.walk(group, prefix);
        let Some(first) = there.found.last().filter(|_| there.whole) else { continue };
        for index in table.of_prefix(*first) {
            let rule = &table.rules[index as usize];
            let (used, why) = if options.whole_number && length < bytes.len() {
                (false, "its prefix is not the whole number")
            } else if !table.holds(rule, wall_seconds) {
                (false, "its time recurrence does not hold then")
            } else if chosen && !options.fall_back {
                (false, "another rule comes first, and the search may not fall back")
            } else if chosen {
                (true, "fall-back once the gateways of the rules before are used up")
            } else {
                (true, "the longest prefix with a rule that holds, of the highest priority")
            };
            chosen |= used;
            let destinations = if used { destinations(&Judge { table, rule, number: bytes, present }, options) } else { Vec::new() };
            rules.push(RuleStep {
                prefix: String::from_utf8_lossy(prefix).into_owned(),
                rule: rule.id,
                priority: rule.priority,
                sort: if options.by_weight { Sort::Weight } else { rule.sort },
                attrs: table.attrs(rule).to_owned(),
                handler: table.handler(rule).to_owned(),
                used,
                why: why.to_owned(),
                destinations,
            });
        }
    }
    if rules.is_empty() && why.is_empty() {
        "no prefix fits, and the group has no default rule".clone_into(&mut why);
    }
    Explanation { number: number.to_owned(), group, why, rules }
}

/// A gateway as it was judged, and what it is worth to the rule.
struct Judged {
    step: DestinationStep,
    worth: f32,
    on_probation: bool,
}

/// What a rule's destinations are judged by.
struct Judge<'a> {
    table: &'a Table,
    rule: &'a Rule,
    number: &'a [u8],
    present: &'a Present<'a>,
}

fn destinations(judge: &Judge<'_>, options: &SearchOptions) -> Vec<DestinationStep> {
    let Judge { table, rule, present, .. } = judge;
    let by_quality = rule.sort == Sort::Quality && !options.by_weight;
    let allowed = |destination: u32| options.whitelist.as_ref().is_none_or(|list| list.has(destination));
    let mut given: Vec<u32> = Vec::new();
    let mut found: Vec<(f32, Vec<Judged>)> = Vec::new();
    for (destination, weight) in table.destinations_of(rule) {
        let index = destination & !CARRIER;
        if destination & CARRIER == 0 {
            let fault = if allowed(destination) { None } else { Some("not in the whitelist") };
            found.extend(judge.step(Pick { gateway: index, carrier: None }, weight, by_quality, fault).map(|judged| (judged.worth, vec![judged])));
        } else if let Some(carrier) = table.carriers.get(index as usize) {
            let fault = if !allowed(destination) {
                Some("its carrier is not in the whitelist")
            } else if carrier.state.is_off() {
                Some("its carrier is switched off")
            } else if given.contains(&index) {
                Some("its carrier has given its only gateway before")
            } else {
                None
            };
            let gateways = judge.gateways(carrier, index, fault);
            if carrier.first_only && gateways.iter().any(|judged| judged.step.used) {
                given.push(index);
            }
            found.push((judge.mean(carrier), gateways));
        }
    }
    if by_quality {
        if present.quality.best_first {
            found.sort_by(|one, other| other.0.total_cmp(&one.0));
        }
        use_last(found.iter_mut().flat_map(|(_, gateways)| gateways));
    }
    found.into_iter().flat_map(|(_, gateways)| gateways).map(|judged| judged.step).collect()
}

/// Where nobody else is left, one that does badly is better than none.
fn use_last<'a>(gateways: impl Iterator<Item = &'a mut Judged>) {
    let mut gateways: Vec<_> = gateways.collect();
    if gateways.iter().all(|judged| !judged.step.used)
        && let Some(last) = gateways.iter_mut().find(|judged| judged.on_probation)
    {
        last.step.used = true;
        "its quality is critical, but nobody else is left".clone_into(&mut last.step.why);
    }
}

impl Judge<'_> {
    /// The gateways of a carrier, in the order in which they are tried where that is no draw.
    fn gateways(&self, carrier: &Carrier, index: u32, fault: Option<&str>) -> Vec<Judged> {
        let by_quality = carrier.sort == Sort::Quality;
        let step = |(gateway, weight): &(u32, u16)| self.step(Pick { gateway: *gateway, carrier: Some(index) }, *weight, by_quality, fault);
        let mut found: Vec<_> = carrier.gateways.iter().filter_map(step).collect();
        let best_first = by_quality && self.present.quality.best_first;
        if best_first {
            found.sort_by(|one, other| other.worth.total_cmp(&one.worth));
        }
        if by_quality {
            use_last(found.iter_mut());
        }
        if carrier.first_only {
            let is_drawn = carrier.sort == Sort::Weight || by_quality && !best_first;
            for judged in found.iter_mut().filter(|judged| judged.step.used).skip(usize::from(!is_drawn)) {
                if is_drawn {
                    judged.step.why.push_str("; the carrier draws one gateway, and gives no other");
                } else {
                    judged.step.used = false;
                    "the carrier gives only its first usable gateway".clone_into(&mut judged.step.why);
                }
            }
        }
        found
    }

    /// What a gateway is worth to the rule; as much as any where it had no calls.
    fn worth(&self, gateway: &str) -> Worth {
        let pair = self.table.quality.known(self.rule.id, gateway);
        pair.zip(self.table.profile(self.rule)).map_or(Worth::Score(1.0), |(pair, profile)| pair.worth(self.present.now, self.present.quality, profile))
    }

    /// A carrier is worth what its gateways are on average that could take a call.
    fn mean(&self, carrier: &Carrier) -> f32 {
        let gateways = carrier.gateways.iter().filter_map(|(gateway, _)| self.table.gateways.get(*gateway as usize));
        let usable = gateways.filter(|gateway| gateway.state.is_usable(self.present.now, gateway.is_probed(), self.present.health));
        let scores: Vec<_> = usable.map(|gateway| if let Worth::Score(score) = self.worth(gateway.id()) { score } else { 0.0 }).collect();
        scores.iter().sum::<f32>() / scores.len().max(1) as f32
    }

    fn step(&self, pick: Pick, weight: u16, by_quality: bool, fault: Option<&str>) -> Option<Judged> {
        let Self { table, present, .. } = self;
        let gateway = table.gateways.get(pick.gateway as usize)?;
        let carrier = pick.carrier.and_then(|index| table.carriers.get(index as usize)).map_or("", |carrier| &carrier.id);
        let state = &gateway.state;
        let worth = self.worth(gateway.id());
        let mut on_probation = false;
        let (used, why) = match fault {
            Some(fault) => (false, fault.to_owned()),
            None if state.is_off() => (false, "switched off by an operator".to_owned()),
            None if let Some(why) = (present.out_of_reach)(pick.gateway) => (false, why),
            None if !state.is_usable(present.now, gateway.is_probed(), present.health) => (false, format!("down: {}", state.down().reason())),
            None => match ((present.full)(pick), by_quality.then_some(worth)) {
                (Some(why), _) => (false, format!("it has {why}")),
                (None, Some(Worth::Nothing)) => (false, "switched off for this rule".to_owned()),
                (None, Some(Worth::Probation)) => {
                    on_probation = true;
                    (false, format!("its quality is critical: it gets {} of 1,000 calls, and those that nobody else takes", present.quality.probation_permille))
                }
                (None, Some(Worth::Score(score))) if score < 1.0 => (true, format!("usable, with a quality of {score:.2}")),
                (None, _) => (true, "usable".to_owned()),
            },
        };
        let step = DestinationStep {
            gateway: gateway.id().to_owned(),
            carrier: carrier.to_owned(),
            weight,
            request_uri: gateway.request_uri(&String::from_utf8_lossy(self.number)),
            used,
            why,
        };
        // What is left out comes behind whatever is worth anything.
        let worth = if let Worth::Score(score) = worth { score } else { -1.0 };
        Some(Judged { step, worth, on_probation })
    }
}
