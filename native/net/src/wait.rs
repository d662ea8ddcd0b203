//! Waiting for several descriptors at once, and being woken by another thread.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// Wakes one thread out of [`wait`].
pub(crate) struct Bell {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { reader, writer })
    }

    /// Wakes the thread that waits for [`Bell::descriptor`].
    pub(crate) fn ring(&self) {
        if let Err(error) = (&self.writer).write(&[0]) {
            log::error!(target: "worker", "cannot wake a thread: {error}");
        }
    }

    /// Readable while somebody rang.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    /// Takes back what was rung, where somebody did.
    pub(crate) fn answer_if_rung(&self) {
        if is_readable(self.descriptor()) {
            self.answer();
        }
    }

    /// Takes back what was rung; to be called only where the descriptor is readable.
    pub(crate) fn answer(&self) {
        if let Err(error) = (&self.reader).read(&mut [0; 64]) {
            log::error!(target: "worker", "cannot read a wake-up: {error}");
        }
    }
}

/// Lets reads and writes of `descriptor` fail instead of wait.
pub(crate) fn set_nonblocking(descriptor: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: these commands of fcntl take and return numbers only.
    let done = unsafe {
        let flags = libc::fcntl(descriptor.as_raw_fd(), libc::F_GETFL);
        if flags < 0 { flags } else { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) }
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether a read of `descriptor` would not wait.
pub(crate) fn is_readable(descriptor: RawFd) -> bool {
    let mut ready = Vec::new();
    wait(&[descriptor], Duration::ZERO, &mut ready);
    ready.first() == Some(&true)
}

/// Waits until one of `descriptors` is readable, at most `timeout`; true for each that is.
pub(crate) fn wait(descriptors: &[RawFd], timeout: Duration, ready: &mut Vec<bool>) {
    let mut polls: Vec<libc::pollfd> = descriptors.iter().map(|fd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 }).collect();
    let time = libc::timespec { tv_sec: timeout.as_secs() as libc::time_t, tv_nsec: timeout.subsec_nanos().into() };
    // SAFETY: the array and the time are live and of the stated sizes; no signal mask is given.
    let count = unsafe { libc::ppoll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, &time, std::ptr::null()) };
    ready.clear();
    // An interrupted wait is one that found nothing.
    ready.extend(polls.iter().map(|poll| count > 0 && poll.revents != 0));
}
