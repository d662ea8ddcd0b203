//! Log lines of native threads: into a bounded queue, out by whoever prints them. No thread ever waits for a log.

use std::io;
use std::os::fd::RawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use ring_queue::Mailbox;

use crate::wait::Bell;

/// One line.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// Microseconds since 1970.
    pub wall: u64,
    /// Its level.
    pub level: Level,
    /// The phase or part that wrote it.
    pub target: String,
    /// The text.
    pub message: String,
    /// What else it says, by name: the call that it is about.
    pub values: Vec<(String, String)>,
}

/// Collects what a line says by name.
#[derive(Default)]
struct Values(Vec<(String, String)>);

impl<'kvs> VisitSource<'kvs> for Values {
    fn visit_pair(&mut self, name: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let value = value.to_string();
        if !value.is_empty() {
            self.0.push((name.to_string(), value));
        }
        Ok(())
    }
}

struct Queue {
    lines: Mailbox<LogLine>,
    dropped: AtomicU64,
    bell: Bell,
}

static QUEUE: OnceLock<Queue> = OnceLock::new();

impl Log for Queue {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        // What libraries tell below a warning is theirs.
        let foreign = record.target().contains("::") && !record.target().starts_with("net");
        if !self.enabled(record.metadata()) || (foreign && record.level() > Level::Warn) {
            return;
        }
        let mut values = Values::default();
        // Collecting cannot fail.
        let _ = record.key_values().visit(&mut values);
        let (wall, level) = (crate::clock::wall(), record.level());
        let line = LogLine { wall, level, target: record.target().to_owned(), message: record.args().to_string(), values: values.0 };
        match self.lines.post(line) {
            // Only the first line since the last were taken: a bell that fails logs that, and would ring for it.
            Ok(true) => self.bell.ring(),
            Ok(false) => {}
            Err(_) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn flush(&self) {}
}

/// Takes over the logging of this process, where that was not done before; returns the descriptor that is readable while lines wait.
///
/// # Errors
/// Where no descriptor is left.
pub fn install_logger() -> io::Result<RawFd> {
    let bell = Bell::new()?;
    let queue = QUEUE.get_or_init(|| Queue { lines: Mailbox::new(4_096), dropped: AtomicU64::new(0), bell });
    if log::set_logger(queue).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
    Ok(queue.bell.descriptor())
}

/// Sets the least important level that is still logged.
pub fn set_log_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// Takes what waits, and the number of lines lost since the process began; the next line rings.
pub fn drain_log() -> (Vec<LogLine>, u64) {
    let Some(queue) = QUEUE.get() else { return (Vec::new(), 0) };
    queue.bell.answer_if_rung();
    queue.lines.open();
    let mut lines = Vec::new();
    while let Some(line) = queue.lines.take() {
        lines.push(line);
    }
    (lines, queue.dropped.load(Ordering::Relaxed))
}
