//! Byte queues in memory that two processes share: one process writes, the other reads (DESIGN rule 4).
//!
//! A message is a length and its bytes, never split: one that does not fit before the end of the memory starts at its
//! beginning. The far side may die or go wrong at any moment, so every number read from the memory is checked, and a
//! message is copied out before anybody looks at it. Waking works as [`crate::Doorbell`] does.
#![expect(unsafe_code, reason = "memory that another process may change is reached through raw pointers only")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes of a queue's own fields; head, tail and doorbell lie on cache lines of their own.
const HEADER: usize = 192;
const TAIL: usize = 64;
const DOORBELL: usize = 128;
/// Stands for a length where the message starts at the beginning of the memory instead.
const SKIP: u32 = u32::MAX;

/// A piece of shared memory.
pub struct Region {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory is reached through atomics, or by copies that the queues' protocol keeps apart.
unsafe impl Send for Region {}
// SAFETY: as for `Send`.
unsafe impl Sync for Region {}

impl Region {
    /// New memory of `length` zero bytes, and the descriptor by which another process may open it.
    ///
    /// # Errors
    /// What the system says where it has not the memory.
    pub fn create(length: usize) -> io::Result<(Arc<Self>, OwnedFd)> {
        // SAFETY: the name is a literal with its terminator. The descriptor is inherited only where somebody asks for it.
        let fd = unsafe { libc::memfd_create(c"edgeproxy".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above made the descriptor, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let file = File::from(fd);
        file.set_len(length as u64)?;
        let fd = OwnedFd::from(file);
        // The far side must not be able to shrink the memory: touching what is gone would end this process.
        // SAFETY: F_ADD_SEALS takes a number and touches nothing else.
        if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((Self::open(&fd, length)?, fd))
    }

    /// The memory behind `fd`.
    ///
    /// # Errors
    /// Where the descriptor is no memory, or has less than `length` bytes.
    pub fn open(fd: &impl AsRawFd, length: usize) -> io::Result<Arc<Self>> {
        // SAFETY: all-zero is a valid stat, and the call fills it.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: `stat` is valid and writable.
        if unsafe { libc::fstat(fd.as_raw_fd(), &mut stat) } != 0 {
            return Err(io::Error::last_os_error());
        }
        if (stat.st_size as u64) < length as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "shared memory is shorter than expected"));
        }
        // SAFETY: a new mapping of a descriptor that holds at least `length` bytes; nothing is replaced.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        match NonNull::new(base.cast::<u8>()) {
            Some(base) if base.as_ptr().cast() != libc::MAP_FAILED => Ok(Arc::new(Self { base, length })),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The number at `offset`, which must be a multiple of eight inside the memory.
    ///
    /// # Panics
    /// Where it is not.
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.length, "a word lies inside its memory");
        // SAFETY: inside the mapping, aligned, and only ever used as this atomic by both processes.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    fn half_word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.length, "a word lies inside its memory");
        // SAFETY: as for `word`.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length, "a message lies inside its memory");
        // SAFETY: inside the mapping; the reader looks at these bytes only after head was moved past them.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(offset), bytes.len()) };
    }

    fn copy_out(&self, offset: usize, length: usize, into: &mut Vec<u8>) {
        assert!(offset + length <= self.length, "a message lies inside its memory");
        into.clear();
        into.reserve(length);
        // SAFETY: inside the mapping; `into` has room for `length` bytes, all of which are written before they count.
        // A far side gone wrong may change them meanwhile: then the copy holds other bytes, which its reader checks.
        unsafe {
            std::ptr::copy_nonoverlapping(self.base.as_ptr().add(offset), into.as_mut_ptr(), length);
            into.set_len(length);
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `open` and nobody has a reference into it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
    }
}

/// The far side broke the queue's rules; nothing it says from here on can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue in shared memory is damaged")]
pub struct Damaged;

/// What a queue of `capacity` bytes needs.
pub(crate) const fn queue_bytes(capacity: usize) -> usize {
    HEADER + capacity
}

/// The writing end of a queue. There is one at most. Where it stands it knows itself: the memory only tells the reader.
pub struct ByteWriter {
    region: Arc<Region>,
    offset: usize,
    capacity: u64,
    head: u64,
}

impl ByteWriter {
    /// The new queue at `offset`, a multiple of 64; `capacity` is a power of two.
    pub fn new(region: &Arc<Region>, offset: usize, capacity: usize) -> Self {
        Self { region: Arc::clone(region), offset, capacity: capacity as u64, head: 0 }
    }

    /// Queues the message that `parts` make together; true where the reader must be woken.
    ///
    /// # Errors
    /// [`Full`] where there is no room: nothing was queued.
    pub fn push(&mut self, parts: &[&[u8]]) -> Result<bool, Full> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let needed = (length as u64 + 4).next_multiple_of(8);
        let head = self.head;
        let used = head.wrapping_sub(self.region.word(self.offset + TAIL).load(Ordering::Acquire));
        let at = head & (self.capacity - 1);
        let before_end = self.capacity - at;
        let skipped = if needed > before_end { before_end } else { 0 };
        // A tail that went wrong counts as a full queue.
        if used > self.capacity || needed + skipped > self.capacity - used {
            return Err(Full);
        }
        let data = self.offset + HEADER;
        if skipped > 0 {
            self.region.half_word(data + at as usize).store(SKIP, Ordering::Relaxed);
        }
        let mut place = data + (head.wrapping_add(skipped) & (self.capacity - 1)) as usize;
        self.region.half_word(place).store(length as u32, Ordering::Relaxed);
        place += 4;
        for part in parts {
            self.region.copy_in(place, part);
            place += part.len();
        }
        self.head = head.wrapping_add(skipped + needed);
        self.region.word(self.offset).store(self.head, Ordering::Release);
        Ok(self.region.half_word(self.offset + DOORBELL).swap(1, Ordering::AcqRel) == 0)
    }

    /// Bytes that wait to be read.
    pub fn waiting(&self) -> u64 {
        self.head.wrapping_sub(self.region.word(self.offset + TAIL).load(Ordering::Relaxed))
    }
}

/// There is no room in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The reading end of a queue. There is one at most. Where it stands it knows itself: the memory only tells the writer.
pub struct ByteReader {
    region: Arc<Region>,
    offset: usize,
    capacity: u64,
    tail: u64,
}

impl ByteReader {
    /// The queue at `offset`, as [`ByteWriter::new`] was given it.
    pub fn new(region: &Arc<Region>, offset: usize, capacity: usize) -> Self {
        Self { region: Arc::clone(region), offset, capacity: capacity as u64, tail: 0 }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.region.word(self.offset).load(Ordering::Acquire) == self.tail
    }

    /// From now on the first message written wakes us; to be called before the last look.
    pub fn open(&self) {
        self.region.half_word(self.offset + DOORBELL).swap(0, Ordering::AcqRel);
    }

    /// Takes the oldest message into `into`; false where none waits.
    ///
    /// # Errors
    /// [`Damaged`] where what lies there cannot have been written by [`ByteWriter`].
    pub fn pop(&mut self, into: &mut Vec<u8>) -> Result<bool, Damaged> {
        let mut tail = self.tail;
        loop {
            let available = self.region.word(self.offset).load(Ordering::Acquire).wrapping_sub(tail);
            if available == 0 {
                return Ok(false);
            }
            let at = tail & (self.capacity - 1);
            let before_end = self.capacity - at;
            if available > self.capacity {
                return Err(Damaged);
            }
            let place = self.offset + HEADER + at as usize;
            let length = self.region.half_word(place).load(Ordering::Relaxed);
            if length == SKIP {
                if available <= before_end {
                    return Err(Damaged);
                }
                tail = tail.wrapping_add(before_end);
                continue;
            }
            let needed = (u64::from(length) + 4).next_multiple_of(8);
            if needed > available || needed > before_end {
                return Err(Damaged);
            }
            self.region.copy_out(place + 4, length as usize, into);
            self.tail = tail.wrapping_add(needed);
            self.region.word(self.offset + TAIL).store(self.tail, Ordering::Release);
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(capacity: usize) -> (ByteWriter, ByteReader, Arc<Region>) {
        let (region, _fd) = Region::create(queue_bytes(capacity)).unwrap();
        (ByteWriter::new(&region, 0, capacity), ByteReader::new(&region, 0, capacity), region)
    }

    fn take(reader: &mut ByteReader) -> Option<Vec<u8>> {
        let mut into = Vec::new();
        reader.pop(&mut into).unwrap().then_some(into)
    }

    #[test]
    fn messages_of_any_size_come_out_as_they_went_in_however_often_the_memory_wraps() {
        let (mut writer, mut reader, _) = pair(256);
        for number in 0..2_000usize {
            let text: Vec<u8> = (0..number % 100).map(|at| (at + number) as u8).collect();
            let (first, second) = text.split_at(text.len() / 3);
            writer.push(&[first, second]).unwrap();
            assert_eq!(take(&mut reader), Some(text));
        }
        assert!(reader.is_empty());
        assert_eq!(take(&mut reader), None);
    }

    #[test]
    fn a_full_queue_refuses_and_goes_on_when_there_is_room() {
        let (mut writer, mut reader, _) = pair(64);
        assert_eq!([writer.push(&[&[1; 20]]), writer.push(&[&[2; 20]])], [Ok(true), Ok(false)]);
        assert_eq!(writer.push(&[&[3; 20]]), Err(Full));
        assert_eq!(take(&mut reader), Some(vec![1; 20]));
        assert_eq!(writer.push(&[&[3; 20]]), Ok(false), "what was freed at the beginning");
        assert_eq!([take(&mut reader), take(&mut reader)], [Some(vec![2; 20]), Some(vec![3; 20])]);
        assert_eq!(writer.push(&[&[0; 61]]), Err(Full), "larger than the whole memory");
        reader.open();
        assert_eq!(writer.push(&[b"x"]), Ok(true));
    }

    #[test]
    fn whatever_another_process_writes_there_is_an_error_and_no_panic() {
        for (head, tail, length) in [(8, 0, 5), (8, 0, SKIP), (u64::MAX, 0, 1), (4, 3, 1), (72, 0, 1), (64, 0, SKIP), (8, 0, SKIP - 1), (1, 1, 9)] {
            let (mut writer, mut reader, region) = pair(64);
            region.word(0).store(head, Ordering::Relaxed);
            region.word(TAIL).store(tail, Ordering::Relaxed);
            region.half_word(HEADER).store(length, Ordering::Relaxed);
            assert_eq!(reader.pop(&mut Vec::new()), Err(Damaged), "{head} {tail} {length}");
            // The writer goes by its own count: where that cannot be, the queue is full.
            assert_eq!(writer.push(&[b"x"]).is_ok(), tail == 0);
            let _ = writer.push(&[&[0; 40]]);
            let _ = reader.pop(&mut Vec::new());
        }
    }

    #[test]
    fn two_threads_lose_and_mix_nothing() {
        let (mut writer, mut reader, _) = pair(1_024);
        let thread = std::thread::spawn(move || {
            for number in 0..50_000u32 {
                let length = (number % 57) as usize;
                while writer.push(&[&number.to_le_bytes(), &vec![number as u8; length]]).is_err() {
                    std::thread::yield_now();
                }
            }
        });
        for number in 0..50_000u32 {
            let message = loop {
                match take(&mut reader) {
                    Some(message) => break message,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(message[..4], number.to_le_bytes());
            assert!(message.len() == 4 + (number % 57) as usize && message[4..].iter().all(|byte| *byte == number as u8));
        }
        thread.join().unwrap();
    }
}
