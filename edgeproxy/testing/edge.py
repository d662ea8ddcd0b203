"""The real edge, its policies in this process, no sockets, and time that passes only when the test says so."""

import asyncio
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from edgeproxy import _native
from edgeproxy.config import load_text, to_document
from edgeproxy.events import from_engine, make
from edgeproxy.policy import Policy
from edgeproxy.policy.call import Call
from edgeproxy.policy.chain import Chain, convert_options
from edgeproxy.policy.dispatch import Dispatcher
from edgeproxy.policy.load import event_names, hooks
from edgeproxy.policy.lookup import Lookups
from edgeproxy.policy.values import PolicyValues
from edgeproxy.shared.memory import MemoryValues
from edgeproxy.storage import block
from edgeproxy.testing.clock import SimulatedClock
from edgeproxy.testing.response import Response

CONFIGURATION = """
[install.listener.public]
address = "udp:192.0.2.1:5060"
[peer.core]
kind = "core"
match = ["198.51.100.1"]
to = ["sip:198.51.100.1"]
[peer.gateway]
kind = "gateway"
match = ["203.0.113.0/24"]
to = ["sip:203.0.113.1"]
[peer.subscribers]
kind = "subscribers"
match = ["*;listener=public"]
"""
"""The configuration unless a test gives another one: phones anywhere, a core, a gateway."""

PHONE = "192.0.2.77:5060"
_TURNS = 5
"""Turns of the loop without anything new after which handlers are taken to wait for something real."""


class SimulatedEdge:
    """An edge with `policies`, asked in this order; use it as a context manager or call `close`. One at a time: time and values are those of one.

    `options` are those of every policy, or a list with those of each. Raise `RuntimeError` while another one is open.
    """

    _open: ClassVar[Callable[[], "SimulatedEdge | None"]] = lambda: None

    def __init__(
        self,
        *policies: Policy,
        options: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        configuration: str = CONFIGURATION,
        deadline_seconds: float = 1.0,
    ) -> None:
        if SimulatedEdge._open() is not None:
            raise RuntimeError("another SimulatedEdge is open: close it first, or use it as a context manager")
        config = load_text(configuration, "simulated.toml").config
        kinds = {name: peer.kind for name, peer in config.peer.items()}
        given = [options or {}] * len(policies) if options is None or isinstance(options, Mapping) else list(options)
        modules = [(policy, convert_options(policy, own, "policy")) for policy, own in zip(policies, given, strict=True)]
        wanted = hooks(modules, [deadline_seconds] * len(policies), [500] * len(policies), kinds)
        peers = {name: peer.lookups for name, peer in config.peer.items() if peer.lookups}
        if peers:
            trusted = [name for name, peer in config.peer.items() if peer.is_trusted]
            lookups = Lookups(config.lookup, peers, trusted, config.install.database if "database" in configuration else "")
            modules.insert(0, (lookups.policy, object()))
            wanted = [*hooks(modules[:1], [lookups.deadline_seconds], [500], kinds), *wanted]
        self._handlers = {name for hook in wanted if hook["hook"] == "route" for name in hook["methods"]}
        self._edge = _native.SimulatedEdge(to_document(config, wanted))
        self._edge.listen(event_names(modules))
        self._runner = asyncio.Runner()
        _native.install_logger()
        # What others left there is not of this edge.
        _native.drain_log()
        self.failures: list[dict[str, object]] = []
        """What handlers raised, and why the engine could not carry out what they decided, as it would be logged."""
        self.sent: list[Response] = []
        """Everything that was sent so far, in order."""
        self.raised: list[tuple[str, dict[str, int | str]]] = []
        """Name and parameters of events that handlers raised, in order."""
        self._clock = SimulatedClock()
        self._dispatcher = Dispatcher(
            Chain(modules, kinds), self._answer, lambda _, values: self.failures.append(values), later=self._clock.call_later
        )
        self._listener = next(iter(config.install.listener))
        # A test that asks a database names it in its configuration: nobody means that of this machine.
        Call.database = config.install.database if "database" in configuration else ""
        self._milliseconds = 0
        Call.sleeper = self._clock.sleep
        clock = self._clock
        Call.values = PolicyValues(values=MemoryValues(lambda: clock.now), publish=self._publish)
        SimulatedEdge._open = weakref.ref(self)

    def _publish(self, name: str, parameters: dict[str, int | str]) -> int:
        self.raised.append((name, parameters))
        self._dispatcher.event(make(name, self._edge.wall, parameters))
        return 1

    def _answer(self, token: bytes, verdict: bytes) -> bool:
        self._edge.answer(token, verdict)
        return True

    def resolve(self, name: str, address: str) -> None:
        """Let a name resolve to `address:port`; names that nobody told lead nowhere."""
        self._edge.resolve(name, address)

    def provision(
        self,
        gateways: Mapping[str, str],
        rules: Mapping[str, str],
        carriers: Mapping[str, str] | None = None,
        handlers: Mapping[str, str] | None = None,
    ) -> None:
        """Route by `rules` (prefix: list of gateways) of group 0 over `gateways` (name: address) and `carriers` (name: list).

        `handlers` (prefix: name) are asked about rules, as `Policy.on_route` declares them. `attrs` of each is `of` with its name or prefix.

        The configuration needs a `[route.NAME]`. Raise `ValueError` for what cannot be used.
        """
        named = handlers or {}
        load = _native.RouteLoad([""], "", sorted(self._handlers))
        there = ({"gwid": name, "address": address, "attrs": f"of {name}"} for name, address in gateways.items())
        load.add("", "gateways", block("gateways", there))
        by = ({"carrierid": name, "gwlist": text, "attrs": f"of {name}"} for name, text in (carriers or {}).items())
        load.add("", "carriers", block("carriers", by))
        rows = (
            {"ruleid": number, "prefix": prefix, "gwlist": text, "routeid": named.get(prefix, ""), "attrs": f"of {prefix}"}
            for number, (prefix, text) in enumerate(rules.items(), 1)
        )
        load.add("", "rules", block("rules", rows))
        tables, faults, _ = load.finish()
        if faults:
            raise ValueError(", ".join(f"{table} {row}: {column}: {problem}" for table, row, column, problem in faults))
        self._edge.set_routes(tables)

    def receive(self, message: bytes | str, source: str = PHONE, *, listener: str = "") -> Response:
        """Let a message arrive; return the last message sent because of it, which for a refusal is the refusal.

        Raise `AssertionError` where nothing was sent.
        """
        count = len(self.sent)
        self._edge.receive(message.encode() if isinstance(message, str) else message, source, listener or self._listener)
        self._settle()
        if len(self.sent) == count:
            raise AssertionError("the edge sent nothing")
        return self.sent[-1]

    def respond(
        self, to: Response, status_code: int, reason_phrase: str = "Because", headers: Mapping[str, str] | None = None
    ) -> list[Response]:
        """Let the target of a request answer it, with further header fields; return what is sent because of that."""
        head = to.text.split("\r\n\r\n", 1)[0].split("\r\n")[1:]
        kept = [line for line in head if line.split(":")[0].lower() in {"via", "record-route", "from", "call-id", "cseq"}]
        tag = "" if status_code == 100 else ";tag=callee"
        added = [f"{name}: {value}" for name, value in (headers or {}).items()]
        lines = [f"SIP/2.0 {status_code} {reason_phrase}", *kept, f"To: {to.header('To')}{tag}", *added, "Content-Length: 0", "", ""]
        count = len(self.sent)
        self._edge.receive("\r\n".join(lines).encode(), to.to, self._listener)
        self._settle()
        return self.sent[count:]

    def advance(self, seconds: float) -> list[Response]:
        """Let time pass at the edge and for `Call.sleep`; return what is sent meanwhile. Whatever else handlers wait for goes on in real time."""
        count = len(self.sent)
        end = self._clock.now + seconds
        while self._clock.now < end:
            due = min(self._clock.next_due, end)
            # Both clocks from the start, so that roundings do not add up.
            left = round(due * 1_000) - self._milliseconds
            self._milliseconds += max(0, left)
            while left > 0:
                left = self._edge.advance(left)
                self._settle()
            self._clock.pass_to(due)
            self._settle()
        return self.sent[count:]

    def wait(self, seconds: float = 1.0) -> list[Response]:
        """Let handlers that wait for something real (an HTTP answer, a timer of asyncio) go on until all are done; raise `TimeoutError` after `seconds`."""
        count = len(self.sent)

        async def idle() -> None:
            async with asyncio.timeout(seconds):
                while not self._dispatcher.is_idle:
                    await asyncio.sleep(0.001)
                    self._exchange()

        self._runner.run(idle())
        self._settle()
        return self.sent[count:]

    def raise_event(self, name: str, **parameters: int | str) -> None:
        """Tell handlers of an event as `edgeproxy events raise` does; raise `ValueError` where name or parameters are wrong."""
        event = make(name, self._edge.wall, parameters)

        async def told() -> None:
            self._dispatcher.event(event)

        self._runner.run(told())
        self._settle()

    @property
    def records(self) -> list[dict[str, Any]]:
        """Take the records of calls that ended."""
        return [msgspec.json.decode(record) for record in self._edge.records()]

    def _exchange(self) -> bool:
        """Hand questions to the policies and collect what is sent; true where there was something."""
        questions = self._edge.questions()
        for question in questions:
            self._dispatcher.handle(question)
        for name, at, values in self._edge.take_events():
            self._dispatcher.event(from_engine(name, at, values))
        messages = self._edge.sent()
        self.sent += [Response(message.decode(errors="replace"), to) for message, to in messages]
        return bool(questions or messages)

    def _settle(self) -> None:
        async def settled() -> None:
            quiet = 0
            while quiet < _TURNS:
                quiet = 0 if self._exchange() else quiet + 1
                await asyncio.sleep(0)

        self._runner.run(settled())
        lines, _ = _native.drain_log()
        self.failures += [
            {"error": message, **values} for _, level, part, message, values in lines if part == "policy" and level == "warning"
        ]

    def close(self) -> None:
        """End it, with all handlers that still wait."""
        for name in ("edgeproxy.policy.http", "edgeproxy.policy.sql"):
            if module := sys.modules.get(name):
                self._runner.run(module.close())
        self._runner.close()
        Call.sleeper = asyncio.sleep
        SimulatedEdge._open = lambda: None

    def __enter__(self) -> "SimulatedEdge":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
