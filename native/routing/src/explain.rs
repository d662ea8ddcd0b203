//! Why a number goes where it goes, for an operator to read.

use serde::Serialize;

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
            let destinations = if used { destinations(table, index, bytes, options, present) } else { Vec::new() };
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

fn destinations(table: &Table, rule: u32, number: &[u8], options: &SearchOptions, present: &Present<'_>) -> Vec<DestinationStep> {
    let mut steps: Vec<DestinationStep> = Vec::new();
    let by_quality = Some(&table.rules[rule as usize]).filter(|rule| rule.sort == Sort::Quality && !options.by_weight);
    let allowed = |destination: u32| options.whitelist.as_ref().is_none_or(|list| list.has(destination));
    for (destination, weight) in table.destinations_of(&table.rules[rule as usize]) {
        let index = destination & !CARRIER;
        if destination & CARRIER == 0 {
            let fault = if allowed(destination) { None } else { Some("not in the whitelist") };
            steps.extend(step(table, by_quality, Pick { gateway: index, carrier: None }, weight, number, fault, present));
            continue;
        }
        let Some(carrier) = table.carriers.get(index as usize) else { continue };
        let mut fault = if carrier.state.is_off() { Some("its carrier is switched off") } else { None };
        if !allowed(destination) {
            fault = Some("its carrier is not in the whitelist");
        }
        let mut first = true;
        for (gateway, weight) in &carrier.gateways {
            let skipped = if carrier.first_only && !first { Some("the carrier gives only its first usable gateway") } else { fault };
            let made = step(table, by_quality, Pick { gateway: *gateway, carrier: Some(index) }, *weight, number, skipped, present);
            first &= made.as_ref().is_none_or(|step| !step.used);
            steps.extend(made);
        }
    }
    if let Some(rule) = by_quality.filter(|_| present.quality.best_first && steps.iter().all(|step| step.carrier.is_empty())) {
        let score = |step: &DestinationStep| if let Worth::Score(score) = worth(table, rule, &step.gateway, present) { score } else { -1.0 };
        steps.sort_by(|one, other| score(other).total_cmp(&score(one)));
    }
    steps
}

/// What a gateway is worth to a rule that is sorted by quality; as much as any where it had no calls.
fn worth(table: &Table, rule: &Rule, gateway: &str, present: &Present<'_>) -> Worth {
    let profile = table.profile(rule);
    let pair = table.quality.known(rule.id, gateway);
    pair.zip(profile).map_or(Worth::Score(1.0), |(pair, profile)| pair.worth(present.now, present.quality, profile))
}

fn step(
    table: &Table,
    by_quality: Option<&Rule>,
    pick: Pick,
    weight: u16,
    number: &[u8],
    fault: Option<&str>,
    present: &Present<'_>,
) -> Option<DestinationStep> {
    let gateway = table.gateways.get(pick.gateway as usize)?;
    let carrier = pick.carrier.and_then(|index| table.carriers.get(index as usize)).map_or("", |carrier| &carrier.id);
    let state = &gateway.state;
    let (used, why) = match fault {
        Some(fault) => (false, fault.to_owned()),
        None if state.is_off() => (false, "switched off by an operator".to_owned()),
        None if !state.is_usable(present.now, gateway.is_probed(), present.health) => (false, format!("down: {}", state.down().reason())),
        None => match ((present.full)(pick), by_quality.map(|rule| worth(table, rule, gateway.id(), present))) {
            (Some(why), _) => (false, format!("it has {why}")),
            (None, Some(Worth::Nothing)) => (false, "switched off for this rule".to_owned()),
            (None, Some(Worth::Probation)) => {
                (false, format!("its quality is critical: it gets {} of 1,000 calls, and those that nobody else takes", present.quality.probation_permille))
            }
            (None, Some(Worth::Score(score))) if score < 1.0 => (true, format!("usable, with a quality of {score:.2}")),
            (None, _) => (true, "usable".to_owned()),
        },
    };
    Some(DestinationStep {
        gateway: gateway.id().to_owned(),
        carrier: carrier.to_owned(),
        weight,
        request_uri: gateway.request_uri(&String::from_utf8_lossy(number)),
        used,
        why,
    })
}
