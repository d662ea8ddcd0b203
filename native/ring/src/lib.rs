//! Bounded queues between threads, and between processes: what does not fit is given back, nobody waits.
#![deny(unsafe_code)]

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells a sleeping reader once, however much is posted before it looks.
///
/// The writer posts, then rings; the reader answers, then looks. Whoever comes second sees the other: nothing
/// posted is left lying while the reader sleeps, and a busy reader is not woken again and again.
#[derive(Default)]
pub struct Doorbell(AtomicBool);

impl Doorbell {
    /// True where the reader must be woken: nobody rang since it last answered.
    pub fn ring(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// The reader is awake and about to look.
    pub fn answer(&self) {
        self.0.swap(false, Ordering::AcqRel);
    }
}

#[cfg(not(loom))]
mod mailbox {
    use crossbeam_queue::ArrayQueue;

    use crate::Doorbell;

    /// A bounded queue with many writers and one reader.
    pub struct Mailbox<T> {
        queue: ArrayQueue<T>,
        doorbell: Doorbell,
    }

    impl<T> Mailbox<T> {
        /// A queue for `capacity` items, at least one.
        pub fn new(capacity: usize) -> Self {
            Self { queue: ArrayQueue::new(capacity.max(1)), doorbell: Doorbell::default() }
        }

        /// Queues `item`; true where the reader must be woken.
        ///
        /// # Errors
        /// Gives `item` back where the queue is full.
        pub fn post(&self, item: T) -> Result<bool, T> {
            self.queue.push(item)?;
            Ok(self.doorbell.ring())
        }

        /// Begins a round of reading: what is posted from now on rings again.
        pub fn open(&self) {
            self.doorbell.answer();
        }

        /// Takes the oldest item.
        pub fn take(&self) -> Option<T> {
            self.queue.pop()
        }

        /// How many items wait.
        pub fn len(&self) -> usize {
            self.queue.len()
        }

        /// Whether none waits.
        pub fn is_empty(&self) -> bool {
            self.queue.is_empty()
        }
    }

    #[cfg(test)]
    mod tests {
        use super::Mailbox;

        #[test]
        fn a_full_mailbox_gives_the_item_back_and_rings_once() {
            let mailbox = Mailbox::new(2);
            assert_eq!([mailbox.post(1), mailbox.post(2), mailbox.post(3)], [Ok(true), Ok(false), Err(3)]);
            mailbox.open();
            assert_eq!([mailbox.take(), mailbox.take(), mailbox.take()], [Some(1), Some(2), None]);
            assert_eq!(mailbox.post(4), Ok(true));
        }
    }
}

#[cfg(not(loom))]
mod link;
#[cfg(not(loom))]
mod shared;

#[cfg(not(loom))]
pub use link::{Link, Work};
#[cfg(not(loom))]
pub use mailbox::Mailbox;
#[cfg(not(loom))]
pub use shared::{ByteReader, ByteWriter, Damaged, Full, Region};

#[cfg(all(test, loom))]
mod model {
    use super::Doorbell;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn nothing_posted_is_left_lying_while_the_reader_sleeps() {
        loom::model(|| {
            let shared = Arc::new((Doorbell::default(), AtomicUsize::new(0), AtomicUsize::new(0)));
            let writer = Arc::clone(&shared);
            let thread = loom::thread::spawn(move || {
                for _ in 0..2 {
                    writer.1.fetch_add(1, Ordering::AcqRel);
                    if writer.0.ring() {
                        writer.2.fetch_add(1, Ordering::AcqRel);
                    }
                }
            });
            let (mut seen, mut woken) = (0, 0);
            for _ in 0..2 {
                let wakes = shared.2.load(Ordering::Acquire);
                if wakes > woken {
                    woken = wakes;
                    shared.0.answer();
                    seen += shared.1.swap(0, Ordering::AcqRel);
                }
            }
            thread.join().unwrap();
            let wakes = shared.2.load(Ordering::Acquire);
            if seen < 2 {
                assert!(wakes > woken, "something waits and nobody was woken for it");
            }
        });
    }
}
