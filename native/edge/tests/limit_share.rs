//! Limits that nodes share, on simulated time: who has a place in hand waits for nobody, who has none waits for the store, and what
//! holds while that is gone is a matter of choice.

use edge::{Counts, KeyLimitSettings, PeerKind, RouteSettings, SharedSettings};
use guard::ShareAsk;
use testkit::{Request, Rig, Sent, limit, peer, response, settings};

const PHONE: &str = "198.51.100.7:5060";
const CORE: &str = "192.0.2.200:5060";
const SECOND: u64 = 1_000_000;

fn shared(counts: Counts, most: u32, fails_open: bool) -> KeyLimitSettings {
    KeyLimitSettings { peers: vec!["phones".to_owned()], shared: true, fails_open, ..limit("all", counts, "k", most) }
}

fn sharing(limits: Vec<KeyLimitSettings>) -> RouteSettings {
    let mut settings =
        settings(vec![peer("core", PeerKind::Core, "192.0.2.200", &["sip:192.0.2.200"]), peer("phones", PeerKind::Subscribers, "198.51.100.0/24", &[])]);
    settings.key_limits = limits;
    settings.shared = Some(SharedSettings { wait_milliseconds: 500, waiting: 3, attacks: true });
    settings
}

fn answering(limits: Vec<KeyLimitSettings>) -> Rig {
    let rig = Rig::new(sharing(limits));
    let now = rig.now().moment.0;
    rig.snapshot().prolong_shares(now + 3_600 * SECOND, 0);
    rig
}

fn call(rig: &mut Rig, id: &str) -> Vec<Sent> {
    rig.receive(PHONE, &Request::new("INVITE", "sip:+49301@example.net").branch(&format!("z9hG4bK{id}")).call_id(id).text())
}

fn passed(sent: &[Sent]) -> usize {
    sent.iter().filter(|sent| sent.to.to_string() == CORE && sent.first_line().starts_with("INVITE")).count()
}

fn refused(sent: &[Sent]) -> usize {
    sent.iter().filter(|sent| sent.to.to_string() == PHONE && sent.status_code() == 486).count()
}

#[test]
fn a_call_without_a_place_in_hand_waits_and_one_with_a_place_does_not() {
    let mut rig = answering(vec![shared(Counts::Calls, 10, false)]);
    assert!(call(&mut rig, "a").is_empty());
    assert!(call(&mut rig, "a").is_empty(), "one that comes again waits once");
    let asks = rig.share_asks();
    assert_eq!(asks.len(), 1);
    assert_eq!((asks[0].limit.as_str(), asks[0].key.as_str(), asks[0].ask), ("all", "k", ShareAsk { keep: 0, need: 1, used: 1, extra: 4, most: 10 }));
    assert_eq!(passed(&rig.give_shares(&[("all", "k", 3, 0)])), 1);
    // Two more in hand.
    assert_eq!((passed(&call(&mut rig, "b")), passed(&call(&mut rig, "c"))), (1, 1));
    rig.share_asks();
    rig.give_shares(&[("all", "k", 3, 0)]);
    assert!(call(&mut rig, "d").is_empty() && rig.share_asks().len() == 1, "the last place may be elsewhere");
    assert_eq!(refused(&rig.give_shares(&[("all", "k", 3, 0)])), 1);
    // None is to be had, and that is known for a while.
    assert_eq!(refused(&call(&mut rig, "x")), 1);
    rig.advance(600);
    assert!(call(&mut rig, "e").is_empty() && rig.share_asks().len() == 1, "looked for again after that");
    assert_eq!(refused(&rig.give_shares(&[("all", "k", 3, 0)])), 1);
    let views = rig.snapshot().limit_views(None, rig.now().moment.0);
    assert_eq!((views[0].used, views[0].share), (3, Some(3)));
}

#[test]
fn who_waits_goes_on_once_others_give_what_they_do_not_use() {
    let mut rig = answering(vec![shared(Counts::Calls, 2, false)]);
    assert!(call(&mut rig, "a").is_empty());
    rig.share_asks();
    assert!(rig.give_shares(&[("all", "k", 0, 1)]).is_empty(), "another node has one that it does not use");
    rig.advance(200);
    let again = rig.snapshot().share_ask(rig.now().moment.0, &[("all".to_owned(), "k".to_owned())]);
    assert_eq!(again.len(), 1);
    assert_eq!(passed(&rig.give_shares(&[("all", "k", 1, 0)])), 1);
    // And one that nobody gives anything up for is refused in the end.
    assert!(call(&mut rig, "b").is_empty());
    rig.share_asks();
    rig.give_shares(&[("all", "k", 1, 1)]);
    assert_eq!(refused(&rig.advance(600)), 1);
    assert_eq!(rig.counters().limits_waited_too_long.get(), 1);
}

#[test]
fn a_store_that_is_gone_means_what_was_chosen() {
    let mut open = Rig::new(sharing(vec![shared(Counts::Calls, 2, true)]));
    let now = open.now().moment.0;
    open.snapshot().hush_shares(now + 3_600 * SECOND);
    assert_eq!((passed(&call(&mut open, "a")), passed(&call(&mut open, "b"))), (1, 1));
    assert_eq!(refused(&call(&mut open, "c")), 1, "this node alone keeps the limit");
    let mut closed = Rig::new(sharing(vec![shared(Counts::Calls, 2, false)]));
    closed.snapshot().hush_shares(now + 3_600 * SECOND);
    assert_eq!(refused(&call(&mut closed, "a")), 1);
    assert_eq!((closed.counters().limits_unshared.get(), closed.counters().refused_unshared.get()), (1, 1));
    // What was granted before goes on as long as it holds.
    let mut granted = answering(vec![shared(Counts::Calls, 9, false)]);
    call(&mut granted, "a");
    granted.share_asks();
    granted.give_shares(&[("all", "k", 2, 0)]);
    granted.snapshot().hush_shares(now + 3_600 * SECOND);
    assert_eq!(passed(&call(&mut granted, "b")), 1);
    assert_eq!(refused(&call(&mut granted, "c")), 1);
}

#[test]
fn who_waits_when_the_store_falls_silent_is_decided_at_once() {
    for (fails_open, expected) in [(true, (1, 0)), (false, (0, 1))] {
        let mut rig = answering(vec![shared(Counts::Calls, 2, fails_open)]);
        assert!(call(&mut rig, "a").is_empty());
        rig.share_asks();
        rig.snapshot().hush_shares(rig.now().moment.0 + 3_600 * SECOND);
        let sent = rig.fail_shares(&[("all", "k")]);
        assert_eq!((passed(&sent), refused(&sent)), expected);
        // Nobody answers at all: as long as a request may wait.
        let mut rig = answering(vec![shared(Counts::Calls, 2, fails_open)]);
        assert!(call(&mut rig, "b").is_empty());
        let sent = rig.advance(600);
        assert_eq!((passed(&sent), refused(&sent), rig.counters().limits_waited.get()), (expected.0, expected.1, 1));
        // More than may wait: decided like that.
        let mut rig = answering(vec![shared(Counts::Calls, 9, fails_open)]);
        let sent: Vec<Sent> = ["c", "d", "e", "f"].into_iter().flat_map(|id| call(&mut rig, id)).collect();
        assert_eq!((passed(&sent), refused(&sent)), expected);
        assert_eq!(rig.counters().limits_waiting_full.get(), 1);
    }
}

#[test]
fn what_is_given_back_is_out_of_use_first_and_counts_again_when_the_store_forgot() {
    let mut rig = answering(vec![shared(Counts::Calls, 20, false)]);
    call(&mut rig, "a");
    rig.share_asks();
    let sent = rig.give_shares(&[("all", "k", 15, 0)]);
    let now = rig.now().moment.0;
    // Another node looks for places.
    let asks = rig.snapshot().share_report(now, &[("all".to_owned(), "k".to_owned(), 0)]);
    assert_eq!(asks[0].ask, ShareAsk { keep: 1, need: 1, used: 1, extra: 0, most: 20 });
    rig.give_shares(&[("all", "k", 1, 0)]);
    assert!(call(&mut rig, "b").is_empty(), "the others are not ours any more");
    rig.share_asks();
    rig.give_shares(&[("all", "k", 2, 0)]);
    // A store that came back empty hears of everything; of what was granted too long ago only what is used.
    let all = rig.snapshot().share_all(now, false);
    assert_eq!(all[0].ask.keep, 2);
    rig.give_shares(&[("all", "k", 2, 0)]);
    let invite = sent.iter().find(|sent| sent.to.to_string() == CORE).map(|sent| sent.text.clone()).unwrap_or_default();
    rig.receive(CORE, &response(&invite, 603, "x"));
    let all = rig.snapshot().share_all(now, true);
    assert_eq!(all[0].ask.keep, 1);
    rig.give_shares(&[("all", "k", 1, 0)]);
    // Nobody uses it any more: it goes back whole, and is forgotten.
    rig.snapshot().share_walk(rig.now().moment.0);
    rig.advance(61_000);
    rig.advance(61_000);
    rig.advance(200_000);
    let asks = rig.snapshot().share_walk(rig.now().moment.0);
    assert_eq!(asks[0].ask, ShareAsk { keep: 0, need: 0, used: 0, extra: 0, most: 20 });
    rig.give_shares(&[("all", "k", 0, 0)]);
    assert!(rig.snapshot().share_walk(rig.now().moment.0 + 3 * SECOND).is_empty());
    let (_, _, unknown) = rig.snapshot().give_shares(now, vec![edge::KeyShare { limit: "all".into(), key: "k".into(), quota: 2, spare: 0 }]);
    assert_eq!(unknown, [("all".to_owned(), "k".to_owned())], "an answer that comes after that is given back");
}

#[test]
fn a_rate_is_shared_as_calls_are() {
    let mut rig = answering(vec![shared(Counts::Rate, 10, false)]);
    assert!(call(&mut rig, "a").is_empty());
    rig.share_asks();
    assert_eq!(passed(&rig.give_shares(&[("all", "k", 2, 0)])), 1);
    assert_eq!(passed(&call(&mut rig, "b")), 1);
    rig.share_asks();
    rig.give_shares(&[("all", "k", 2, 0)]);
    assert!(call(&mut rig, "c").is_empty());
    rig.share_asks();
    assert_eq!(refused(&rig.give_shares(&[("all", "k", 2, 0)])), 1, "two in this second");
    rig.advance(1_100);
    assert_eq!(passed(&call(&mut rig, "d")), 1, "and two in the next");
}

#[test]
fn who_waits_for_one_limit_is_charged_once_by_another_that_counts_refusals() {
    let rate = KeyLimitSettings { name: "rate".to_owned(), algorithm: "sliding_window".to_owned(), counts_refused: true, ..shared(Counts::Rate, 10, false) };
    let mut rig = answering(vec![rate, shared(Counts::Calls, 10, false)]);
    assert!(call(&mut rig, "a").is_empty(), "for the rate");
    rig.share_asks();
    assert!(rig.give_shares(&[("rate", "k", 5, 0)]).is_empty(), "for the calls");
    rig.share_asks();
    assert_eq!(passed(&rig.give_shares(&[("all", "k", 5, 0)])), 1);
    let used = |rig: &Rig| rig.snapshot().limit_views(None, rig.now().moment.0).iter().map(|view| (view.limit.clone(), view.used)).collect::<Vec<_>>();
    assert_eq!(used(&rig), [("all".to_owned(), 1), ("rate".to_owned(), 1)]);
}

#[test]
fn a_cancel_or_a_drain_while_a_call_waits_leaves_nothing() {
    let mut rig = answering(vec![shared(Counts::Calls, 10, false)]);
    assert!(call(&mut rig, "a").is_empty());
    rig.share_asks();
    rig.give_shares(&[("all", "k", 1, 0)]);
    assert_eq!(rig.edge.sizes().0, 1);
    rig.advance(400_000);
    assert_eq!(rig.edge.sizes(), (0, 0));
    assert!(rig.snapshot().limit_views(None, rig.now().moment.0).is_empty());
}
