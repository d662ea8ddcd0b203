//! The queues between the workers of a process and one policy process: to each worker belongs one either way.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::shared::{ByteReader, ByteWriter, Region, queue_bytes};

/// First bytes of the memory: the encoding's version and the sizes, then on a line of their own what the policy process tells of itself.
const FRONT: usize = 192;
const SIZES: usize = 8;
const HEARTBEAT: usize = 64;
const TAKEN: usize = 72;
const WAITED: usize = 80;
const HANDLED: usize = 88;
const VERSION: u64 = 0x6564_6765_0000_0002;

/// What a policy process did so far, as it tells by its link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Questions that it took.
    pub taken: u64,
    /// Microseconds that they had waited until then, in all.
    pub waited: u64,
    /// Microseconds from taking a batch to its last verdict, or to where its handlers wait for something.
    pub handled: u64,
}

/// The memory of one link.
#[derive(Clone)]
pub struct Link {
    region: Arc<Region>,
    workers: usize,
    capacity: usize,
}

impl Link {
    /// A new link with queues of `capacity` bytes, rounded up to a power of two; and the descriptor for the other process.
    ///
    /// # Errors
    /// What the system says where it has not the memory.
    pub fn create(workers: usize, capacity: usize) -> io::Result<(Self, OwnedFd)> {
        let capacity = capacity.next_power_of_two().max(4_096);
        let (region, fd) = Region::create(total(workers, capacity))?;
        region.word(SIZES).store((workers as u64) << 32 | capacity as u64, Ordering::Relaxed);
        region.word(0).store(VERSION, Ordering::Release);
        Ok((Self { region, workers, capacity }, fd))
    }

    /// The link that another process of this version made.
    ///
    /// # Errors
    /// Where the memory is not that of a link.
    pub fn open(fd: &impl AsRawFd) -> io::Result<Self> {
        let front = Region::open(fd, FRONT)?;
        let sizes = front.word(SIZES).load(Ordering::Relaxed);
        let (workers, capacity) = ((sizes >> 32) as usize, sizes as u32 as usize);
        if front.word(0).load(Ordering::Acquire) != VERSION || workers > 256 || !capacity.is_power_of_two() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not the memory of a policy link, or of another version"));
        }
        Ok(Self { region: Region::open(fd, total(workers, capacity))?, workers, capacity })
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Where `worker` writes its questions, and where it reads verdicts.
    pub fn worker_end(&self, worker: usize) -> (ByteWriter, ByteReader) {
        (ByteWriter::new(&self.region, self.offset(worker, 0), self.capacity), ByteReader::new(&self.region, self.offset(worker, 1), self.capacity))
    }

    /// Where a policy process reads the questions of `worker`, and where it writes verdicts.
    pub fn policy_end(&self, worker: usize) -> (ByteReader, ByteWriter) {
        (ByteReader::new(&self.region, self.offset(worker, 0), self.capacity), ByteWriter::new(&self.region, self.offset(worker, 1), self.capacity))
    }

    fn offset(&self, worker: usize, way: usize) -> usize {
        FRONT + (2 * worker + way) * queue_bytes(self.capacity)
    }

    /// Tells that the policy process is alive.
    pub fn beat(&self) {
        self.region.word(HEARTBEAT).fetch_add(1, Ordering::Relaxed);
    }

    /// Tells what the process has done.
    pub fn tell(&self, work: Work) {
        for (place, value) in [(TAKEN, work.taken), (WAITED, work.waited), (HANDLED, work.handled)] {
            self.region.word(place).store(value, Ordering::Relaxed);
        }
    }

    /// What it told last.
    pub fn work(&self) -> Work {
        let [taken, waited, handled] = [TAKEN, WAITED, HANDLED].map(|place| self.region.word(place).load(Ordering::Relaxed));
        Work { taken, waited, handled }
    }

    /// How often it told that.
    pub fn beats(&self) -> u64 {
        self.region.word(HEARTBEAT).load(Ordering::Relaxed)
    }
}

fn total(workers: usize, capacity: usize) -> usize {
    FRONT + 2 * workers * queue_bytes(capacity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_talks_with_the_other_process_and_with_nobody_else() {
        let (here, fd) = Link::create(3, 5_000).unwrap();
        let there = Link::open(&fd).unwrap();
        assert_eq!((there.workers(), there.capacity), (3, 8_192));
        for worker in 0..3 {
            let (mut questions, mut verdicts) = here.worker_end(worker);
            let (mut asked, mut answers) = there.policy_end(worker);
            questions.push(&[&[worker as u8]]).unwrap();
            answers.push(&[&[100 + worker as u8]]).unwrap();
            let mut into = Vec::new();
            assert!(asked.pop(&mut into).unwrap() && into == [worker as u8]);
            assert!(verdicts.pop(&mut into).unwrap() && into == [100 + worker as u8]);
        }
        there.beat();
        let work = Work { taken: 3, waited: 200, handled: 90 };
        there.tell(work);
        assert_eq!((here.beats(), here.work()), (1, work));
    }

    #[test]
    fn other_memory_is_no_link() {
        let (_region, fd) = Region::create(4_096).unwrap();
        assert!(Link::open(&fd).is_err());
    }
}
