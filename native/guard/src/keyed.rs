//! Values of many keys, shared by all workers without a lock: made for the first who holds a key, and gone with the last, or kept
//! until somebody retires them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use papaya::HashMap;

/// A slot with so many holders is out of the table: whoever finds it there takes another one.
const RETIRED: u32 = u32::MAX;

/// One key with its value.
#[derive(Debug)]
pub struct Slot<V> {
    holders: AtomicU32,
    key: Box<str>,
    value: V,
}

impl<V> Slot<V> {
    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value.
    pub fn value(&self) -> &V {
        &self.value
    }

    /// Who holds it now.
    pub fn holders(&self) -> u32 {
        match self.holders.load(Ordering::SeqCst) {
            RETIRED => 0,
            holders => holders,
        }
    }
}

/// Why a key could not be held.
#[derive(Clone, Debug)]
pub enum NotHeld<V> {
    /// As many hold it as may.
    Full(Arc<Slot<V>>),
    /// The table has no room for another key.
    NoRoom,
}

/// The table.
#[derive(Debug)]
pub struct Keyed<V> {
    map: HashMap<Box<str>, Arc<Slot<V>>>,
    count: AtomicUsize,
    most: AtomicUsize,
    /// A key stays when nobody holds it any more.
    keeps: bool,
}

impl<V: Send + Sync> Keyed<V> {
    /// A table for `most` keys.
    pub fn new(most: usize) -> Self {
        Self { map: HashMap::new(), count: AtomicUsize::new(0), most: AtomicUsize::new(most), keeps: false }
    }

    /// One whose keys stay until they are retired.
    pub fn keeping(most: usize) -> Self {
        Self { keeps: true, ..Self::new(most) }
    }

    /// Has room for `most` keys from now on; those that are there stay.
    pub fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Whether more than three quarters of its room are taken.
    pub fn is_crowded(&self) -> bool {
        self.len() > self.most.load(Ordering::Relaxed) / 4 * 3
    }

    /// Keys that are there.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The slot of `key`, if anybody holds that.
    pub fn get(&self, key: &str) -> Option<Arc<Slot<V>>> {
        self.map.pin().get(key).cloned()
    }

    /// The slot of `key`, made where there is none and held by nobody; nothing where there is no room for another key.
    pub fn open(&self, key: &str, make: impl Fn() -> V) -> Option<Arc<Slot<V>>> {
        loop {
            let slot = self.slot(key, &make)?;
            if slot.holders.load(Ordering::Acquire) != RETIRED {
                return Some(slot);
            }
            self.take_out(&slot);
        }
    }

    /// Every key that is there.
    pub fn all(&self) -> Vec<Arc<Slot<V>>> {
        self.map.pin().values().cloned().collect()
    }

    fn slot(&self, key: &str, make: &impl Fn() -> V) -> Option<Arc<Slot<V>>> {
        let map = self.map.pin();
        if let Some(slot) = map.get(key) {
            return Some(Arc::clone(slot));
        }
        // Counted before it is put in, so that there are never more.
        let room = |count: usize| (count < self.most.load(Ordering::Relaxed)).then_some(count + 1);
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        let fresh = Arc::new(Slot { holders: AtomicU32::new(0), key: key.into(), value: make() });
        match map.try_insert(key.into(), Arc::clone(&fresh)) {
            Ok(_) => Some(fresh),
            Err(taken) => {
                self.count.fetch_sub(1, Ordering::Relaxed);
                Some(Arc::clone(taken.current))
            }
        }
    }

    /// Holds `key` beside fewer than `most` others: one compare-and-add, so that there are never more.
    ///
    /// # Errors
    /// [`NotHeld`] where as many hold it, or there is no room for another key.
    pub fn hold(self: &Arc<Self>, key: &str, most: u32, make: impl Fn() -> V) -> Result<Holder<V>, NotHeld<V>> {
        loop {
            let Some(slot) = self.slot(key, &make) else { return Err(NotHeld::NoRoom) };
            let add = |holders: u32| (holders < most.min(RETIRED - 1)).then(|| holders + 1);
            match slot.holders.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add) {
                Ok(_) => return Ok(Holder { table: Arc::clone(self), slot }),
                // Its last holder is about to take it out: nobody waits for that.
                Err(RETIRED) => self.take_out(&slot),
                Err(holders) => {
                    if holders == 0 && !self.keeps {
                        self.retire(&slot);
                    }
                    return Err(NotHeld::Full(slot));
                }
            }
        }
    }

    /// Takes the key out if nobody holds it; true where that was so.
    pub fn retire(&self, slot: &Arc<Slot<V>>) -> bool {
        let retired = slot.holders.compare_exchange(0, RETIRED, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if retired {
            self.take_out(slot);
        }
        retired
    }

    fn take_out(&self, slot: &Arc<Slot<V>>) {
        let map = self.map.pin();
        let removed = matches!(map.remove_if(&*slot.key, |_, found| Arc::ptr_eq(found, slot)), Ok(Some(_)));
        if removed {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Holds one key until it is dropped.
#[derive(Debug)]
pub struct Holder<V: Send + Sync> {
    table: Arc<Keyed<V>>,
    slot: Arc<Slot<V>>,
}

impl<V: Send + Sync> Holder<V> {
    /// What is held.
    pub fn slot(&self) -> &Arc<Slot<V>> {
        &self.slot
    }
}

impl<V: Send + Sync> Drop for Holder<V> {
    fn drop(&mut self) {
        if self.slot.holders.fetch_sub(1, Ordering::AcqRel) == 1 && !self.table.keeps {
            self.table.retire(&self.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn a_key_is_there_as_long_as_it_is_held() {
        let table = Arc::new(Keyed::<u8>::new(2));
        let first = table.hold("a", 2, || 7).unwrap();
        let second = table.hold("a", 2, || 8).unwrap();
        assert!(matches!(table.hold("a", 2, || 9), Err(NotHeld::Full(slot)) if slot.holders() == 2 && *slot.value() == 7));
        let _other = table.hold("b", 1, || 0).unwrap();
        assert!(matches!(table.hold("c", 1, || 0), Err(NotHeld::NoRoom)));
        drop(first);
        assert_eq!((second.slot().holders(), table.len()), (1, 2));
        drop(second);
        assert!(table.get("a").is_none() && table.len() == 1);
        assert!(matches!(table.hold("c", 0, || 0), Err(NotHeld::Full(_))) && table.len() == 1, "one that nobody may hold is not kept");
        let keeping = Arc::new(Keyed::<u8>::keeping(1));
        drop(keeping.hold("c", 1, || 3).unwrap());
        let left = keeping.get("c").unwrap();
        assert!(keeping.retire(&left) && keeping.get("c").is_none() && keeping.is_empty());
    }

    #[test]
    fn many_threads_at_once_are_never_more_than_may_and_leave_nothing() {
        let (table, inside, most) = (Arc::new(Keyed::<()>::new(100)), [AtomicU64::new(0), AtomicU64::new(0)], AtomicU64::new(0));
        let admitted: u64 = std::thread::scope(|scope| {
            let work = |seed: usize| {
                let (table, inside, most) = (Arc::clone(&table), &inside, &most);
                move || {
                    let mut admitted = 0;
                    for round in 0..30_000 {
                        let which = (round / 7 + seed) % 2;
                        if let Ok(held) = table.hold(["x", "y"][which], 2, || ()) {
                            most.fetch_max(inside[which].fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            inside[which].fetch_sub(1, Ordering::SeqCst);
                            drop(held);
                            admitted += 1;
                        }
                    }
                    admitted
                }
            };
            let workers: Vec<_> = (0..4).map(|seed| scope.spawn(work(seed))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap_or_default()).sum()
        });
        // Whether two were ever inside at once is the scheduler's choice: a thread may run through in one slice.
        assert!(admitted > 60_000 && most.load(Ordering::SeqCst) <= 2, "{admitted} {most:?}");
        assert!(table.is_empty() && table.all().is_empty());
        let both = [table.hold("x", 2, || ()), table.hold("x", 2, || ())];
        assert!(both.iter().all(Result::is_ok) && table.hold("x", 2, || ()).is_err(), "as many may hold as before, and no more");
    }
}
