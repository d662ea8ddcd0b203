//! From rows to a table. A row that cannot be used is named and left out; the others serve.

use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;
use syntax::{Scheme, Span, Transport, Uri, is_odd_address};

use crate::gateway::{Carrier, Gateway};
use crate::number::{Alphabet, LONGEST_PREFIX};
use crate::quality::{FIGURES, IS_SHARE, MORE_IS_BETTER, Profile};
use crate::recurrence::Recurrence;
use crate::row::{number, rows, rows_of_columns, trimmed};
use crate::state::{GatewayState, ProbeMode};
use crate::table::{CARRIER, Rule, Sort, Table};
use crate::translation::{Becomes, Fits, NumberRule, parts_only, pattern, unknown_group};
use crate::trie::{NONE, SortKey};

/// Faults that are told one by one; more are counted.
const TOLD: usize = 1_000;
/// Destinations of one rule or carrier.
const MOST_DESTINATIONS: usize = u16::MAX as usize;

/// What a row says that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// The table.
    pub table: &'static str,
    /// The row's identifier.
    pub row: String,
    /// The column.
    pub column: &'static str,
    /// What is wrong with it, and what it says.
    pub problem: String,
}

/// How rows are read.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Characters of prefixes.
    pub alphabet: Alphabet,
    /// Policy handlers that a rule may name.
    pub handlers: Vec<String>,
}

/// What came of a load.
#[derive(Debug)]
pub struct Loaded {
    /// The table.
    pub table: Table,
    /// Faults, the first thousand of them.
    pub faults: Vec<Fault>,
    /// How many there were.
    pub fault_count: usize,
}

/// Takes rows in blocks: gateways first, then carriers, then rules; the meaning of time recurrences last. A block holds rows
/// that end with 0x1e, and columns parted by 0x1f, in the order that each method names.
#[derive(Debug, Default)]
pub struct Builder {
    options: LoadOptions,
    before: Option<Arc<Table>>,
    table: Table,
    keys: Vec<SortKey>,
    recurrences: HashMap<Box<[u8]>, u32>,
    recurrence_texts: Vec<String>,
    bad_recurrences: HashMap<u32, String>,
    texts: HashMap<Box<str>, u32>,
    faults: Vec<Fault>,
    fault_count: usize,
    /// With plan and order.
    translations: Vec<(u32, i32, NumberRule)>,
}

impl Builder {
    /// An empty one; what `before` knows of gateways and carriers goes on under their names.
    pub fn new(options: LoadOptions, before: Option<Arc<Table>>) -> Self {
        let mut builder = Self { before, ..Self::default() };
        if let Some(before) = &builder.before {
            builder.table.quality = Arc::clone(&before.quality);
        }
        builder.table.alphabet = options.alphabet.clone();
        builder.table.handlers = std::iter::once("").chain(options.handlers.iter().map(String::as_str)).map(Into::into).collect();
        builder.texts.insert("".into(), 0);
        builder.table.texts.push("".into());
        builder.options = options;
        builder
    }

    fn fault(&mut self, table: &'static str, row: &[u8], column: &'static str, problem: impl Into<String>) {
        self.fault_count += 1;
        if self.faults.len() < TOLD {
            self.faults.push(Fault { table, row: lossy(row), column, problem: problem.into() });
        }
    }

    /// Takes rows of `dr_gateways`: gwid, type, address, strip, pri_prefix, attrs, probe_mode, state, socket, max_calls,
    /// calls_per_second.
    pub fn gateways(&mut self, block: &[u8]) {
        for row in rows::<11>(block) {
            let row = match row {
                Ok(row) => row,
                Err(row) => {
                    self.fault("dr_gateways", &row[..row.len().min(40)], "gwid", "a value holds a control character that parts columns");
                    continue;
                }
            };
            if let Err((column, problem)) = self.gateway(&row) {
                // One without a name is found by its address.
                let known_by = if trimmed(row[0]).is_empty() { row[2] } else { row[0] };
                self.fault("dr_gateways", known_by, column, problem);
            }
        }
    }

    fn gateway(&mut self, row: &[&[u8]; 11]) -> Result<(), (&'static str, String)> {
        let [id, kind, address, strip, prefix, attrs, probe, state, socket, calls, pace] = *row;
        let id = name(id).ok_or_else(|| ("gwid", expected("letters, digits, `_`, `-` or `.`", id)))?;
        if self.table.gateway(id).is_some() {
            return Err(("gwid", "a second row of this name".to_owned()));
        }
        let uri = gateway_uri(address).map_err(|wanted| ("address", expected(wanted, address)))?;
        let probe = match number::<u8>(probe) {
            Some(0) => ProbeMode::Never,
            Some(1) => ProbeMode::WhileDown,
            Some(2) => ProbeMode::Always,
            _ => return Err(("probe_mode", expected("0, 1 or 2", probe))),
        };
        let prefix = trimmed(prefix);
        if !prefix.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+*#-_.!~'()&$,".contains(byte)) {
            return Err(("pri_prefix", expected("characters of a SIP user part", prefix)));
        }
        let before = self.before.as_ref().and_then(|table| table.gateways.get(table.gateway(id)? as usize));
        let known = match (before, number::<u8>(state)) {
            (Some(gateway), Some(0..=2)) => Arc::clone(&gateway.state),
            (None, Some(0)) => Arc::new(GatewayState::new(id)),
            (None, Some(1)) => {
                let state = GatewayState::new(id);
                state.switch(false);
                Arc::new(state)
            }
            (None, Some(2)) => {
                let state = GatewayState::new(id);
                state.provision_down();
                Arc::new(state)
            }
            _ => return Err(("state", expected("0, 1 or 2", state))),
        };
        let gateway = Gateway {
            state: known,
            kind: number(kind).ok_or_else(|| ("type", expected("a number", kind)))?,
            uri: uri.into(),
            strip: number(strip).ok_or_else(|| ("strip", expected("0 to 255", strip)))?,
            prefix: lossy(prefix).into(),
            attrs: lossy(attrs).into(),
            probe,
            socket: lossy(trimmed(socket)).into(),
            max_calls: max_calls(calls)?,
            calls_per_second: calls_per_second(pace)?,
        };
        self.table.gateway_names.insert(id.into(), self.table.gateways.len() as u32);
        self.table.gateways.push(gateway);
        Ok(())
    }

    /// Takes rows of `dr_carriers`: carrierid, gwlist, flags, sort_alg, state, attrs, max_calls, calls_per_second.
    pub fn carriers(&mut self, block: &[u8]) {
        for row in rows::<8>(block) {
            let row = match row {
                Ok(row) => row,
                Err(row) => {
                    self.fault("dr_carriers", &row[..row.len().min(40)], "carrierid", "a value holds a control character that parts columns");
                    continue;
                }
            };
            if let Err((column, problem)) = self.carrier(&row) {
                self.fault("dr_carriers", row[0], column, problem);
            }
        }
    }

    fn carrier(&mut self, row: &[&[u8]; 8]) -> Result<(), (&'static str, String)> {
        let [id, list, flags, sort, state, attrs, calls, pace] = *row;
        let text = name(id).ok_or_else(|| ("carrierid", expected("letters, digits, `_`, `-` or `.`", id)))?;
        if self.table.carrier(text).is_some() {
            return Err(("carrierid", "a second row of this name".to_owned()));
        }
        let mut gateways = Vec::new();
        for item in items(list) {
            let (item, weight) = weighted(item).ok_or_else(|| ("gwlist", expected("a weight of 0 to 65535", item)))?;
            if item.starts_with(b"#") {
                return Err(("gwlist", format!("a carrier in a carrier: {}", lossy(item))));
            }
            match std::str::from_utf8(item).ok().and_then(|item| self.table.gateway(item)) {
                Some(index) => gateways.push((index, weight)),
                None => self.fault("dr_carriers", id, "gwlist", format!("no such gateway: {}", lossy(item))),
            }
        }
        let flags: u32 = number(flags).ok_or_else(|| ("flags", expected("a number", flags)))?;
        let state = number::<u8>(state).filter(|state| *state <= 1).ok_or_else(|| ("state", expected("0 or 1", state)))?;
        let before = self.before.as_ref().and_then(|table| table.carriers.get(table.carrier(text)? as usize));
        let known = before.map_or_else(
            || {
                let known = GatewayState::new(text);
                known.switch(flags & 2 == 0 && state == 0);
                Arc::new(known)
            },
            |carrier| Arc::clone(&carrier.state),
        );
        let carrier = Carrier {
            id: text.into(),
            gateways,
            sort: Sort::from_bytes(trimmed(sort)).ok_or_else(|| ("sort_alg", expected("N, W or Q", sort)))?,
            first_only: flags & 1 != 0,
            state: known,
            attrs: lossy(attrs).into(),
            max_calls: max_calls(calls)?,
            calls_per_second: calls_per_second(pace)?,
        };
        self.table.carrier_names.insert(text.into(), self.table.carriers.len() as u32);
        self.table.carriers.push(carrier);
        Ok(())
    }

    /// Takes rows of `qr_profiles`: id, then for each of ASR, CCR, PDD, AST, ACD the thresholds and penalties of warning and
    /// critical. A threshold below 0, or none, never counts.
    pub fn profiles(&mut self, block: &[u8]) {
        for row in rows::<21>(block) {
            let row = match row {
                Ok(row) => row,
                Err(row) => {
                    self.fault("qr_profiles", &row[..row.len().min(40)], "id", "a value holds a control character that parts columns");
                    continue;
                }
            };
            match profile(&row) {
                Ok(profile) => drop(self.table.profiles.insert(profile.id, Arc::new(profile))),
                Err((column, problem)) => self.fault("qr_profiles", row[0], column, problem),
            }
        }
    }

    /// Takes rows of `dr_groups`: username, domain, groupid.
    pub fn groups(&mut self, block: &[u8]) {
        for row in rows::<3>(block) {
            let Ok([user, domain, group]) = row else {
                self.fault("dr_groups", &[], "username", "a value holds a control character that parts columns");
                continue;
            };
            let (user, domain) = (trimmed(user), trimmed(domain));
            match number::<u32>(group) {
                Some(group) if !user.is_empty() => {
                    let key = (user.into(), Some(domain.to_ascii_lowercase().into()));
                    if self.table.caller_groups.contains_key(&key) {
                        self.fault("dr_groups", user, "username", "a second row of this user and domain");
                        continue;
                    }
                    self.table.caller_groups.insert(key, group);
                    // Whoever asks by user alone gets the first.
                    self.table.caller_groups.entry((user.into(), None)).or_insert(group);
                }
                Some(_) => self.fault("dr_groups", user, "username", "it is empty"),
                None => self.fault("dr_groups", user, "groupid", expected("a number", group)),
            }
        }
    }

    /// Takes rows of `dialplan`: id, dpid, pr, match_op, match_exp, match_flags, subst_exp, repl_exp, timerec, disabled. Of one
    /// `dpid` those of the lowest `pr` come first.
    pub fn dialplan(&mut self, block: &[u8]) {
        for row in rows::<10>(block) {
            let row = match row {
                Ok(row) => row,
                Err(row) => {
                    self.fault("dialplan", &row[..row.len().min(40)], "id", "a value holds a control character that parts columns");
                    continue;
                }
            };
            if let Err((column, problem)) = self.translation(&row) {
                self.fault("dialplan", row[0], column, problem);
            }
        }
    }

    fn translation(&mut self, row: &[&[u8]; 10]) -> Result<(), (&'static str, String)> {
        let [id, plan, order, op, exp, flags, substitution, replacement, recurrence, disabled] = *row;
        let plan = number::<u32>(plan).ok_or_else(|| ("dpid", expected("a number", plan)))?;
        let order = number::<i32>(order).ok_or_else(|| ("pr", expected("a number", order)))?;
        if number::<u8>(disabled).ok_or_else(|| ("disabled", expected("0 or 1", disabled)))? != 0 {
            return Ok(());
        }
        let any_case = number::<u32>(flags).ok_or_else(|| ("match_flags", expected("a number", flags)))? & 1 != 0;
        let compiled = |column: &'static str, text: &[u8]| pattern(&lossy(text), any_case).map_err(|problem| (column, problem));
        let fits = match trimmed(op) {
            b"0" | b"1" if exp.is_empty() => return Err(("match_exp", "expected a value: an empty one would be for every number, or for none".to_owned())),
            b"0" => Fits::Whole(exp.into(), any_case),
            b"1" => Fits::Pattern(compiled("match_exp", exp)?),
            _ => return Err(("match_op", expected("0 for a whole number or 1 for a pattern", op))),
        };
        let becomes = match (substitution.is_empty(), replacement.is_empty()) {
            (_, true) => Becomes::Same,
            (true, false) => Becomes::Made(None, replacement.into()),
            (false, false) => Becomes::Made(Some(compiled("subst_exp", substitution)?), replacement.into()),
        };
        if !replacement.is_empty() && parts_only(replacement) {
            return Err(("repl_exp", expected("what leaves something of a number", replacement)));
        }
        let groups_of = match (&becomes, &fits) {
            (Becomes::Made(Some(found), _), _) | (Becomes::Made(None, _), Fits::Pattern(found)) => Some(found),
            _ => None,
        };
        if let Some(group) = groups_of.and_then(|found| unknown_group(found, replacement)) {
            return Err(("repl_exp", format!("the expression has no group {group}, got: {}", lossy(replacement))));
        }
        let recurrence = Some(self.recurrence(trimmed(recurrence))).filter(|index| *index != NONE);
        self.translations.push((plan, order, NumberRule { name: lossy(trimmed(id)).into(), fits, becomes, recurrence }));
        Ok(())
    }

    /// Takes rows of `dr_rules`: ruleid, groupid, prefix, timerec, priority, routeid, gwlist, sort_alg, sort_profile, attrs.
    pub fn rules(&mut self, block: &[u8]) {
        for row in rows::<10>(block) {
            let row = match row {
                Ok(row) => row,
                Err(row) => {
                    self.fault("dr_rules", &row[..row.len().min(40)], "ruleid", "a value holds a control character that parts columns");
                    continue;
                }
            };
            if let Err((column, problem)) = self.rule(&row) {
                self.fault("dr_rules", row[0], column, problem);
            }
        }
    }

    /// Takes the same as columns, each with one value of each row, parted by 0x1f; an empty one has nothing in any row. False, with
    /// nothing taken, where they have not as many values as each other: then a value holds what parts them.
    pub fn rules_of_columns(&mut self, columns: [&[u8]; 10]) -> bool {
        let Some(rows) = rows_of_columns(columns) else { return false };
        for row in rows {
            if let Err((column, problem)) = self.rule(&row) {
                self.fault("dr_rules", row[0], column, problem);
            }
        }
        true
    }

    fn rule(&mut self, row: &[&[u8]; 10]) -> Result<(), (&'static str, String)> {
        let [id, groups, prefix, recurrence, priority, handler, list, sort, profile, attrs] = *row;
        let prefix = trimmed(prefix);
        let wrong = || if prefix.len() > LONGEST_PREFIX { "32 characters at most" } else { "digits and `extra_prefix_characters`" };
        let packed = self.options.alphabet.pack(prefix).ok_or_else(|| ("prefix", expected(wrong(), prefix)))?;
        let groups_text = groups;
        let groups = items(groups).map(number::<u32>).collect::<Option<SmallVec<[u32; 4]>>>().filter(|groups| !groups.is_empty());
        let mut groups = groups.ok_or_else(|| ("groupid", expected("numbers parted by commas", groups_text)))?;
        groups.sort_unstable();
        groups.dedup();
        let number_of = self.handler(handler).ok_or_else(|| ("routeid", format!("no such handler: {}", lossy(handler))))?;
        let mut rule = Rule {
            id: number(id).ok_or_else(|| ("ruleid", expected("a number", id)))?,
            priority: number(priority).ok_or_else(|| ("priority", expected("a number", priority)))?,
            destinations: self.table.destinations.len() as u32,
            recurrence: NONE,
            attrs: self.text(attrs),
            count: 0,
            handler: number_of,
            profile: number(profile).ok_or_else(|| ("sort_profile", expected("0 to 65535", profile)))?,
            sort: Sort::from_bytes(trimmed(sort)).ok_or_else(|| ("sort_alg", expected("N, W or Q", sort)))?,
            last: false,
        };
        if rule.sort == Sort::Quality && rule.profile == 0 {
            return Err(("sort_profile", expected("a row of qr_profiles, as sort_alg is Q", profile)));
        }
        if rule.sort == Sort::Quality && self.table.profile(&rule).is_none() {
            return Err(("sort_profile", format!("no such row of qr_profiles: {}", rule.profile)));
        }
        self.destinations(id, list)?;
        rule.count = (self.table.destinations.len() - rule.destinations as usize) as u16;
        rule.recurrence = self.recurrence(trimmed(recurrence));
        for group in groups {
            self.keys.push(SortKey { packed, group, priority: rule.priority, rule: self.table.rules.len() as u32 });
            self.table.rules.push(rule);
        }
        Ok(())
    }

    fn destinations(&mut self, id: &[u8], list: &[u8]) -> Result<(), (&'static str, String)> {
        let start = self.table.destinations.len();
        let mut wanted = 0;
        for item in items(list) {
            wanted += 1;
            let Some((item, weight)) = weighted(item).filter(|_| self.table.destinations.len() - start < MOST_DESTINATIONS) else {
                self.table.destinations.truncate(start);
                self.table.weights.truncate(start);
                return Err(("gwlist", expected("a weight of 0 to 65535", item)));
            };
            let found = match (item.strip_prefix(b"#"), std::str::from_utf8(item)) {
                (_, Err(_)) => None,
                (Some(carrier), _) => std::str::from_utf8(carrier).ok().and_then(|carrier| self.table.carrier(carrier)).map(|index| index | CARRIER),
                (None, Ok(gateway)) => self.table.gateway(gateway),
            };
            let Some(destination) = found else {
                let what = if item.starts_with(b"#") { "carrier" } else { "gateway" };
                self.fault("dr_rules", id, "gwlist", format!("no such {what}: {}", lossy(item)));
                continue;
            };
            if weight != 0 && self.table.weights.is_empty() {
                self.table.weights.resize(self.table.destinations.len(), 0);
            }
            if weight != 0 || !self.table.weights.is_empty() {
                self.table.weights.push(weight);
            }
            self.table.destinations.push(destination);
        }
        // A rule without gateways may serve a check or a handler; one that lost all it had serves nothing.
        if wanted > 0 && self.table.destinations.len() == start { Err(("gwlist", "none of its gateways can be used".to_owned())) } else { Ok(()) }
    }

    fn handler(&self, text: &[u8]) -> Option<u16> {
        let text = trimmed(text);
        if text.is_empty() || text == b"0" {
            return Some(0);
        }
        self.table.handlers.iter().position(|handler| handler.as_bytes() == text).map(|index| index as u16)
    }

    fn text(&mut self, text: &[u8]) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let text = lossy(text);
        if let Some(index) = self.texts.get(text.as_str()) {
            return *index;
        }
        let index = self.table.texts.len() as u32;
        self.table.texts.push(text.as_str().into());
        self.texts.insert(text.into(), index);
        index
    }

    fn recurrence(&mut self, text: &[u8]) -> u32 {
        if text.is_empty() {
            return NONE;
        }
        if let Some(index) = self.recurrences.get(text) {
            return *index;
        }
        let index = self.recurrence_texts.len() as u32;
        self.recurrence_texts.push(lossy(text));
        self.recurrences.insert(text.into(), index);
        index
    }

    /// The time recurrences that rules name; each is to be given a meaning in the same order, or a fault.
    pub fn recurrence_texts(&self) -> &[String] {
        &self.recurrence_texts
    }

    /// What the next recurrence means: spans in seconds since 1970 with their ends left out, or what is wrong with it.
    pub fn mean(&mut self, spans: Result<Vec<(i64, i64)>, String>) {
        let index = self.table.recurrences.len() as u32;
        let spans = spans.unwrap_or_else(|problem| {
            self.bad_recurrences.insert(index, problem);
            Vec::new()
        });
        self.table.recurrences.push(Recurrence::new(spans));
    }

    /// Sorts everything into a table.
    pub fn finish(mut self) -> Loaded {
        self.drop_bad_recurrences();
        self.translations.sort_by_key(|(plan, order, _)| (*plan, *order));
        for (plan, _, rule) in std::mem::take(&mut self.translations) {
            self.table.dialplans.entry(plan).or_default().0.push(rule);
        }
        self.keys.sort_unstable_by_key(|key| (key.group, key.packed, std::cmp::Reverse(key.priority), key.rule));
        let Self { mut table, keys, faults, fault_count, .. } = self;
        permute(&mut table.rules, &keys);
        for (index, pair) in keys.windows(2).enumerate() {
            table.rules[index].last = (pair[0].group, pair[0].packed) != (pair[1].group, pair[1].packed);
        }
        if let Some(rule) = table.rules.last_mut() {
            rule.last = true;
        }
        let mut start = 0;
        while let Some(key) = keys.get(start) {
            let count = keys[start..].partition_point(|other| other.group == key.group);
            let rules = &table.rules;
            let root = table.trie.add(&table.alphabet, &keys[start..start + count], start, |place| rules[place].recurrence != NONE);
            table.groups.insert(key.group, root);
            start += count;
        }
        drop(keys);
        table.rules.shrink_to_fit();
        table.destinations.shrink_to_fit();
        table.weights.shrink_to_fit();
        Loaded { table, faults, fault_count }
    }

    fn drop_bad_recurrences(&mut self) {
        if self.bad_recurrences.is_empty() {
            return;
        }
        let bad = std::mem::take(&mut self.bad_recurrences);
        for (plan, order, rule) in std::mem::take(&mut self.translations) {
            match rule.recurrence.and_then(|index| bad.get(&index)) {
                Some(problem) => self.fault("dialplan", rule.name.as_bytes(), "timerec", problem.clone()),
                None => self.translations.push((plan, order, rule)),
            }
        }
        let keys = std::mem::take(&mut self.keys);
        let mut told = None;
        for key in keys {
            let rule = self.table.rules[key.rule as usize];
            match bad.get(&rule.recurrence) {
                None => self.keys.push(key),
                // One row in several groups is one fault.
                Some(_) if told == Some(rule.id) => {}
                Some(problem) => {
                    told = Some(rule.id);
                    self.fault("dr_rules", rule.id.to_string().as_bytes(), "timerec", problem.clone());
                }
            }
        }
    }
}

/// Puts rules into the order of their keys; those without a key go.
fn permute(rules: &mut Vec<Rule>, keys: &[SortKey]) {
    if keys.len() < rules.len() {
        *rules = keys.iter().map(|key| rules[key.rule as usize]).collect();
        return;
    }
    // In place, since ten million rules are not to be held twice; by an array of their places alone, since a walk along one that
    // does not fit the cache would wait for memory at every step.
    let mut order: Vec<u32> = keys.iter().map(|key| key.rule).collect();
    for start in 0..order.len() {
        let mut place = start;
        let kept = rules[start];
        while order[place] != place as u32 {
            let from = order[place] as usize;
            order[place] = place as u32;
            if from == start {
                rules[place] = kept;
                break;
            }
            rules[place] = rules[from];
            place = from;
        }
    }
}

/// The columns of one row of `qr_profiles`, in order behind its id.
const PROFILE_COLUMNS: [[&str; 4]; FIGURES] = [
    ["warn_threshold_asr", "crit_threshold_asr", "warn_penalty_asr", "crit_penalty_asr"],
    ["warn_threshold_ccr", "crit_threshold_ccr", "warn_penalty_ccr", "crit_penalty_ccr"],
    ["warn_threshold_pdd", "crit_threshold_pdd", "warn_penalty_pdd", "crit_penalty_pdd"],
    ["warn_threshold_ast", "crit_threshold_ast", "warn_penalty_ast", "crit_penalty_ast"],
    ["warn_threshold_acd", "crit_threshold_acd", "warn_penalty_acd", "crit_penalty_acd"],
];

fn profile(row: &[&[u8]; 21]) -> Result<Profile, (&'static str, String)> {
    let id = number::<u16>(row[0]).filter(|id| *id != 0).ok_or_else(|| ("id", expected("1 to 65535", row[0])))?;
    let mut profile = Profile { id, warn: [None; FIGURES], critical: [None; FIGURES], warn_penalty: [0.5; FIGURES], critical_penalty: [0.05; FIGURES] };
    for (place, names) in PROFILE_COLUMNS.into_iter().enumerate() {
        let columns = &row[1 + 4 * place..5 + 4 * place];
        let value = |column: usize| {
            let (name, text) = (names[column], trimmed(columns[column]));
            let found = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f32>().ok()).filter(|value| value.is_finite());
            if text.is_empty() { Ok(None) } else { found.map(Some).ok_or_else(|| (name, expected("a number", text))) }
        };
        profile.warn[place] = value(0)?.filter(|threshold| *threshold >= 0.0);
        profile.critical[place] = value(1)?.filter(|threshold| *threshold >= 0.0);
        for (threshold, column) in [(profile.warn[place], 0), (profile.critical[place], 1)] {
            if IS_SHARE[place] && threshold.is_some_and(|threshold| threshold > 1.0) {
                return Err((names[column], expected("a share from 0 to 1, or less than 0 for none", columns[column])));
            }
        }
        if let (Some(warn), Some(critical)) = (profile.warn[place], profile.critical[place])
            && (if MORE_IS_BETTER[place] { critical > warn } else { critical < warn })
        {
            return Err((names[1], expected("what is no better than the warning", columns[1])));
        }
        for (penalty, column) in [(&mut profile.warn_penalty[place], 2), (&mut profile.critical_penalty[place], 3)] {
            *penalty = value(column)?.unwrap_or(*penalty);
            if !(0.0..=1.0).contains(penalty) {
                return Err((names[column], expected("a penalty from 0 to 1", columns[column])));
            }
        }
    }
    Ok(profile)
}

fn max_calls(text: &[u8]) -> Result<u32, (&'static str, String)> {
    number(text).ok_or_else(|| ("max_calls", expected("a number of calls, 0 for no limit", text)))
}

fn calls_per_second(text: &[u8]) -> Result<u16, (&'static str, String)> {
    number(text).ok_or_else(|| ("calls_per_second", expected("0 to 65535, 0 for no limit", text)))
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

fn expected(what: &str, got: &[u8]) -> String {
    format!("expected {what}, got: {}", lossy(&got[..got.len().min(120)]))
}

/// The items of a list, parted by commas or semicolons.
fn items(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| matches!(byte, b',' | b';')).map(trimmed).filter(|item| !item.is_empty())
}

/// An item and its weight, 0 where it has none.
fn weighted(item: &[u8]) -> Option<(&[u8], u16)> {
    match item.iter().position(|byte| *byte == b'=') {
        Some(at) => Some((trimmed(&item[..at]), number(&item[at + 1..])?)),
        None => Some((item, 0)),
    }
}

fn name(text: &[u8]) -> Option<&str> {
    let text = trimmed(text);
    let clean = !text.is_empty() && text.len() <= 128 && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_-.@".contains(byte));
    if clean { std::str::from_utf8(text).ok() } else { None }
}

/// The address as a SIP URI without user part; what is expected where it is none.
fn gateway_uri(address: &[u8]) -> Result<String, &'static str> {
    const FORM: &str = "[sip:]host[:port][;parameters]";
    let text = std::str::from_utf8(trimmed(address)).map_err(|_| FORM)?;
    let scheme = ["sip:", "sips:"].into_iter().find(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let uri = scheme.map_or_else(|| format!("sip:{text}"), |scheme| format!("{scheme}{}", &text[scheme.len()..]));
    let parsed = Uri::parse(uri.as_bytes(), Span::new(0, uri.len())).map_err(|_| FORM)?;
    let fits =
        !parsed.host.is_empty() && parsed.user.is_empty() && !uri.contains(['?', '<', '>', '"', ' ']) && !uri.bytes().any(|byte| byte.is_ascii_control());
    if !fits {
        return Err(FORM);
    }
    if parsed.port == Some(0) {
        return Err("a port of 1 to 65535");
    }
    if is_odd_address(parsed.host.of(uri.as_bytes())) {
        return Err("an IP address or a domain name");
    }
    let names = uri.split(';').skip(1).map(|parameter| parameter.split('=').next().unwrap_or_default().to_ascii_lowercase());
    let names: Vec<String> = names.collect();
    if names.iter().enumerate().any(|(place, name)| names[..place].contains(name)) {
        return Err("each parameter once");
    }
    let asked = names.iter().any(|name| name == "transport");
    let served = matches!(parsed.transport, Some(Transport::Udp | Transport::Tcp)) || !asked;
    if served && parsed.scheme == Scheme::Sip { Ok(uri) } else { Err("transport udp or tcp") }
}
