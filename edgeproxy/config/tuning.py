"""`[tuning]`: timers, bounds and buffers; every default suits a machine with a gigabyte to spare."""

from typing import Annotated

import msgspec
from msgspec import Meta, field

from edgeproxy.config.faults import Faults
from edgeproxy.config.positions import KeyPath

Count = Annotated[int, Meta(ge=1, le=100_000_000)]
Milliseconds = Annotated[int, Meta(ge=1, le=3_600_000)]
Bytes = Annotated[int, Meta(ge=1_024, le=1 << 30)]
MessageBytes = Annotated[int, Meta(ge=256, le=64_000)]


class Timers(msgspec.Struct, frozen=True):
    """`[tuning.timers]`: RFC 3261 section 17 and those of the proxy."""

    t1_milliseconds: Annotated[int, Meta(ge=10, le=10_000)] = 500
    """T1, the estimate of the round trip; a silent target is given up after 64 of them."""
    t2_milliseconds: Annotated[int, Meta(ge=10, le=60_000)] = 4_000
    """T2, the longest interval between retransmissions."""
    t4_milliseconds: Annotated[int, Meta(ge=10, le=60_000)] = 5_000
    """T4, the longest life of a message in the network."""
    linger_milliseconds: Annotated[int, Meta(ge=100, le=600_000)] = 32_000
    """How long an answered INVITE absorbs what comes late (timers D, H, L, M)."""
    trying_after_milliseconds: Annotated[int, Meta(ge=0, le=200)] = 0
    """How long 100 Trying waits for a real answer that makes it needless; RFC 3261 section 17.2.1 allows 200."""
    setup_seconds: Annotated[int, Meta(ge=1, le=3_600)] = 300
    """Longest time from an INVITE to its final answer, over all attempts."""
    call_seconds: Annotated[int, Meta(ge=1, le=604_800)] = 43_200
    """Longest call; after that it is ended with a BYE both ways, recorded, and its lease given back."""
    dead_target_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 30
    """How long a target that did not answer is passed over while there are others."""
    resolve_milliseconds: Milliseconds = 3_000
    """Longest wait for a name to be resolved."""
    timer_c_seconds: Annotated[int, Meta(ge=181, le=3_600)] = 185
    """Timer C (RFC 3261 section 16.6), for requests that go to their Request-URI; a peer's `to` has `final_answer_seconds`."""


class Limits(msgspec.Struct, frozen=True):
    """`[tuning.limits]`: bounds of tables and messages; what exceeds them is refused and counted."""

    calls: Count = 200_000
    """Calls live at once."""
    transactions: Count = 2_000_000
    """Transactions held at once, those that linger among them."""
    targets: Count = 4_096
    """Targets remembered as dead, and as heard of lately, per worker; beyond that each is tried as if it were new."""
    branches: Annotated[int, Meta(ge=1, le=100)] = 20
    """Attempts for one request."""
    dialogs: Annotated[int, Meta(ge=1, le=1_000)] = 32
    """Dialogs of one call: early ones of a forked INVITE count too, responses of more are dropped."""
    message_bytes: MessageBytes = 64_000
    """A message; what we add to it must still fit a datagram."""
    headers: Annotated[int, Meta(ge=8, le=120)] = 120
    """Header field lines of a message."""
    vias: Annotated[int, Meta(ge=2, le=100)] = 70
    """Via header fields of a message."""
    header_value_bytes: MessageBytes = 8_192
    """One header field value."""
    uri_bytes: MessageBytes = 1_024
    """The Request-URI."""
    body_bytes: MessageBytes = 64_000
    """The body."""
    retry_after_least_seconds: Annotated[int, Meta(ge=1, le=3_600)] = 5
    """Least Retry-After of a request that is shed."""
    retry_after_most_seconds: Annotated[int, Meta(ge=1, le=3_600)] = 30
    """Most Retry-After of a request that is shed; the value is chosen anew for each."""
    log_lines_per_second: Annotated[int, Meta(ge=1, le=100_000)] = 20
    """Log lines about bad input, per worker."""
    stranger_answers_per_second: Annotated[int, Meta(ge=0, le=1_000_000)] = 500
    """Requests of strangers that are answered (403), per worker; more are dropped, so that a flood of them from everywhere costs little."""
    stranger_records_per_second: Annotated[int, Meta(ge=0, le=100_000)] = 100
    """Call records of strangers, who are all refused, per worker: a flood must not push out those of real calls."""

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        if self.retry_after_most_seconds < self.retry_after_least_seconds:
            faults.add(
                (*path, "retry_after_most_seconds"),
                f"expected at least retry_after_least_seconds, got: {self.retry_after_most_seconds}",
            )


class Tcp(msgspec.Struct, frozen=True):
    """`[tuning.tcp]`."""

    connections: Count = 100_000
    """Connections of one worker."""
    connections_per_source: Count = 1_000
    """Connections from one source address."""
    idle_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 600
    """A connection without any byte for so long is closed."""
    message_seconds: Annotated[int, Meta(ge=1, le=600)] = 10
    """A message must be whole so long after its first byte; a reader must take something in the same time."""
    connect_milliseconds: Milliseconds = 4_000
    """Longest wait for a connection to be made."""
    write_queue_bytes: Bytes = 1 << 20
    """Bytes that may wait for a slow reader before its connection is closed."""


class PolicyTuning(msgspec.Struct, frozen=True):
    """`[tuning.policy]`."""

    queue_bytes: Annotated[int, Meta(ge=4_096, le=1 << 28)] = 4 << 20
    """Bytes that may wait for a policy process, and for a worker, each way; more questions are answered as `on_error` says."""
    heartbeat_seconds: Annotated[float, Meta(ge=0.2, le=600)] = 5.0
    """A policy process that shows no sign of life for so long is ended and started anew."""
    nice: Annotated[int, Meta(ge=0, le=19)] = 10
    """How much less a policy process counts than a worker where both want the same processor (setpriority(2))."""
    memory_bytes: Annotated[int, Meta(ge=0, le=1 << 44)] = 4 << 30
    """A policy process that holds more memory is ended and started anew; looked at each `heartbeat_seconds`. 0 for any amount."""
    start_seconds: Annotated[float, Meta(ge=0.5, le=600)] = 20.0
    """Longest wait for a policy process to import its modules."""
    drain_seconds: Annotated[float, Meta(ge=0, le=3_600)] = 300.0
    """How long handlers of a process that is replaced may still run, those of calls that ring among them; it ends once none does."""


class Tuning(msgspec.Struct, frozen=True):
    """`[tuning]`."""

    receive_buffer_bytes: Bytes = 8 << 20
    """Receive buffer of each UDP socket."""
    send_buffer_bytes: Bytes = 4 << 20
    """Send buffer of each UDP socket."""
    batch_messages: Annotated[int, Meta(ge=1, le=256)] = 32
    """Datagrams read or written by one system call."""
    coalesce_microseconds: Annotated[int, Meta(ge=0, le=10_000)] = 400
    """Under load, longest pause between two looks at the sockets, so that one wake-up serves several messages; 0 never pauses."""
    coalesce_messages: Annotated[int, Meta(ge=2, le=1_000)] = 4
    """Messages for which a worker pauses: it sleeps as long as these take to come, if at least two come within `coalesce_microseconds`."""
    mailbox_messages: Annotated[int, Meta(ge=16, le=1 << 20)] = 16_384
    """Messages that may wait for another worker; commands for a media worker and its notices, and questions for rtpengines, besides. Of what a media worker does not keep up with as many commands wait again: then it gets no new media."""
    overload_milliseconds: Annotated[int, Meta(ge=1, le=10_000)] = 50
    """New requests are refused once a worker has spent so much processor time without emptying its sockets."""
    drop_unread: bool = True
    """Whether the kernel may drop a share of the new INVITEs unread while more than six are refused for ten calls served, or the sockets never get empty (RFC 3261 section 21.5.4), and what banned sources go on sending."""
    gather_percent: Annotated[int, Meta(ge=0, le=100)] = 60
    """Workers share a thread while it is busy for less than this share of a processor; 0 gives each a thread of its own at all times."""
    server_nice: Annotated[int, Meta(ge=0, le=19)] = 10
    """How much processor time the server's Python side leaves to the workers where both want it (nice): management, metrics, loads of rules."""
    event_queue: Annotated[int, Meta(ge=16, le=1 << 20)] = 8_192
    """Events of all workers that may wait to be told; more are dropped and counted."""
    timers: Timers = field(default_factory=Timers)
    """Timers."""
    limits: Limits = field(default_factory=Limits)
    """Bounds."""
    tcp: Tcp = field(default_factory=Tcp)
    """TCP."""
    policy: PolicyTuning = field(default_factory=PolicyTuning)
    """Policy processes."""

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        self.limits.check((*path, "limits"), faults)
