"""Two proxies that share limits by a real store: never more than the limit, nearly all of it usable, and what holds when either is gone."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration import brokers
from tests.integration.agent import Agent, answer, invite
from tests.integration.proxy import Proxy, free_port, manage
from tests.integration.slow_link import SlowLink

TOML = """
[install]
node = "{node}"
state_directory = "STATE"
drain_seconds = 0
[install.listener.udp]
address = "udp:127.0.0.1:{port}"
[peer.core]
kind = "core"
match = ["127.0.0.1:{core}"]
to = ["sip:127.0.0.1:{core}"]
[peer.phones]
kind = "subscribers"
match = ["127.0.0.0/24"]
[shared]
url = "{url}"
lease_seconds = 2
retry_seconds = 0.3
{shared}
[limit.calls]
counts = "calls"
key = "{key}"
most = {most}
shared = true
on_store_failure = "{choice}"
{extra}
[events]
log = ["E_CORE_SR_STATUS_CHANGED"]
"""
LEASE = 2.0


class Core(Agent):
    """Answers every call at once, and knows which are up."""

    def __init__(self) -> None:
        super().__init__()
        self.up: dict[str, tuple[str, int]] = {}
        self.most = 0
        self._lock = threading.Lock()
        self._ends = False
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def serve(self) -> "Core":
        self._thread.start()
        return self

    def _serve(self) -> None:
        while not self._ends:
            message = self.receive(0.1)
            if not message.startswith(("INVITE", "BYE")):
                continue
            call_id = message.split("Call-ID: ")[1].split("\r\n")[0]
            port = int(message.split("Via: SIP/2.0/UDP 127.0.0.1:")[1].split(";")[0])
            with self._lock:
                if message.startswith("INVITE"):
                    self.up[call_id] = (message, port)
                    self.most = max(self.most, len(self.up))
                else:
                    self.up.pop(call_id, None)
            self.send(
                answer(message, "200 OK").replace("Content-Length", f"Contact: <sip:b@127.0.0.1:{self.port}>\r\nContent-Length"), port
            )

    def hang_up(self, call_id: str) -> None:
        """End a call from this side."""
        with self._lock:
            request, port = self.up.pop(call_id)
        field = {line.partition(": ")[0]: line.partition(": ")[2] for line in request.split("\r\n")}
        routes = "".join(f"Route: {line.partition(': ')[2]}\r\n" for line in request.split("\r\n") if line.startswith("Record-Route"))
        contact = field["Contact"].strip("<>")
        bye = (
            f"BYE {contact} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{self.port};branch=z9hG4bKbye{call_id};rport\r\n{routes}"
            f"From: {field['To']};tag=callee\r\nTo: {field['From']}\r\nCall-ID: {call_id}\r\nCSeq: 1 BYE\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        )
        self.send(bye, port)

    def close(self) -> None:
        self._ends = True
        self._thread.join(2)
        super().close()


class Phone(Agent):
    """Hears what becomes of its calls, and takes every BYE."""

    def __init__(self) -> None:
        super().__init__()
        self.said: dict[str, str] = {}
        self.heard = threading.Condition()
        self._ends = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ends:
            message = self.receive(0.1)
            if not message or message.startswith("SIP/2.0 100"):
                continue
            call_id = message.split("Call-ID: ")[1].split("\r\n")[0]
            if message.startswith("BYE"):
                self.send(answer(message, "200 OK"), int(message.split("Via: SIP/2.0/UDP 127.0.0.1:")[1].split(";")[0]))
            with self.heard:
                self.said[call_id] = message.split(" ")[1] if message.startswith("SIP/2.0") else "BYE"
                self.heard.notify_all()

    def wait(self, call_id: str, wanted: str = "", seconds: float = 3) -> str:
        """Return what was said of a call, waiting until it is what is wanted, or anything."""
        with self.heard:
            self.heard.wait_for(lambda: self.said.get(call_id) == wanted if wanted else call_id in self.said, seconds)
            return self.said.get(call_id, "")

    def close(self) -> None:
        self._ends = True
        self._thread.join(2)
        super().close()


class Cluster:
    """Two proxies with one core each side."""

    def __init__(self, start_proxy: Callable[..., Proxy], core: Core, url: str, **terms: object) -> None:
        self.core = core
        self.ports = [free_port(), free_port()]
        words = {"most": 4, "choice": "closed", "key": "", "shared": "", "extra": "", **terms}
        self.proxies = [
            start_proxy(TOML.format(node=f"n{number}", port=port, core=core.port, url=url, **words), name=f"n{number}")
            for number, port in enumerate(self.ports)
        ]
        self.phone = Phone()
        self._number = 0

    def settle(self) -> None:
        """Wait until the store, which was empty, grants."""
        for proxy in self.proxies:
            end = time.monotonic() + LEASE + 5
            while not (shared := json.loads(manage(proxy, "status")[1])["shared"])["up"] or shared["grants_in_seconds"]:
                assert time.monotonic() < end, shared
                time.sleep(0.1)
        # What was said last is what the workers know.
        time.sleep(0.3)

    def call(self, node: int, seconds: float = 3) -> tuple[str, str, float]:
        """Call by a node; the Call-ID, the final status, and how long that took."""
        self._number += 1
        call_id = f"call{self._number}"
        begun = time.monotonic()
        self.phone.send(invite("INVITE", self.phone.port, "sip:1@edge.example", call_id=call_id, branch=call_id), self.ports[node])
        said = self.phone.wait(call_id, seconds=seconds)
        return call_id, said, time.monotonic() - begun

    def hang_up(self) -> None:
        """End the oldest call from the core's side."""
        call_id = next(iter(self.core.up))
        self.core.hang_up(call_id)
        assert self.phone.wait(call_id, "BYE") == "BYE"

    def close(self) -> None:
        self.phone.close()


Make = Callable[..., Cluster]


@pytest.fixture
def cluster(start_proxy: Callable[..., Proxy]) -> Iterator[Make]:
    with ExitStack() as stack:

        def make(url: str, **terms: object) -> Cluster:
            core = Core().serve()
            stack.callback(core.close)
            made = Cluster(start_proxy, core, url, **terms)
            stack.callback(made.close)
            return made

        yield make


@pytest.mark.parametrize("kind", ["redis", "mongo"])
def test_two_nodes_have_one_limit(cluster: Make, tmp_path: Path, kind: str) -> None:
    scheme = {"redis": "redis", "mongo": "mongodb"}[kind]
    with getattr(brokers, kind)(tmp_path) as port:
        made = cluster(f"{scheme}://127.0.0.1:{port}/0", most=4)
        made.settle()
        statuses = [made.call(number % 2)[1] for number in range(7)]
        assert statuses == ["200"] * 4 + ["486"] * 3
        # A place that one gives up is had by the other.
        for node in (1, 0, 1):
            made.hang_up()
            end = time.monotonic() + 3
            while (said := made.call(node)[1]) != "200":
                assert said == "486"
                assert time.monotonic() < end
                time.sleep(0.1)
            assert made.call(1 - node)[1] == "486"
        assert made.core.most == 4
        listed = [json.loads(manage(proxy, "limits", "list", "--json")[1])["keys"] for proxy in made.proxies]
        assert sum(keys[0]["used"] for keys in listed if keys) == 4
        assert sum(keys[0]["share"] for keys in listed if keys) == 4


def test_a_rate_is_that_of_both_nodes(cluster: Make, tmp_path: Path) -> None:
    rate = '[limit.rate]\ncounts = "rate"\nkey = ""\nmost = 5\nwindow_seconds = 4.0\nshared = true\non_store_failure = "closed"\n'
    with brokers.redis(tmp_path) as port:
        made = cluster(f"redis://127.0.0.1:{port}/0", most=100, extra=rate)
        made.settle()
        begun = time.monotonic()
        statuses = [made.call(number % 2)[1] for number in range(12)]
        assert time.monotonic() - begun < 4
        assert (statuses.count("200"), statuses.count("480")) == (5, 7)
        time.sleep(4.2)
        statuses = [made.call(number % 2)[1] for number in range(12)]
        assert (statuses.count("200"), statuses.count("480")) == (5, 7)


def test_places_of_a_node_that_was_killed_come_back(cluster: Make, tmp_path: Path) -> None:
    with brokers.redis(tmp_path) as port:
        made = cluster(f"redis://127.0.0.1:{port}/0", most=6)
        made.settle()
        assert [made.call(0)[1] for _ in range(6)] == ["200"] * 6
        assert made.call(1)[1] == "486"
        made.proxies[0].signal(signal.SIGKILL)
        killed = time.monotonic()
        while (said := made.call(1)[1]) != "200":
            assert said == "486"
            assert time.monotonic() < killed + LEASE + 1.5, "back within a lease and a little"
            time.sleep(0.1)
        assert time.monotonic() > killed + LEASE * 0.8
        assert [made.call(1)[1] for _ in range(6)] == ["200"] * 5 + ["486"]
        assert made.proxies[0].process
        made.proxies[0].process.wait(5)
        # It comes back and finds none; its own calls went with it.
        made.proxies[0].start()
        time.sleep(0.5)
        assert made.call(0)[1] == "486"


@pytest.mark.parametrize("choice", ["open", "closed"])
@pytest.mark.alone
def test_a_store_that_is_held_means_what_was_chosen_and_slows_nobody(cluster: Make, tmp_path: Path, choice: str) -> None:
    port = free_port()
    line = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with brokers.started(line, port, tmp_path) as server:
        made = cluster(f"redis://127.0.0.1:{port}/0", most=4, choice=choice, shared="deadline_milliseconds = 300")
        made.settle()
        assert [made.call(number % 2)[1] for number in range(2)] == ["200", "200"]
        os.kill(server.pid, signal.SIGSTOP)
        time.sleep(0.8)
        calls = [made.call(0) for _ in range(4)]
        assert max(took for _, _, took in calls) < 1.0, "within the deadline"
        # One of its own is up: alone it may have four.
        expected = ["200", "200", "200", "486"] if choice == "open" else ["486"] * 4
        got = [said for _, said, _ in calls]
        assert got == expected or (choice == "closed" and got.count("200") <= 1), got
        assert made.proxies[0].told("E_CORE_SR_STATUS_CHANGED")
        time.sleep(LEASE)
        # What was granted holds no more; nobody waits for the store.
        _, said, took = made.call(1)
        assert said == ("200" if choice == "open" else "486")
        assert took < 0.3
        os.kill(server.pid, signal.SIGCONT)
        made.settle()
        up = len(made.core.up)
        assert made.call(0)[1] == ("486" if up >= 4 else "200")
        while made.core.up:
            made.hang_up()
        time.sleep(1.5)
        assert [made.call(number % 2)[1] for number in range(5)] == ["200"] * 4 + ["486"], "right again"


def test_a_store_that_comes_back_empty_grants_no_place_twice(cluster: Make, tmp_path: Path) -> None:
    port = free_port()
    line = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with brokers.started(line, port, tmp_path):
        made = cluster(f"redis://127.0.0.1:{port}/0", most=4)
        made.settle()
        assert [made.call(0)[1] for _ in range(3)] == ["200"] * 3
    time.sleep(0.5)
    with brokers.started(line, port, tmp_path):
        assert made.call(1)[1] == "486"
        made.settle()
        time.sleep(0.5)
        assert [made.call(1)[1] for _ in range(2)] == ["200", "486"]
        assert made.call(0)[1] == "486"
        assert made.core.most == 4


def test_a_node_that_is_cut_off_keeps_to_what_it_had(cluster: Make, tmp_path: Path, start_proxy: Callable[..., Proxy]) -> None:
    with brokers.redis(tmp_path) as port, SlowLink(port, 0.0) as link:
        made = cluster(f"redis://127.0.0.1:{link.port}/0", most=4)
        made.settle()
        assert [made.call(0)[1] for _ in range(2)] == ["200"] * 2
        link.cut = True
        time.sleep(LEASE + 1)
        # Both are: nothing new, since each might think that it alone is left.
        assert [made.call(node)[1] for node in (0, 1)] == ["486", "486"]
        link.cut = False
        made.settle()
        assert [made.call(1)[1] for _ in range(3)] == ["200", "200", "486"]
        assert made.core.most == 4


@pytest.mark.parametrize(
    ("kind", "url", "terms"),
    [
        ("redis", "redis://127.0.0.1:{port}/0", ""),
        # Each question takes it several ways there and back.
        ("mongo", "mongodb://127.0.0.1:{port}/edge", "deadline_milliseconds = 3000\nwait_milliseconds = 2000"),
    ],
    ids=["redis", "mongo"],
)
def test_a_store_far_away_is_never_above_the_limit_and_nearly_all_of_it_is_used(
    cluster: Make, tmp_path: Path, kind: str, url: str, terms: str
) -> None:
    """150 ms there and back; calls of a second on both nodes, twice as many as may be."""
    most, seconds = 40, 12.0
    with getattr(brokers, kind)(tmp_path) as port, SlowLink(port, 0.075) as link:
        made = cluster(url.format(port=link.port), most=most, shared=terms)
        made.settle()
        ends: dict[str, float] = {}
        begun, number, samples = time.monotonic(), 0, []
        while (now := time.monotonic()) < begun + seconds:
            number += 1
            made.phone.send(
                invite("INVITE", made.phone.port, "sip:1@edge.example", call_id=f"far{number}", branch=f"far{number}"),
                made.ports[number % 2],
            )
            for call_id in list(made.core.up):
                if now > ends.setdefault(call_id, now + 1.0):
                    made.core.hang_up(call_id)
            if now > begun + seconds / 3:
                samples.append(len(made.core.up))
            time.sleep(1 / (2.5 * most))
        assert made.core.most <= most
        # Several ways there and back leave a busy machine less of it.
        assert sum(samples) / len(samples) >= (0.9 if kind == "redis" else 0.75) * most, sum(samples) / len(samples)
        if kind == "redis":
            # Those that found a place in hand waited for nobody.
            assert sum(proxy.counters()["limits_waited"] for proxy in made.proxies) < number / 2


def test_policies_of_all_nodes_count_together(cluster: Make, tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(
        "from edgeproxy.policy import CONTINUE, Policy, Reject\n"
        "policy = Policy()\n"
        '@policy.on_request("INVITE")\n'
        "async def decide(call):\n"
        '    count = await call.values.add("calls", seconds=60)\n'
        '    await call.values.put("seen", call.call_id, seconds=60)\n'
        "    if count > 3:\n"
        "        return Reject(403, f\"{len(await call.values.members('seen'))} Calls\")\n"
        "    return CONTINUE\n"
    )
    with brokers.redis(tmp_path) as port:
        made = cluster(f"redis://127.0.0.1:{port}/0", most=100, extra='[[policy]]\nmodule = "counting"\n')
        made.settle()
        assert [made.call(number % 2)[1] for number in range(5)] == ["200", "200", "200", "403", "403"]
        assert sum(proxy.counters()["values_asked"] for proxy in made.proxies) == 12
