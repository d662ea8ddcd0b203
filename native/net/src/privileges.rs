//! Becomes another user and gives capabilities up. Every thread of the process counts, so this is done before any is started.

use std::io;

/// `CAP_NET_BIND_SERVICE` of capabilities(7): ports below `net.ipv4.ip_unprivileged_port_start`.
const NET_BIND_SERVICE: u32 = 10;
/// `_LINUX_CAPABILITY_VERSION_3`: two words for each set.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    process: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn checked(done: libc::c_int) -> io::Result<()> {
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Becomes `user` of `group` for good; with `bind_low` the right to bind low ports stays, and nothing else does.
///
/// # Errors
/// What the system says; the process may then be neither the old nor the new user, so that it has to end.
pub fn become_user(user: u32, group: u32, bind_low: bool) -> io::Result<()> {
    // SAFETY: plain numbers, and an empty list of groups that is not read.
    unsafe {
        checked(libc::prctl(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(bind_low), 0, 0, 0))?;
        checked(libc::setgroups(0, std::ptr::null()))?;
        checked(libc::setresgid(group, group, group))?;
        checked(libc::setresuid(user, user, user))?;
    }
    keep(if bind_low { 1 << NET_BIND_SERVICE } else { 0 })?;
    // SAFETY: plain numbers. Nothing that we start gets rights back, by set-user-ID files or otherwise.
    unsafe { checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) }
}

/// Keeps the capabilities of `mask` and no others.
fn keep(mask: u32) -> io::Result<()> {
    let header = Header { version: VERSION, process: 0 };
    let nothing = Sets { effective: 0, permitted: 0, inheritable: 0 };
    let sets = [Sets { effective: mask, permitted: mask, inheritable: 0 }, nothing];
    // SAFETY: header and both words of the sets live during the call, as version 3 wants them.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives every capability up, so that nothing that is run here has more rights than any user.
///
/// # Errors
/// What the system says.
pub fn give_up_capabilities() -> io::Result<()> {
    // SAFETY: plain numbers.
    unsafe { checked(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))? };
    keep(0)
}

/// Whether the process may bind low ports.
pub fn may_bind_low() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    effective.is_some_and(|mask| mask & 1 << NET_BIND_SERVICE != 0)
}
