//! Log lines of native threads: into a bounded queue, out by whoever prints them. No thread ever waits for a log.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use ring_queue::Mailbox;

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
        if self.lines.post(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

/// Takes over the logging of this process; a second call changes nothing.
pub fn install_logger() {
    let queue = QUEUE.get_or_init(|| Queue { lines: Mailbox::new(4_096), dropped: AtomicU64::new(0) });
    if log::set_logger(queue).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// Sets the least important level that is still logged.
pub fn set_log_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// Takes what waits, and the number of lines lost since the process began.
pub fn drain_log() -> (Vec<LogLine>, u64) {
    let Some(queue) = QUEUE.get() else { return (Vec::new(), 0) };
    let mut lines = Vec::new();
    while let Some(line) = queue.lines.take() {
        lines.push(line);
    }
    (lines, queue.dropped.load(Ordering::Relaxed))
}
