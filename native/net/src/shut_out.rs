//! Banned sources that go on sending much are shut out: the kernel drops what they send before we read it, but for a little that
//! tells us that they are still there. Reading a message only to drop it costs a microsecond and a half, which a flood makes half a
//! processor of; a filter costs us nothing, and needs no right that nftables would.

use std::io;
use std::net::IpAddr;

use libc::sock_filter;

use crate::socket_filter::{PAYLOAD, by_chance_skip, load_byte, load_chance, load_word, skip, statement, unless_equal_skip, verdict};

/// How often it is decided who is shut out, in microseconds. So long too a ban may have ended before its source is heard.
pub(crate) const WINDOW: u64 = 200_000;
/// Of the messages of banned sources one in so many is looked at, a power of two.
const SAMPLE: u32 = 16;
/// Samples of a source in a window for which it is shut out: 2,500 messages a second.
const MANY: u32 = 500 / SAMPLE;
/// Sources at once.
const MOST: usize = 64;
/// Windows without a sample after which a source is taken to be quiet: half a minute.
const PATIENCE: u64 = 150;
/// What passes of what those shut out send: each message that does may be one to wake up for.
const PASSES: f64 = 1.0 / 256.0;
/// The network header, as filters of sockets find it.
const NETWORK: u32 = libc::SKF_NET_OFF as u32;

/// Decides whom the kernel should not even hand us.
pub(crate) struct ShutOut {
    enabled: bool,
    window: u64,
    chance: u32,
    /// Candidates with their samples in this window, by Misra and Gries: whoever sends more than a 65th of all is among them.
    heard: Vec<(IpAddr, u32)>,
    /// Those shut out with the window in which they were heard last.
    sources: Vec<(IpAddr, u64)>,
}

impl ShutOut {
    pub(crate) fn new(enabled: bool) -> Self {
        Self { enabled, window: 0, chance: 1, heard: Vec::new(), sources: Vec::new() }
    }

    /// Whether there is anybody to be let in again some time.
    pub(crate) fn is_active(&self) -> bool {
        !self.sources.is_empty()
    }

    /// A message of a banned source came and was dropped.
    pub(crate) fn note(&mut self, source: IpAddr) {
        // A generator of Knuth's, so that no rhythm of several sources hides one of them.
        self.chance = self.chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if !self.enabled || self.chance >= u32::MAX / SAMPLE {
            return;
        }
        if let Some(there) = self.sources.iter_mut().find(|there| there.0 == source) {
            there.1 = self.window;
        } else if let Some(there) = self.heard.iter_mut().find(|there| there.0 == source) {
            there.1 += 1;
        } else if self.heard.len() < MOST {
            self.heard.push((source, 1));
        } else {
            self.heard.retain_mut(|there| {
                there.1 -= 1;
                there.1 > 0
            });
        }
    }

    /// Decides anew, once in a window; true where that changes the filter. Nobody is shut out for whom `may_be` is false.
    pub(crate) fn adjust(&mut self, now: u64, may_be: impl Fn(IpAddr) -> bool) -> bool {
        let window = now / WINDOW;
        if window == self.window {
            return false;
        }
        self.window = window;
        let before = self.sources.len();
        self.sources.retain(|&(source, heard)| window.saturating_sub(heard) <= PATIENCE && may_be(source));
        let mut changed = self.sources.len() < before;
        for (source, samples) in self.heard.drain(..) {
            if samples >= MANY && self.sources.len() < MOST && may_be(source) {
                self.sources.push((source, window));
                changed = true;
            }
        }
        changed
    }

    /// Does without: the kernel takes no filter.
    pub(crate) fn give_up(&mut self, error: &io::Error) {
        self.enabled = false;
        self.sources.clear();
        log::warn!(target: "flood", "the kernel takes no socket filter, so every message of a banned source must be read ({error})");
    }

    /// The filter, empty where nobody is shut out: messages of others go on behind it. So does a call for help, which may be any INVITE
    /// for a URI that is none of `sip`, or whose user begins with one of these bytes.
    pub(crate) fn program(&self, emergencies: &[u8]) -> Vec<sock_filter> {
        if self.sources.is_empty() {
            return Vec::new();
        }
        let (mut four, mut six) = (vec![load_word(NETWORK.wrapping_add(12))], Vec::new());
        // Behind each source stands a jump to the judgement, whose length is known at the end.
        let (mut found_four, mut found_six) = (Vec::new(), Vec::new());
        for (source, _) in &self.sources {
            match source.to_canonical() {
                IpAddr::V4(address) => {
                    four.push(unless_equal_skip(address.to_bits(), 1));
                    found_four.push(four.len());
                    four.push(skip(0));
                }
                IpAddr::V6(address) => {
                    for (index, word) in address.octets().chunks_exact(4).enumerate() {
                        let word = word.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
                        six.push(load_word(NETWORK.wrapping_add(8 + 4 * index as u32)));
                        six.push(unless_equal_skip(word, 7 - 2 * index as u8));
                    }
                    found_six.push(six.len());
                    six.push(skip(0));
                }
            }
        }
        let judgement = judgement(emergencies);
        // One more each: nobody was found, so the rest behind the judgement has the word.
        let (length_four, length_six) = (four.len() + 1, six.len() + 1);
        for at in found_four {
            four[at] = skip(length_four - at - 1 + length_six);
        }
        for at in found_six {
            six[at] = skip(length_six - at - 1);
        }
        four.push(skip(length_six + judgement.len()));
        six.push(skip(judgement.len()));
        let version = [load_byte(NETWORK), statement(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 4), unless_equal_skip(6, 1), skip(length_four)];
        version.into_iter().chain(four).chain(six).chain(judgement).collect()
    }
}

/// What becomes of a message of a source that is shut out: dropped, or jumped over what follows here.
fn judgement(emergencies: &[u8]) -> Vec<sock_filter> {
    let length = 12 + 2 * emergencies.len();
    let passes = |at: usize| skip(length - at - 1);
    let if_equal_skip_one = |k: u32| sock_filter { jt: 1, jf: 0, ..unless_equal_skip(k, 0) };
    let mut program = vec![
        load_chance(),
        by_chance_skip(PASSES),
        passes(2),
        load_word(PAYLOAD),
        if_equal_skip_one(u32::from_be_bytes(*b"INVI")),
        verdict(0),
        load_word(PAYLOAD + 7),
        statement(libc::BPF_ALU | libc::BPF_OR | libc::BPF_K, 0x2020_2020),
        if_equal_skip_one(u32::from_be_bytes(*b"sip:")),
        passes(9),
        load_byte(PAYLOAD + 11),
    ];
    for byte in emergencies {
        program.push(unless_equal_skip(u32::from(*byte), 1));
        program.push(passes(program.len()));
    }
    program.push(verdict(0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket_filter::{PASS, set};
    use std::net::UdpSocket;
    use std::time::Duration;

    /// A flood of so many messages of each source in one window, in turns.
    fn flood(shut_out: &mut ShutOut, sources: &[IpAddr], each: u32) {
        for _ in 0..each {
            sources.iter().for_each(|source| shut_out.note(*source));
        }
    }

    /// Those who flood are shut out.
    fn shut(sources: &[&str]) -> ShutOut {
        let mut shut_out = ShutOut::new(true);
        let sources: Vec<IpAddr> = sources.iter().map(|source| source.parse().unwrap()).collect();
        flood(&mut shut_out, &sources, 2_000);
        assert!(shut_out.adjust(WINDOW, |_| true));
        shut_out
    }

    #[test]
    fn whoever_sends_much_is_shut_out_until_it_is_quiet_or_free() {
        let mut shut_out = shut(&["192.0.2.1", "192.0.2.2"]);
        assert_eq!(shut_out.sources.len(), 2);
        assert!(!shut_out.adjust(WINDOW, |_| false), "once in a window");
        assert!(shut_out.adjust(2 * WINDOW, |source| source != IpAddr::from([192, 0, 2, 2])), "its ban has ended");
        let mut at = 3;
        while !shut_out.adjust(at * WINDOW, |_| true) {
            // The little that passes of a slow flood.
            if at < 100 {
                flood(&mut shut_out, &[IpAddr::from([192, 0, 2, 1])], 40);
            }
            at += 1;
        }
        assert!((240..260).contains(&at) && !shut_out.is_active(), "half a minute after the last: {at}");
    }

    #[test]
    fn many_that_send_little_are_read_and_do_not_hide_one_that_sends_much() {
        let mut shut_out = ShutOut::new(true);
        let loud = IpAddr::from([192, 0, 2, 1]);
        for number in 0..10_000_u32 {
            shut_out.note(IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
            shut_out.note(loud);
        }
        assert!(shut_out.adjust(WINDOW, |_| true));
        assert_eq!(shut_out.sources.iter().map(|there| there.0).collect::<Vec<_>>(), [loud]);
        let mut disabled = ShutOut::new(false);
        flood(&mut disabled, &[loud], 10_000);
        assert!(!disabled.adjust(WINDOW, |_| true));
    }

    /// How many of 200 such messages pass the filter.
    fn passing(shut_out: &ShutOut, from: &UdpSocket, message: &str) -> usize {
        let to = UdpSocket::bind((from.local_addr().unwrap().ip(), 0)).unwrap();
        let program = shut_out.program(b"1%").into_iter().chain([verdict(PASS)]).collect();
        set(&to, &[program]).unwrap();
        to.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let one = |_: &usize| from.send_to(message.as_bytes(), to.local_addr().unwrap()).is_ok();
        let sent = (0..200).filter(one).count();
        assert_eq!(sent, 200);
        std::iter::from_fn(|| to.recv(&mut [0; 64]).ok()).count()
    }

    #[test]
    fn the_kernel_drops_what_they_send_but_for_a_little_and_calls_for_help() {
        let others = ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.9"];
        let shut_out = shut(&[&others[..], &["127.0.0.9", "::1"]].concat());
        let (four, six, stranger) = (UdpSocket::bind("127.0.0.9:0").unwrap(), UdpSocket::bind("[::1]:0").unwrap(), UdpSocket::bind("127.0.0.8:0").unwrap());
        let dropped = ["OPTIONS sip:a SIP/2.0\r\n", "INVITE sip:bob@edge.example SIP/2.0\r\n", "INVITE sip:", "x", "SIP/2.0 200 OK\r\n"];
        for message in dropped {
            assert!(passing(&shut_out, &four, message) < 30 && passing(&shut_out, &six, message) < 30, "{message}");
        }
        for message in
            ["INVITE urn:service:sos SIP/2.0\r\n", "INVITE SIP:112@edge SIP/2.0\r\n", "INVITE sip:%31@edge SIP/2.0\r\n", "INVITE tel:112 SIP/2.0\r\n"]
        {
            assert_eq!((passing(&shut_out, &four, message), passing(&shut_out, &six, message)), (200, 200), "{message}");
        }
        assert_eq!(dropped.map(|message| passing(&shut_out, &stranger, message)), [200; 5]);
    }
}
