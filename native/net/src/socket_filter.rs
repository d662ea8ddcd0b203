//! Classic BPF on a UDP socket: the kernel drops what a program returns 0 for before it is read (socket(7), `SO_ATTACH_FILTER`).

use std::io;
use std::os::fd::AsRawFd;

use libc::sock_filter;

/// A socket's filter sees the UDP header first.
pub(crate) const PAYLOAD: u32 = 8;
/// Let the whole message through.
pub(crate) const PASS: u32 = u32::MAX;

/// An instruction that does not branch.
pub(crate) fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Goes on where the accumulator is `k`, and otherwise so many instructions later.
pub(crate) fn unless_equal_skip(k: u32, skip: u8) -> sock_filter {
    sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: 0, jf: skip, k }
}

/// Skips so many instructions.
pub(crate) fn skip(count: usize) -> sock_filter {
    statement(libc::BPF_JMP | libc::BPF_JA, count as u32)
}

/// Ends with a verdict: `PASS`, or 0 to drop.
pub(crate) fn verdict(k: u32) -> sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, k)
}

/// Loads a word at an offset.
pub(crate) fn load_word(at: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_ABS | libc::BPF_W, at)
}

/// Loads a byte at an offset.
pub(crate) fn load_byte(at: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_ABS | libc::BPF_B, at)
}

/// Loads a random word.
pub(crate) fn load_chance() -> sock_filter {
    load_word(libc::SKF_AD_OFF.wrapping_add(libc::SKF_AD_RANDOM) as u32)
}

/// Goes on where the accumulator is below `share` of the highest word, and otherwise skips the next instruction.
pub(crate) fn by_chance_skip(share: f64) -> sock_filter {
    sock_filter { code: (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16, jt: 1, jf: 0, k: (share * f64::from(u32::MAX)) as u32 }
}

/// Puts the first of `programs` that the kernel takes on a socket in place of the one that it has; an empty one lets everything pass.
pub(crate) fn set(socket: &impl AsRawFd, programs: &[Vec<sock_filter>]) -> io::Result<()> {
    // The old one goes first: both together would be charged to the socket.
    detach(socket)?;
    let mut done = Ok(());
    for program in programs {
        done = if program.is_empty() { Ok(()) } else { attach(socket, program) };
        if done.is_ok() {
            break;
        }
    }
    done
}

fn attach(socket: &impl AsRawFd, program: &[sock_filter]) -> io::Result<()> {
    let given = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program and its description live during the call, and the kernel copies and verifies them.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, std::ptr::from_ref(&given).cast(), size_of::<libc::sock_fprog>() as u32)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn detach(socket: &impl AsRawFd) -> io::Result<()> {
    let nothing: libc::c_int = 0;
    // SAFETY: the option takes an int that it ignores.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_DETACH_FILTER, std::ptr::from_ref(&nothing).cast(), size_of::<libc::c_int>() as u32)
    };
    let error = io::Error::last_os_error();
    // ENOENT: there was none.
    if done == 0 || error.raw_os_error() == Some(libc::ENOENT) { Ok(()) } else { Err(error) }
}
