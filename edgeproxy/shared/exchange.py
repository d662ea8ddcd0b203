"""How policy processes reach values and raise events: a line of JSON for a question, and one for its answer, over a pair of sockets that no other process has."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edgeproxy.shared.store import Values

LINE = 1 << 20
"""Bytes of a line."""
Name = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
Text = Annotated[str, Meta(max_length=4_096)]
Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]


class Question(msgspec.Struct, omit_defaults=True):
    """One question; `number` comes back with its answer."""

    number: int
    verb: Literal["add", "fetch", "put", "discard", "members", "raise"]
    key: Name
    by: Annotated[int, Meta(ge=-1_000_000_000, le=1_000_000_000)] = 1
    seconds: Seconds = 1.0
    members: Annotated[list[Name], Meta(max_length=1_000)] = []
    parameters: Annotated[dict[Name, int | Text], Meta(max_length=32)] = {}
    """Of the event that is raised; its name is the key."""


class Reply(msgspec.Struct, omit_defaults=True):
    """Its answer: what a counter is, how many took an event, or the members of a set with the seconds that each has left, or why there is none."""

    number: int
    count: int = 0
    members: dict[str, float] = {}
    error: str = ""


async def carried_out(values: Values, question: Question) -> Reply:
    """Do what a question wants; raise `StoreFailed` where that cannot be done."""
    key = f"policy:{question.key}"
    match question.verb:
        case "add":
            return Reply(question.number, await values.add(key, question.by, question.seconds))
        case "fetch":
            return Reply(question.number, await values.fetch(key))
        case "put":
            await values.put(key, [(member, question.seconds) for member in question.members])
        case "discard":
            await values.discard(key, question.members)
        case "members":
            return Reply(question.number, members=await values.members(key))
    return Reply(question.number)
