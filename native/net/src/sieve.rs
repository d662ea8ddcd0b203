//! Under overload, INVITEs that cannot even be refused are dropped by the kernel before we read them (RFC 3261 section
//! 21.5.4 lets a server drop a request instead of answering 503).
//!
//! A refusal costs an eighth of a call, since it takes three messages: at four times what can be served, refusing alone
//! would take half of the processor. Their senders repeat what was dropped; what belongs to a dialog, or is an emergency
//! call, always passes.

use std::io;
use std::os::fd::AsRawFd;

use libc::sock_filter;

use crate::socket_filter::{PASS, PAYLOAD, by_chance_skip, load_chance, load_word, set, statement, unless_equal_skip, verdict};

/// How often the share that passes is looked at, in microseconds: the kernel takes 1.7 ms to compile another filter.
const WINDOW: u64 = 200_000;
/// One step up; downwards it is what the refusals suggest, but no more than to a third.
const STEP: f64 = 1.4;
/// Messages let through for each that is served.
const SPARE: f64 = 1.25;
const LEAST_SHARE: f64 = 1.0 / 64.0;
/// Refusals in a window that are not worth a filter.
const FEW: u64 = 20;
/// Bytes looked through for a Route header field; where the kernel has not the memory for more, fewer must do.
const DEPTH: u32 = 1_000;
const LESS_DEPTH: u32 = 600;

/// Decides how much of the INVITEs reaches us.
pub(crate) struct Sieve {
    enabled: bool,
    share: f64,
    window: u64,
    started: u64,
    shed: u64,
}

impl Sieve {
    pub(crate) fn new(enabled: bool) -> Self {
        Self { enabled, share: 1.0, window: 0, started: 0, shed: 0 }
    }

    /// Finds out whether the kernel would take a filter for `socket`, so that it is told at start if not.
    pub(crate) fn try_out(&mut self, socket: &impl AsRawFd) {
        if self.enabled
            && let Err(error) = set(socket, &programs(1.0 - f64::EPSILON)).and_then(|()| set(socket, &[]))
        {
            self.give_up(&error);
        }
    }

    /// At `now` so many calls were ever started and so many requests ever shed; `behind` says that the sockets have not
    /// been empty for long, so that requests within dialogs wait too. Returns the share of INVITEs that should pass from
    /// now on, where that changes.
    pub(crate) fn adjust(&mut self, now: u64, started: u64, shed: u64, behind: bool) -> Option<f64> {
        let window = now / WINDOW;
        if !self.enabled || window == self.window {
            return None;
        }
        let (served, refused) = (started - self.started, shed - self.shed);
        (self.window, self.started, self.shed) = (window, started, shed);
        let share = if refused > FEW && (behind || refused * 10 > served * 4) {
            let wanted = SPARE * served as f64 / (served + refused) as f64;
            (self.share * wanted.clamp(0.33, 0.7)).max(LEAST_SHARE)
        } else if refused * 10 < served || refused == 0 {
            (self.share * STEP).min(1.0)
        } else {
            self.share
        };
        let changed = (share - self.share).abs() > f64::EPSILON;
        self.share = share;
        changed.then_some(share)
    }

    /// The share of the INVITEs that is dropped.
    pub(crate) fn percent(&self) -> u64 {
        ((1.0 - self.share) * 100.0) as u64
    }

    /// Whether part of the INVITEs is dropped.
    pub(crate) fn is_active(&self) -> bool {
        self.share < 1.0
    }

    /// Filters that let the share through that should pass at present, the better first.
    pub(crate) fn programs(&self) -> Vec<Vec<sock_filter>> {
        if self.is_active() { programs(self.share) } else { vec![vec![]] }
    }

    /// Does without: the kernel took none of the filters.
    pub(crate) fn give_up(&mut self, error: &io::Error) {
        (self.enabled, self.share) = (false, 1.0);
        log::warn!(target: "overload", "the kernel takes no socket filter, so every INVITE that comes under overload must be refused: raise net.core.optmem_max to 131072 ({error})");
    }
}

fn programs(share: f64) -> Vec<Vec<sock_filter>> {
    vec![program(share, DEPTH), program(share, LESS_DEPTH)]
}

/// The filter: everything but an INVITE passes, so do emergency calls (RFC 5031) and, by chance, `share` of the rest; of
/// what is left whatever has a Route header field in its first `depth` bytes, as every request within a dialog has.
/// Reading past the end of a datagram drops it, which is how the search ends.
fn program(share: f64, depth: u32) -> Vec<sock_filter> {
    let pass = verdict(PASS);
    let mut program = vec![
        load_word(PAYLOAD),
        sock_filter { jt: 1, jf: 0, ..unless_equal_skip(u32::from_be_bytes(*b"INVI"), 0) },
        pass,
        load_word(PAYLOAD + 4),
        statement(libc::BPF_ALU | libc::BPF_OR | libc::BPF_K, 0x20),
        // `TE`, a space, and the first letter of the scheme.
        unless_equal_skip(u32::from_be_bytes(*b"TE u"), 1),
        pass,
        statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0xffff_ff00),
        sock_filter { jt: 1, jf: 0, ..unless_equal_skip(u32::from_be_bytes(*b"TE \0"), 0) },
        pass,
        load_chance(),
        by_chance_skip(share),
        pass,
    ];
    // Words at every other byte: one of them lies on the first or the second byte of the line break. With all letters
    // made small a line break reads `-*`.
    for at in (24..depth).step_by(2) {
        program.push(load_word(PAYLOAD + at));
        program.push(statement(libc::BPF_ALU | libc::BPF_OR | libc::BPF_K, 0x2020_2020));
        program.push(sock_filter { jt: 1, jf: 0, ..unless_equal_skip(u32::from_be_bytes(*b"-*ro"), 0) });
        program.push(unless_equal_skip(u32::from_be_bytes(*b"*rou"), 1));
        program.push(pass);
    }
    program.push(verdict(0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::time::Duration;

    /// Which of `messages` pass a filter that lets none through by chance.
    fn passing(messages: &[&str]) -> Vec<String> {
        let (from, to) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        set(&to, &[program(0.0, DEPTH)]).unwrap();
        to.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        for message in messages {
            from.send_to(message.as_bytes(), to.local_addr().unwrap()).unwrap();
        }
        let mut buffer = [0; 2_000];
        std::iter::from_fn(|| to.recv(&mut buffer).ok().map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned())).collect()
    }

    #[test]
    fn only_a_new_invite_that_is_no_emergency_call_is_dropped() {
        let padding = format!("Subject: {}\r\n", "x".repeat(1_200));
        let new = format!("INVITE sip:bob@example.net SIP/2.0\r\nVia: SIP/2.0/UDP a\r\n{padding}\r\n");
        let within = "INVITE sip:bob@example.net SIP/2.0\r\nVia: SIP/2.0/UDP a\r\nroute: <sip:edge;lr>\r\n\r\n";
        let emergency = "INVITE urn:service:sos SIP/2.0\r\nVia: SIP/2.0/UDP a\r\n\r\n";
        let others =
            ["BYE sip:bob@example.net SIP/2.0\r\n", "SIP/2.0 200 OK\r\n", "INVITER sip:x SIP/2.0\r\n", "\r\n\r\n", "OPTIONS sip:bob@example.net SIP/2.0\r\n"];
        let shifted = "INVITE sip:bobs@example.net SIP/2.0\r\nVia: SIP/2.0/UDP a\r\nRoute: <sip:edge;lr>\r\n\r\n";
        let kept: Vec<&str> = [within, shifted, emergency].into_iter().chain(others).collect();
        let recorded = "INVITE sip:bob@example.net SIP/2.0\r\nVia: SIP/2.0/UDP a\r\nRecord-Route: <sip:edge;lr>\r\n\r\n";
        assert_eq!(passing(&[&[new.as_str(), recorded][..], &kept].concat()), kept);
    }

    #[test]
    fn a_share_passes_and_all_of_it_without_the_filter() {
        let (from, to) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        to.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut sieve = Sieve::new(true);
        let count = |sieve: &mut Sieve, share| {
            sieve.share = share;
            set(&to, &sieve.programs()).unwrap();
            for _ in 0..100 {
                from.send_to(b"INVITE sip:bob@example.net SIP/2.0\r\n\r\n", to.local_addr().unwrap()).unwrap();
            }
            std::iter::from_fn(|| to.recv(&mut [0; 64]).ok()).count()
        };
        assert!((20..80).contains(&count(&mut sieve, 0.5)));
        assert_eq!(count(&mut sieve, 1.0), 100);
        assert!(sieve.enabled);
    }

    #[test]
    fn the_share_falls_while_refusals_outweigh_service_and_comes_back() {
        let mut sieve = Sieve::new(true);
        let mut at = |window: u64, served: u64, refused: u64| {
            let (started, shed) = (sieve.started + served, sieve.shed + refused);
            sieve.adjust(window * WINDOW, started, shed, false)
        };
        assert_eq!(at(1, 100, 10), None, "a few refusals are no matter");
        assert_eq!(at(2, 100, 150), Some(0.5));
        assert_eq!(at(3, 0, 1_000), Some(0.5 * 0.33));
        assert_eq!(at(4, 100, 30), None, "in the band between");
        assert_eq!(at(5, 100, 0), Some(0.5 * 0.33 * STEP));
        assert!((6..11).filter_map(|window| at(window, 0, 0)).last().is_some_and(|share| share >= 1.0));
        assert_eq!(at(11, 0, 0), None);
        assert_eq!(sieve.adjust(12 * WINDOW, sieve.started + 1_000, sieve.shed + 50, true), Some(0.7), "the sockets never get empty");
    }
}
