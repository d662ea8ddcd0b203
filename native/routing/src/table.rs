//! Everything that is provisioned, ready to be looked up; immutable.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::gateway::{Carrier, Gateway};
use crate::number::Alphabet;
use crate::quality::{Profile, Quality};
use crate::recurrence::Recurrence;
use crate::state::{GatewayState, ProbeMode};
use crate::translation::NumberRules;
use crate::trie::{NONE, SortKey, Trie, Walk};

/// Marks a destination that is a carrier.
pub(crate) const CARRIER: u32 = 1 << 31;

/// How destinations are sorted (`sort_alg`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// As they stand.
    #[default]
    Order,
    /// By weight, at random.
    Weight,
    /// By quality.
    Quality,
    /// By what a call is known by, so that calls of one kind go to one machine.
    Hash,
    /// The one with the fewest calls for its weight first.
    Calls,
}

impl Sort {
    pub(crate) fn from_bytes(text: &[u8]) -> Option<Self> {
        match text {
            b"" | b"N" | b"n" => Some(Self::Order),
            b"W" | b"w" => Some(Self::Weight),
            b"Q" | b"q" => Some(Self::Quality),
            _ => None,
        }
    }
}

/// One row of `dr_rules` in one of its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `ruleid`.
    pub id: u32,
    /// The higher goes first among those of one prefix.
    pub priority: i32,
    pub(crate) destinations: u32,
    pub(crate) recurrence: u32,
    pub(crate) attrs: u32,
    pub(crate) count: u16,
    pub(crate) handler: u16,
    pub(crate) profile: u16,
    /// How the destinations are sorted.
    pub sort: Sort,
    /// The last one of its prefix.
    pub(crate) last: bool,
}

/// One machine of a pool.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its SIP URI.
    pub uri: String,
    /// Its share of the calls.
    pub weight: u16,
    /// Concurrent calls that it may have; 0 for any number.
    pub max_calls: u32,
    /// When it is probed.
    pub probe: ProbeMode,
    /// As [`Gateway::socket`].
    pub socket: String,
    /// Opaque.
    pub attrs: String,
    /// Whether one that was not known before is down until a probe or an operator brings it up.
    pub begins_down: bool,
}

/// User and, where it matters, domain.
pub(crate) type Caller = (Box<[u8]>, Option<Box<[u8]>>);

/// What is provisioned.
#[derive(Debug, Default)]
pub struct Table {
    pub(crate) alphabet: Alphabet,
    pub(crate) trie: Trie,
    /// Where the walk of each group begins.
    pub(crate) groups: HashMap<u32, u32>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) destinations: Vec<u32>,
    /// One for each destination, or none at all where none has any.
    pub(crate) weights: Vec<u16>,
    pub(crate) recurrences: Vec<Recurrence>,
    pub(crate) texts: Vec<Box<str>>,
    pub(crate) handlers: Vec<Box<str>>,
    /// The gateways, by their numbers.
    pub gateways: Vec<Gateway>,
    /// The carriers, by their numbers.
    pub carriers: Vec<Carrier>,
    /// How gateways do for rules.
    pub quality: Arc<Quality>,
    /// Groups of callers, by user, and by user and domain.
    pub(crate) caller_groups: HashMap<Caller, u32>,
    /// Rules for numbers, by `dpid`.
    pub(crate) dialplans: HashMap<u32, NumberRules>,
    pub(crate) profiles: HashMap<u16, Arc<Profile>>,
    pub(crate) gateway_names: HashMap<Arc<str>, u32>,
    pub(crate) carrier_names: HashMap<Arc<str>, u32>,
}

impl Table {
    /// A pool of machines as one default rule of group 0, each with the same calls a second; what `before` knows of them goes on.
    pub fn pool(machines: Vec<Machine>, sort: Sort, calls_per_second: u16, before: Option<&Self>) -> Self {
        let mut table = Self { texts: vec!["".into()], handlers: vec!["".into()], ..Self::default() };
        for machine in machines {
            let uri: Box<str> = machine.uri.into();
            let known = before.and_then(|before| before.gateways.get(before.gateway(&uri)? as usize)).map(|gateway| Arc::clone(&gateway.state));
            let state = known.unwrap_or_else(|| {
                let state = GatewayState::new(&uri);
                if machine.begins_down {
                    state.provision_down();
                }
                Arc::new(state)
            });
            let index = table.gateways.len() as u32;
            table.gateway_names.insert(uri.as_ref().into(), index);
            table.destinations.push(index);
            table.weights.push(machine.weight);
            table.gateways.push(Gateway {
                state,
                kind: 0,
                uri,
                strip: 0,
                prefix: "".into(),
                attrs: machine.attrs.into(),
                probe: machine.probe,
                socket: machine.socket.into(),
                max_calls: machine.max_calls,
                calls_per_second,
            });
        }
        let count = table.gateways.len() as u16;
        table.rules.push(Rule { id: 0, priority: 0, destinations: 0, recurrence: NONE, attrs: 0, count, handler: 0, profile: 0, sort, last: true });
        let root = table.trie.add(&table.alphabet, &[SortKey { packed: 0, group: 0, priority: 0, rule: 0 }], 0, |_| false);
        table.groups.insert(0, root);
        table
    }

    /// The number of a gateway.
    pub fn gateway(&self, id: &str) -> Option<u32> {
        self.gateway_names.get(id).copied()
    }

    /// The number of a carrier.
    pub fn carrier(&self, id: &str) -> Option<u32> {
        self.carrier_names.get(id).copied()
    }

    /// The characters of prefixes.
    pub fn alphabet(&self) -> &Alphabet {
        &self.alphabet
    }

    /// Forgets the quality of pairs whose rule or gateway is gone.
    pub fn forget_gone(&self) {
        let pairs: HashSet<u32> = self.quality.all().into_iter().map(|((rule, _), _)| rule).collect();
        let there: HashSet<u32> = self.rules.iter().map(|rule| rule.id).filter(|id| pairs.contains(id)).collect();
        self.quality.retain(|rule, gateway| there.contains(&rule) && self.gateway(gateway).is_some());
    }

    /// How many rules there are; one that is in several groups counts in each.
    pub fn rules(&self) -> usize {
        self.rules.len()
    }

    /// A rule.
    pub fn rule(&self, index: u32) -> Option<&Rule> {
        self.rules.get(index as usize)
    }

    /// A rule's attributes.
    pub fn attrs(&self, rule: &Rule) -> &str {
        self.texts.get(rule.attrs as usize).map_or("", |text| text)
    }

    /// The profile that a rule is sorted by.
    pub fn profile(&self, rule: &Rule) -> Option<&Arc<Profile>> {
        self.profiles.get(&rule.profile)
    }

    /// The first rule of a dial plan that is for `number` at `wall_seconds`, by its row, with what it makes of it.
    pub fn translate(&self, dialplan: u32, number: &[u8], wall_seconds: i64) -> Option<(&str, Vec<u8>)> {
        let holds = |index: u32| self.recurrences.get(index as usize).is_some_and(|recurrence| recurrence.holds(wall_seconds));
        self.dialplans.get(&dialplan)?.translate(number, holds)
    }

    /// The group of a caller, by user and, where one is given, by domain.
    pub fn group_of(&self, user: &[u8], domain: Option<&[u8]>) -> Option<u32> {
        self.caller_groups.get(&(user.into(), domain.map(|domain| domain.to_ascii_lowercase().into()))).copied()
    }

    /// Whether there is a dial plan of this number.
    pub fn has_dialplan(&self, dialplan: u32) -> bool {
        self.dialplans.contains_key(&dialplan)
    }

    /// The policy handler that decides on a rule, empty where there is none.
    pub fn handler(&self, rule: &Rule) -> &str {
        self.handlers.get(usize::from(rule.handler)).map_or("", |text| text)
    }

    /// Bytes of memory for rules and prefixes.
    pub fn bytes(&self) -> usize {
        self.trie.bytes() + self.rules.capacity() * size_of::<Rule>() + self.destinations.capacity() * 4 + self.weights.capacity() * 2
    }

    pub(crate) fn walk(&self, group: u32, number: &[u8]) -> Walk {
        self.trie.walk(self.groups.get(&group).copied().unwrap_or(NONE), &self.alphabet, number)
    }

    /// The first rule of the longest prefix, where none of that prefix holds at times only.
    pub(crate) fn longest(&self, group: u32, number: &[u8]) -> Option<u32> {
        self.trie.longest(*self.groups.get(&group)?, &self.alphabet, number)
    }

    pub(crate) fn holds(&self, rule: &Rule, wall_seconds: i64) -> bool {
        rule.recurrence == NONE || self.recurrences.get(rule.recurrence as usize).is_some_and(|recurrence| recurrence.holds(wall_seconds))
    }

    /// The first rule for `number` in `group` that holds at `wall_seconds`: of the longest prefix that has one, else of shorter
    /// ones; with its place.
    pub fn find(&self, group: u32, number: &[u8], wall_seconds: i64) -> Option<u32> {
        if let Some(first) = self.longest(group, number) {
            return Some(first);
        }
        let walk = self.walk(group, number);
        walk.found.iter().rev().find_map(|first| self.of_prefix(*first).find(|index| self.holds(&self.rules[*index as usize], wall_seconds)))
    }

    /// The places of the rules of one prefix, from the first on.
    pub(crate) fn of_prefix(&self, first: u32) -> impl Iterator<Item = u32> {
        let mut next = Some(first);
        std::iter::from_fn(move || {
            let index = next?;
            let rule = self.rules.get(index as usize)?;
            next = (!rule.last).then_some(index + 1);
            Some(index)
        })
    }

    /// The destinations of a rule with their weights.
    pub(crate) fn destinations_of(&self, rule: &Rule) -> impl Iterator<Item = (u32, u16)> {
        let start = rule.destinations as usize;
        let end = start + usize::from(rule.count);
        (start..end).filter_map(|place| Some((*self.destinations.get(place)?, self.weights.get(place).copied().unwrap_or(0))))
    }
}
