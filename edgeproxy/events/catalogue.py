"""Every event with its parameters, under the names that operators of OpenSIPS know; what is ours beside them is said."""

import re
from collections.abc import Mapping, Sequence

import msgspec

from edgeproxy.events.event import Event
from edgeproxy.events.guarding import (
    AuthAttack,
    BanAdded,
    BanRemoved,
    EmergencyCall,
    FraudBarred,
    FraudCritical,
    FraudUnbarred,
    FraudWarning,
    LimitCleared,
    LimitReached,
    PikeBlocked,
    PikeUnblocked,
    RegisterPoisoning,
)


class CoreThreshold(Event, frozen=True):
    """Something took longer than `events.slow_milliseconds`."""

    name = "E_CORE_THRESHOLD"
    source: str
    """`dns query` or `policy decision`."""
    time: int
    """Microseconds."""
    extra: str
    """The name that was asked for, or the Call-ID."""


class CoreShmThreshold(Event, frozen=True):
    """A table of a worker is nine tenths full; told once until it was emptier."""

    name = "E_CORE_SHM_THRESHOLD"
    usage: int
    """Percent."""
    threshold: int
    """Percent."""
    used: int
    """Entries."""
    size: int
    """Entries."""
    table: str
    """Ours: `calls`, `transactions` or `location`."""


class CoreTcpDisconnect(Event, frozen=True):
    """A connection is gone."""

    name = "E_CORE_TCP_DISCONNECT"
    src_ip: str
    src_port: int
    dst_ip: str
    dst_port: int
    proto: str


class CoreStatusChanged(Event, frozen=True):
    """A part of the proxy is ready, or no more: negative is not ready."""

    name = "E_CORE_SR_STATUS_CHANGED"
    group: str
    """`edgeproxy`."""
    identifier: str
    """`node`, `policies`, `routes`, `shared` or `configuration`."""
    status: int
    details: str
    old_status: int


class CoreLog(Event, frozen=True):
    """A line of the log, from level warning on."""

    name = "E_CORE_LOG"
    time: str
    pid: int
    level: str
    module: str
    """The part of the proxy."""
    function: str
    """Empty: lines do not name functions."""
    prefix: str
    """Empty."""
    message: str


class DispatcherStatus(Event, frozen=True):
    """A target did not answer and is passed over (`inactive`), or may be tried again (`active`)."""

    name = "E_DISPATCHER_STATUS"
    partition: str
    """Always `default`."""
    group: str
    """The peer."""
    address: str
    """`transport:address:port`."""
    status: str


class DialogState(Event, frozen=True):
    """A call began (1), rang (2), was answered (4), or is over (5)."""

    name = "E_DLG_STATE_CHANGED"
    id: str
    """That of the call record."""
    db_id: int
    """The number of the call on its worker."""
    callid: str
    from_tag: str
    to_tag: str
    old_state: int
    new_state: int


class AccCdr(Event, frozen=True):
    """A call that was answered is over."""

    name = "E_ACC_CDR"
    method: str
    from_tag: str
    to_tag: str
    callid: str
    code: int
    reason: str
    time: int
    """When it ended, seconds since 1970."""
    duration: int
    """Seconds, rounded up."""
    ms_duration: int
    """Milliseconds."""
    setuptime: int
    """Seconds from the INVITE to the answer."""
    created: int
    """When the INVITE came, seconds since 1970."""
    trace_id: str
    """Ours: the W3C trace id."""


class AccMissed(Event, frozen=True):
    """A call was not answered."""

    name = "E_ACC_MISSED_EVENT"
    method: str
    from_tag: str
    to_tag: str
    callid: str
    code: int
    reason: str
    time: int
    """When it ended, seconds since 1970."""
    trace_id: str
    """Ours: the W3C trace id."""


class Custom(Event, frozen=True):
    """An event of an operator's or a policy's own making."""

    own_name: str
    values: dict[str, int | str]

    @property
    def name(self) -> str:  # type: ignore[override]
        """What it is known by."""
        return self.own_name

    def __getattr__(self, parameter: str) -> int | str:
        """Return a parameter, as those of other events are attributes."""
        try:
            return self.values[parameter]
        except KeyError:
            raise AttributeError(f"{self.own_name} has no parameter {parameter}") from None

    def parameters(self) -> dict[str, int | str]:
        """Return the parameters by name."""
        return self.values


class DroutingStatus(Event, frozen=True):
    """A gateway of the provisioned ones went out of the rotation (`inactive`), or came back (`active`)."""

    name = "E_DROUTING_STATUS"
    partition: str
    """`default` for the tables without one."""
    gwid: str
    address: str
    """Its URI."""
    status: str
    reason: str
    """`probe failed`, `calls failed` or `address refused`; empty for one that is back."""


class AorInsert(Event, frozen=True):
    """An address of record has a binding now."""

    name = "E_UL_AOR_INSERT"
    domain: str
    """`location`."""
    aor: str


class AorDelete(Event, frozen=True):
    """An address of record has no binding any more."""

    name = "E_UL_AOR_DELETE"
    domain: str
    """`location`."""
    aor: str


class _Contact(Event, frozen=True):
    """What is told of a binding."""

    domain: str
    """`location`."""
    aor: str
    uri: str
    """The Contact."""
    received: str
    """Where the phone is reached; empty where its Contact says that."""
    path: str
    qval: int
    """Its preference, 0 to 10."""
    user_agent: str
    socket: str
    """The listener."""
    bflags: str
    """`NAT` for a phone behind one."""
    expires: int
    """Seconds since 1970."""
    callid: str
    cseq: int


class ContactInsert(_Contact, frozen=True):
    """A binding is new."""

    name = "E_UL_CONTACT_INSERT"


class ContactUpdate(_Contact, frozen=True):
    """A binding was refreshed."""

    name = "E_UL_CONTACT_UPDATE"


class ContactDelete(_Contact, frozen=True):
    """A binding is gone: by wish, because its time was over, or because its phone did not answer."""

    name = "E_UL_CONTACT_DELETE"


class MediaTimeout(Event, frozen=True):
    """Neither side of a call has sent any media for `media.timeout_seconds`."""

    name = "E_MEDIA_TIMEOUT"
    callid: str
    from_tag: str
    to_tag: str
    ended: int
    """Whether the call is ended for it."""


class MediaIntrusion(Event, frozen=True):
    """Somebody who is neither side of a call sends to its ports for media; told once for a call."""

    name = "E_MEDIA_INTRUSION"
    callid: str
    side: str
    """Whose packets they would have passed for: `caller` or `callee`."""
    ip: str
    port: int


class RtpengineStatus(Event, frozen=True):
    """An rtpengine does not answer any more, or does again."""

    name = "E_RTPENGINE_STATUS"
    socket: str
    status: str
    """`active` or `inactive`."""
    set: str
    """Ours: its name in the file."""


class QroutingBad(Event, frozen=True):
    """A gateway crossed a threshold of its rule's quality profile for the worse."""

    name = "E_QROUTING_BAD_DST"
    partition: str
    rule_id: int
    dst_name: str
    """The gateway."""
    grade: str
    """Ours: `warning` or `critical`."""


class QroutingGood(Event, frozen=True):
    """A gateway is within a threshold of its rule's quality profile again."""

    name = "E_QROUTING_GOOD_DST"
    partition: str
    rule_id: int
    dst_name: str
    """The gateway."""
    grade: str
    """`good` or `warning`."""


KINDS: tuple[type[Event], ...] = (
    CoreThreshold,
    CoreShmThreshold,
    CoreTcpDisconnect,
    CoreStatusChanged,
    CoreLog,
    DispatcherStatus,
    DialogState,
    AccCdr,
    AccMissed,
    DroutingStatus,
    AorInsert,
    AorDelete,
    ContactInsert,
    ContactUpdate,
    ContactDelete,
    AuthAttack,
    BanAdded,
    BanRemoved,
    RegisterPoisoning,
    MediaTimeout,
    MediaIntrusion,
    RtpengineStatus,
    QroutingBad,
    QroutingGood,
    LimitReached,
    LimitCleared,
    EmergencyCall,
    PikeBlocked,
    PikeUnblocked,
    FraudWarning,
    FraudCritical,
    FraudBarred,
    FraudUnbarred,
)
_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}")
"""What is a number however it is written, and no text of digits such as a telephone number with a zero in front."""
CATALOGUE: dict[str, type[Event]] = {kind.name: kind for kind in KINDS}
"""Every event of the proxy by its name; those of operators begin with `X_`."""


def name_of(event: Event) -> str:
    """Return what an event is known by."""
    return event.own_name if isinstance(event, Custom) else event.name


def is_known(name: str) -> bool:
    """Whether somebody may listen to `name`."""
    return name in CATALOGUE or name.startswith("X_")


def make(name: str, at: int, values: dict[str, int | str]) -> Event:
    """Return the event; raise `ValueError` where name or parameters are wrong."""
    if name.startswith("X_"):
        return Custom(at=at, own_name=name, values=values)
    if (kind := CATALOGUE.get(name)) is None:
        raise ValueError(f"no such event: {name}; an event of your own begins with X_")
    try:
        return msgspec.convert({**values, "at": at}, kind, strict=True)
    except msgspec.ValidationError as error:
        raise ValueError(f"{name}: {error}") from error


def typed(name: str, texts: Mapping[str, str]) -> dict[str, int | str]:
    """Return parameters that were given as texts: numbers where the event has such, in events of policies what is written as one."""
    kind = CATALOGUE.get(name)
    numbers = {field.name for field in msgspec.structs.fields(kind) if field.type is int} if kind else set()

    return {key: int(text) if (not kind or key in numbers) and _NUMBER.fullmatch(text) else text for key, text in texts.items()}


def from_engine(name: str, at: int, values: Sequence[int | str]) -> Event:
    """Return an event of the engine, which gives the values of its parameters in their order."""
    kind = CATALOGUE[name]
    return make(name, at, dict(zip(parameter_names(kind), values, strict=True)))


def parameter_names(kind: type[Event]) -> list[str]:
    """Return the names of a kind's parameters in order."""
    return [field.name for field in msgspec.structs.fields(kind) if field.name != "at"]
