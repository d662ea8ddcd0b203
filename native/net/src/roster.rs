//! Which thread runs which worker. A thread that has little to do runs the workers of others too: each wake-up costs
//! more than handling a message, and threads that share the load would each wake as often as one alone. Under load
//! workers move to threads of their own.

use std::os::fd::RawFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use crate::wait::Bell;
use crate::worker::Worker;

struct Inbox {
    closed: bool,
    workers: Vec<Worker>,
}

struct Place {
    inbox: Mutex<Inbox>,
    /// Workers that run here or are on their way.
    workers: AtomicUsize,
    /// Share of a processor in thousandths, over the last moments.
    busy: AtomicU32,
    bell: Bell,
}

/// The threads and the workers on their way between them.
pub(crate) struct Roster {
    places: Vec<Place>,
    stopping: AtomicBool,
    /// A thread busier than this gives workers away; 0 keeps every worker on a thread of its own.
    limit: u32,
}

impl Roster {
    /// A place for each of `threads`; `percent` of a processor is what one may be busy with several workers.
    pub(crate) fn new(threads: usize, percent: u8) -> std::io::Result<Self> {
        let place = || {
            let inbox = Mutex::new(Inbox { closed: false, workers: Vec::new() });
            Ok(Place { inbox, workers: AtomicUsize::new(0), busy: AtomicU32::new(0), bell: Bell::new()? })
        };
        let places = (0..threads).map(|_| place()).collect::<std::io::Result<_>>()?;
        Ok(Self { places, stopping: AtomicBool::new(false), limit: u32::from(percent) * 10 })
    }

    /// Where worker `index` begins.
    pub(crate) fn first_place(&self, index: usize) -> usize {
        if self.limit == 0 { index } else { 0 }
    }

    /// Puts `workers` at `place`; gives them back where its thread has ended.
    pub(crate) fn give(&self, place: usize, workers: Vec<Worker>) -> Vec<Worker> {
        let to = &self.places[place];
        let Ok(mut inbox) = to.inbox.lock() else { return workers };
        if inbox.closed {
            return workers;
        }
        to.workers.fetch_add(workers.len(), Ordering::AcqRel);
        inbox.workers.extend(workers);
        drop(inbox);
        to.bell.ring();
        Vec::new()
    }

    /// Takes what came for `place`; `None` once everything stops and nothing can come any more.
    pub(crate) fn take(&self, place: usize, has_workers: bool) -> Option<Vec<Worker>> {
        let mut inbox = self.places[place].inbox.lock().ok()?;
        let came = std::mem::take(&mut inbox.workers);
        if came.is_empty() && !has_workers && self.is_stopping() {
            inbox.closed = true;
            return None;
        }
        Some(came)
    }

    /// `count` workers left `place`, or ended there.
    pub(crate) fn left(&self, place: usize, count: usize) {
        self.places[place].workers.fetch_sub(count, Ordering::AcqRel);
    }

    /// The descriptor that tells `place` of newcomers.
    pub(crate) fn descriptor(&self, place: usize) -> RawFd {
        self.places[place].bell.descriptor()
    }

    /// The descriptor of `place` was readable.
    pub(crate) fn answer(&self, place: usize) {
        self.places[place].bell.answer();
    }

    /// No worker moves from now on; threads end with their last worker.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.places.iter().for_each(|place| place.bell.ring());
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// `place` was busy for so many thousandths of a processor. Where should its workers go, if anywhere?
    pub(crate) fn advise(&self, place: usize, busy: u32, behind: bool) -> Advice {
        self.places[place].busy.store(busy, Ordering::Relaxed);
        let workers = |index: usize| self.places[index].workers.load(Ordering::Acquire);
        if self.limit == 0 || self.is_stopping() {
            return Advice::Stay;
        }
        if workers(place) > 1 && (busy > self.limit || behind) {
            return (0..self.places.len()).find(|index| workers(*index) == 0).map_or(Advice::Stay, Advice::GiveHalf);
        }
        // A good deal below the limit, or both would soon part again.
        let fits = |index: &usize| workers(*index) > 0 && self.places[*index].busy.load(Ordering::Relaxed) + busy < self.limit / 2;
        if behind { Advice::Stay } else { (0..place).find(fits).map_or(Advice::Stay, Advice::Join) }
    }
}

/// What a thread should do with its workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    Stay,
    /// Half of them to that place, where nobody is.
    GiveHalf(usize),
    /// All of them to that place, once that has been so for a while.
    Join(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(workers: [usize; 3]) -> Roster {
        let roster = Roster::new(3, 60).unwrap();
        for (place, count) in roster.places.iter().zip(workers) {
            place.workers.store(count, Ordering::Release);
        }
        roster
    }

    #[test]
    fn a_busy_thread_parts_with_workers_and_an_idle_one_joins_another() {
        let gathered = roster([3, 0, 0]);
        assert_eq!(gathered.advise(0, 500, false), Advice::Stay);
        assert_eq!(gathered.advise(0, 601, false), Advice::GiveHalf(1));
        assert_eq!(gathered.advise(0, 100, true), Advice::GiveHalf(1), "no processor left, but behind");
        let spread = roster([1, 1, 1]);
        assert_eq!(spread.advise(0, 900, true), Advice::Stay, "one worker cannot be halved");
        assert_eq!(spread.advise(1, 100, false), Advice::Stay, "the other is busy");
        assert_eq!(spread.advise(0, 100, false), Advice::Stay, "the first one stays");
        assert_eq!(spread.advise(1, 150, false), Advice::Join(0));
    }

    #[test]
    fn without_a_limit_each_worker_keeps_its_thread() {
        let roster = Roster::new(2, 0).unwrap();
        assert_eq!([roster.first_place(0), roster.first_place(1)], [0, 1]);
        assert_eq!(roster.advise(1, 0, false), Advice::Stay);
    }

    #[test]
    fn a_thread_ends_only_when_nothing_can_come_any_more() {
        let roster = Roster::new(1, 60).unwrap();
        assert!(roster.take(0, false).is_some());
        roster.stop();
        assert!(roster.take(0, true).is_some(), "its own workers end first");
        assert!(roster.take(0, false).is_none());
        assert!(roster.places[0].inbox.lock().unwrap().closed);
    }
}
