//! What is known of a gateway or carrier: its switch, its health with the reason, its counts. Any worker reads
//! and writes it; nothing here is locked.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Attempts that are remembered, at most.
const MOST_OUTCOMES: u32 = 32;

/// When a gateway is probed (`probe_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeMode {
    /// Never.
    Never,
    /// While it is down.
    WhileDown,
    /// Always.
    Always,
}

/// Why a gateway is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Down {
    /// It is not.
    No = 0,
    /// Its row says so, until a probe says otherwise.
    Provisioned = 1,
    /// Probes failed.
    Probe = 2,
    /// Calls failed.
    Calls = 3,
    /// Its address refused what was sent.
    Refused = 4,
}

impl Down {
    const ALL: [Self; 5] = [Self::No, Self::Provisioned, Self::Probe, Self::Calls, Self::Refused];

    /// In words, as events say it.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::No => "",
            Self::Provisioned => "provisioned",
            Self::Probe => "probe failed",
            Self::Calls => "calls failed",
            Self::Refused => "address refused",
        }
    }
}

/// When gateways go down and come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthRules {
    /// So many failed attempts...
    pub failures: u32,
    /// ...of the last so many take it down; 32 at most.
    pub of: u32,
    /// Failed probes in a row that take it down.
    pub down_after: u32,
    /// Good probes in a row that bring it back.
    pub up_after: u32,
    /// Seconds after which one that is not probed is tried again.
    pub retry_seconds: u64,
}

/// What tells whether an attempt may bring a gateway back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// When it was sent, microseconds.
    pub sent: u64,
    /// Whether probes tell of the gateway.
    pub probed: bool,
}

/// What is known of a gateway or carrier.
#[derive(Debug)]
pub struct GatewayState {
    /// Its name.
    pub id: Box<str>,
    off: AtomicBool,
    down: AtomicU8,
    /// When it went down, microseconds of the monotonic clock.
    down_since: AtomicU64,
    /// The last attempts, the latest in the lowest bit; 1 for a failure.
    outcomes: AtomicU32,
    good_probes: AtomicU32,
    bad_probes: AtomicU32,
    /// Attempts made.
    pub attempts: AtomicU64,
    /// Attempts that were answered.
    pub answered: AtomicU64,
    /// Attempts that nobody answered.
    pub silent: AtomicU64,
    /// Attempts that rang until their time was up.
    pub rang_out: AtomicU64,
    /// Attempts that the network refused.
    pub unreachable: AtomicU64,
    /// Final responses by the first digit of their status code.
    pub finals: [AtomicU64; 7],
    /// Milliseconds to the first 18x, and how many those were.
    pub post_dial_delay: [AtomicU64; 2],
    /// Seconds of calls that ended, and how many those were.
    pub call_seconds: [AtomicU64; 2],
    /// Probes sent, and how many of them failed.
    pub probes: [AtomicU64; 2],
}

impl GatewayState {
    /// One of which nothing is known.
    pub fn new(id: &str) -> Self {
        Self {
            id: id.into(),
            off: AtomicBool::default(),
            down: AtomicU8::default(),
            down_since: AtomicU64::default(),
            outcomes: AtomicU32::default(),
            good_probes: AtomicU32::default(),
            bad_probes: AtomicU32::default(),
            attempts: AtomicU64::default(),
            answered: AtomicU64::default(),
            silent: AtomicU64::default(),
            rang_out: AtomicU64::default(),
            unreachable: AtomicU64::default(),
            finals: Default::default(),
            post_dial_delay: Default::default(),
            call_seconds: Default::default(),
            probes: Default::default(),
        }
    }

    /// Switched by an operator; nothing else ever switches it. One that is switched on begins anew.
    pub fn switch(&self, on: bool) {
        let was_off = self.off.swap(!on, Ordering::Relaxed);
        if on && was_off {
            self.bring_up();
        }
    }

    /// Whether an operator has switched it off.
    pub fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }

    /// Why it is down.
    pub fn down(&self) -> Down {
        Down::ALL.get(usize::from(self.down.load(Ordering::Relaxed))).copied().unwrap_or(Down::No)
    }

    /// Whether calls may go to it. One that no probe can bring back is tried again after a while.
    pub fn is_usable(&self, now: u64, probed: bool, rules: &HealthRules) -> bool {
        if self.is_off() {
            return false;
        }
        let over = || now.saturating_sub(self.down_since.load(Ordering::Relaxed)) >= rules.retry_seconds * 1_000_000;
        self.down() == Down::No || !probed && over()
    }

    /// Its row says that it is down.
    pub fn provision_down(&self) {
        // No time brings it back, only a probe or an operator.
        self.take_down(u64::MAX, Down::Provisioned);
    }

    /// Takes it down; true where it was up.
    pub fn take_down(&self, now: u64, why: Down) -> bool {
        let changed = self.down.compare_exchange(Down::No as u8, why as u8, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        // One on trial that fails again has its whole time before it.
        self.down_since.store(now, Ordering::Relaxed);
        self.good_probes.store(0, Ordering::Relaxed);
        changed
    }

    /// Brings it back; true where it was down.
    pub fn bring_up(&self) -> bool {
        self.outcomes.store(0, Ordering::Relaxed);
        self.bad_probes.store(0, Ordering::Relaxed);
        self.down.swap(Down::No as u8, Ordering::Relaxed) != Down::No as u8
    }

    /// A call is about to go there. One that is down takes it for its trial; all others wait for what comes of that.
    pub fn begin_trial(&self, now: u64) {
        if self.down() != Down::No {
            self.down_since.store(now, Ordering::Relaxed);
        }
    }

    /// An attempt ended; true where that changes whether it is up.
    pub fn note_attempt(&self, now: u64, trial: Trial, failed: bool, rules: &HealthRules) -> bool {
        if self.down() != Down::No {
            // What was sent before it went down says nothing new, and one that is probed comes back by probes.
            if trial.probed || trial.sent < self.down_since.load(Ordering::Relaxed) {
                return false;
            }
            return if failed { self.take_down(now, self.down()) } else { self.bring_up() };
        }
        if !failed && self.outcomes.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let of = rules.of.clamp(1, MOST_OUTCOMES);
        let mask = u32::MAX >> (MOST_OUTCOMES - of);
        let shift = |bits: u32| (bits << 1 | u32::from(failed)) & mask;
        let Ok(before) = self.outcomes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| Some(shift(bits))) else { return false };
        if failed && shift(before).count_ones() >= rules.failures.max(1) {
            self.outcomes.store(0, Ordering::Relaxed);
            return self.take_down(now, Down::Calls);
        }
        false
    }

    /// A probe was answered well, or not; true where that changes whether it is up.
    pub fn note_probe(&self, now: u64, good: bool, rules: &HealthRules) -> bool {
        if good {
            self.bad_probes.store(0, Ordering::Relaxed);
            let row = self.good_probes.fetch_add(1, Ordering::Relaxed) + 1;
            return self.down() != Down::No && row >= rules.up_after.max(1) && self.bring_up();
        }
        self.probes[1].fetch_add(1, Ordering::Relaxed);
        self.good_probes.store(0, Ordering::Relaxed);
        let row = self.bad_probes.fetch_add(1, Ordering::Relaxed) + 1;
        row >= rules.down_after.max(1) && self.take_down(now, Down::Probe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: HealthRules = HealthRules { failures: 3, of: 5, down_after: 2, up_after: 2, retry_seconds: 30 };

    const fn trial(sent: u64) -> Trial {
        Trial { sent, probed: false }
    }

    #[test]
    fn three_failures_of_five_take_it_down_and_two_good_probes_bring_it_back() {
        let state = GatewayState::new("a");
        let changes: Vec<bool> = [true, false, true, false, false, true, false, true].map(|failed| state.note_attempt(0, trial(0), failed, &RULES)).to_vec();
        assert!(changes.iter().all(|changed| !changed) && state.down() == Down::No);
        assert!(state.note_attempt(7, trial(7), true, &RULES));
        assert_eq!(state.down(), Down::Calls);
        assert!(!state.is_usable(100_000_000, true, &RULES));
        assert!(!state.note_probe(8, true, &RULES) && !state.note_probe(9, false, &RULES) && !state.note_probe(10, true, &RULES));
        assert!(state.note_probe(11, true, &RULES) && state.is_usable(11, true, &RULES));
        assert!(!state.note_probe(12, false, &RULES) && state.note_probe(13, false, &RULES));
        assert_eq!(state.down().reason(), "probe failed");
    }

    #[test]
    fn one_that_is_not_probed_is_tried_again_after_a_while() {
        let state = GatewayState::new("a");
        assert!(state.take_down(1_000_000, Down::Refused) && !state.take_down(2_000_000, Down::Refused));
        assert!(!state.is_usable(31_999_999, false, &RULES) && state.is_usable(32_000_000, false, &RULES));
        assert!(!state.note_attempt(33_000_000, trial(32_000_000), true, &RULES) && !state.is_usable(62_000_000, false, &RULES));
        assert!(state.note_attempt(70_000_000, trial(69_000_000), false, &RULES) && state.is_usable(70_000_000, false, &RULES));
    }

    #[test]
    fn late_results_and_calls_of_probed_gateways_bring_nothing_back() {
        let state = GatewayState::new("a");
        state.take_down(50, Down::Calls);
        assert!(!state.note_attempt(60, trial(49), false, &RULES) && !state.note_attempt(60, Trial { sent: 55, probed: true }, false, &RULES));
        assert_eq!(state.down(), Down::Calls);
        // One call is the trial: for all others its time has not come any more.
        let due = 50 + 30_000_000;
        assert!(state.is_usable(due, false, &RULES));
        state.begin_trial(due);
        assert!(!state.is_usable(due + 1, false, &RULES) && state.note_attempt(due + 2, trial(due), false, &RULES));
        state.provision_down();
        state.switch(true);
        assert_eq!(state.down(), Down::Provisioned);
    }

    #[test]
    fn what_an_operator_switched_off_no_probe_switches_on() {
        let state = GatewayState::new("a");
        state.switch(false);
        state.note_probe(0, true, &RULES);
        assert!(!state.is_usable(0, true, &RULES));
        state.switch(true);
        assert!(state.is_usable(0, true, &RULES));
    }
}
