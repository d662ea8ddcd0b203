//! Tells the service manager that the workers are alive (sd_notify(3), `WATCHDOG=1`): by a thread of its own, so that a busy
//! interpreter is no reason to be restarted, and only while every worker's thread makes its rounds.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Rounds of each thread, counted by itself.
pub(crate) type Beats = Vec<Arc<AtomicU64>>;

/// A thread that makes no round for so long is stuck: it waits for a second at most.
const PATIENCE: Duration = Duration::from_secs(3);

/// Feeds the service manager until it is dropped.
pub(crate) struct Watchdog {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Knows which threads have made rounds.
struct Pulse {
    beats: Beats,
    last: Vec<u64>,
    /// How long each has shown none.
    silent: Vec<Duration>,
}

impl Pulse {
    fn new(beats: Beats) -> Self {
        let count = beats.len();
        Self { beats, last: vec![u64::MAX; count], silent: vec![Duration::ZERO; count] }
    }

    /// `passed` after the last look: the threads that are stuck.
    fn stuck(&mut self, passed: Duration) -> Vec<usize> {
        for (index, beat) in self.beats.iter().enumerate() {
            let now = beat.load(Ordering::Relaxed);
            self.silent[index] = if now == self.last[index] { self.silent[index] + passed } else { Duration::ZERO };
            self.last[index] = now;
        }
        (0..self.beats.len()).filter(|index| self.silent[*index] >= PATIENCE).collect()
    }
}

impl Watchdog {
    /// Starts it where the service manager asks for that (`WATCHDOG_USEC` and `NOTIFY_SOCKET`).
    pub(crate) fn start(beats: Beats) -> io::Result<Option<Self>> {
        let variable = |name: &str| std::env::var(name).ok();
        let (Some(period), Some(place)) = (variable("WATCHDOG_USEC").and_then(|text| text.parse::<u64>().ok()), variable("NOTIFY_SOCKET")) else {
            return Ok(None);
        };
        if variable("WATCHDOG_PID").and_then(|text| text.parse::<u32>().ok()).is_some_and(|process| process != std::process::id()) {
            return Ok(None);
        }
        let address = match place.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&place)?,
        };
        let socket = UnixDatagram::unbound()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        // Half of what is asked, as sd_watchdog_enabled(3) advises.
        let round = Duration::from_micros((period / 2).max(1_000));
        let thread = thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            crate::limits::block_signals();
            let mut pulse = Pulse::new(beats);
            let mut told = false;
            while !stopped.load(Ordering::Acquire) {
                let stuck = pulse.stuck(round);
                if stuck.is_empty() {
                    told = false;
                    if let Err(error) = socket.send_to_addr(b"WATCHDOG=1", &address) {
                        log::warn!(target: "watchdog", "the service manager cannot be told that we are alive: {error}");
                    }
                } else if !told {
                    told = true;
                    log::error!(target: "watchdog", "threads {stuck:?} make no rounds: the service manager is told nothing more");
                }
                thread::park_timeout(round);
            }
        })?;
        Ok(Some(Self { stop, thread: Some(thread) }))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                log::error!(target: "watchdog", "the watchdog panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_without_rounds_is_stuck_after_some_seconds_and_comes_back() {
        let beats: Beats = (0..2).map(|_| Arc::default()).collect();
        let mut pulse = Pulse::new(beats.clone());
        let second = Duration::from_secs(1);
        for _ in 0..3 {
            beats[0].fetch_add(1, Ordering::Relaxed);
            assert!(pulse.stuck(second).is_empty());
        }
        beats[0].fetch_add(1, Ordering::Relaxed);
        assert_eq!(pulse.stuck(second), [1]);
        beats[1].fetch_add(1, Ordering::Relaxed);
        assert!(pulse.stuck(second).is_empty());
    }
}
