"""Which rule and gateways a number would get, and why not others."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from edgeproxy import _native
from edgeproxy.config import Loaded
from edgeproxy.config.routing import Route
from edgeproxy.errors import StorageError


class Asked(NamedTuple):
    """What somebody wants to know."""

    number: str
    route: str = ""
    """Empty: the first of the file."""
    group: int | None = None
    """Another one than that of the route or of the caller."""
    at: datetime | None = None
    peer: str = ""
    """Whose number rules make the number that is looked up."""
    caller: str = ""
    """`user` or `user@domain` of From, for routes with `caller_groups`."""


class Serving(NamedTuple):
    """What serves while it is asked."""

    engine: _native.Engine
    tables: _native.RouteTables
    loaded: Loaded
    has_recurrences: bool

    def explain(self, asked: Asked) -> dict[str, Any]:
        """Return the rules and gateways in the order in which they are tried, as the API gives them; raise `StorageError` where it cannot."""
        routes = self.loaded.config.route
        name = asked.route or next(iter(routes), "")
        if name not in routes:
            raise StorageError(f"no such route: {name}; there are {', '.join(routes) or 'none'}")
        terms = routes[name]
        now = datetime.now(UTC)
        if asked.at and self.has_recurrences:
            from edgeproxy.storage.recurrence import DAYS  # noqa: PLC0415 - only rules need a database

            if not now - timedelta(days=1) < asked.at < now + timedelta(days=DAYS - 2):
                raise StorageError(f"at: time recurrences are known from yesterday on for {DAYS} days only, got: {asked.at.isoformat()}")
        moment = int((asked.at or now).timestamp())
        group = self._group(name, terms, asked)
        dialled = _dialled(asked.number)
        translated, refused = self.engine.translate(self.tables, asked.peer, dialled, moment) if asked.peer else (None, None)
        if refused:
            answer = " ".join(str(part) for part in refused if part)
            why = f"no number rule of peer {asked.peer} is for it: it is refused with {answer}"
            return {"route": name, "number_rule": "", "number": dialled, "group": group, "why": why, "rules": []}
        number_rule, number = translated or ("", dialled)
        flags = (terms.fall_back, terms.whole_number, terms.by_weight)
        try:
            text = self.engine.explain(self.tables, terms.partition, group, number, flags, terms.whitelist, moment)
        except KeyError:
            raise StorageError(f"no such partition: {terms.partition}") from None
        found: dict[str, Any] = msgspec.json.decode(text)
        why = "; ".join(note for note in (found["why"], *_notes(terms, asked)) if note)
        return {"route": name, "number_rule": number_rule, **found, "why": why}

    def _group(self, name: str, terms: Route, asked: Asked) -> int:
        if asked.caller and terms.caller_groups == "off":
            raise StorageError(f"caller: the group of route {name} is the same for every caller (caller_groups is off)")
        user, _, domain = asked.caller.partition("@")
        if asked.caller and terms.caller_groups == "user_and_domain" and not domain:
            raise StorageError(f"caller: expected user@domain, got: {asked.caller}")
        if asked.group is not None:
            return asked.group
        own = self.tables.caller_group(terms.partition, user, domain if terms.caller_groups == "user_and_domain" else None)
        return terms.group if own is None or not asked.caller else own


def _dialled(text: str) -> str:
    """Return the number of a URI or of its user part as calls are routed by it: without parameters and password."""
    scheme, colon, rest = text.partition(":")
    user = rest if colon and scheme.lower() in {"sip", "sips", "tel"} else text
    return re.split("[;:@]", user, maxsplit=1)[0]


def _notes(terms: Route, asked: Asked) -> list[str]:
    notes = []
    if terms.caller_groups != "off" and asked.group is None and not asked.caller:
        notes.append(f"callers in dr_groups have groups of their own (caller_groups is {terms.caller_groups}): --caller tells for one")
    if terms.check_only:
        notes.append("the route only checks that there is a rule (check_only): the call then goes where it would go without it")
    return notes
