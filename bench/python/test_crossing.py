"""The crossing alone: 64 questions through shared memory, a handler that does next to nothing, 64 verdicts back.

The figure is that of a batch; divided by 64 it is the cost of a request without the handler's own work. Both ends run in a
callback of the loop, as a policy process runs its own; the turn of the loop itself, one for a batch, is not in it.
"""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture

from edgeproxy import _native
from edgeproxy.config import load_text, to_document
from edgeproxy.policy import CONTINUE, Call, Policy
from edgeproxy.policy.chain import Chain
from edgeproxy.policy.compiled import compile_module
from edgeproxy.policy.dispatch import Dispatcher
from edgeproxy.policy.load import ModuleSpec, hooks, load
from edgeproxy.sip import Request
from edgeproxy.testing.edge import CONFIGURATION
from edgeproxy.testing.request import request

BATCH = 64


def plain(_: object) -> object:
    return CONTINUE


async def coroutine(_: object) -> object:
    return CONTINUE


class Crossing:
    """Both ends of one link in one process."""

    def __init__(self, handler: object) -> None:
        policy = Policy()
        policy.on_request("INVITE")(handler)  # type: ignore[type-var]
        config = load_text(CONFIGURATION, "bench.toml").config
        kinds = {name: peer.kind for name, peer in config.peer.items()}
        modules = [(policy, object())]
        self.edge = _native.SimulatedEdge(to_document(config, hooks(modules, [1.0], [500], kinds)))
        self.link = _native.PolicyLink(1, 1 << 20)
        self.port = _native.PolicyPort([os.dup(fd) for fd in self.link.descriptors()])
        self.dispatcher = Dispatcher(Chain(modules, kinds), self.port.answer, lambda *_: pytest.fail("the handler failed"))

    def prepare(self) -> None:
        """Let the edge have a batch of questions; what is sent for earlier ones is thrown away."""
        self.edge.advance(200)
        self.edge.sent()
        for _ in range(BATCH):
            self.edge.receive(request("INVITE"), "192.0.2.77:5060", "public")

    def cross(self) -> None:
        """Put, take, handle, answer, wake: as worker and process do."""
        assert self.edge.put_questions(self.link) == BATCH
        self.port.answer_bell()
        for question in self.port.take(BATCH):
            self.dispatcher.handle(question)
        self.port.flush()
        self.port.rest()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = uvloop.new_event_loop()
    yield made
    made.close()


@pytest.mark.parametrize("handler", [plain, coroutine])
def test_a_batch_of_64(handler: object, loop: asyncio.AbstractEventLoop, benchmark: BenchmarkFixture) -> None:
    crossing = Crossing(handler)

    def setup() -> None:
        crossing.edge.take_verdicts()
        crossing.prepare()

    loop.call_soon(lambda: benchmark.pedantic(crossing.cross, setup=setup, rounds=300))
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert crossing.edge.take_verdicts() == BATCH
    benchmark.extra_info["microseconds_per_request"] = round(benchmark.stats.stats.median / BATCH * 1e6, 2)


HANDLER = """
from edgeproxy.policy import Policy, Relay

policy = Policy()
TARGETS = {"bob": ("sip:203.0.113.1",)}


@policy.on_request("INVITE")
def decide(call):
    digits = 0
    for character in call.request_uri.user + call.from_uri.user:
        digits = digits * 31 + ord(character) & 0xFFFF
    call.set_header("X-Decided", f"{call.from_uri.user} {digits}")
    return Relay(TARGETS[call.request_uri.user])
"""


@pytest.mark.parametrize("compiled", [False, True], ids=["interpreted", "compiled"])
def test_a_handler_by_itself(compiled: bool, tmp_path: Path, benchmark: BenchmarkFixture) -> None:
    name = "handler_compiled" if compiled else "handler_interpreted"
    (tmp_path / f"{name}.py").write_text(HANDLER)
    if compiled:
        compile_module(name, tmp_path, tmp_path / "cache")
    ((policy, _),) = load([ModuleSpec(name)], tmp_path, tmp_path / "cache")
    handler = policy.hooks[0].handler
    message = Request(request("INVITE"))
    benchmark(lambda: handler(Call(message, b"", lambda *_: True)))
