//! A worker's ends of the links to policy processes: questions out, verdicts in.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use edge::{PolicyEvent, PolicyQuestion, PolicyToken};
use ring_queue::{ByteReader, ByteWriter, Link, Work};

use crate::clock::monotonic;

use std::os::fd::OwnedFd;

static NEXT: AtomicU32 = AtomicU32::new(1);
/// Verdicts taken from one link in one round.
const VERDICTS: usize = 512;
/// After so many microseconds nobody waits actively for a verdict any more.
const ATTENTION: u64 = 20_000;
/// After so many microseconds without a question what is still open was not put to a handler, or its verdict is not awaited actively.
const FORGOTTEN: u64 = 1_000_000;

/// The way to one policy process: made before that is started, so that it can inherit the descriptors.
pub struct PolicyLink {
    id: u32,
    link: Link,
    memory: OwnedFd,
    /// Wakes the process.
    bell: (PipeReader, Arc<PipeWriter>),
    /// Wake the workers.
    worker_bells: Vec<(PipeReader, PipeWriter)>,
    /// Some worker found a queue damaged: the process must go.
    damaged: Arc<AtomicBool>,
}

impl PolicyLink {
    /// A link for `workers`, whose queues hold `queue_bytes` each.
    ///
    /// # Errors
    /// What the system says where it has not the memory or the descriptors.
    pub fn new(workers: usize, queue_bytes: usize) -> io::Result<Self> {
        let (link, memory) = Link::create(workers, queue_bytes)?;
        let (reader, writer) = io::pipe()?;
        let worker_bells = (0..workers).map(|_| io::pipe()).collect::<io::Result<Vec<_>>>()?;
        // Who rings must never wait: a bell that is full of rings has been rung. Nor who takes that back.
        for (reader, writer) in worker_bells.iter().map(|(reader, writer)| (reader, writer)).chain([(&reader, &writer)]) {
            crate::wait::set_nonblocking(reader)?;
            crate::wait::set_nonblocking(writer)?;
        }
        Ok(Self { damaged: Arc::default(), id: NEXT.fetch_add(1, Ordering::Relaxed), link, memory, bell: (reader, Arc::new(writer)), worker_bells })
    }

    /// Names the link in this process.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What the process must inherit, in the order in which [`PolicyPort::open`] takes it.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let bells = self.worker_bells.iter().map(|(_, writer)| writer.as_raw_fd());
        [self.memory.as_raw_fd(), self.bell.0.as_raw_fd()].into_iter().chain(bells).collect()
    }

    /// How often the process told that it is alive.
    pub fn beats(&self) -> u64 {
        self.link.beats()
    }

    /// What the process has done.
    pub fn work(&self) -> Work {
        self.link.work()
    }

    /// Whether a worker found its queue damaged and forgot the link.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    pub(crate) fn worker_end(&self, worker: usize) -> io::Result<WorkerLink> {
        let (questions, verdicts) = self.link.worker_end(worker);
        let bell = self.worker_bells.get(worker).ok_or_else(|| io::Error::other("a link for fewer workers"))?.0.try_clone()?;
        Ok(WorkerLink { id: self.id, takes: true, questions, verdicts, bell, process: Arc::clone(&self.bell.1), damaged: Arc::clone(&self.damaged) })
    }
}

/// Takes back what was rung; nothing where nobody rang.
fn answer(bell: &mut PipeReader) {
    if let Err(error) = bell.read(&mut [0; 64])
        && error.kind() != io::ErrorKind::WouldBlock
    {
        log::error!(target: "policy", "cannot read a wake-up: {error}");
    }
}

/// One worker's end of one link.
pub(crate) struct WorkerLink {
    pub(crate) id: u32,
    /// Whether new questions go there.
    pub(crate) takes: bool,
    questions: ByteWriter,
    verdicts: ByteReader,
    bell: PipeReader,
    process: Arc<PipeWriter>,
    damaged: Arc<AtomicBool>,
}

/// All links of one worker.
#[derive(Default)]
pub(crate) struct Policies {
    links: Vec<WorkerLink>,
    /// Questions without a verdict yet, and when the last was put.
    open: u64,
    asked: u64,
}

impl Policies {
    pub(crate) fn add(&mut self, link: WorkerLink) {
        self.links.push(link);
    }

    /// Gives no more questions to `id`; takes its verdicts all the same.
    pub(crate) fn drain(&mut self, id: u32) {
        self.links.iter_mut().filter(|link| link.id == id).for_each(|link| link.takes = false);
    }

    pub(crate) fn remove(&mut self, id: u32) {
        self.links.retain(|link| link.id != id);
    }

    /// Links that take questions.
    pub(crate) fn taking(&self) -> Vec<u32> {
        self.links.iter().filter(|link| link.takes).map(|link| link.id).collect()
    }

    /// Descriptors that are readable once a process rang.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.links.iter().map(|link| link.bell.as_raw_fd())
    }

    /// Whether a verdict waits.
    pub(crate) fn came(&self) -> bool {
        self.links.iter().any(|link| !link.verdicts.is_empty())
    }

    /// From now on a verdict wakes us; true where one came in between.
    pub(crate) fn open(&self) -> bool {
        self.links.iter().for_each(|link| link.verdicts.open());
        self.came()
    }

    /// Whether somebody waits for a verdict that should come any moment.
    pub(crate) fn expects(&self, now: u64) -> bool {
        self.open > 0 && now.saturating_sub(self.asked) < ATTENTION
    }

    /// Takes back what processes rang.
    pub(crate) fn answer_bells(&mut self) {
        self.links.iter_mut().for_each(|link| answer(&mut link.bell));
    }

    /// Hands every verdict that came to `take`; a link that is damaged is dropped.
    pub(crate) fn take(&mut self, buffer: &mut Vec<u8>, take: &mut dyn FnMut(u32, &[u8])) -> usize {
        let mut count = 0;
        let mut damaged = Vec::new();
        for link in &mut self.links {
            for _ in 0..VERDICTS {
                match link.verdicts.pop(buffer) {
                    Ok(true) => {
                        take(link.id, buffer);
                        count += 1;
                    }
                    Ok(false) => break,
                    Err(error) => {
                        log::error!(target: "policy", "link {}: {error}", link.id);
                        link.damaged.store(true, Ordering::Relaxed);
                        damaged.push(link.id);
                        break;
                    }
                }
            }
        }
        damaged.into_iter().for_each(|id| self.remove(id));
        self.open = self.open.saturating_sub(count as u64);
        count
    }

    /// Puts questions to their processes, each woken once; those that find no room go to `refused`.
    /// True where a process was woken that slept, to decide.
    pub(crate) fn put(&mut self, now: u64, questions: &mut Vec<PolicyQuestion>, refused: &mut dyn FnMut(PolicyToken)) -> bool {
        let mut wake: Vec<u32> = Vec::new();
        let mut decides_any = false;
        if now.saturating_sub(self.asked) > FORGOTTEN {
            self.open = 0;
        }
        let put = monotonic().to_le_bytes();
        for question in questions.drain(..) {
            let decides = question.bytes.first().is_some_and(|event| PolicyEvent::decides(*event));
            let link = self.links.iter_mut().find(|link| link.id == question.link);
            match link.map(|link| link.questions.push(&[&question.bytes, &put])) {
                Some(Ok(asleep)) => {
                    if asleep && !wake.contains(&question.link) {
                        wake.push(question.link);
                    }
                    if decides {
                        self.open += 1;
                        self.asked = now;
                        decides_any = true;
                    }
                }
                Some(Err(_)) | None if decides => refused(question.token),
                Some(Err(_)) | None => {}
            }
        }
        for link in self.links.iter().filter(|link| wake.contains(&link.id)) {
            if let Err(error) = (&*link.process).write(&[0])
                && error.kind() != io::ErrorKind::WouldBlock
            {
                log::debug!(target: "policy", "cannot wake policy process {}: {error}", link.id);
            }
        }
        decides_any && !wake.is_empty()
    }

    /// Bytes that wait to be read by the processes.
    pub(crate) fn waiting(&self) -> u64 {
        self.links.iter().map(|link| link.questions.waiting()).sum()
    }
}

/// A worker's end without a worker, to measure and to test the crossing.
pub struct PolicyExchange(Policies);

impl PolicyExchange {
    /// The end of worker 0.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn new(link: &PolicyLink) -> io::Result<Self> {
        let mut policies = Policies::default();
        policies.add(link.worker_end(0)?);
        Ok(Self(policies))
    }

    /// Puts questions, whichever link they name; returns how many found no room.
    pub fn put(&mut self, mut questions: Vec<PolicyQuestion>) -> usize {
        let id = self.0.taking().first().copied().unwrap_or_default();
        questions.iter_mut().for_each(|question| question.link = id);
        let mut refused = 0;
        self.0.put(0, &mut questions, &mut |_| refused += 1);
        refused
    }

    /// Takes the verdicts that came.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        self.0.answer_bells();
        let mut taken = Vec::new();
        self.0.take(&mut Vec::new(), &mut |_, verdict| taken.push(verdict.to_vec()));
        self.0.open();
        taken
    }
}

/// The process's end: questions of all workers in, verdicts out.
pub struct PolicyPort {
    link: Link,
    bell: PipeReader,
    ends: Vec<(ByteReader, ByteWriter)>,
    worker_bells: Vec<PipeWriter>,
    wake: Vec<bool>,
    next: usize,
    work: Work,
    /// When the batch at hand was taken.
    began: Option<u64>,
}

impl PolicyPort {
    /// Opens what [`PolicyLink::descriptors`] named.
    ///
    /// # Errors
    /// Where these are not the descriptors of a link of this version.
    pub fn open(descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let mut descriptors = descriptors.into_iter();
        let missing = || io::Error::other("too few descriptors for a policy link");
        let memory = descriptors.next().ok_or_else(missing)?;
        let bell = PipeReader::from(descriptors.next().ok_or_else(missing)?);
        let link = Link::open(&memory)?;
        let worker_bells: Vec<PipeWriter> = descriptors.map(PipeWriter::from).collect();
        if worker_bells.len() != link.workers() {
            return Err(missing());
        }
        let ends = (0..link.workers()).map(|worker| link.policy_end(worker)).collect();
        Ok(Self { wake: vec![false; link.workers()], link, bell, ends, worker_bells, next: 0, work: Work::default(), began: None })
    }

    /// Readable while a worker rang.
    pub fn descriptor(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    /// Tells that this process is alive.
    pub fn beat(&self) {
        self.link.beat();
    }

    /// Takes back what workers rang.
    pub fn answer_bell(&mut self) {
        answer(&mut self.bell);
    }

    /// Takes up to `limit` questions, from the workers in turn, each with when it was put ([`monotonic`]).
    ///
    /// # Errors
    /// Where a queue is damaged.
    pub fn take(&mut self, limit: usize) -> io::Result<Vec<(Vec<u8>, u64)>> {
        let mut taken = Vec::new();
        let mut empty = 0;
        let now = monotonic();
        while taken.len() < limit && empty < self.ends.len() {
            self.next = (self.next + 1) % self.ends.len();
            let mut question = Vec::new();
            if self.ends[self.next].0.pop(&mut question).map_err(io::Error::other)? {
                let Some((rest, put)) = question.split_last_chunk() else {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a question without its time"));
                };
                let (length, put) = (rest.len(), u64::from_le_bytes(*put));
                question.truncate(length);
                self.work.taken += 1;
                self.work.waited += now.saturating_sub(put);
                taken.push((question, put));
                empty = 0;
            } else {
                empty += 1;
            }
        }
        self.began = (!taken.is_empty()).then_some(now);
        Ok(taken)
    }

    /// From now on a question wakes us; true where one came in between.
    pub fn rest(&self) -> bool {
        self.ends.iter().for_each(|(questions, _)| questions.open());
        self.ends.iter().any(|(questions, _)| !questions.is_empty())
    }

    /// Queues a verdict for the worker that `token` names; false where there is no room or no such worker.
    pub fn answer(&mut self, token: &[u8], verdict: &[u8]) -> bool {
        let Some(worker) = token.first().map(|worker| usize::from(*worker)).filter(|worker| *worker < self.ends.len()) else { return false };
        match self.ends[worker].1.push(&[token, verdict]) {
            Ok(asleep) => {
                self.wake[worker] |= asleep;
                true
            }
            Err(_) => false,
        }
    }

    /// Wakes the workers that verdicts were queued for.
    pub fn flush(&mut self) {
        if let Some(began) = self.began.take() {
            self.work.handled += monotonic().saturating_sub(began);
            self.link.tell(self.work);
        }
        for (wake, mut bell) in self.wake.iter_mut().zip(&self.worker_bells) {
            if std::mem::take(wake)
                && let Err(error) = bell.write(&[0])
                && error.kind() != io::ErrorKind::WouldBlock
            {
                log::debug!(target: "policy", "cannot wake a worker: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::Key;

    fn question(link: u32, text: &[u8]) -> PolicyQuestion {
        let token = PolicyToken { worker: 1, number: 1, names: edge::Named::Transaction, transaction: Key { slot: 1, generation: 1 } };
        PolicyQuestion { link, bytes: [&[PolicyEvent::Request as u8], text].concat(), token }
    }

    #[test]
    fn a_batch_wakes_once_either_way_and_comes_back_as_verdicts() {
        let link = PolicyLink::new(2, 4_096).unwrap();
        let owned = link.descriptors().into_iter().map(|fd| {
            // SAFETY: the descriptor is open, and it is cloned before anybody closes it.
            unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().unwrap()
        });
        let mut port = PolicyPort::open(owned.collect()).unwrap();
        let mut policies = Policies::default();
        policies.add(link.worker_end(1).unwrap());
        assert!(!port.rest());
        let mut questions = vec![question(link.id(), b"a"), question(link.id(), b"b")];
        assert!(policies.put(0, &mut questions, &mut |_| panic!("there is room")), "the process slept");
        let mut more = vec![question(link.id(), b"c")];
        assert!(!policies.put(0, &mut more, &mut |_| panic!("there is room")), "it is awake, and has something to do");
        assert!(crate::wait::is_readable(port.descriptor()) && policies.expects(1) && !policies.expects(ATTENTION));
        port.answer_bell();
        assert!(!crate::wait::is_readable(port.descriptor()));
        let before = monotonic();
        let taken = port.take(10).unwrap();
        assert_eq!(taken.iter().map(|(question, _)| &question[1..]).collect::<Vec<_>>(), [b"a", b"b", b"c"]);
        assert!(taken.iter().all(|(_, put)| (before - 1_000_000..=before).contains(put)));
        assert!(!policies.open());
        assert!(port.answer(&[1, 0, 0], b"w") && port.answer(&[1, 0, 0], b"x") && port.answer(&[1, 0, 0], b"y") && !port.answer(&[7], b""));
        port.flush();
        assert_eq!(policies.descriptors().filter(|fd| crate::wait::is_readable(*fd)).count(), 1);
        policies.answer_bells();
        let mut verdicts = Vec::new();
        assert_eq!(policies.take(&mut Vec::new(), &mut |_, bytes| verdicts.push(bytes[3])), 3);
        assert!(verdicts == b"wxy" && !policies.expects(1));
        // Told with the batch, and once.
        let work = link.work();
        assert!(work.taken == 3 && work.waited < 2_000_000 && work.handled < 1_000_000);
        port.flush();
        assert!(port.take(10).unwrap().is_empty() && link.work() == work);
    }

    #[test]
    fn what_finds_no_room_or_no_process_is_refused_at_once() {
        let link = PolicyLink::new(1, 4_096).unwrap();
        let mut policies = Policies::default();
        policies.add(link.worker_end(0).unwrap());
        let mut refused = 0;
        let mut questions = vec![question(link.id(), &[0; 3_000]), question(link.id(), &[0; 3_000]), question(99, b"")];
        policies.put(0, &mut questions, &mut |_| refused += 1);
        assert_eq!(refused, 2);
        policies.drain(link.id());
        assert!(policies.taking().is_empty() && policies.waiting() > 3_000);
    }
}
