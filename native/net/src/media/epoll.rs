//! Readiness of very many sockets. What was not read wakes again, so that one system call reads one datagram and none finds
//! nothing: for RTP, which comes one by one, that is the cheapest.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Descriptors with a number each.
pub(super) struct Epoll {
    descriptor: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    /// One that tells of so many at once.
    pub(super) fn new(most: usize) -> io::Result<Self> {
        // SAFETY: makes a descriptor and touches no memory.
        let descriptor = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was made just now and belongs to nobody else.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { descriptor, events: vec![libc::epoll_event { events: 0, u64: 0 }; most] })
    }

    /// Tells of `socket` under `number` while it is readable; closing it ends that.
    pub(super) fn add(&self, socket: RawFd, number: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: number };
        // SAFETY: the event lives until after the call; a descriptor that is none is refused by the kernel.
        let done = unsafe { libc::epoll_ctl(self.descriptor.as_raw_fd(), libc::EPOLL_CTL_ADD, socket, &mut event) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits at most `milliseconds`; how many are readable, to be asked for by [`Epoll::number`].
    pub(super) fn wait(&mut self, milliseconds: i32) -> usize {
        // SAFETY: the vector is live and as long as is said.
        let count = unsafe { libc::epoll_wait(self.descriptor.as_raw_fd(), self.events.as_mut_ptr(), self.events.len() as i32, milliseconds) };
        // An interrupted wait is one that found nothing.
        count.max(0) as usize
    }

    /// The number of one that the last wait found.
    pub(super) fn number(&self, index: usize) -> u64 {
        self.events.get(index).map_or(0, |event| event.u64)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn what_was_not_read_wakes_again_and_what_is_closed_does_not() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut epoll = Epoll::new(4).unwrap();
        epoll.add(socket.as_raw_fd(), 7).unwrap();
        assert_eq!(epoll.wait(0), 0);
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        assert_eq!((epoll.wait(1_000), epoll.number(0)), (1, 7));
        assert_eq!(epoll.wait(0), 1);
        drop(socket);
        assert_eq!(epoll.wait(0), 0);
    }
}
