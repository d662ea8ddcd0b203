"""What a policy module declares: its options and its handlers."""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from edgeproxy.errors import PolicyError
from edgeproxy.events import is_known
from edgeproxy.policy.originate import Answer, Originator, build
from edgeproxy.policy.verdict import Verdict

Handler = Callable[..., Verdict | Awaitable[Verdict | None] | None]
AnyHandler = TypeVar("AnyHandler", bound=Callable[..., Any])


_ROUTE = re.compile(r"[A-Za-z0-9_.-]{1,255}")


class Hook(msgspec.Struct, frozen=True):
    """One handler with what it is for."""

    name: str
    """`request`, `route`, `branch`, `response`, `in_dialog`, `failure`, `final` or `event`."""
    handler: Handler
    methods: tuple[str, ...]
    """Methods, none means all that open something; names of events for `event`, the name that rules know for `route`."""
    peers: tuple[str, ...]
    """Names or kinds of peers; none means all."""
    takes_options: bool
    exact: bool = False
    """Whether `peers` are names only."""

    def fits(self, method: str, peers: frozenset[str]) -> bool:
        """Whether the handler is for a request of `method` from a peer of one of these names."""
        return (not self.methods or method in self.methods) and (not self.peers or not peers.isdisjoint(self.peers))


class Policy:
    """The handlers of one module; `options` is the msgspec Struct that its options in the file become."""

    def __init__(self, options: type[msgspec.Struct] | None = None) -> None:
        if options is not None and not (isinstance(options, type) and issubclass(options, msgspec.Struct)):
            raise PolicyError(f"Policy: expected a subclass of msgspec.Struct for its options, got: {options!r}")
        self.options_type = options
        self.hooks: list[Hook] = []
        self.originator: Originator | None = None

    def on_request(self, *methods: str, peer: str | Sequence[str] = ()) -> Callable[[AnyHandler], AnyHandler]:
        """Decide what becomes of requests of `methods` from `peer` (names or kinds): called once for each that opens something.

        The handler takes the call, and the module's options if it has a second parameter. A plain function must not
        wait; a coroutine may, within the module's deadline.
        """
        return self._hook("request", methods, peer)

    def on_route(self, name: str) -> Callable[[AnyHandler], AnyHandler]:
        """Decide on rules that name this handler (`dr_rules.routeid`), once one is chosen and before its first gateway is tried.

        The handler takes a `ChosenRule`. `CONTINUE`, with edits, uses it; `Reject` ends the request. `peer` of the call tells who calls.
        """
        if not _ROUTE.fullmatch(name):
            raise PolicyError(f"on_route: expected a name of letters, digits, `_`, `-` and `.`, got: {name!r}")
        return self._hook("route", (name,), ())

    def on_branch(self, *methods: str, peer: str | Sequence[str] = ()) -> Callable[[AnyHandler], AnyHandler]:
        """Look at each attempt before it is made: the handler takes a `Branch`, which it may edit.

        `CONTINUE` makes the attempt, `Reject` passes it over as if it had failed with that status code. `peer` is who called.
        """
        return self._hook("branch", methods, peer)

    def on_response(self, *methods: str, peer: str | Sequence[str] = ()) -> Callable[[AnyHandler], AnyHandler]:
        """Look at each response but 100 before it is passed on: the handler takes a `PassingResponse`, which it may edit.

        `DROP` keeps a provisional response back; a final one is passed on in any case. `peer` is who called.
        """
        return self._hook("response", methods, peer)

    def on_in_dialog(self, *methods: str, peer: str | Sequence[str] = ()) -> Callable[[AnyHandler], AnyHandler]:
        """Decide on requests within dialogs, but ACK and CANCEL: `CONTINUE`, with edits, or a reply. `peer` is who sent the request."""
        return self._hook("in_dialog", methods, peer)

    def on_failure(self, *methods: str, peer: str | Sequence[str] = ()) -> Callable[[AnyHandler], AnyHandler]:
        """Decide once more when every attempt has failed and the caller is about to be told; `call.failed_with` says how.

        Everything that `on_request` may decide is possible; `CONTINUE` passes the best response on. Asked once for a request.
        """
        return self._hook("failure", methods, peer)

    async def send_request(  # noqa: PLR0913 - the parts of one request
        self,
        method: str,
        uri: str,
        *,
        from_uri: str,
        to_uri: str = "",
        headers: Mapping[str, str] | None = None,
        body: str = "",
        to: Sequence[str] = (),
        peer: str = "",
        deadline_seconds: float = 32.0,
    ) -> Answer:
        """Send a request of this policy's own (OPTIONS, MESSAGE, NOTIFY and the like) and return its final answer.

        It goes to the targets `to`, to those of a peer, or to its Request-URI `uri`; the proxy retransmits and fails over.
        No answer in time is 408, none that could be reached 503. Raise `PolicyError` for what cannot be sent.
        """
        if self.originator is None:
            raise PolicyError("send_request: there is no proxy to send by; call it from a handler")
        request = build(method, uri, from_uri=from_uri, to_uri=to_uri, headers=headers or {}, body=body)
        return await self.originator.send(request, to=tuple(to), peer=peer, deadline_seconds=deadline_seconds)

    def on_final(self, *, peer: str | Sequence[str] = ()) -> Callable[[AnyHandler], AnyHandler]:
        """Be told of each call's end: the handler takes the call's record as a dict, and the options; what it returns is ignored."""
        return self._hook("final", (), peer)

    def on_event(self, *names: str) -> Callable[[AnyHandler], AnyHandler]:
        """Be told of events of these names: the handler takes an `Event`, and the options; what it returns is ignored.

        Runs in one of the policy processes, some time after the fact. Events that come faster than handlers take them are dropped.
        """
        if not names or (unknown := [name for name in names if not is_known(name)]):
            raise PolicyError(f"on_event: no such event: {', '.join(unknown)}" if names else "on_event: name the events")
        return self._hook("event", names, ())

    def _hook(self, name: str, methods: tuple[str, ...], peer: str | Sequence[str]) -> Callable[[AnyHandler], AnyHandler]:
        peers = (peer,) if isinstance(peer, str) else tuple(peer)
        for method in methods if name not in {"event", "route"} else ():
            if not isinstance(method, str):
                raise PolicyError(
                    f"on_{name}: expected @policy.on_{name}() with parentheses, or with methods in them, got: {type(method).__name__}"
                )
            if not method.isalnum() or method != method.upper():
                raise PolicyError(f"expected methods in capital letters, got: {method!r}")
            if method in {"ACK", "CANCEL"}:
                raise PolicyError(f"on_{name}: nobody is asked about {method}, which belongs to its INVITE")

        def register(handler: AnyHandler) -> AnyHandler:
            if not callable(handler):
                raise PolicyError(f"a handler must be a function, got: {handler!r}")
            if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
                raise PolicyError(f"{handler.__qualname__}: a handler returns its verdict, it must not yield")
            kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
            parameters = [p for p in inspect.signature(handler).parameters.values() if p.default is p.empty]
            if not 1 <= len(parameters) <= 2 or any(p.kind not in kinds for p in parameters):
                shape = {
                    "final": "the record",
                    "branch": "the branch",
                    "route": "the chosen rule",
                    "response": "the response",
                    "event": "the event",
                }.get(name, "the call")
                raise PolicyError(f"{handler.__qualname__}: expected parameters for {shape} and, if wished, the options")
            self.hooks.append(Hook(name, handler, methods, peers, len(parameters) == 2))
            return handler

        return register
