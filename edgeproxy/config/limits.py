"""`[limit.NAME]` and `[emergency]`: what callers may have, and who is never refused it."""

import math
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from edgeproxy.config.faults import Faults
from edgeproxy.config.positions import KeyPath

FIELDS = ("account", "caller", "caller_user", "called", "called_user", "domain", "source", "peer", "gateway", "listener")
_FIELD = re.compile(r"\{([^{}]*)\}")
_METHODS = ("INVITE", "REGISTER", "OPTIONS", "MESSAGE", "SUBSCRIBE", "PUBLISH", "NOTIFY", "REFER", "INFO")


class KeyLimit(msgspec.Struct, frozen=True):
    """One `[limit.NAME]`: what each key may have of calls at once, or of requests in a window. Emergency calls are not counted."""

    counts: Literal["calls", "rate"]
    """`calls`: calls at once, from their INVITE to their end. `rate`: requests in any window of time."""
    most: Annotated[int, Meta(ge=0, lt=1 << 32)]
    """As many as each key may have; 0 bars it. For `network` bytes in use in the receive buffers of UDP sockets, for `feedback` percent of the first worker's processor, 1 to 99."""
    key: str = "{account}"
    """What is counted together: text with fields of the request in braces. `{account}` (as proved), `{caller}` and `{caller_user}` (From), `{called}` and `{called_user}` (Request-URI), `{domain}` (From), `{source}`, `{peer}`, `{gateway}` (who sent it), `{listener}`, `{attribute.NAME}` of the account. Empty: everything together. A request that lacks a field is not counted."""
    attribute: str = ""
    """The attribute of an account that says how many it may have, instead of `most`; see `authentication.attributes`."""
    most_by_key: dict[str, Annotated[int, Meta(ge=0, lt=1 << 32)]] = field(default_factory=dict)
    """Keys that may have another number, whatever their attribute says."""
    rows: bool = False
    """Whether rows of the table `edgeproxy_limits` with this limit's name are such keys too; `edgeproxy routes reload` reads them anew."""
    peers: list[str] = field(default_factory=list)
    """Peers whose requests count; none means all."""
    methods: list[str] = field(default_factory=lambda: ["INVITE"])
    """Methods that count towards a rate, where they open something; calls are INVITEs."""
    by_policy: bool = False
    """Whether only policies ask for it, by `call.limit(name, key)`."""
    algorithm: Literal["tail_drop", "sliding_window", "red", "network", "feedback"] | None = None
    """By default `tail_drop`, and `sliding_window` where nodes share the limit, which is the only one that can be. `tail_drop`: never more than `most` in any window; up to 8 bytes for each of `most`. `sliding_window`: the same in steps of a fiftieth, up to one step too strict; 400 bytes. `red`: once more are offered they are thinned out evenly, and never more than `most` pass. `network`: all are refused while more than `most` bytes wait. `feedback`: as many are refused as keep the load at `most` percent."""
    window_seconds: Annotated[float, Meta(ge=0.1, le=86_400)] = 1.0
    """The window of a rate."""
    counts_refused: bool = False
    """Whether a refused request costs as much as one that passed, so that who goes on trying stays out."""
    max_keys: Annotated[int, Meta(ge=1, le=100_000_000)] = 100_000
    """Keys at once; what has no room passes and is counted as `limit_untracked`."""
    shared: bool = False
    """Whether all nodes that share a store may have `most` together; see `[shared]`."""
    on_store_failure: Literal["open", "closed"] = "open"
    """What holds while that store is gone, for whoever finds no place in hand: `open`, this node counts for itself, up to `most`; `closed`, it is refused."""
    status_code: Annotated[int, Meta(ge=400, le=699)] | None = None
    """The answer to what is too much; by default 486 for calls and 480 for a rate. Not 503, which tells the sender to stop sending at all."""
    reason_phrase: str = ""
    """Its text, by default the customary one."""
    retry_after_seconds: Annotated[int, Meta(ge=0, le=86_400)] | None = None
    """Retry-After of that answer, 0 for none; by default none for calls and the window for a rate."""

    def check(self, path: KeyPath, faults: Faults, peers: set[str], *, has_store: bool) -> None:
        """Check what types cannot; `has_store` says that there is one to share by."""
        self._check_shared(path, faults, has_store=has_store)
        self._check_key(path, faults)
        self._check_most(path, faults)
        for name in self.peers:
            if name not in peers:
                faults.add((*path, "peers"), f"no such peer: {name}")
        for method in self.methods:
            if method not in _METHODS:
                faults.add((*path, "methods"), f"expected one of {', '.join(_METHODS)}, got: {method}")
        if not self.methods or (self.counts == "calls" and self.methods != ["INVITE"]):
            faults.add((*path, "methods"), "calls begin with INVITE only" if self.methods else "expected at least one method")
        if self.counts == "calls" and self.algorithm:
            faults.add((*path, "algorithm"), f"only rates have one: calls that are there are counted, got: {self.algorithm}")
        if self.status_code == 503:
            faults.add((*path, "status_code"), "503 tells the sender to stop sending at all: expected another one")
        if not self.reason_phrase.isprintable():
            faults.add((*path, "reason_phrase"), "expected printable text")

    @property
    def kind(self) -> str:
        """The algorithm in force."""
        return self.algorithm or ("sliding_window" if self.shared else "tail_drop")

    def _check_shared(self, path: KeyPath, faults: Faults, *, has_store: bool) -> None:
        if not self.shared:
            return
        if not has_store:
            faults.add(
                (*path, "shared"), "nodes share limits only by a store", 'add [shared] with a url, such as "redis://127.0.0.1:6379/0"'
            )
        if self.counts == "rate" and self.algorithm not in {None, "sliding_window"}:
            faults.add((*path, "algorithm"), f"a rate that is shared wants sliding_window, got: {self.algorithm}")
        if ":" in path[-1]:
            faults.add((*path, "shared"), "expected a name without a colon of a limit that is shared")

    def _check_key(self, path: KeyPath, faults: Faults) -> None:
        for name in _FIELD.findall(self.key):
            if name not in FIELDS and not name.startswith("attribute."):
                faults.add((*path, "key"), f"no such field: {{{name}}}", f"there are {', '.join(FIELDS)} and attribute.NAME")
        if {"{", "}"} & set(_FIELD.sub("", self.key)) or not self.key.isprintable():
            faults.add((*path, "key"), f"expected printable text with each field in a pair of braces, got: {self.key!r}")

    def _check_most(self, path: KeyPath, faults: Faults) -> None:
        if self.kind == "feedback":
            for name in ("most_by_key", "attribute", "rows"):
                if getattr(self, name):
                    faults.add((*path, name), "feedback has one number for all keys: the load is that of the machine")
        hint = 'use algorithm = "sliding_window"' if self.kind == "tail_drop" else ""
        if problem := self.most_problem(self.most):
            faults.add((*path, "most"), problem, hint)
        for key, most in self.most_by_key.items():
            if problem := self.most_problem(most):
                faults.add((*path, "most_by_key", key), problem, hint)

    def most_problem(self, wanted: int) -> str:
        """Return what is wrong with a number that a key should have; empty where nothing is."""
        everything = (0, (1 << 32) - 1)
        bounds = {"tail_drop": (0, 65_535), "red": (0, 65_535), "sliding_window": (0, (1 << 24) - 1), "feedback": (1, 99)}
        least, most = bounds.get(self.kind, everything) if self.counts == "rate" else everything
        return "" if least <= wanted <= most else f"{self.kind} wants {least} to {most}, got: {wanted}"

    def document(self, name: str) -> dict[str, Any]:
        """Return what the native side reads."""
        rate = self.counts == "rate"
        wait = math.ceil(self.window_seconds) if rate else 0
        return {
            "name": name,
            "counts": self.counts,
            "key": self.key,
            "most": self.most,
            "attribute": self.attribute,
            "overrides": list(self.most_by_key.items()),
            "peers": self.peers,
            "methods": self.methods,
            "by_policy": self.by_policy,
            "algorithm": self.kind,
            "window_milliseconds": round(self.window_seconds * 1_000),
            "counts_refused": self.counts_refused,
            "keys": self.max_keys,
            "status_code": self.status_code or (480 if rate else 486),
            "reason_phrase": self.reason_phrase,
            "shared": self.shared,
            "fails_open": self.on_store_failure == "open",
            "retry_after_seconds": wait if self.retry_after_seconds is None else self.retry_after_seconds,
        }


class Emergency(msgspec.Struct, frozen=True):
    """`[emergency]`: calls for help (RFC 5031). They pass bans, limits, fraud rules, full and bad gateways, a failing policy and a drain, and are shed last."""

    numbers: list[str] = field(default_factory=list)
    """Numbers that call for help, as they are dialled, besides `urn:service:sos` and its sub-services: `["112", "911"]`."""
    peer: str = ""
    """The peer whose `to` they go to; by default they go where other calls of their sender do."""
    route: str = ""
    """The route that they go by, where there is no `peer`."""

    def check(self, path: KeyPath, faults: Faults, peers: set[str], routes: set[str]) -> None:
        """Check what types cannot; `peers` are those with targets."""
        for number in self.numbers:
            if not number or not all(character.isalnum() or character in "+*#-." for character in number):
                faults.add((*path, "numbers"), f"expected a number as it is dialled, got: {number!r}")
        if self.peer and self.peer not in peers:
            faults.add((*path, "peer"), f"no such peer, or one without `to`: {self.peer}")
        if self.route and self.route not in routes:
            faults.add((*path, "route"), f"no such route: {self.route}")
        if self.peer and self.route:
            faults.add((*path, "route"), "expected `peer` or `route`, not both")
