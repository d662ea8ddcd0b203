"""Events of what keeps the border: bans, floods, limits, fraud, calls for help."""

from edgeproxy.events.event import Event


class LimitReached(Event, frozen=True):
    """Ours: a key has all that a limit lets it have; told once until nothing of it was refused for ten seconds."""

    name = "E_LIMIT_REACHED"
    limit: str
    """Its name in the file."""
    key: str
    counts: str
    """`calls` or `rate`."""
    most: int


class LimitCleared(Event, frozen=True):
    """Ours: nothing of a key was refused for ten seconds."""

    name = "E_LIMIT_CLEARED"
    limit: str
    key: str


class PikeBlocked(Event, frozen=True):
    """A source floods, or behaves as scanners do; told once for each crossing."""

    name = "E_PIKE_BLOCKED"
    ip: str
    state: str
    """Ours: `blocked`, `throttled` (where users are only what is too much is dropped), `account`, or `dry-run`."""
    reason: str
    """Ours."""


class PikeUnblocked(Event, frozen=True):
    """Ours: a source that was blocked is listened to again."""

    name = "E_PIKE_UNBLOCKED"
    ip: str
    reason: str


class _Fraud(Event, frozen=True):
    """What is told of a threshold that was crossed."""

    param: str
    """`calls-per-minute`, `total-calls`, `concurrent-calls`, `sequential-calls`, `call-duration`, or ours `calls-per-second`."""
    value: int
    threshold: int
    user: str
    called_number: str
    rule_id: int
    profile_id: int


class FraudWarning(_Fraud, frozen=True):
    """A figure of an account reached its first threshold; told once until it was below again."""

    name = "E_FRD_WARNING"


class FraudCritical(_Fraud, frozen=True):
    """A figure of an account reached its second threshold; told once until it was below again."""

    name = "E_FRD_CRITICAL"


class FraudBarred(Event, frozen=True):
    """Ours: an account may not call for a while."""

    name = "E_FRD_BARRED"
    user: str
    seconds: int
    reason: str
    """The figure."""


class FraudUnbarred(Event, frozen=True):
    """Ours: an account may call again."""

    name = "E_FRD_UNBARRED"
    user: str
    reason: str


class EmergencyCall(Event, frozen=True):
    """Ours: somebody calls for help."""

    name = "E_EMERGENCY_CALL"
    callid: str
    from_uri: str
    to_uri: str
    """The Request-URI."""
    ip: str
    peer: str


class AuthAttack(Event, frozen=True):
    """Somebody guesses passwords or users: a threshold of `[authentication.attacks]` was crossed."""

    name = "E_AUTH_ATTACK"
    scope: str
    """`pair`: one source as one user, `user`: one user from anywhere, `source`: one source that users come in from, with many users."""
    ip: str
    """The source of the last failure."""
    user: str
    failures: int
    window: int
    """Seconds."""
    domain: str = ""
    """The user's."""


class BanAdded(Event, frozen=True):
    """A source is not listened to any more, or for another time than was told before."""

    name = "E_BAN_ADDED"
    ip: str
    seconds: int
    reason: str
    proto: str = ""
    """Ours: `udp` where the address may be forged, `tcp` or `tls`; empty for an operator's."""


class BanRemoved(Event, frozen=True):
    """A source is listened to again."""

    name = "E_BAN_REMOVED"
    ip: str
    reason: str


class RegisterPoisoning(Event, frozen=True):
    """Somebody wanted to register a Contact that nobody may have."""

    name = "E_REGISTER_POISONING"
    ip: str
    aor: str
    contact: str
    reason: str
