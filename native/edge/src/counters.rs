//! Counts of one worker, read by others while it runs.

use std::sync::atomic::{AtomicU64, Ordering};

use syntax::Method;

use crate::peer_counters::PeerCounts;

/// Upper bounds of the times that decisions of policies take, in microseconds.
pub const DECISION_BOUNDS: [u64; 16] = [50, 75, 100, 125, 150, 175, 200, 250, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 250_000, 1_000_000];

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counts of one worker; only that worker writes them.
        #[derive(Default)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: Counter,)+
            /// Requests by method.
            pub methods: [Counter; Method::ALL.len()],
            /// Responses by the first digit of their status code.
            pub classes: [Counter; 7],
            /// Decisions of policies by how long they took: up to each of [`DECISION_BOUNDS`], and longer.
            pub decisions: [Counter; DECISION_BOUNDS.len() + 1],
            /// The sum of those times, in microseconds.
            pub decision_microseconds: Counter,
            /// Counts for each peer.
            pub peers: PeerCounts,
        }

        impl Counters {
            /// Every name with its value.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)+]
            }

            /// Every name with what is counted.
            pub fn help() -> Vec<(&'static str, &'static str)> {
                vec![$((stringify!($name), concat!($($doc),+).trim()),)+]
            }
        }
    };
}

impl Counters {
    /// Notes that a policy took so many microseconds to decide.
    pub(crate) fn decided(&self, microseconds: u64) {
        let place = DECISION_BOUNDS.iter().position(|bound| microseconds <= *bound).unwrap_or(DECISION_BOUNDS.len());
        self.decisions[place].add();
        self.decision_microseconds.add_many(microseconds);
    }
}

/// A count with one writer: no atomic addition is needed, only that readers never see half a value.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn add(&self) {
        self.add_many(1);
    }

    /// Adds `count`.
    pub fn add_many(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Replaces the value, for what goes up and down.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

counters! {
    /// Requests that parsed.
    requests,
    /// Responses that parsed.
    responses,
    /// Messages that did not parse.
    malformed,
    /// Malformed: another protocol, or garbage.
    malformed_not_sip,
    /// Malformed: a mandatory header field is missing.
    malformed_missing,
    /// Malformed: over a limit.
    malformed_too_large,
    /// Datagrams of line ends or zeros, which keep a way open.
    keep_alives_received,
    /// Requests that repeated an earlier one.
    retransmissions_received,
    /// Requests and final responses that a timer sent again.
    retransmissions_sent,
    /// Responses that belong to nothing we sent.
    stray_responses,
    /// ACKs that match nothing.
    stray_acks,
    /// Requests of strangers, refused.
    refused_strangers,
    /// Requests of strangers that were not even answered, since there are too many.
    strangers_unanswered,
    /// Requests refused by validation: Max-Forwards, Proxy-Require, loops, routes.
    refused_invalid,
    /// Requests for which there is no target.
    refused_no_target,
    /// Sources that were banned for a flood or for their behaviour.
    floods_blocked,
    /// Sources that would have been, were this no dry run.
    floods_dry,
    /// Packets of floods that were dropped: those that led to a ban, and those of sources where users are.
    dropped_flood,
    /// Requests whose User-Agent is a scanner's.
    scanners_noticed,
    /// Requests refused because their account sends too many.
    refused_account_floods,
    /// First thresholds of fraud profiles that were crossed.
    fraud_warnings,
    /// Second thresholds that were.
    fraud_criticals,
    /// Calls refused because a figure of their account is beyond a threshold.
    fraud_refused,
    /// Accounts that were barred.
    fraud_bars,
    /// Calls of barred accounts, refused.
    fraud_barred_calls,
    /// Calls that were not watched because the table is full.
    fraud_untracked,
    /// Calls whose session nobody refreshed in time.
    sessions_expired,
    /// Requests refused with 422, for they ask for too short an interval.
    sessions_too_short,
    /// Calls ended because they lasted as long as any may.
    calls_too_long,
    /// Emergency calls.
    emergency_calls,
    /// Requests refused because a key has all that a limit lets it have.
    refused_limits,
    /// Pings within calls.
    call_pings_sent,
    /// Those that ended their call.
    call_pings_failed,
    /// Requests that waited for a place in a limit that nodes share, since this one had none in hand.
    limits_waited,
    /// Those of them that waited as long as they may.
    limits_waited_too_long,
    /// Those that did not wait because too many do.
    limits_waiting_full,
    /// Requests decided without the store of shared limits.
    limits_unshared,
    /// Those of them that were refused for that.
    refused_unshared,
    /// Attributes of accounts that are no number where one was expected.
    attributes_unreadable,
    /// New requests refused because the worker is overloaded.
    shed_overload,
    /// New requests refused because a table is full.
    shed_table_full,
    /// New requests refused because the process drains.
    shed_draining,
    /// Calls begun.
    calls_started,
    /// Calls answered.
    calls_answered,
    /// Calls ended before an answer.
    calls_failed,
    /// Calls live now: the number of leases.
    calls,
    /// Transactions held now, lingering ones among them.
    transactions,
    /// Bytes of the places of live calls, without what they point to.
    calls_bytes,
    /// Bytes of the places of transactions, without the messages that they keep.
    transactions_bytes,
    /// Attempts that failed over to another address or target.
    fail_overs,
    /// Attempts whose far end never answered.
    attempts_unanswered,
    /// 2xx of attempts that were given up before they answered: passed on all the same.
    attempts_answered_late,
    /// Attempts that the transport refused.
    attempts_undeliverable,
    /// Flows that failed where another one of the same user agent was tried (RFC 5626).
    flows_failed,
    /// Descriptions that say where their sender is seen, without a relay.
    descriptions_repaired,
    /// Messages that something between a phone and us had changed.
    messages_rewritten,
    /// Targets marked dead.
    targets_marked_dead,
    /// Numbers looked up among rules.
    route_searches,
    /// Numbers that no rule fits.
    route_misses,
    /// Numbers with a character that no prefix can have.
    route_unexpected_characters,
    /// Requests whose numbers were changed on their way in.
    numbers_changed,
    /// Requests with a number that no rule of its peer is for.
    numbers_refused,
    /// Gateways that calls or probes took out of the rotation.
    gateways_taken_down,
    /// Attempts that a gateway, a carrier or a machine of a pool had no place for.
    gateways_full,
    /// Attempts whose quality is not kept, since there are too many pairs of rule and gateway.
    quality_pairs_refused,
    /// Questions asked.
    questions,
    /// Answers that came after their call went on.
    late_answers,
    /// Requests that were put to a policy.
    policy_questions,
    /// Questions to policies that nobody took: no process, or no room in its queue.
    policy_unavailable,
    /// Policies that did not decide in time.
    policy_deadlines,
    /// Requests that policies sent of their own accord.
    requests_originated,
    /// Policies that failed, or decided what cannot be done.
    policy_errors,
    /// Calls of strangers that left no record because there were too many.
    stranger_records_suppressed,
    /// Responses dropped because their call has too many dialogs.
    dialogs_refused,
    /// Events dropped because too many waited.
    events_dropped,
    /// Log lines left out because there were too many.
    log_lines_suppressed,
    /// Challenges sent.
    challenges,
    /// Requests that proved whose they are.
    authenticated,
    /// Wrong passwords and unknown users.
    authentication_failed,
    /// Answers to nonces that were too old, used up, or of another place.
    nonces_stale,
    /// Credentials that are none.
    credentials_malformed,
    /// Requests of an account in the name of another.
    identities_refused,
    /// Requests refused because their source failed too often.
    refused_attackers,
    /// Crossings of a threshold of failures.
    attacks_noticed,
    /// Sources banned.
    bans_added,
    /// Sources banned now.
    bans,
    /// Messages of banned sources, dropped unread.
    dropped_banned,
    /// Users asked for in the database.
    credential_questions,
    /// Users that the database could not tell of.
    credential_failures,
    /// Users whose credentials are kept now.
    credentials_kept,
    /// Requests refused because too many wait already.
    waiting_full,
    /// Requests that waited too long for credentials or a name.
    waited_too_long,
    /// Registrations accepted, queries and removals among them.
    registrations,
    /// Registrations refused.
    registrations_refused,
    /// Registrations that a core accepted and that are not known here.
    registrations_unlearnt,
    /// Refreshes that were answered in the place of a core.
    refreshes_answered,
    /// Registrations refused for a Contact that nobody may have.
    contacts_refused,
    /// Registrations refused for too many contacts.
    contacts_too_many,
    /// Bindings that are new.
    bindings_added,
    /// Bindings removed by their user agents, by an operator or by newer ones.
    bindings_removed,
    /// Bindings whose time was over.
    bindings_expired,
    /// Bindings removed because their user agent did not answer.
    bindings_dead,
    /// Addresses of record with bindings now.
    location_records,
    /// Bindings now.
    location_bindings,
    /// Bytes that these take.
    location_bytes,
    /// Registrations refused because the table is full.
    location_full,
    /// Looks at where a user is.
    location_lookups,
    /// Looks that found nobody.
    location_misses,
    /// Records and removals that wait to be written.
    location_unwritten,
    /// Removals that the database will not be told.
    location_removals_dropped,
    /// Contacts marked with where their phone really is.
    contacts_marked,
    /// STUN requests answered.
    stun_answered,
    /// STUN that is no binding request, or of no peer.
    stun_refused,
    /// Keep-alives sent.
    keep_alives_sent,
    /// Keep-alives answered.
    keep_alives_answered,
    /// Sessions of media at present.
    media_sessions,
    /// Sessions of media opened, one for each attempt whose media is relayed.
    media_sessions_opened,
    /// Sessions of media closed.
    media_sessions_closed,
    /// Calls of a process before that were seen again: for their media, or for their places in limits.
    calls_adopted,
    /// Attempts and requests refused because no ports were ready for their media, or it had too many streams.
    media_refused,
    /// Messages whose media was to be relayed and whose session description cannot be read.
    media_unreadable,
    /// Questions for rtpengines.
    media_questions,
    /// Those that none answered, or refused.
    media_questions_failed,
    /// Records written without what their media was like, since no media worker told in time.
    media_reports_missing,
}
