"""Requests that a policy sends of its own accord, over the native transactions of the workers."""

import asyncio
import itertools
import re
import secrets
from collections.abc import Callable, Mapping

import msgspec

from edgeproxy.errors import PolicyError
from edgeproxy.policy.response import Response
from edgeproxy.sip import Question

MOST_WAITING = 10_000
"""Requests of one process without an answer; more are refused."""
_SPARE_SECONDS = 2.0
_OWN = {"from", "to", "call-id", "cseq", "max-forwards", "content-length"}
_REFUSED = {"via", "v", "f", "t", "i", "l", "route", "record-route"}
"""Not a policy's business, and compact forms of what it says in full."""
_NAME = re.compile(r"[A-Za-z0-9.!%*_+`'~-]{1,128}")
_NOT_SENT = {"INVITE", "ACK", "CANCEL"}
_encode = msgspec.msgpack.Encoder().encode


class Answer(Response, frozen=True):
    """The final answer to a request; one that the proxy made up itself has no text."""

    status_code: int
    text: str = ""


def build(  # noqa: PLR0913 - the parts of one request
    method: str, uri: str, *, from_uri: str, to_uri: str, headers: Mapping[str, str], body: str
) -> str:
    """Return a request outside of any dialog, or within one where `headers` bring its tags, Call-ID and CSeq (RFC 3261 section 8.1.1).

    Raise `PolicyError` for what would not be one request.
    """
    if not method.isalnum() or method != method.upper() or method in _NOT_SENT:
        raise PolicyError(f"send_request: a policy cannot send {method!r}")
    if wrong := [name for name in headers if not _NAME.fullmatch(name) or name.lower() in _REFUSED]:
        raise PolicyError(f"send_request: not a header field that a policy may set: {wrong[0]!r}")
    given = {name.lower(): value for name, value in headers.items()}
    lines = [
        f"{method} {uri} SIP/2.0",
        # The engine puts its own in the place of this one.
        "Via: SIP/2.0/UDP origin.invalid;branch=z9hG4bK-origin",
        "Max-Forwards: 70",
        f"From: {given.get('from') or f'<{from_uri}>;tag={secrets.token_hex(8)}'}",
        f"To: {given.get('to') or f'<{to_uri or uri}>'}",
        f"Call-ID: {given.get('call-id') or secrets.token_hex(16)}",
        f"CSeq: {given.get('cseq') or f'1 {method}'}",
        *(f"{name}: {value}" for name, value in headers.items() if name.lower() not in _OWN),
        f"Content-Length: {len(body.encode())}",
    ]
    if bad := next((line for line in lines if not line.isprintable()), None):
        raise PolicyError(f"send_request: expected printable text on one line, got: {bad!r}")
    if " " in uri:
        raise PolicyError(f"send_request: not a URI: {uri!r}")
    return "\r\n".join(lines) + "\r\n\r\n" + body


class Originator:
    """Sends requests by way of the workers in turn; `send` takes a token and what is to be sent."""

    def __init__(self, send: Callable[[bytes, bytes], bool], workers: int) -> None:
        self._send = send
        self._workers = itertools.cycle(range(workers))
        self._names = itertools.count(1)
        self._waiting: dict[bytes, asyncio.Future[Answer]] = {}

    async def send(self, request: str, *, to: tuple[str, ...], peer: str, deadline_seconds: float) -> Answer:
        """Send a request and return its answer; raise `PolicyError` for what the engine refuses."""
        if len(self._waiting) >= MOST_WAITING:
            return Answer(503)
        name = next(self._names).to_bytes(8, "little")
        token = bytes([next(self._workers), 0, 1, 0]) + name
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[name] = future
        fields = {
            "kind": "originate",
            "request": request,
            "targets": to,
            "peer": peer,
            "deadline_milliseconds": round(deadline_seconds * 1_000),
        }
        try:
            if not self._send(token, _encode(fields)):
                return Answer(503)
            # The engine keeps the deadline; this is for one that has gone meanwhile.
            async with asyncio.timeout(deadline_seconds + _SPARE_SECONDS):
                return await future
        except TimeoutError:
            return Answer(408)
        finally:
            self._waiting.pop(name, None)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is waited for."""
        return not self._waiting

    def answered(self, question: Question) -> None:
        """Take what came back for a request; one that nobody waits for any more is forgotten."""
        future = self._waiting.get(question.token[4:])
        if future is None or future.done():
            return
        text = question.message.decode(errors="replace")
        if question.status_code:
            future.set_result(Answer(question.status_code, text))
        else:
            future.set_exception(PolicyError(f"send_request: {text}"))
