"""The ladder of a call: what came, what left and what was decided, from the memory of the workers."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from edgeproxy.admin.masking import masked
from edgeproxy.sip import TraceEntry

MOST_SEEN = 100_000
"""Messages that are remembered to know those that come again."""


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
    branch: str = ""
    repeated: bool = False
    """The same message went the same way before: a retransmission."""
    message: str = ""


def call_ids(entries: Iterable[TraceEntry], user: str) -> set[str]:
    """Return the Call-IDs of messages that name `user` in From, To or Request-URI."""
    return {entry.call_id for entry in entries if entry.call_id and user in entry.users}


class Repeats:
    """Knows messages that went the same way before: retransmissions."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, ...]] = set()

    def marked(self, step: Step) -> Step:
        """Return a step, marked where it is one of a message that was seen before."""
        if step.kind == "decision":
            return step
        mark = (step.kind, step.remote, step.call_id, step.cseq, step.branch, step.text)
        if mark in self._seen:
            return msgspec.structs.replace(step, repeated=True)
        if len(self._seen) >= MOST_SEEN:
            self._seen.clear()
        self._seen.add(mark)
        return step


def steps(entries: Sequence[TraceEntry], *, ids: set[str] | None = None, messages: bool = False, mask: bool = False) -> list[Step]:
    """Return the ladder of the calls `ids`, or of all; with whole messages, or without users."""
    repeats = Repeats()
    shown = masked if mask else str
    found = []
    for entry in entries:
        if ids is not None and entry.call_id not in ids:
            continue
        host, port = entry.remote
        is_message = entry.kind != "decision"
        step = Step(
            time=datetime.fromtimestamp(entry.microseconds / 1e6, UTC).isoformat(timespec="microseconds"),
            microseconds=entry.microseconds,
            kind=entry.kind,
            call_id=entry.call_id,
            text=shown(entry.text),
            transport=entry.transport if is_message else "",
            listener=entry.listener if is_message else "",
            remote=(f"[{host}]:{port}" if ":" in host else f"{host}:{port}") if is_message else "",
            cseq=entry.cseq,
            branch=entry.branch,
            message=shown(entry.message.decode(errors="replace")) if messages else "",
        )
        found.append(repeats.marked(step))
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
