"""The bus: events from their producers to whoever listens. Nobody who is slow holds anybody up: what he cannot take is dropped."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

from edgeproxy.events.catalogue import name_of
from edgeproxy.events.event import Event

Listener = Callable[[Event], bool]
"""Takes an event; false where there was no room for it."""


class Bus:
    """Who listens to what; `changed` is told the names that somebody listens to, so that nothing else is built."""

    def __init__(self, changed: Callable[[list[str]], None]) -> None:
        self._changed = changed
        self._listeners: dict[int, tuple[frozenset[str], Listener, str]] = {}
        self._next = 0
        self.told = 0
        self.dropped = 0

    def listens(self, name: str) -> bool:
        """Whether somebody listens to `name`."""
        return any(name in names for names, _, _ in self._listeners.values())

    @contextlib.contextmanager
    def subscribed(self, names: Iterable[str], listener: Listener, who: str) -> Iterator[None]:
        """Listen to events of these names for as long as the context lasts."""
        number = self.subscribe(names, listener, who)
        try:
            yield
        finally:
            self.unsubscribe(number)

    def subscribe(self, names: Iterable[str], listener: Listener, who: str) -> int:
        """Listen to events of these names; return the number to stop by. `who` is for operators to read."""
        self._next += 1
        self._listeners[self._next] = (frozenset(names), listener, who)
        self._tell_names()
        return self._next

    def unsubscribe(self, number: int) -> None:
        """Listen no more."""
        self._listeners.pop(number, None)
        self._tell_names()

    def _tell_names(self) -> None:
        self._changed(sorted({name for names, _, _ in self._listeners.values() for name in names}))

    def publish(self, event: Event) -> int:
        """Give an event to whoever listens to it; return how many took it."""
        name = name_of(event)
        took = 0
        for names, listener, _ in list(self._listeners.values()):
            if name not in names:
                continue
            if listener(event):
                took += 1
            else:
                self.dropped += 1
        self.told += took
        return took

    def subscribers(self) -> dict[str, list[str]]:
        """Return who listens, by the name of the event."""
        found: dict[str, list[str]] = {}
        for names, _, who in self._listeners.values():
            for name in sorted(names):
                found.setdefault(name, []).append(who)
        return found
