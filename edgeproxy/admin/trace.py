"""The ladder of a call: what came, what left and what was decided, from the memory of the workers."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from edgeproxy.sip import TraceEntry

_USER = re.compile(r"\b(sips?:|tel:|urn:)([^@>;,\s\"]+)(?=@|>|;|\s|$)", re.IGNORECASE)
_DISPLAY = re.compile(r'"[^"\r\n]*"(?=\s*<)')
_NAMED = "from|to|f|t|contact|m|p-asserted-identity|p-preferred-identity|remote-party-id|diversion"
_PLAIN_DISPLAY = re.compile(rf'^((?:{_NAMED})\s*:\s*)([^\s<"][^<"\r\n]*)(?=<)', re.IGNORECASE | re.MULTILINE)


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a ladder."""

    time: str
    """RFC 3339, in UTC."""
    microseconds: int
    """The same, since 1970."""
    kind: str
    """`received`, `sent` or `decision`."""
    call_id: str
    text: str
    """The start line, or what was decided."""
    transport: str = ""
    listener: str = ""
    remote: str = ""
    cseq: str = ""
    repeated: bool = False
    """The same message went the same way before: a retransmission."""
    message: str = ""


def masked(text: str) -> str:
    """Return `text` without users and display names."""
    hidden = _DISPLAY.sub('"***"', _USER.sub(lambda match: match[1] + "***", text))
    return _PLAIN_DISPLAY.sub(lambda match: f"{match[1]}*** ", hidden)


def call_ids(entries: Iterable[TraceEntry], user: str) -> set[str]:
    """Return the Call-IDs of messages that name `user` in From, To or Request-URI."""
    return {entry.call_id for entry in entries if entry.call_id and user in entry.users}


def steps(entries: Sequence[TraceEntry], *, ids: set[str] | None = None, messages: bool = False, mask: bool = False) -> list[Step]:
    """Return the ladder of the calls `ids`, or of all; with whole messages, or without users."""
    seen: set[tuple[str, ...]] = set()
    found = []
    for entry in entries:
        if ids is not None and entry.call_id not in ids:
            continue
        host, port = entry.remote
        is_message = entry.kind != "decision"
        remote = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}") if is_message else ""
        mark = (entry.kind, remote, entry.call_id, entry.cseq, entry.branch, entry.text)
        shown = masked if mask else str
        found.append(
            Step(
                time=datetime.fromtimestamp(entry.microseconds / 1e6, UTC).isoformat(timespec="microseconds"),
                microseconds=entry.microseconds,
                kind=entry.kind,
                call_id=entry.call_id,
                text=shown(entry.text),
                transport=entry.transport if is_message else "",
                listener=entry.listener if is_message else "",
                remote=remote,
                cseq=entry.cseq,
                repeated=is_message and mark in seen,
                message=shown(entry.message.decode(errors="replace")) if messages else "",
            )
        )
        seen.add(mark)
    return found


WIDTH = 44
"""Columns on the left side of the ladder."""


class Ladder:
    """Draws steps as they come: the far end that spoke first on the left, everybody else on the right."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, int]] = {}

    def lines(self, step: Step) -> list[str]:
        """Return what to print for one step."""
        out = []
        if step.call_id not in self._first:
            if len(self._first) > 10_000:
                self._first.clear()
            self._first[step.call_id] = (step.remote, step.microseconds)
            out += ["", f"{step.time}  call {step.call_id}", f"{'':14}{step.remote:{WIDTH}} edge"]
        caller, start = self._first[step.call_id]
        at = f"{(step.microseconds - start) / 1e6:+13.6f}"
        text = step.text.removesuffix(" SIP/2.0").removeprefix("SIP/2.0 ") + (" (again)" if step.repeated else "")
        if step.kind == "decision":
            out.append(f"{at} {'':{WIDTH}} * {text}")
        elif step.remote == caller:
            arrow = f"{text} -->" if step.kind == "received" else f"<-- {text}"
            out.append(f"{at} {arrow:>{WIDTH}} |" if step.kind == "received" else f"{at} {arrow:{WIDTH}} |")
        else:
            arrow = "-->" if step.kind == "sent" else "<--"
            out.append(f"{at} {'':{WIDTH}} | {arrow} {text}   {step.transport} {step.remote}")
        if step.message:
            out += [f"{'':16}{line}" for line in step.message.rstrip().splitlines()] + [""]
        return out
