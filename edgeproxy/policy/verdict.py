"""Verdicts: values that a handler returns. Each becomes one MessagePack map for the native side."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from edgeproxy.errors import PolicyError
from edgeproxy.sip import Uri

_encode = msgspec.msgpack.Encoder().encode
Edit = dict[str, str]


def _is_uri(text: object) -> bool:
    """Whether a text is one URI, which may stand between `<` and `>`."""
    try:
        return bool(Uri(text).scheme) if isinstance(text, str) else False
    except ValueError:
        return False


def _no_text(to: object) -> None:
    if isinstance(to, str):
        raise PolicyError(f"expected a tuple of SIP URIs, got a text: write ({to!r},)")


class Verdict(msgspec.Struct, frozen=True):
    """What a handler decided; by itself it decides nothing, which counts as a failure."""

    def fields(self) -> dict[str, Any]:
        """Return what crosses to the native side; raise `PolicyError` where that is nothing."""
        raise PolicyError("a handler returned a Verdict that decides nothing")


class Continue(Verdict, frozen=True):
    """Go on: the next module is asked, and after the last one the configuration decides."""

    def fields(self) -> dict[str, Any]:
        """Return what crosses to the native side."""
        return {"kind": "continue"}


CONTINUE = Continue()
"""The only value of `Continue` that anybody needs."""


class Drop(Verdict, frozen=True):
    """Keep a provisional response back; only for `on_response`."""

    def fields(self) -> dict[str, Any]:
        """Return what crosses to the native side."""
        return {"kind": "drop"}


DROP = Drop()
"""The only value of `Drop` that anybody needs."""


class Relay(Verdict, frozen=True):
    """Send the request on, to `to` or to the targets of a peer."""

    to: tuple[str, ...] = ()
    """SIP URIs, tried in order, or at once where `parallel` is set. The Request-URI stays as it is."""
    peer: str = ""
    """The peer whose `to` is meant, with its time limits and fail-over codes; only without `to`."""
    parallel: bool = False
    """Whether all targets are tried at once."""
    first_answer_seconds: float | None = None
    """Longest wait for any answer, per attempt; by default that of the peer, else 64 x T1."""
    final_answer_seconds: float | None = None
    """Longest wait for the final answer after a provisional one, per attempt; by default that of the peer, else timer C."""

    service: bool = False
    """Whether a service is asked, and nobody tried who could be called: its responses but a 2xx go to nobody but the policy."""

    def __post_init__(self) -> None:
        """Refuse a single text, whose characters would be taken for URIs, and time that is none."""
        _no_text(self.to)
        if self.to and self.peer:
            raise PolicyError("Relay: expected either `to` or `peer`")
        for name in ("first_answer_seconds", "final_answer_seconds"):
            if (seconds := getattr(self, name)) is not None and not seconds > 0:
                raise PolicyError(f"{name}: expected more than 0, got: {seconds!r}")

    def fields(self) -> dict[str, Any]:
        """Return what crosses to the native side."""
        found: dict[str, Any] = {"kind": "relay", "targets": self.to, "peer": self.peer, "parallel": self.parallel}
        if self.service:
            found["service"] = True
        for name, value in (("first_answer", self.first_answer_seconds), ("final_answer", self.final_answer_seconds)):
            if value is not None:
                found[f"{name}_milliseconds"] = max(1, round(value * 1_000))
        return found


class Route(Verdict, frozen=True):
    """Try the gateways of provisioned rules one by one; `Call.route` returns what comes of that."""

    number: str = ""
    """The number to look up; empty for that of the Request-URI as it goes out."""
    route: str = ""
    """The `[route.NAME]` whose terms hold; empty for the first of the file."""
    group: int | None = None
    """Another group than that of the route."""
    fall_back: bool | None = None
    """Whether further rules are tried once one has no gateway left; by default as the route says."""
    whole_number: bool | None = None
    """Whether a prefix must be the whole number; by default as the route says."""
    whitelist: tuple[str, ...] = ()
    """Gateways, and carriers with `#` in front, that the call is bound to; by default as the route says."""

    def fields(self) -> dict[str, Any]:
        """Return what crosses to the native side."""
        found: dict[str, Any] = {"kind": "route", "number": self.number, "route": self.route, "whitelist": self.whitelist}
        for name in ("group", "fall_back", "whole_number"):
            if (value := getattr(self, name)) is not None:
                found[name] = value
        return found


class Next(Verdict, frozen=True):
    """Try the next gateway of the rules under way."""

    def fields(self) -> dict[str, Any]:
        """Return what crosses to the native side."""
        return {"kind": "next"}


class Reply(Verdict, frozen=True):
    """Answer from here; an INVITE can only be refused, since endpoints make dialogs."""

    status_code: int
    """200 to 699; for an INVITE 300 to 699."""
    reason_phrase: str = ""
    """Another text than the customary one."""
    headers: Mapping[str, str] = {}
    """Header fields to add; not those that routing and dialogs rest on."""
    body: str = ""
    """A body; its Content-Type goes into `headers`."""

    least: ClassVar[int] = 200

    def __post_init__(self) -> None:
        """Refuse what is no final status code, or for a refusal none that refuses."""
        if self.status_code not in range(self.least, 700):
            raise PolicyError(f"{type(self).__name__}: expected a status code of {self.least} to 699, got: {self.status_code!r}")

    def fields(self) -> dict[str, Any]:
        """Return what crosses to the native side."""
        return {
            "kind": "reply",
            "status_code": self.status_code,
            "reason_phrase": self.reason_phrase,
            "headers": list(self.headers.items()),
            "body": self.body,
        }


class Reject(Reply, frozen=True):
    """Refuse with a status code of 300 to 699."""

    least: ClassVar[int] = 300


class Redirect(Verdict, frozen=True):
    """Tell the caller to try elsewhere (RFC 3261 section 8.3)."""

    to: tuple[str, ...]
    """SIP URIs."""
    status_code: int = 302
    """300 to 399."""

    def __post_init__(self) -> None:
        """Refuse what is no list of URIs: a caller follows whatever Contacts it gets; and a status code that sends nobody elsewhere."""
        _no_text(self.to)
        if not self.to:
            raise PolicyError("Redirect: expected one SIP URI at least")
        for uri in self.to:
            if not _is_uri(uri):
                raise PolicyError(f"Redirect: not a SIP URI: {uri!r}")
        if self.status_code not in range(300, 400):
            raise PolicyError(f"Redirect: expected a status code of 300 to 399, got: {self.status_code!r}")

    def fields(self) -> dict[str, Any]:
        """Return what crosses to the native side."""
        contacts = [("Contact", f"<{uri}>") for uri in self.to]
        return {"kind": "reply", "status_code": self.status_code, "headers": contacts}


class BestResponse(Verdict, frozen=True):
    """Answer with the best response of all attempts (RFC 3261 section 16.7), else as `otherwise` says."""

    otherwise: Reply | None = None
    """For when no attempt was answered at all; by default 408."""

    def fields(self) -> dict[str, Any]:
        """Return what crosses to the native side."""
        return {**(self.otherwise.fields() if self.otherwise else {}), "kind": "best"}


def encode(
    verdict: Verdict, *, edits: Sequence[Edit] = (), notes: Mapping[str, str] | None = None, more: Mapping[str, object] | None = None
) -> bytes:
    """Return `verdict` as it crosses, with what the handler did to the request before, and `more` fields of the native side."""
    fields = verdict.fields()
    if edits:
        fields["edits"] = edits
    if notes:
        fields["notes"] = list(notes.items())
    if more:
        fields |= more
    return _encode(fields)


PLAIN_CONTINUE = _encode({"kind": "continue"})
"""The commonest verdict, encoded once."""
GIVEN_UP = _encode({"kind": "give_up"})
"""What crosses where a handler waits no longer for its attempts."""
FAILED = _encode({"kind": "error"})
"""What crosses where a handler failed: the configuration says what the caller gets."""


def failed(status_code: int) -> bytes:
    """Return what crosses where a handler failed of a module behind the first, whose status the engine goes by otherwise; 0 for that."""
    return _encode({"kind": "error", "status_code": status_code}) if status_code else FAILED
