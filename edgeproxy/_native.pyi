"""The whole compiled surface of edgeproxy."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Literal, final

__all__ = [
    "BindingRow",
    "Engine",
    "PolicyLink",
    "PolicyPort",
    "Question",
    "Request",
    "RouteLoad",
    "RouteTables",
    "SimulatedEdge",
    "TraceEntry",
    "Uri",
    "become_user",
    "check_document",
    "contact_id",
    "drain_log",
    "event_shapes",
    "give_up_capabilities",
    "install_logger",
    "long_name",
    "look_up",
    "may_bind_low",
    "pattern_fault",
    "replay_fraud",
    "set_log_level",
    "take_short_turns",
    "unknown_group",
    "watched_parties",
]

@final
class Engine:
    """A running proxy: constructing it binds every address and starts its threads."""

    def __new__(
        cls,
        document: bytes,
        links: list[PolicyLink] = ...,
        tables: RouteTables | None = None,
        machines_off: list[tuple[str, str]] = ...,
        bindings: list[BindingRow] = ...,
    ) -> Engine:
        """Start from a MessagePack document; the policy processes behind `links` are asked, and `tables` serve, from the first
        request on. Machines of pools in `machines_off` (peer and URI) are switched off; `bindings` are those of the time before.

        Raises `ConfigError` for a value that means nothing, `BindError` for an address that cannot be bound,
        `EngineError` for anything else that the system refuses. Nothing is left running then.
        """

    def reload(
        self,
        document: bytes,
        links: list[PolicyLink] = ...,
        drain: list[int] = ...,
        tables: RouteTables | None = None,
        machines_off: list[tuple[str, str]] = ...,
    ) -> list[int]:
        """Go by another configuration, with the policy processes behind `links`; ask those behind `drain` nothing more.

        Where there are `tables` they serve from then on too; machines of pools in `machines_off` are switched off.

        Returns the numbers of listeners that are gone: they take nothing new, and are to be closed later.

        Raises `ConfigError` where the document means nothing or changes what needs a restart, `BindError` where a new
        listener cannot be had; then nothing was changed.
        """

    def close_listeners(self, numbers: list[int]) -> None:
        """Close listeners that have drained, unless a reload brought them back meanwhile."""

    def calls(self, call_id: str | None = None, limit: int = 100) -> list[str]:
        """Return live calls as JSON, the oldest first; workers that do not answer within a second are left out."""

    def end_calls(self, call_id: str) -> tuple[int, int]:
        """End the calls of this Call-ID; return how many those were, and how many could not be ended."""

    def end_limited(self, limit: str, key: str) -> tuple[int, int]:
        """End the calls that hold a key of a limit, or any where it is empty, as `end_calls` does."""

    def limits(self, name: str | None = None, limit: int = 1000) -> list[str]:
        """Return the keys of a limit, or of all, as JSON, the fullest first."""

    def set_limit(self, name: str, key: str, most: int | None = None) -> str | None:
        """Set how many a key of a limit may have, or all keys where it is empty, or take that back; return the key as requests have it, None where there is no such limit."""

    def moment(self) -> int:
        """Return microseconds of the monotonic clock that workers go by."""

    def share_descriptor(self) -> int:
        """Return a descriptor that is readable while requests wait for places in shared limits."""

    def share_questions(self, limit: int) -> list[tuple[str, str, int, int, int, int, int]]:
        """Take keys that a request finds no place of, `limit` at most: limit, key, places kept, needed, used, wished for beyond the need, and as many as all nodes may have.

        Nothing more is asked about a key until it was given or failed.
        """

    def share_walk(self) -> list[tuple[str, str, int, int, int, int, int]]:
        """Return keys that this node has too much of, in the same form; keys that nobody uses are forgotten."""

    def share_ask(self, keys: list[tuple[str, str]]) -> list[tuple[str, str, int, int, int, int, int]]:
        """Return what to ask for these keys, in the same form, where somebody here still looks for places of them."""

    def share_report(self, keys: list[tuple[str, str, int]]) -> list[tuple[str, str, int, int, int, int, int]]:
        """Return what to tell of these keys, in the same form; others look for places of them, each for so many microseconds."""

    def share_all(self) -> list[tuple[str, str, int, int, int, int, int]]:
        """Return everything that this node has, in the same form, for a store that knows nothing of it."""

    def give_shares(
        self, shares: list[tuple[str, str, int, int]]
    ) -> tuple[list[tuple[str, str, int, int, int, int, int]], list[tuple[str, str]]]:
        """Take what the store said: limit, key, places of this node, unused places of others; return what to ask again, and keys that nobody knows any more."""

    def fail_shares(self, keys: list[tuple[str, str]]) -> None:
        """Let requests that wait for these keys go on without the store."""

    def prolong_shares(self, until: int, settled: int) -> None:
        """Let what the store granted hold until a moment of `moment`; nobody waits for more until `settled`."""

    def hush_shares(self, until: int) -> None:
        """Let nobody wait for the store until a moment of `moment`."""

    def lapse_shares(self) -> None:
        """Let what a store granted be void."""

    def shares_unknown(self, keys: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return those of these keys (limit, key) that no limit knows."""

    def shares_hold(self) -> bool:
        """Return whether what the store granted still holds."""

    def fraud_stats(self, user: str | None = None, limit: int = 100) -> list[tuple[str, int, str, int, int, int, int, int]]:
        """Return user, profile, prefix, rule, calls a minute, in all, at once and in a row, those with the most calls first."""

    def barred(self) -> list[tuple[str, int]]:
        """Return accounts that may not call, and for how many more seconds."""

    def unbar(self, user: str) -> bool:
        """Let an account call again; false where it was not barred."""

    def fraud_told(self, most: int) -> list[tuple[str, int, int, int, int, int, int, int, int]]:
        """Return what other nodes are to hear, those that call now first: key, rule, day, calls in all, within the last minute, at once, in a row, a hash of the number of those, and which thresholds were told."""

    def hear_fraud(self, told: list[tuple[str, int, int, int, int, int, int, int, int]], barred: list[str]) -> None:
        """Take over what all other nodes say, and whom they barred, instead of what they said before."""

    def fraud_kept(self) -> bytes:
        """Return what a restart needs of fraud figures and bars; empty where nothing is watched."""

    def restore_fraud(self, kept: bytes, ago: int) -> bool:
        """Take over what was kept so many seconds before; false where it cannot be read, or nothing is watched."""

    def trace(self, needle: bytes = ..., places: list[int] = ..., limit: int = 10_000) -> tuple[list[TraceEntry], list[int], int]:
        """Return the latest messages and decisions that contain `needle`, `limit` at most, in order of time.

        From `places` on, which are what the last call returned, else from the oldest. Also returned: where to go on, and how
        many bytes were overwritten since the last call.
        """

    def listen(self, names: list[str]) -> None:
        """Build events of these names from now on, and no others; names of other producers are left out."""

    def event_descriptor(self) -> int:
        """Return the descriptor that is readable while events wait of which none was taken."""

    def take_events(self, limit: int) -> list[tuple[str, int, list[int | str]]]:
        """Take events that came, `limit` at most: name, wall clock in microseconds, values of the parameters in order."""

    def user_descriptor(self) -> int:
        """Return the descriptor that is readable while workers want credentials."""

    def credential_questions(self, limit: int) -> list[tuple[int, str, str, str, str]]:
        """Take questions for credentials, `limit` at most: worker, user, domain, realm, and the name that a clear password is hashed with."""

    def give_credentials(
        self, answers: Sequence[tuple[tuple[int, str, str, str, str], bool, tuple[str, str, str, str, Sequence[tuple[str, str]]] | None]]
    ) -> None:
        """Answer questions: whether the database could be asked, and clear password with HA1 by MD5, SHA-256 and SHA-512-256 and attributes, or None for nobody."""

    def location_descriptor(self) -> int:
        """Return the descriptor that is readable while bindings wait to be written of which none was taken."""

    def location_writes(self, limit: int) -> list[tuple[int, BindingRow | None]]:
        """Take bindings to be written, `limit` at most, in order: number and row, None where that is to go."""

    def location(self, aor: str | None = None, limit: int = 100) -> list[BindingRow]:
        """Return the bindings of an address of record (`user@domain`), or those of the first `limit` of each worker."""

    def remove_bindings(self, aor: str, contact: str | None = None) -> int:
        """Remove the bindings of an address of record, or only that of a Contact; return how many those were."""

    def ban(self, source: IPv4Address | IPv6Address, seconds: int, reason: str) -> Literal["new", "changed", "full", "unanswered"]:
        """Listen to a source no more for so many seconds, whatever ban there was; `full` where the list of bans takes no more."""

    def ban_with_others(self, source: IPv4Address | IPv6Address, seconds: int, reason: str) -> bool:
        """As `ban`, since another node does; nothing is done where somebody known comes from there."""

    def take_failures(self, limit: int) -> list[tuple[str, str, bool]]:
        """Take failed authentications that other nodes should know of, `limit` at most: source, user, and whether the pair begins anew."""

    def raise_failures(self, told: list[tuple[IPv4Address | IPv6Address, str, int, int, int]]) -> None:
        """Count what all nodes counted: source, user, and failures of both together, of the user, and of the source."""

    def unban(self, source: IPv4Address | IPv6Address, reason: str) -> bool:
        """Listen to a source again; return whether it was banned."""

    def bans(self) -> list[tuple[str, int, int, str, str]]:
        """Return sources that are banned: the address, since how many seconds, for how many more, why, and how its packets came."""

    def source(self, source: IPv4Address | IPv6Address) -> str | None:
        """Return what is known of a source as JSON; None where no worker answers within a second."""

    def trace_places(self) -> list[int]:
        """Return the places at which everything that comes from now on begins."""

    def labelled(self) -> list[tuple[str, list[tuple[str, str]], int]]:
        """Return counts with labels: name, labels, value. Decisions of policies are cumulative by their bound in microseconds."""

    def set_routes(self, tables: RouteTables) -> None:
        """Route by these tables from now on; what is under way goes on by those that it began with."""

    def explain(
        self,
        tables: RouteTables,
        partition: str,
        group: int,
        number: str,
        flags: tuple[bool, bool, bool],
        whitelist: list[str],
        at: int,
    ) -> str:
        """Return as JSON which rule and gateways a number would get at a time (seconds since 1970), and why not others.

        `flags` are fall-back, whole number and by weight. Raise `KeyError` for a partition that is not there.
        """

    def translate(self, tables: RouteTables, peer: str, number: str, at: int) -> tuple[tuple[str, str] | None, tuple[int, str] | None]:
        """Return the rule for a number that a peer sends, with what that makes of it, and the answer where it is to be refused.

        The first is None where the peer has no rule for it, the second where that is no fault.
        """

    def gateways(self, tables: RouteTables) -> list[str]:
        """Return what is known of every gateway and carrier, each as JSON."""

    def quality(self, tables: RouteTables) -> list[str]:
        """Return figures and grade of every pair of rule and gateway that has had calls, each as JSON."""

    def machines(self) -> list[str]:
        """Return what is known of the machines of every peer that is a pool, each as JSON."""

    def switch_machine(self, peer: str, uri: str, on: bool) -> bool:
        """Switch a machine of a pool; return whether there is one of this URI."""

    def add_policy_link(self, link: PolicyLink) -> None:
        """Ask the policy process behind `link` from now on, beside those asked already; raise `OSError` where that cannot be."""

    def drain_policy_link(self, link_id: int) -> None:
        """Ask the policy process behind this link nothing more; its verdicts are still taken."""

    def remove_policy_link(self, link_id: int) -> None:
        """Forget a link; who waits for its verdict waits until the deadline."""

    def drain(self) -> None:
        """Refuse new requests from now on; what is under way goes on."""

    def is_drained(self) -> bool:
        """Whether a drain has come to its end: nothing is under way that a stop would cut; may lag by a second."""

    def stop(self) -> None:
        """End all threads and write the records that wait; a second call does nothing."""

    def counters(self) -> dict[str, int]:
        """Return every counter, summed over the workers."""

    @staticmethod
    def counter_help() -> dict[str, str]:
        """Return what each counter of workers counts."""

@final
class PolicyLink:
    """The server's end of the way to one policy process: made before that is started."""

    def __new__(cls, workers: int, queue_bytes: int) -> PolicyLink:
        """Make shared memory with queues of `queue_bytes` for each worker either way; raise `OSError` where there is none."""

    @property
    def id(self) -> int:
        """What names the link in this process."""

    @property
    def beats(self) -> int:
        """How often the process told that it is alive."""

    @property
    def work(self) -> tuple[int, int, int]:
        """Questions that the process took, microseconds that they had waited by then, and microseconds that handling them took."""

    @property
    def is_damaged(self) -> bool:
        """Whether a worker found its queue damaged and forgot the link."""

    def descriptors(self) -> list[int]:
        """Return the descriptors that the process must inherit, in the order in which `PolicyPort` takes them."""

@final
class PolicyPort:
    """The policy process's end: questions in, verdicts out."""

    def __new__(cls, descriptors: list[int]) -> PolicyPort:
        """Take over inherited descriptors; raise `OSError` where they are not those of a link of this version."""

    def fileno(self) -> int:
        """Return the descriptor that is readable while a worker rang."""

    def beat(self) -> None:
        """Tell that this process is alive."""

    def answer_bell(self) -> None:
        """Take back what workers rang."""

    def take(self, limit: int) -> list[Question]:
        """Take up to `limit` questions; raise `OSError` where the shared memory is damaged."""

    def rest(self) -> bool:
        """Let the next question ring again; true where one came in between."""

    def answer(self, token: bytes, verdict: bytes) -> bool:
        """Queue a verdict; false where there is no room."""

    def flush(self) -> None:
        """Wake the workers that verdicts were queued for."""

@final
class Question:
    """What a worker asks or tells."""

    @property
    def event(self) -> Literal["request", "failed", "ended", "final", "in_dialog", "failure", "branch", "response", "answer"]:
        """What happened."""

    @property
    def status_code(self) -> int:
        """The status code of what failed, ended, or answered; 0 for a request, the number of the attempt for `branch`."""

    @property
    def token(self) -> bytes:
        """What a verdict must bring back."""

    @property
    def key(self) -> bytes:
        """What all questions about one request have in common."""

    @property
    def deadline_seconds(self) -> float:
        """How long the verdict may take."""

    @property
    def is_late(self) -> bool:
        """Whether more than three quarters of that have passed already."""

    @property
    def request(self) -> Request | None:
        """The request, for events that bring one; for `response` the response, whose fields are those of its request."""

    @property
    def message(self) -> bytes:
        """The record of a call as JSON, for `final`; the response, for `response` and `answer`; for `ended` a token of the call, if one was answered."""

    @property
    def target(self) -> str:
        """Where the attempt goes, for `branch`, or the response came from, for `response`: `transport:address:port`; which part is over, for `ended`."""

    @property
    def variables(self) -> str:
        """What handlers of its call keep, as a JSON object; empty where there is nothing."""

@final
class Request:
    """A SIP request as it came (RFC 3261 section 7.1); fields are looked at only when they are asked for."""

    def __new__(
        cls, message: bytes, *, peer: str = "", listener: str = "", transport: str = "udp", source: tuple[str, int] = ...
    ) -> Request:
        """Read a request; raise `ValueError` for bytes that are none."""

    @property
    def method(self) -> str:
        """The method."""

    @property
    def request_uri(self) -> Uri:
        """The Request-URI."""

    @property
    def from_uri(self) -> Uri:
        """The URI of From; raises `ValueError` where it is of no known form."""

    @property
    def to_uri(self) -> Uri:
        """The URI of To; raises `ValueError` where it is of no known form."""

    @property
    def from_tag(self) -> str:
        """The caller's tag."""

    @property
    def call_id(self) -> str:
        """The Call-ID."""

    @property
    def cseq(self) -> int:
        """The number of CSeq."""

    @property
    def max_forwards(self) -> int | None:
        """Max-Forwards, where present."""

    @property
    def body(self) -> bytes:
        """The body."""

    @property
    def gateway(self) -> str:
        """The gateway (`dr_gateways.gwid`) that sent it, by its address; empty where none did."""

    @property
    def account(self) -> str:
        """The account that it proved to be of, `user@domain`; empty where it did not have to."""

    @property
    def account_attributes(self) -> list[tuple[str, str]]:
        """What the database says of that account, by name; a name may stand more than once."""

    @property
    def peer(self) -> str:
        """The peer that sent it."""

    @property
    def listener(self) -> str:
        """The listener that it came to."""

    @property
    def transport(self) -> str:
        """The transport that it came by, in lower case."""

    @property
    def source(self) -> tuple[str, int]:
        """Address and port that it came from."""

    @property
    def trace_id(self) -> str:
        """The W3C trace id of the call, 32 hexadecimal digits."""

    def header(self, name: str) -> str | None:
        """Return the first value of a header field, unfolded; compact forms count."""

    def headers(self, name: str) -> list[str]:
        """Return every value of a header field, line by line."""

    def __bytes__(self) -> bytes: ...

@final
class Uri:
    """A SIP, SIPS or tel URI (RFC 3261 section 19.1, RFC 3966)."""

    def __new__(cls, text: str) -> Uri:
        """Parse `text`; raise `ValueError` where it is no URI."""

    @property
    def scheme(self) -> str:
        """The scheme in lower case."""

    @property
    def user(self) -> str:
        """The user part, or the number of a tel URI; empty where absent."""

    @property
    def host(self) -> str:
        """The host, an IPv6 address in brackets; empty where absent."""

    @property
    def port(self) -> int | None:
        """The port, where it is written."""

    def parameter(self, name: str) -> str | None:
        """Return a parameter's value, empty for one without; None where it is absent."""

    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class RouteLoad:
    """Rows of rules and gateways on their way from a database: gateways first, then carriers, then rules."""

    def __new__(
        cls, partitions: list[str], extra_prefix_characters: str = "", handlers: list[str] = ..., before: RouteTables | None = None
    ) -> RouteLoad:
        """Begin a load; what `before` knows of gateways and carriers goes on under their names.

        Raise `ValueError` for more than five further characters, or such as cannot be seen.
        """

    def add(self, partition: str, table: str, block: bytes) -> None:
        """Take rows of `gateways`, `carriers`, `profiles` or `rules`: columns parted by 0x1f, each row ended by 0x1e.

        Raise `KeyError` and `ValueError` for a partition and a table that are not there. Rows that cannot be used are told
        by `finish`.
        """

    def add_columns(self, partition: str, columns: list[bytes]) -> bool:
        """Take rules as their ten columns, the values of each parted by 0x1f; an empty one has nothing in any row.

        Return False, with nothing taken, where they have not as many values as each other. Raise `KeyError` as `add` does.
        """

    def recurrences(self, partition: str) -> list[str]:
        """Return the time recurrences that rules name; each is to be given a meaning, in this order."""

    def mean(self, partition: str, spans: list[tuple[int, int]], problem: str | None = None) -> None:
        """Give the next recurrence its spans (seconds since 1970, ends left out), or say what is wrong with it."""

    def finish(self) -> tuple[RouteTables, list[tuple[str, str, str, str]], int]:
        """Sort everything into tables; return them, the first thousand faults (table, row, column, problem), and how many there are."""

def look_up(settings: bytes, names: list[tuple[str, int, str]]) -> list[tuple[tuple[str, int, str], list[tuple[str, int, str]]]]:
    """Return each name with address, port and transport of where it leads (RFC 3263), none where it leads nowhere; waits 10 s at most.

    `settings` is what `edgeproxy.config.document.dns_document` makes. Raise `ValueError` for other settings, `OSError` where names cannot be looked up at all.
    """

@final
class RouteTables:
    """Tables of rules, gateways and carriers, ready to serve."""

    def sizes(self) -> list[tuple[str, int, int, int, int]]:
        """Return for each partition its name, rules, gateways, carriers, and the bytes of rules and prefixes."""

    def names_to_resolve(self) -> list[tuple[str, int, str]]:
        """Return the names of gateways that have no address: host, port or 0, transport or nothing."""

    def with_addresses(self, resolved: list[tuple[tuple[str, int, str], list[tuple[str, int, str]]]]) -> RouteTables:
        """Return the same tables with where gateways are that have names: each name with address, port and transport of its places."""

    def out_of_reach(self, ways: list[tuple[str, bool]]) -> list[tuple[str, str]]:
        """Return the gateways that no call comes to by these transports, each with whether it is for IPv4, and why."""

    def sockets(self) -> list[tuple[str, str]]:
        """Return the gateways that name a listener to send from, with that."""

    def has(self, partition: str, name: str) -> bool:
        """Return whether a partition has a gateway of this name, or with `#` in front a carrier."""

    def switch(self, partition: str, kind: str, name: str, on: bool, fresh: bool) -> bool:
        """Switch a `gateway` or `carrier`, with `fresh` bring up one that is down; return whether there is one of this name."""

    def quality_of(self, partition: str, rule: int, gateway: str, on: bool | None = None) -> bool:
        """Forget what is kept of a pair, or with `on` switch it; return whether it has had calls."""

    def caller_group(self, partition: str, user: str, domain: str | None = None) -> int | None:
        """Return the group that `dr_groups` has for a caller, by user and, where one is given, domain."""

    def find(self, partition: str, group: int, number: str, at: int) -> int | None:
        """Return the `ruleid` of the rule for a number at a time, if there is one."""

@final
class SimulatedEdge:
    """One worker's edge without sockets, on a clock that only the caller moves."""

    def __new__(cls, document: bytes) -> SimulatedEdge:
        """Make one from a MessagePack document; raise as `Engine` does."""

    def set_routes(self, tables: RouteTables) -> None:
        """Route by these tables from now on."""

    def resolve(self, name: str, address: str) -> None:
        """Let `name` resolve to `address:port`."""

    def receive(self, message: bytes, source: str, listener: str) -> None:
        """Let a message arrive from `source` (`address:port`) at a listener."""

    def advance(self, by_milliseconds: int) -> int:
        """Let time pass until something is asked; return the milliseconds that are left."""

    def sent(self) -> list[tuple[bytes, str]]:
        """Take what was sent: message and destination."""

    def questions(self) -> list[Question]:
        """Take the questions for policies."""

    def put_questions(self, link: PolicyLink) -> int:
        """Put the questions onto a link, as a worker does; return how many found room."""

    def take_verdicts(self) -> int:
        """Take the verdicts that came back on that link, as a worker does; return how many."""

    def answer(self, token: bytes, verdict: bytes) -> None:
        """Hand in a verdict."""

    @property
    def wall(self) -> int:
        """The wall clock, microseconds since 1970."""

    def listen(self, names: list[str]) -> None:
        """Build events of these names from now on, and no others."""

    def take_events(self) -> list[tuple[str, int, list[int | str]]]:
        """Take the events that came, as `Engine.take_events` does."""

    def records(self) -> list[str]:
        """Take the records of calls that ended, as JSON."""

@final
class TraceEntry:
    """A message that came or left, without credentials and media keys, or a decision."""

    @property
    def worker(self) -> int:
        """The worker that saw it."""

    @property
    def kind(self) -> Literal["received", "sent", "decision"]:
        """What it tells."""

    @property
    def microseconds(self) -> int:
        """Wall clock, microseconds since 1970."""

    @property
    def transport(self) -> str:
        """The transport of a message, in lower case."""

    @property
    def listener(self) -> str:
        """The listener of a message."""

    @property
    def remote(self) -> tuple[str, int]:
        """The far end of a message."""

    @property
    def call_id(self) -> str:
        """The Call-ID; empty for a message that does not parse."""

    @property
    def users(self) -> list[str]:
        """The users of From, To and Request-URI."""

    @property
    def cseq(self) -> str:
        """Number and method of CSeq."""

    @property
    def branch(self) -> str:
        """The branch of the topmost Via."""

    @property
    def text(self) -> str:
        """The start line, or what was decided."""

    @property
    def message(self) -> bytes:
        """The message; empty for a decision."""

def become_user(user: int, group: int, bind_low: bool) -> None:
    """Become another user for good, in all threads, with no right but to bind low ports where `bind_low` says so.

    Raises `OSError` where the system refuses; the process may then be neither user and has to end.
    """

def give_up_capabilities() -> None:
    """Give every capability up; raise `OSError` where the system refuses."""

def take_short_turns() -> None:
    """Let the calling thread have the processor soon once it has work, for a shorter time each, where the kernel can (Linux 6.12)."""

def may_bind_low() -> bool:
    """Whether the process may bind ports below `net.ipv4.ip_unprivileged_port_start`."""

def check_document(document: bytes) -> None:
    """Check a document as far as that needs no socket; raise as `Engine` does."""

def pattern_fault(pattern: str) -> str | None:
    """Return what is wrong with a regular expression for numbers; None where nothing is."""

def unknown_group(pattern: str, template: str) -> int | None:
    """Return the first group that `template` speaks of and `pattern`, a regular expression for numbers, does not have."""

def watched_parties(account: str, from_uri: str, request_uri: str) -> tuple[str, str] | None:
    """Return who is watched for a call (the account, or without one who it says that calls) and the number dialled; None where one cannot be read."""

def replay_fraud(document: bytes, calls: list[tuple[int, int, int, str, str, int]]) -> list[tuple[int, int, int, str, bool, int, int]]:
    """Return what the fraud part of a document would have said of calls.

    A call is when it began, was answered (0: never) and ended in microseconds since 1970, user, number and profile. An alarm is when,
    which call, which rule, the figure, whether it is critical, value and threshold. Raise `ValueError` for another document.
    """

def event_shapes() -> list[tuple[str, list[str]]]:
    """Return the name of every native event with the names of its parameters."""

def install_logger() -> int:
    """Take over the logging of native threads; return the descriptor that is readable while lines wait."""

def set_log_level(level: str) -> None:
    """Set the least important level logged: error, warning, info or debug; raise `ValueError` for another."""

def long_name(name: str) -> str:
    """Return the long form of a header field's name, in lower case (RFC 3261 section 7.3.3)."""

def drain_log() -> tuple[list[tuple[int, str, str, str, dict[str, str]]], int]:
    """Take the lines that wait (wall clock in microseconds, level, target, message, what it says by name) and the number of lines lost."""

@final
class BindingRow:
    """A row of the table `location`; times in seconds since 1970, `q` in thousandths."""

    contact_id: int
    user: str
    domain: str
    contact: str
    received: str
    path: str
    expires: int
    q: int
    call_id: str
    cseq: int
    modified: int
    natted: bool
    user_agent: str
    socket: str
    instance: str
    reg_id: int
    def __new__(
        cls,
        contact_id: int,
        user: str,
        domain: str,
        contact: str,
        received: str,
        path: str,
        expires: int,
        q: int,
        call_id: str,
        cseq: int,
        modified: int,
        natted: bool,
        user_agent: str,
        socket: str,
        instance: str,
        reg_id: int = 0,
    ) -> BindingRow:
        """Make a row."""

def contact_id(user: str, domain: str, contact: str, instance: str = "", reg_id: int = 0) -> int:
    """Return the number of the row of a binding: the same in every process."""
