//! The part of the configuration that lives as long as the process.

use std::net::SocketAddr;
use std::path::PathBuf;

use edge::RouteSettings;
use serde::Deserialize;

/// Bounds of TCP.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamSettings {
    /// Connections of one worker.
    pub connections: usize,
    /// Connections from one source address, over all workers.
    pub connections_per_source: u32,
    /// A connection without any byte for so long is closed.
    pub idle_seconds: u64,
    /// A message must be whole so long after its first byte.
    pub message_seconds: u64,
    /// Longest wait for a connection to be made.
    pub connect_milliseconds: u64,
    /// Bytes that may wait for a slow reader before its connection is closed.
    pub write_queue_bytes: usize,
}

/// Name resolution.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsSettings {
    /// Name servers; none means those of the system.
    pub servers: Vec<SocketAddr>,
    /// Longest wait for one server.
    pub timeout_milliseconds: u64,
    /// Answers kept.
    pub cache_entries: u64,
    /// Questions under way at once; more are answered with what is known from before.
    pub questions: usize,
    /// How long the last good answer serves where no name server answers.
    pub stale_seconds: u64,
}

/// The file of call records.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordSettings {
    /// The file; empty writes none.
    pub path: PathBuf,
    /// Size at which it is rotated.
    pub rotate_bytes: u64,
    /// Rotated files kept.
    pub keep_files: u32,
    /// Records that may wait to be written.
    pub queue: usize,
}

/// Media workers and their ports.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MediaInstall {
    /// Threads that relay media; none start before a configuration wants media relayed.
    pub workers: u8,
    /// The first port; an even one.
    pub first_port: u16,
    /// The last port.
    pub last_port: u16,
    /// Pairs of ports kept ready for each worker at each address.
    pub ready: usize,
    /// The class in which packets are sent (RFC 2474), 0 to 63.
    pub dscp: u8,
    /// Commands that may wait for a media worker.
    pub mailbox: usize,
}

/// What needs a restart to change.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallSettings {
    /// Worker threads.
    pub workers: u8,
    /// Processors to pin the workers to, in turn; none leaves it to the kernel.
    pub pin_processors: Vec<usize>,
    /// Where keys are kept.
    pub state_directory: PathBuf,
    /// Receive buffer of each UDP socket.
    pub receive_buffer_bytes: usize,
    /// Send buffer of each UDP socket.
    pub send_buffer_bytes: usize,
    /// Datagrams read or written by one system call.
    pub batch: usize,
    /// Messages that may wait for another worker.
    pub mailbox: usize,
    /// New requests are refused once a worker has worked off a queue for so long without emptying it.
    pub overload_milliseconds: u64,
    /// Whether the kernel may drop new INVITEs unread once even refusing them takes too long.
    pub drop_unread: bool,
    /// Workers share a thread while it is busy for less than this share of a processor; 0 never.
    pub gather_percent: u8,
    /// Events that may wait to be told.
    pub events: usize,
    /// Longest pause between two looks at the sockets under load; 0 never pauses.
    pub coalesce_microseconds: u64,
    /// Messages that one pause should gather.
    pub coalesce_messages: u64,
    /// TCP.
    pub stream: StreamSettings,
    /// Name resolution.
    pub dns: DnsSettings,
    /// Call records.
    pub records: RecordSettings,
    /// Media.
    pub media: MediaInstall,
}

/// The whole configuration as it crosses from Python.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The process.
    pub install: InstallSettings,
    /// The routing.
    pub routing: RouteSettings,
}

impl DnsSettings {
    /// Reads what [`Document::read`] reads as `dns` of `install`.
    ///
    /// # Errors
    /// As there.
    pub fn read(bytes: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        Self::deserialize(&mut rmp_serde::Deserializer::from_read_ref(bytes).with_human_readable())
    }
}

impl Document {
    /// Reads the MessagePack document; addresses are text in it.
    ///
    /// # Errors
    /// Where a field is missing, unknown or of another type.
    pub fn read(bytes: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        Self::deserialize(&mut rmp_serde::Deserializer::from_read_ref(bytes).with_human_readable())
    }
}
