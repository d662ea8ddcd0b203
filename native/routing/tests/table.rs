//! The table against a naive model, and every flag of a search.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;
use routing::{
    Alphabet, Builder, Down, Final, Guide, HealthRules, LoadOptions, Loaded, Pick, Present, QualityRules, Rule, Search, SearchOptions, Table, Whitelist, Worth,
    explain,
};

const HEALTH: HealthRules = HealthRules { failures: 3, of: 10, down_after: 1, up_after: 1, retry_seconds: 30 };

fn block(rows: &[&[&str]]) -> Vec<u8> {
    rows.iter().flat_map(|row| [row.join("\x1f").as_bytes(), b"\x1e"].concat()).collect()
}

fn gateway(id: &str) -> Vec<u8> {
    block(&[&[id, "0", "192.0.2.1", "0", "", "", "0", "0", "", "", ""]])
}

fn with_gateways(names: &[&str]) -> Builder {
    let mut builder = Builder::new(LoadOptions { alphabet: Alphabet::new("+").unwrap(), ..LoadOptions::default() }, None);
    names.iter().for_each(|name| builder.gateways(&gateway(name)));
    builder
}

/// `rules`: id, groups, prefix, recurrence, priority, gwlist, sort.
fn built(mut builder: Builder, rules: &[[&str; 7]], spans: &[(i64, i64)]) -> Loaded {
    for [id, groups, prefix, recurrence, priority, list, sort] in rules {
        builder.rules(&block(&[&[id, groups, prefix, recurrence, priority, "", list, sort, "", ""]]));
    }
    for _ in 0..builder.recurrence_texts().len() {
        builder.mean(Ok(spans.to_vec()));
    }
    builder.finish()
}

fn table(rules: &[[&str; 7]], spans: &[(i64, i64)]) -> Table {
    let loaded = built(with_gateways(&["a", "b", "c", "d"]), rules, spans);
    assert_eq!(loaded.faults, []);
    loaded.table
}

fn rule_of(table: &Table, group: u32, number: &str, now: i64) -> Option<u32> {
    table.find(group, number.as_bytes(), now).and_then(|index| table.rule(index)).map(|rule| rule.id)
}

const QUALITY: QualityRules = QualityRules { span_seconds: 120, samples: [10; 5], best_first: false, drop: true, probation_permille: 50 };

/// Knows which gateways are down, and draws the same numbers each time.
struct Test<'a> {
    table: &'a Table,
    down: &'a [&'a str],
    state: u64,
    rules: QualityRules,
}

impl<'a> Test<'a> {
    fn new(table: &'a Table, down: &'a [&'a str]) -> Self {
        Self { table, down, state: 1, rules: QUALITY }
    }
}

impl Guide for Test<'_> {
    fn is_usable(&self, gateway: u32) -> bool {
        !self.down.contains(&self.table.gateways[gateway as usize].id())
    }

    fn live(&self, _: u32) -> u32 {
        0
    }

    fn worth(&mut self, rule: &Rule, gateway: u32) -> Worth {
        let pair = self.table.quality.known(rule.id, self.table.gateways[gateway as usize].id());
        pair.zip(self.table.profile(rule)).map_or(Worth::Score(1.0), |(pair, profile)| pair.worth(0, &self.rules, profile))
    }

    fn rules(&self) -> &QualityRules {
        &self.rules
    }

    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.state >> 33
    }
}

/// The gateways that a search gives, in order, while all that `down` does not name are usable.
fn picked(table: &Table, number: &str, options: SearchOptions, down: &[&str]) -> Vec<String> {
    let mut guide = Test::new(table, down);
    let mut search = Search::new(table, 0, number.as_bytes(), options, 0);
    search.begin(table, &mut guide);
    let mut names = Vec::new();
    while let Some(Pick { gateway, carrier }) = search.pick(table, &mut guide) {
        let by = carrier.map_or_else(String::new, |carrier| format!("{}/", table.carriers[carrier as usize].id));
        names.push(format!("{by}{}", table.gateways[gateway as usize].id()));
    }
    names
}

proptest! {
    #[test]
    fn the_rule_found_is_that_of_a_naive_search(
        rules in prop::collection::vec((0_u32..3, "[0-9]{0,6}", 0_i32..3, prop::bool::ANY), 0..200),
        numbers in prop::collection::vec("[0-9]{0,8}", 1..50),
        now in 0_i64..2,
    ) {
        let mut builder = with_gateways(&["a"]);
        for (id, (group, prefix, priority, timed)) in rules.iter().enumerate() {
            let (id, group, priority) = (id.to_string(), group.to_string(), priority.to_string());
            builder.rules(&block(&[&[&id, &group, prefix, if *timed { "t" } else { "" }, &priority, "", "a", "", "", ""]]));
        }
        for _ in 0..builder.recurrence_texts().len() {
            builder.mean(Ok(vec![(1, 2)]));
        }
        let loaded = builder.finish();
        prop_assert_eq!(&loaded.faults, &[]);
        for number in &numbers {
            for group in 0..3 {
                let fits = |(_, (own, prefix, _, timed)): &(usize, &(u32, String, i32, bool))| *own == group && number.starts_with(prefix) && (!timed || now == 1);
                // Of equals the first: `max_by_key` gives the last.
                let best = rules.iter().enumerate().filter(fits).max_by_key(|(id, (_, prefix, priority, _))| (prefix.len(), *priority, std::cmp::Reverse(*id)));
                prop_assert_eq!(rule_of(&loaded.table, group, number, now), best.map(|(id, _)| id as u32), "{} in {}", number, group);
            }
        }
    }
}

/// So many rules that the first four digits have an index.
#[test]
fn the_index_of_first_digits_leads_where_a_walk_does() {
    let mut builder = with_gateways(&["a"]);
    let mut random = Test::new(&Table::default(), &[]).state;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut digits = |length: u64| -> String { (0..length).map(|_| char::from(b'0' + next(10) as u8)).collect() };
    let mut model: HashMap<String, u32> = HashMap::new();
    for id in 0..90_000_u32 {
        // Short ones are rare, as in life, and some begin with a character that is no digit.
        let prefix = if id % 97 == 0 { format!("+{}", digits(3)) } else { digits(u64::from(3 + id % 5)) };
        let (text, timed) = (id.to_string(), if id % 1_009 == 0 { "t" } else { "" });
        builder.rules(&block(&[&[&text, "0", &prefix, timed, "0", "", "a", "", "", ""]]));
        model.entry(prefix).or_insert(id);
    }
    builder.mean(Ok(vec![(0, 10)]));
    let table = builder.finish().table;
    let mut found = 0;
    for number in 0..50_000 {
        let length = 1 + number % 11;
        let number = if number % 31 == 0 { format!("+{}", digits(length)) } else { digits(length) };
        let naive = (0..=number.len()).rev().find_map(|length| model.get(&number[..length])).copied();
        found += u32::from(naive.is_some());
        assert_eq!(rule_of(&table, 0, &number, 5), naive, "{number}");
        for fall_back in [false, true] {
            let search = Search::new(&table, 0, number.as_bytes(), SearchOptions { fall_back, ..SearchOptions::default() }, 5);
            assert_eq!(search.rule().and_then(|index| table.rule(index)).map(|rule| rule.id), naive, "{number}");
            assert_eq!(search.unexpected, None);
        }
    }
    assert!(found > 20_000, "{found}");
    let strange = Search::new(&table, 0, b"12345x", SearchOptions::default(), 5);
    assert_eq!(strange.unexpected, Some(5));
}

#[test]
fn the_longest_prefix_wins_over_priority_and_falls_back_out_of_hours() {
    let table = table(
        &[["1", "0", "", "", "9", "a", ""], ["2", "0", "49", "", "9", "a", ""], ["3", "0,1", "4930", "t", "0", "b", ""], ["4", "0", "49", "", "10", "c", ""]],
        &[(100, 200)],
    );
    assert_eq!(rule_of(&table, 0, "493012", 150), Some(3));
    assert_eq!(rule_of(&table, 0, "493012", 200), Some(4));
    assert_eq!(rule_of(&table, 0, "1", 150), Some(1));
    assert_eq!(rule_of(&table, 1, "4930", 150), Some(3));
    assert_eq!((rule_of(&table, 1, "49", 150), rule_of(&table, 7, "49", 150)), (None, None));
    assert_eq!(rule_of(&table, 0, "4930;ext", 150), Some(3));
}

#[test]
fn every_flag_of_a_search() {
    let table = table(
        &[["1", "0", "", "", "0", "d", ""], ["2", "0", "49", "", "5", "a,b", ""], ["3", "0", "49", "", "1", "c", ""], ["4", "0", "4930", "", "0", "b;a=5", ""]],
        &[],
    );
    let options = |fall_back, whole_number| SearchOptions { fall_back, whole_number, ..SearchOptions::default() };
    assert_eq!(picked(&table, "4930", options(false, false), &[]), ["b", "a"]);
    assert_eq!(picked(&table, "4930", options(true, false), &["b"]), ["a", "a", "c", "d"]);
    assert_eq!(picked(&table, "4930", options(true, false), &["a", "b"]), ["c", "d"]);
    assert_eq!(picked(&table, "4930", options(false, true), &[]), ["b", "a"]);
    assert!(picked(&table, "49301", options(true, true), &[]).is_empty());
    assert!(picked(&table, "+49", options(false, false), &[]) == ["d"]);
    let by_weight = SearchOptions { by_weight: true, ..SearchOptions::default() };
    assert_eq!(picked(&table, "4930", by_weight, &[]), ["a", "b"]);
    let only = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        SearchOptions { fall_back: true, whitelist: Some(Whitelist::new(&table, &names)), ..SearchOptions::default() }
    };
    assert_eq!(picked(&table, "4930", only(&["c", "nobody"]), &[]), ["c"]);
    assert!(picked(&table, "4930", only(&[]), &[]).is_empty());
}

#[test]
fn carriers_give_their_gateways_by_their_own_sort() {
    let mut builder = with_gateways(&["a", "b", "c", "d"]);
    builder.carriers(&block(&[
        &["one", "a,b", "1", "", "0", "", "", ""],
        &["all", "c,d=3", "0", "W", "0", "", "", ""],
        &["off", "a", "0", "", "1", "", "", ""],
    ]));
    let loaded = built(builder, &[["1", "0", "4", "", "0", "#off,#one,#all,a", ""]], &[]);
    assert_eq!(loaded.faults, []);
    let table = loaded.table;
    assert_eq!(picked(&table, "4", SearchOptions::default(), &[]), ["one/a", "all/d", "all/c", "a"]);
    assert_eq!(picked(&table, "4", SearchOptions::default(), &["a"]), ["one/b", "all/d", "all/c"]);
    let names = ["#all".to_owned()];
    let only = SearchOptions { whitelist: Some(Whitelist::new(&table, &names)), ..SearchOptions::default() };
    assert_eq!(picked(&table, "4", only, &[]), ["all/d", "all/c"]);
}

#[test]
fn the_shares_of_weights_are_those_that_were_asked_for() {
    let table = table(&[["1", "0", "", "", "0", "a=20,b=80,c,d=0", "W"]], &[]);
    let mut firsts: HashMap<Vec<String>, u32> = HashMap::new();
    let mut guide = Test::new(&table, &[]);
    for _ in 0..20_000 {
        let mut search = Search::new(&table, 0, b"1", SearchOptions::default(), 0);
        search.begin(&table, &mut guide);
        let order = std::iter::from_fn(|| search.pick(&table, &mut guide)).map(|pick| table.gateways[pick.gateway as usize].id().to_owned());
        *firsts.entry(order.collect()).or_default() += 1;
    }
    let share = |fits: &dyn Fn(&Vec<String>) -> bool| f64::from(firsts.iter().filter(|(order, _)| fits(order)).map(|(_, count)| count).sum::<u32>()) / 20_000.0;
    // Five standard deviations of a share of 0.2 in 20,000 draws.
    assert!((share(&|order| order[0] == "a") - 0.2).abs() < 0.015);
    assert!((share(&|order| order[2] == "c") - 0.5).abs() < 0.02);
    assert_eq!(share(&|order| order[..2].iter().all(|name| name == "a" || name == "b")), 1.0);
}

#[test]
fn what_a_row_says_wrong_is_named_and_the_rest_serves() {
    let mut builder = with_gateways(&["a", "b"]);
    builder.gateways(&block(&[
        &["a", "0", "192.0.2.9", "0", "", "", "0", "0", "", "", ""],
        &["b c", "0", "192.0.2.9", "0", "", "", "0", "0", "", "", ""],
        &["", "0", "192.0.2.9", "0", "", "", "0", "0", "", "", ""],
        &["e", "0", "not a host", "0", "", "", "0", "0", "", "", ""],
        &["l", "0", "sips:192.0.2.9", "0", "", "", "0", "0", "", "", ""],
        &["m", "0", "192.0.2.9;Transport=tls", "0", "", "", "0", "0", "", "", ""],
        &["n", "0", "192.0.2.9;transport=odd", "0", "", "", "0", "0", "", "", ""],
        &["f", "0", "192.0.2.9", "-1", "", "", "0", "0", "", "", ""],
        &["g", "0", "192.0.2.9", "0", "", "", "3", "0", "", "", ""],
        &["h", "0", "192.0.2.9", "0", "4 9", "", "0", "0", "", "", ""],
        &["j", "0", "192.0.2.9", "0", "", "", "0", "0", "", "-1", ""],
        &["k", "0", "192.0.2.9", "0", "", "", "0", "0", "", "", "70000"],
        &["i", "0", "192.0.2.9", "0", "", "", "0", "7", "", "", ""],
    ]));
    builder.carriers(&block(&[
        &["one", "a,#one,b", "0", "", "0", "", "", ""],
        &["two", "a,nobody", "0", "", "0", "", "", ""],
        &["three", "a", "0", "X", "0", "", "", ""],
    ]));
    let mut row = |id: &str, groups: &str, prefix: &str, time: &str, handler: &str, list: &str| {
        builder.rules(&block(&[&[id, groups, prefix, time, "0", handler, list, "", "", ""]]));
    };
    row("1", "0", "49x", "", "", "a");
    row("2", "x", "49", "", "", "a");
    row("3", "0", "49", "bad", "", "a");
    row("4", "0", "49", "", "nobody", "a");
    row("5", "0", "49", "", "", "nobody");
    row("6", "0", "49", "", "", "nobody,a,#nobody");
    row("7", "0", "49", "", "", "a=x");
    row("8", "0,1", "491", "bad", "", "b=3,a");
    row("9", "0", "492", "", "0", "");
    builder.rules(b"10\x1f0\x1e");
    assert_eq!(builder.recurrence_texts(), ["bad"]);
    builder.mean(Err("no such thing".to_owned()));
    let Loaded { table, faults, fault_count } = builder.finish();
    let told: Vec<(&str, &str, &str)> = faults.iter().map(|fault| (fault.table, fault.row.as_str(), fault.column)).collect();
    let wanted = [
        ("dr_gateways", "a", "gwid"),
        ("dr_gateways", "b c", "gwid"),
        ("dr_gateways", "192.0.2.9", "gwid"),
        ("dr_gateways", "e", "address"),
        ("dr_gateways", "l", "address"),
        ("dr_gateways", "m", "address"),
        ("dr_gateways", "n", "address"),
        ("dr_gateways", "f", "strip"),
        ("dr_gateways", "g", "probe_mode"),
        ("dr_gateways", "h", "pri_prefix"),
        ("dr_gateways", "j", "max_calls"),
        ("dr_gateways", "k", "calls_per_second"),
        ("dr_gateways", "i", "state"),
        ("dr_carriers", "one", "gwlist"),
        ("dr_carriers", "two", "gwlist"),
        ("dr_carriers", "three", "sort_alg"),
        ("dr_rules", "1", "prefix"),
        ("dr_rules", "2", "groupid"),
        ("dr_rules", "4", "routeid"),
        ("dr_rules", "5", "gwlist"),
        ("dr_rules", "5", "gwlist"),
        ("dr_rules", "6", "gwlist"),
        ("dr_rules", "6", "gwlist"),
        ("dr_rules", "7", "gwlist"),
        ("dr_rules", "10\x1f0", "ruleid"),
        ("dr_rules", "3", "timerec"),
        ("dr_rules", "8", "timerec"),
    ];
    assert_eq!(told, wanted);
    assert_eq!(fault_count, wanted.len());
    assert_eq!((table.rules(), table.gateways.len(), table.carriers.len()), (2, 2, 1));
    assert_eq!(picked(&table, "49", SearchOptions::default(), &[]), ["a"]);
    assert_eq!(rule_of(&table, 0, "492", 0), Some(9));
}

#[test]
fn callers_have_groups_by_user_and_by_domain() {
    let mut builder = with_gateways(&[]);
    builder.groups(&block(&[&["alice", "One.example", "3"], &["alice", "two.example", "4"], &["bob", "", "5"], &["", "x", "1"], &["eve", "x", "y"]]));
    builder.groups(&block(&[&["alice", "one.EXAMPLE", "9"]]));
    let Loaded { table, faults, .. } = builder.finish();
    assert_eq!(
        faults.iter().map(|fault| (fault.row.as_str(), fault.column)).collect::<Vec<_>>(),
        [("", "username"), ("eve", "groupid"), ("alice", "username")]
    );
    let group = |user: &str, domain: Option<&str>| table.group_of(user.as_bytes(), domain.map(str::as_bytes));
    assert_eq!([group("alice", None), group("alice", Some("ONE.example")), group("alice", Some("two.example"))], [Some(3), Some(3), Some(4)]);
    assert_eq!([group("bob", Some("x")), group("bob", None), group("eve", None)], [None, Some(5), None]);
}

#[test]
fn dial_plans_are_asked_in_their_order_and_bad_rows_are_named() {
    let mut builder = with_gateways(&[]);
    builder.dialplan(&block(&[
        &["1", "7", "20", "1", "^0(.*)$", "0", "", "+49\\1", "", "0"],
        &["2", "7", "10", "1", "^00", "0", "^00(.*)$", "+\\1", "", "0"],
        &["3", "7", "5", "0", "echo", "1", "", "", "", "0"],
        &["4", "7", "1", "1", ".*", "0", "", "never", "", "1"],
        &["5", "8", "1", "0", "1", "0", "", "night", "t", "0"],
        &["6", "8", "1", "0", "1", "0", "", "x", "bad", "0"],
        &["7", "8", "1", "1", "(?=1)", "0", "", "", "", "0"],
        &["8", "8", "1", "2", "1", "0", "", "", "", "0"],
        &["9", "8", "1", "0", "1", "0", "(", "x", "", "0"],
        &["10", "x", "1", "0", "1", "0", "", "", "", "0"],
        &["11", "8", "1", "1", "^(.)", "0", "", "\\1\\2", "", "0"],
        &["12", "8", "1", "0", "1", "0", "^1", "\\1", "", "0"],
        &["13", "8", "1", "1", "", "0", "", "x", "", "0"],
        &["14", "8", "1", "1", "^95", "0", "", " - ", "", "0"],
    ]));
    assert_eq!(builder.recurrence_texts(), ["t", "bad"]);
    builder.mean(Ok(vec![(5, 6)]));
    builder.mean(Err("no such thing".to_owned()));
    let Loaded { table, faults, .. } = builder.finish();
    let told: Vec<(&str, &str, &str)> = faults.iter().map(|fault| (fault.table, fault.row.as_str(), fault.column)).collect();
    let wanted = [
        ("7", "match_exp"),
        ("8", "match_op"),
        ("9", "subst_exp"),
        ("10", "dpid"),
        ("11", "repl_exp"),
        ("12", "repl_exp"),
        ("13", "match_exp"),
        ("14", "repl_exp"),
        ("6", "timerec"),
    ];
    assert_eq!(told, wanted.map(|(row, column)| ("dialplan", row, column)));
    let made = |plan, number: &str, now| table.translate(plan, number.as_bytes(), now).map(|(row, made)| (row.to_owned(), String::from_utf8(made).unwrap()));
    let some = |row: &str, made: &str| Some((row.to_owned(), made.to_owned()));
    assert_eq!([made(7, "0030", 0), made(7, "030", 0), made(7, "ECHO", 0), made(7, "1", 0)], [some("2", "+30"), some("1", "+4930"), some("3", "ECHO"), None]);
    assert_eq!([made(8, "1", 0), made(8, "1", 5), made(9, "1", 5)], [None, some("5", "night"), None]);
    assert!(table.has_dialplan(7) && !table.has_dialplan(9));
}

#[test]
fn health_and_switches_go_on_under_the_same_names() {
    let first = Arc::new(built(with_gateways(&["a", "b"]), &[], &[]).table);
    first.gateways[0].state.switch(false);
    first.gateways[1].state.take_down(5, Down::Calls);
    let mut builder = Builder::new(LoadOptions::default(), Some(Arc::clone(&first)));
    builder.gateways(&[gateway("b"), gateway("c"), gateway("a")].concat());
    let next = builder.finish().table;
    let seen: Vec<_> = next.gateways.iter().map(|gateway| (gateway.id(), gateway.state.is_off(), gateway.state.down())).collect();
    assert_eq!(seen, [("b", false, Down::Calls), ("c", false, Down::No), ("a", true, Down::No)]);
    let mut builder = Builder::new(LoadOptions::default(), None);
    builder.gateways(&block(&[&["x", "0", "h", "0", "", "", "1", "1", "", "", ""], &["y", "0", "h", "0", "", "", "1", "2", "", "", ""]]));
    let states = builder.finish().table.gateways;
    assert_eq!((states[0].state.is_off(), states[1].state.down()), (true, Down::Provisioned));
}

#[test]
fn an_explanation_tells_why_and_why_not() {
    let mut builder = with_gateways(&["a", "b", "c"]);
    builder.gateways(&block(&[&["d", "0", "192.0.2.4:5070", "2", "00", "", "0", "0", "", "", ""]]));
    builder.carriers(&block(&[&["one", "a,b", "1", "", "0", "", "", ""]]));
    let table = built(
        builder,
        &[["1", "0", "", "", "0", "c", ""], ["2", "0", "49", "t", "0", "a", ""], ["3", "0", "49", "", "0", "#one,d", ""], ["4", "0", "4", "", "0", "c", ""]],
        &[(5, 6)],
    )
    .table;
    table.gateways[3].state.switch(false);
    let full = |pick: Pick| (pick.carrier.is_none() && pick.gateway == 3).then_some("enough");
    let present = Present { now: 0, health: &HEALTH, quality: &QUALITY, full: &full, out_of_reach: &|_| None };
    let told = explain(&table, 0, "4930", &SearchOptions::default(), 0, &present);
    let rules: Vec<_> = told.rules.iter().map(|rule| (rule.rule, rule.used)).collect();
    assert_eq!(rules, [(2, false), (3, true), (4, false), (1, false)]);
    let there: Vec<_> = told.rules[1].destinations.iter().map(|step| (step.gateway.as_str(), step.used, step.why.as_str())).collect();
    let wanted = [("a", true, "usable"), ("b", false, "the carrier gives only its first usable gateway"), ("d", false, "switched off by an operator")];
    assert_eq!(there, wanted);
    table.gateways[3].state.switch(true);
    let told = explain(&table, 0, "4930", &SearchOptions::default(), 0, &present);
    assert_eq!((told.rules[1].destinations[2].used, told.rules[1].destinations[2].why.as_str()), (false, "it has enough"));
    assert_eq!(told.rules[1].destinations[2].request_uri, "sip:0030@192.0.2.4:5070");
    assert_eq!(explain(&table, 9, "1", &SearchOptions::default(), 0, &present).why, "no rule is in this group");
}

/// A profile whose ASR is critical below a half, with `penalty`.
fn profile(id: &str, penalty: &str) -> Vec<u8> {
    let mut row = vec![id, "", "0.5", "", penalty];
    row.resize(21, "");
    block(&[&row])
}

fn with_quality(list: &str, carriers: &[[&str; 6]]) -> Table {
    let mut builder = with_gateways(&["a", "b", "c"]);
    carriers.iter().for_each(|row| builder.carriers(&block(&[&[&row[..], &["", ""]].concat()])));
    builder.profiles(&profile("1", "0.25"));
    builder.rules(&block(&[&["1", "0", "", "", "0", "", list, "Q", "1", ""]]));
    let loaded = builder.finish();
    assert_eq!(loaded.faults, []);
    loaded.table
}

fn failed(table: &Table, gateway: &str) {
    let pair = table.quality.pair(1, gateway, 100).unwrap();
    (0..10).for_each(|_| pair.note_final(0, &QUALITY, Final::Failed, 0));
}

/// How often each gateway is first in so many calls.
fn firsts(table: &Table, rules: QualityRules, calls: usize) -> HashMap<String, usize> {
    let mut guide = Test { rules, ..Test::new(table, &[]) };
    let mut found = HashMap::new();
    for _ in 0..calls {
        let mut search = Search::new(table, 0, b"1", SearchOptions::default(), 0);
        search.begin(table, &mut guide);
        let first = search.pick(table, &mut guide).unwrap();
        *found.entry(table.gateways[first.gateway as usize].id().to_owned()).or_default() += 1;
    }
    found
}

#[test]
fn scores_are_weights_of_a_draw_or_an_order() {
    let rules = QualityRules { drop: false, ..QUALITY };
    let table = with_quality("a,b", &[]);
    failed(&table, "a");
    // 0.25 of 1.25: five standard deviations of 10,000 draws are 0.02.
    let share = firsts(&table, rules, 10_000)["a"] as f64 / 10_000.0;
    assert!((share - 0.2).abs() < 0.02, "{share}");
    assert_eq!(firsts(&table, QualityRules { best_first: true, ..rules }, 100), HashMap::from([("b".to_owned(), 100)]));
    // Of equals the first stays first.
    let table = with_quality("c,a,b", &[]);
    assert_eq!(firsts(&table, QualityRules { best_first: true, ..rules }, 100), HashMap::from([("c".to_owned(), 100)]));
}

#[test]
fn an_explanation_tells_what_quality_does() {
    let table = with_quality("a,b,c", &[]);
    failed(&table, "a");
    let told = |rules: &QualityRules| -> Vec<(String, bool, String)> {
        let full = |_: Pick| None;
        let present = Present { now: 0, health: &HEALTH, quality: rules, full: &full, out_of_reach: &|_| None };
        let found = explain(&table, 0, "1", &SearchOptions::default(), 0, &present);
        found.rules[0].destinations.iter().map(|step| (step.gateway.clone(), step.used, step.why.clone())).collect()
    };
    let line = |gateway: &str, used: bool, why: &str| (gateway.to_owned(), used, why.to_owned());
    let best_first = QualityRules { drop: false, best_first: true, ..QUALITY };
    let wanted = [line("b", true, "usable"), line("c", true, "usable"), line("a", true, "usable, with a quality of 0.25")];
    assert_eq!(told(&best_first), wanted);
    let pair = table.quality.known(1, "a").unwrap();
    pair.judge(0, &QUALITY, table.profile(table.rule(0).unwrap()).unwrap());
    assert_eq!(told(&QUALITY)[0], line("a", false, "its quality is critical: it gets 50 of 1,000 calls, and those that nobody else takes"));
    pair.switch(false);
    assert_eq!(told(&best_first)[2], line("a", false, "switched off for this rule"));
}

#[test]
fn an_explanation_takes_carriers_as_a_call_takes_them() {
    let told = |table: &Table, rules: &QualityRules| -> Vec<(String, bool, String)> {
        let full = |_: Pick| None;
        let present = Present { now: 0, health: &HEALTH, quality: rules, full: &full, out_of_reach: &|_| None };
        let found = explain(table, 0, "1", &SearchOptions::default(), 0, &present);
        found.rules[0].destinations.iter().map(|step| (step.gateway.clone(), step.used, step.why.clone())).collect()
    };
    let line = |gateway: &str, used: bool, why: &str| (gateway.to_owned(), used, why.to_owned());
    let judge = |table: &Table, gateway: &str, rules: &QualityRules| {
        failed(table, gateway);
        table.quality.known(1, gateway).unwrap().judge(0, rules, table.profile(table.rule(0).unwrap()).unwrap());
    };
    // The first of a carrier is that of its sort, and a carrier that is named twice gives once.
    let best_first = QualityRules { drop: false, best_first: true, ..QUALITY };
    let table = with_quality("#one,#one", &[["one", "a,b", "1", "Q", "0", ""]]);
    judge(&table, "a", &best_first);
    let only = "the carrier gives only its first usable gateway";
    let before = "its carrier has given its only gateway before";
    assert_eq!(told(&table, &best_first), [line("b", true, "usable"), line("a", false, only), line("b", false, before), line("a", false, before)]);
    assert_eq!(firsts(&table, best_first, 100), HashMap::from([("b".to_owned(), 100)]));
    // A draw is told as one.
    let table = with_quality("#one", &[["one", "a=1,b=9", "1", "W", "0", ""]]);
    assert!(told(&table, &QUALITY).iter().all(|(_, used, why)| *used && why == "usable; the carrier draws one gateway, and gives no other"));
    // Where nobody else is left, one that was dropped takes calls.
    for (list, carriers) in [("a", None), ("#one", Some(["one", "a", "0", "Q", "0", ""]))] {
        let table = with_quality(list, carriers.as_slice());
        judge(&table, "a", &QUALITY);
        assert_eq!(told(&table, &QUALITY), [line("a", true, "its quality is critical, but nobody else is left")]);
        assert_eq!(firsts(&table, QUALITY, 100), HashMap::from([("a".to_owned(), 100)]));
    }
    // What a carrier's own order does not ask about is not told against a gateway.
    let table = with_quality("#one,c", &[["one", "a", "0", "", "0", ""]]);
    judge(&table, "a", &QUALITY);
    assert_eq!(told(&table, &QUALITY), [line("a", true, "usable"), line("c", true, "usable")]);
    let dropping = QualityRules { best_first: true, ..QUALITY };
    assert_eq!(told(&table, &dropping)[0].0, "c", "a carrier is worth what its gateways are");
    assert_eq!(firsts(&table, dropping, 100), HashMap::from([("c".to_owned(), 100)]));
}

#[test]
fn a_critical_gateway_gets_its_share_of_probation_and_an_operator_none_at_all() {
    let table = with_quality("a,b", &[]);
    failed(&table, "a");
    let pair = table.quality.known(1, "a").unwrap();
    pair.judge(0, &QUALITY, table.profile(table.rule(0).unwrap()).unwrap());
    let share = firsts(&table, QUALITY, 10_000)["a"] as f64 / 10_000.0;
    assert!((share - 0.05).abs() < 0.012, "{share}");
    pair.switch(false);
    assert_eq!(firsts(&table, QUALITY, 1_000).len(), 1);
}

#[test]
fn a_carrier_is_worth_the_mean_of_its_gateways_and_sorts_its_own() {
    let rules = QualityRules { drop: false, best_first: true, ..QUALITY };
    let table = with_quality("#one,c", &[["one", "a,b", "0", "Q", "0", ""]]);
    failed(&table, "a");
    assert_eq!(firsts(&table, rules, 10), HashMap::from([("c".to_owned(), 10)]));
    failed(&table, "c");
    assert_eq!(firsts(&table, rules, 10), HashMap::from([("b".to_owned(), 10)]));
}

#[test]
fn thresholds_that_no_figure_can_have_or_that_contradict_each_other_are_told() {
    let mut builder = with_gateways(&["a"]);
    let row = |id: &str, thresholds: &[(usize, &str)]| {
        let mut row = vec![id; 1];
        row.resize(21, "-1");
        for penalty in (0..5).flat_map(|place| [3 + 4 * place, 4 + 4 * place]) {
            row[penalty] = "";
        }
        thresholds.iter().for_each(|(column, text)| row[*column] = text);
        block(&[&row])
    };
    // Percent for a share; warnings beyond what is critical, of a figure of which more is better and of one of which less is.
    builder.profiles(&[row("1", &[(1, "5")]), row("2", &[(6, "40")]), row("3", &[(1, "0.5"), (2, "0.9")]), row("4", &[(9, "500"), (10, "100")])].concat());
    builder.profiles(&[row("5", &[(1, "0.5"), (2, "0.5"), (9, "100"), (10, "500"), (17, "60")]), row("6", &[])].concat());
    let told: Vec<_> = builder.finish().faults.into_iter().map(|fault| (fault.row, fault.column)).collect();
    let wanted = [("1", "warn_threshold_asr"), ("2", "crit_threshold_ccr"), ("3", "crit_threshold_asr"), ("4", "crit_threshold_pdd")];
    assert_eq!(told, wanted.map(|(row, column)| (row.to_owned(), column)));
}

#[test]
fn profiles_that_mean_nothing_are_told() {
    let mut builder = with_gateways(&["a"]);
    builder.profiles(&[profile("0", "1"), profile("2", "2"), profile("3", "x"), profile("4", "")].concat());
    builder.rules(&block(&[
        &["1", "0", "", "", "0", "", "a", "Q", "3", ""],
        &["2", "0", "", "", "0", "", "a", "Q", "4", ""],
        &["3", "0", "", "", "0", "", "a", "Q", "0", ""],
    ]));
    let told: Vec<_> = builder.finish().faults.into_iter().map(|fault| (fault.row, fault.column)).collect();
    let wanted = [("0", "id"), ("2", "crit_penalty_asr"), ("3", "crit_penalty_asr"), ("1", "sort_profile"), ("3", "sort_profile")];
    assert_eq!(told, wanted.map(|(row, column)| (row.to_owned(), column)));
}
