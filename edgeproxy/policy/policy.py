"""What a policy module declares: its options and its handlers."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from edgeproxy.errors import PolicyError
from edgeproxy.policy.verdict import Verdict

Handler = Callable[..., Verdict | Awaitable[Verdict | None] | None]
AnyHandler = TypeVar("AnyHandler", bound=Callable[..., Any])


class Hook(msgspec.Struct, frozen=True):
    """One handler with what it is for."""

    name: str
    """`request` or `final`."""
    handler: Handler
    methods: tuple[str, ...]
    """Methods; none means all that open something."""
    peers: tuple[str, ...]
    """Names or kinds of peers; none means all."""
    takes_options: bool

    def fits(self, method: str, peers: frozenset[str]) -> bool:
        """Whether the handler is for a request of `method` from a peer of one of these names."""
        return (not self.methods or method in self.methods) and (not self.peers or not peers.isdisjoint(self.peers))


class Policy:
    """The handlers of one module; `options` is the msgspec Struct that its options in the file become."""

    def __init__(self, options: type[msgspec.Struct] | None = None) -> None:
        self.options_type = options
        self.hooks: list[Hook] = []

    def on_request(self, *methods: str, peer: str | Sequence[str] = ()) -> Callable[[AnyHandler], AnyHandler]:
        """Decide what becomes of requests of `methods` from `peer` (names or kinds): called once for each that opens something.

        The handler takes the call, and the module's options if it has a second parameter. A plain function must not
        wait; a coroutine may, within the module's deadline.
        """
        return self._hook("request", methods, peer)

    def on_final(self, *, peer: str | Sequence[str] = ()) -> Callable[[AnyHandler], AnyHandler]:
        """Be told of each call's end: the handler takes the call's record as a dict, and the options; what it returns is ignored."""
        return self._hook("final", (), peer)

    def _hook(self, name: str, methods: tuple[str, ...], peer: str | Sequence[str]) -> Callable[[AnyHandler], AnyHandler]:
        peers = (peer,) if isinstance(peer, str) else tuple(peer)
        for method in methods:
            if not method.isalnum() or method != method.upper():
                raise PolicyError(f"expected methods in capital letters, got: {method!r}")

        def register(handler: AnyHandler) -> AnyHandler:
            if not callable(handler):
                raise PolicyError(f"a handler must be a function, got: {handler!r}")
            kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
            parameters = [p for p in inspect.signature(handler).parameters.values() if p.default is p.empty]
            if not 1 <= len(parameters) <= 2 or any(p.kind not in kinds for p in parameters):
                shape = "the record" if name == "final" else "the call"
                raise PolicyError(f"{handler.__qualname__}: expected parameters for {shape} and, if wished, the options")
            self.hooks.append(Hook(name, handler, methods, peers, len(parameters) == 2))
            return handler

        return register
