"""Who gets how many places of a key: the rule, for stores that cannot run it themselves. `redis.lua` says the same."""

from collections.abc import Iterable
from typing import NamedTuple

from edgeproxy.shared.store import Ask, Grant


class Held(NamedTuple):
    """What a node has of a key."""

    node: str
    quota: int
    used: int
    fresh: bool = True
    """It has told that since somebody began to look for places of the key."""


def balance(held: Iterable[Held], node: str, ask: Ask, *, nodes: int, settled: bool) -> Grant:
    """Return what `node` gets beside the others, all of them alive; `nodes` are so many.

    What it keeps it has. What it needs it gets as far as there is any, and of what then is left its part of what it wishes for. Of others
    who have told nothing for longer than somebody looks for places nobody knows that they use all of theirs.
    """
    others = [one for one in held if one.node != node]
    free = ask.most - sum(one.quota for one in others)
    spare = sum(max(one.quota - one.used, 0 if one.fresh else 1) for one in others)
    quota = ask.keep
    if settled:
        wanted = ask.need + min(ask.extra, (free - ask.need) // max(nodes, 1)) if ask.need <= free else free
        quota = max(ask.keep, wanted)
    return Grant(quota, spare)
