//! Limits of the process: raised where they can be, told where not.

use std::io;
use std::ops::Range;
use std::os::fd::RawFd;

/// Raises the limit of open files to the hard limit, and says so where `wanted` is more.
pub(crate) fn raise_open_files(wanted: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid, writable rlimit.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return log::warn!(target: "start", "cannot read the limit of open files: {}", io::Error::last_os_error());
    }
    if limit.rlim_max < wanted {
        let more = libc::rlimit { rlim_cur: wanted, rlim_max: wanted };
        // SAFETY: `more` is a valid rlimit. Only root may, and anybody else goes on with what there is.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &more) } == 0 {
            return;
        }
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a valid rlimit.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
            log::warn!(target: "start", "cannot raise the limit of open files: {}", io::Error::last_os_error());
        }
    }
    if limit.rlim_cur < wanted {
        log::warn!(target: "start", "open files are limited to {}, the configured connections want {wanted}: raise the limit (LimitNOFILE, ulimit -n)", limit.rlim_cur);
    }
}

/// Lets the kernel put large pages under memory of ours, in its own time (khugepaged). A kernel that knows none leaves it as it is.
pub(crate) fn wish_for_large_pages(addresses: Range<usize>) {
    // SAFETY: sysconf takes and returns numbers only.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4_096);
    let (start, end) = (addresses.start.next_multiple_of(page), addresses.end / page * page);
    // SAFETY: this is advice, and changes the contents of no memory, whosever it is.
    if start < end && unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) } != 0 {
        log::debug!(target: "register", "the kernel has no large pages: {}", io::Error::last_os_error());
    }
}

/// Bytes that a socket's receive buffer holds, overhead of the kernel's among them, and how many datagrams the kernel dropped there:
/// for want of room, or since a filter wanted it; 0 where that cannot be told.
pub(crate) fn receive_memory(descriptor: RawFd) -> (u64, u32) {
    let mut figures = [0_u32; 9];
    let mut length = size_of_val(&figures) as libc::socklen_t;
    // SAFETY: `figures` is writable for `length` bytes, and the kernel writes no more.
    let done = unsafe { libc::getsockopt(descriptor, libc::SOL_SOCKET, libc::SO_MEMINFO, figures.as_mut_ptr().cast(), &mut length) };
    if done == 0 { (u64::from(figures[0]), figures[8]) } else { (0, 0) }
}

/// Binds the calling thread to one processor.
pub(crate) fn pin(processor: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if processor >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: `processor` lies inside the set.
    unsafe { libc::CPU_SET(processor, &mut set) };
    // SAFETY: `set` is valid for its size; 0 means the calling thread.
    if unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Blocks all signals in the calling thread, so that they reach the interpreter's main thread.
pub(crate) fn block_signals() {
    // SAFETY: `set` is filled by sigfillset before it is read; the old mask is not asked for.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut set);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}

/// Lets the calling thread sleep as short as it asks for; the kernel's default slack is 50 µs.
pub(crate) fn exact_timers() {
    // SAFETY: PR_SET_TIMERSLACK takes one number and touches only the calling thread.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000) };
}

/// Lets the calling thread run soon once it has work: it asks for a little less at a time than others do (sched(7), EEVDF), so that
/// whoever has the processor by then, such as a load of rules, need not come to the end of its own turn of some milliseconds first.
/// Those that work for each other, workers and policies, ask for the same, or one would cut the other's batches short. Kernels before
/// 6.12 know no such wish; a thread whose class somebody chose, such as a real-time one, keeps it.
pub fn take_short_turns() {
    let size = size_of::<libc::sched_attr>() as u32;
    // SAFETY: all fields are numbers.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes no more than `size` bytes; 0 means the calling thread.
    let known = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) } == 0;
    if !known || attributes.sched_policy != libc::SCHED_OTHER as u32 || attributes.sched_runtime == 0 {
        return;
    }
    attributes.sched_runtime = attributes.sched_runtime / 10 * 9;
    // SAFETY: the kernel reads `size` bytes. Where it refuses, turns stay as long as they are.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}

/// Lets workers go first on the processor that they share with the calling thread.
pub(crate) fn yield_to_others() {
    // SAFETY: setpriority has no preconditions; 0 means the calling thread, and everyone may make itself less important.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
}

/// Gives free memory back to the system; other threads may wait some milliseconds for it.
pub(crate) fn trim_memory() {
    // SAFETY: malloc_trim has no preconditions.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(test)]
mod tests {
    use std::fs;

    #[test]
    fn memory_that_large_pages_are_wished_for_is_marked_so() {
        if !fs::exists("/sys/kernel/mm/transparent_hugepage").unwrap() {
            return;
        }
        let memory = vec![1_u8; 8 << 20];
        let middle = memory.as_ptr() as usize + memory.len() / 2;
        let is_marked = || {
            let maps = fs::read_to_string("/proc/self/smaps").unwrap();
            let mut inside = false;
            maps.lines().any(|line| {
                if let Some((start, end)) = line.split_once(' ').and_then(|(range, _)| range.split_once('-')) {
                    let [start, end] = [start, end].map(|text| usize::from_str_radix(text, 16).unwrap_or_default());
                    inside = (start..end).contains(&middle);
                }
                inside && line.starts_with("VmFlags:") && line.contains(" hg")
            })
        };
        assert!(!is_marked());
        super::wish_for_large_pages(memory.as_ptr() as usize..middle + memory.len() / 2);
        assert!(is_marked());
    }
}
