//! Writes call records as JSON lines into a rotated file. A full disk or queue is counted and holds up no call.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use edge::CallRecord;
use ring_queue::Mailbox;

use crate::install::RecordSettings;

/// How often the queue is emptied while records come: waking the writer for each would cost more than writing it.
const ROUND: Duration = Duration::from_millis(20);

/// A record as the file has it.
///
/// # Errors
/// What the serializer says; a record of the edge has nothing that it refuses.
pub fn record_text(record: &CallRecord) -> Result<String, String> {
    serde_json::to_string(record).map_err(|error| error.to_string())
}

/// Where workers put their records.
pub(crate) struct RecordQueue {
    records: Mailbox<CallRecord>,
    pub(crate) dropped: AtomicU64,
    pub(crate) written: AtomicU64,
    stop: AtomicBool,
    writer: OnceLock<Thread>,
}

impl RecordQueue {
    /// Records that wait to be written.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn push(&self, record: CallRecord) {
        match self.records.post(record) {
            Ok(true) => self.wake(),
            Ok(false) => {}
            Err(_) => drop(self.dropped.fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }
}

/// The writer and its queue.
pub(crate) struct RecordWriter {
    pub(crate) queue: Arc<RecordQueue>,
    thread: Option<JoinHandle<()>>,
}

impl RecordWriter {
    /// Starts the writer; the file is opened first, so that a wrong path is told at start.
    pub(crate) fn start(settings: &RecordSettings) -> io::Result<Self> {
        let queue = Arc::new(RecordQueue {
            records: Mailbox::new(settings.queue),
            dropped: AtomicU64::new(0),
            written: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            writer: OnceLock::new(),
        });
        if settings.path.as_os_str().is_empty() {
            return Ok(Self { queue, thread: None });
        }
        let mut file = RotatedFile::open(settings)?;
        let shared = Arc::clone(&queue);
        let thread = thread::Builder::new().name("records".to_owned()).spawn(move || {
            crate::limits::block_signals();
            crate::limits::yield_to_others();
            loop {
                let stopping = shared.stop.load(Ordering::Acquire);
                let mut came = drain(&shared, &mut file);
                if !came && file.failures == 0 {
                    // From now on the next record wakes; what came just before is here.
                    shared.records.open();
                    came = drain(&shared, &mut file);
                }
                if stopping {
                    // Nobody will try again.
                    shared.dropped.fetch_add(file.unflushed, Ordering::Relaxed);
                    return;
                }
                if came || file.failures > 0 {
                    thread::park_timeout(ROUND);
                } else {
                    thread::park();
                }
            }
        })?;
        queue.writer.get_or_init(|| thread.thread().clone());
        Ok(Self { queue, thread: Some(thread) })
    }

    /// Whether a file is written at all.
    pub(crate) fn is_active(&self) -> bool {
        self.thread.is_some()
    }

    /// Writes what waits and ends.
    pub(crate) fn stop(&mut self) {
        self.queue.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            self.queue.wake();
            if thread.join().is_err() {
                log::error!(target: "records", "the writer of call records panicked");
            }
        }
    }
}

/// Writes what waits; whether there was any.
fn drain(queue: &RecordQueue, file: &mut RotatedFile) -> bool {
    let (mut failed, mut came) = (None, false);
    while let Some(record) = queue.records.take() {
        came = true;
        if let Err(error) = file.write(&record) {
            queue.dropped.fetch_add(1, Ordering::Relaxed);
            failed = Some(error);
        }
    }
    // What a full disk did not take is tried again with each round, and counts as written only then.
    match file.flush() {
        Ok(count) => drop(queue.written.fetch_add(count, Ordering::Relaxed)),
        Err(error) => failed = Some(error),
    }
    match failed {
        Some(error) => {
            file.failures += 1;
            if file.failures.is_power_of_two() {
                log::error!(target: "records", "cannot write call records: {error}");
            }
        }
        None if file.failures > 0 => {
            file.failures = 0;
            log::info!(target: "records", "call records are written again");
        }
        None => {}
    }
    came
}

struct RotatedFile {
    path: PathBuf,
    rotate_bytes: u64,
    keep_files: u32,
    size: u64,
    out: BufWriter<File>,
    line: Vec<u8>,
    /// Records that the file may not have yet.
    unflushed: u64,
    /// Rounds in a row in which the disk did not take everything.
    failures: u64,
}

impl RotatedFile {
    fn open(settings: &RecordSettings) -> io::Result<Self> {
        if let Some(directory) = settings.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let (out, size) = open(&settings.path)?;
        Ok(Self {
            path: settings.path.clone(),
            rotate_bytes: settings.rotate_bytes,
            keep_files: settings.keep_files,
            size,
            out,
            line: Vec::with_capacity(1_024),
            unflushed: 0,
            failures: 0,
        })
    }

    fn write(&mut self, record: &CallRecord) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, record)?;
        self.line.push(b'\n');
        if self.size > 0 && self.size + self.line.len() as u64 > self.rotate_bytes {
            self.rotate()?;
        }
        self.out.write_all(&self.line)?;
        self.size += self.line.len() as u64;
        self.unflushed += 1;
        Ok(())
    }

    /// Returns how many records the file has now that it may not have had before.
    fn flush(&mut self) -> io::Result<u64> {
        if self.unflushed > 0 {
            self.out.flush()?;
        }
        Ok(std::mem::take(&mut self.unflushed))
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.out.flush()?;
        for number in (1..self.keep_files).rev() {
            let from = numbered(&self.path, number);
            if from.exists() {
                fs::rename(&from, numbered(&self.path, number + 1))?;
            }
        }
        if self.keep_files > 0 {
            fs::rename(&self.path, numbered(&self.path, 1))?;
        } else {
            fs::remove_file(&self.path)?;
        }
        (self.out, self.size) = open(&self.path)?;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(BufWriter<File>, u64)> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let size = file.metadata()?.len();
    Ok((BufWriter::with_capacity(64 << 10, file), size))
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(path: &Path) -> (u64, u64) {
        let mut writer = RecordWriter::start(&RecordSettings { path: path.to_owned(), rotate_bytes: 1 << 20, keep_files: 1, queue: 16 }).unwrap();
        (0..3).for_each(|_| writer.queue.push(CallRecord::default()));
        writer.stop();
        (writer.queue.written.load(Ordering::Relaxed), writer.queue.dropped.load(Ordering::Relaxed))
    }

    #[test]
    fn a_writer_that_sleeps_is_woken_by_the_next_record() {
        let path = std::env::temp_dir().join(format!("edgeproxy-quiet-records-{}", std::process::id()));
        let mut writer = RecordWriter::start(&RecordSettings { path: path.clone(), rotate_bytes: 1 << 20, keep_files: 1, queue: 16 }).unwrap();
        for count in 1..=3 {
            thread::sleep(ROUND * 3);
            writer.queue.push(CallRecord::default());
            let written = || writer.queue.written.load(Ordering::Relaxed);
            assert!((0..500).any(|_| written() == count || (thread::sleep(ROUND / 2), false).1), "{} of {count}", written());
        }
        writer.stop();
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_record_counts_as_written_once_the_file_has_it() {
        let path = std::env::temp_dir().join(format!("edgeproxy-records-{}", std::process::id()));
        assert_eq!(counts(&path), (3, 0));
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
        fs::remove_file(&path).unwrap();
        assert_eq!(counts(Path::new("/dev/full")), (0, 3));
    }
}
