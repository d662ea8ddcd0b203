//! What the kernel drops at a worker's sockets before it is read: INVITEs that cannot even be refused, and floods of banned sources.

use std::io;
use std::sync::atomic::Ordering;

use edge::Shedding;
use proto::Now;

use super::Worker;
use super::port::Port;
use crate::socket_filter::{PASS, set, verdict};

impl Worker {
    /// What is refused from now on, and what of it the kernel need not even hand us.
    pub(crate) fn set_shedding(&mut self, now: Now, shedding: Shedding) {
        self.edge.set_shedding(shedding);
        let behind = shedding >= Shedding::Registrations;
        let sieved = self.sieve.adjust(now.moment.0, self.counters.calls_started.get(), self.counters.shed_overload.get(), behind).is_some();
        let edge = &self.edge;
        if self.shut_out.adjust(now.moment.0, |source| edge.shuts_out(now, source)) || sieved {
            self.filter();
        }
    }

    /// Whether the kernel drops anything for us.
    pub(super) fn filters(&self) -> bool {
        self.sieve.is_active() || self.shut_out.is_active()
    }

    /// Gives sockets the filters of this moment: to be done where those change, the sockets do, or which calls ask for help.
    pub(super) fn filter(&mut self) {
        // Each round does without one of the two, if it comes to that.
        while let Err(error) = self.try_filter() {
            if self.sieve.is_active() {
                self.sieve.give_up(&error);
            } else if self.shut_out.is_active() {
                self.shut_out.give_up(&error);
            } else {
                break;
            }
        }
        self.status.unread_percent.store(self.sieve.percent(), Ordering::Relaxed);
    }

    fn try_filter(&self) -> io::Result<()> {
        let head = self.shut_out.program(&self.edge.emergency_beginnings());
        let mut programs = self.sieve.programs();
        if !head.is_empty() {
            for program in &mut programs {
                let tail = if program.is_empty() { vec![verdict(PASS)] } else { std::mem::take(program) };
                *program = [head.as_slice(), &tail].concat();
            }
        }
        // A socket of several workers is left alone: what is shut out here might be wanted there.
        let own = self.ports.iter().filter_map(|port| if let Port::Datagram { socket, own: true, .. } = port { Some(socket) } else { None });
        own.map(|socket| set(socket, &programs)).fold(Ok(()), Result::and)
    }

    /// Tells how many datagrams the kernel dropped.
    pub(super) fn count_drops(&mut self) {
        let drops: u64 = self.ports.iter_mut().map(|port| u64::from(port.take_drops())).sum();
        self.status.socket_drops.fetch_add(drops, Ordering::Relaxed);
    }
}
