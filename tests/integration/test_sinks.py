"""Events outwards: to real brokers, webhooks, datagrams, files and programs, and what is slow, gone or full."""

import asyncio
import http.server
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path

import aio_pika
import nats
import pytest
from redis import Redis

from tests.integration import brokers
from tests.integration.proxy import Proxy, free_port, manage, wait_for

TOML = """
[install]
node = "edge1"
state_directory = "STATE"
[install.listener.udp]
address = "udp:127.0.0.1:{port}"
[peer.core]
kind = "core"
match = ["127.0.0.1"]
{sinks}
"""
EVENT = ("events", "raise", "X_TRIED", "who=al\u00efce", "count=3")
WANTED = {"event": "X_TRIED", "node": "edge1", "parameters": {"who": "al\u00efce", "count": 3}}
Start = Callable[[str], Proxy]


@pytest.fixture
def telling(start_proxy: Callable[..., Proxy]) -> Start:
    def start(sinks: str) -> Proxy:
        return start_proxy(TOML.format(port=free_port(), sinks=sinks))

    return start


def sink(to: str, *lines: str, name: str = "out", events: str = '["X_TRIED"]') -> str:
    return "\n".join([f"[events.sink.{name}]", f'to = "{to}"' if to else "", f"events = {events}", *lines, ""])


def checked(body: bytes | str) -> None:
    told = json.loads(body)
    assert told.pop("time").startswith("20")
    assert told == WANTED


def raised(proxy: Proxy) -> None:
    code, said = manage(proxy, *EVENT)
    assert code == 0, said


def status(proxy: Proxy, name: str = "out") -> dict[str, object]:
    return next(one for one in json.loads(manage(proxy, "events", "sinks")[1])["sinks"] if one["name"] == name)


class _Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Webhooks)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.taken.append((self.headers, body))
        time.sleep(server.pause)
        self.send_response(server.codes.pop(0) if server.codes else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Webhooks(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hook)
        self.taken: list[tuple[Message, bytes]] = []
        self.codes: list[int] = []
        self.pause = 0.0


@contextmanager
def webhooks() -> Iterator[Webhooks]:
    server = Webhooks()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_webhook_gets_each_event_and_another_try_where_it_fails(telling: Start) -> None:
    with webhooks() as hooks:
        proxy = telling(
            sink(
                f"http://127.0.0.1:{hooks.server_port}/in?x=1",
                'headers = { Authorization = "Bearer secret-token", content-type = "application/x" }',
            )
        )
        hooks.codes = [500]
        raised(proxy)
        wait_for(lambda: len(hooks.taken) == 2)
        headers, body = hooks.taken[1]
        assert (headers["Authorization"], headers["X-Event"], headers["Content-Type"]) == (
            "Bearer secret-token",
            "X_TRIED",
            "application/x",
        )
        assert headers.get_all("Content-Type") == ["application/x"]
        checked(body)
        wait_for(lambda: status(proxy)["told"] == 1)
        # No redirect is followed with our token.
        hooks.codes = [302, 302, 302]
        raised(proxy)
        wait_for(lambda: status(proxy)["failed"] == 1)
        assert status(proxy)["problem"] == "ClientError: 302 Found"
    assert proxy.stop() == 0
    text = (proxy.folder / "edge.log").read_text()
    assert "events cannot be told" in text
    assert "secret-token" not in text


def test_one_that_hangs_is_dropped_and_disturbs_nobody(telling: Start) -> None:
    with webhooks() as hooks, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.settimeout(3)
        hooks.pause = 4
        slow = sink(f"http://127.0.0.1:{hooks.server_port}/", "queue = 2", "timeout_seconds = 3", "tries = 1", name="slow")
        proxy = telling(slow + sink(f"udp:127.0.0.1:{other.getsockname()[1]}"))
        for _ in range(6):
            raised(proxy)
            checked(other.recv(65_535))
        wait_for(lambda: status(proxy, "slow")["failed"] == 3, 20)
        assert (status(proxy, "slow")["dropped"], status(proxy)["told"]) == (3, 6)
        assert proxy.counters()["sink_dropped"] == 3


def test_datagrams_and_lines(telling: Start, tmp_path: Path) -> None:
    path, lines = tmp_path / "s", tmp_path / "events.jsonl"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix:
        unix.bind(str(path))
        unix.settimeout(3)
        paced = sink(f"file:{lines}", "most_per_second = 2", 'where = { who = "al*" }', name="file", events='["X_TRIED", "X_OTHER"]')
        proxy = telling(sink(f"unix:{path}") + paced)
        raised(proxy)
        checked(unix.recv(65_535))
        assert manage(proxy, "events", "raise", "X_OTHER", "who=bob")[0] == 0
        wait_for(lines.exists)
        checked(lines.read_text())
        # Renamed by whoever rotates it.
        lines.rename(tmp_path / "events.1")
        raised(proxy)
        wait_for(lines.exists)
    # Nobody reads any more: it is told once, and the other goes on.
    path.unlink()
    raised(proxy)
    wait_for(lambda: status(proxy)["failed"] == 1)


def test_a_redis_stream_and_what_came_while_it_was_down(telling: Start, tmp_path: Path) -> None:
    port = free_port()
    proxy = telling(sink(f"redis://127.0.0.1:{port}/0?stream=sip", "tries = 20", "stream_length = 1"))
    raised(proxy)
    wait_for(lambda: status(proxy)["problem"])
    with brokers.redis(tmp_path, port), Redis(port=port) as client:
        wait_for(lambda: status(proxy)["told"] == 1, 20)
        ((_, entry),) = client.xrange("sip")
        assert entry[b"event"] == b"X_TRIED"
        checked(entry[b"body"])
        assert status(proxy)["problem"] == ""


def test_nats_by_subject(telling: Start, tmp_path: Path) -> None:
    with brokers.nats(tmp_path) as port:

        async def first() -> bytes:
            client = await nats.connect(f"nats://127.0.0.1:{port}")
            subscription = await client.subscribe("sip.edge.>")
            await client.flush()
            await asyncio.to_thread(raised, proxy)
            message = await subscription.next_msg(timeout=5)
            await client.close()
            assert message.subject == "sip.edge.X_TRIED"
            return message.data

        proxy = telling(sink(f"nats://127.0.0.1:{port}/sip/edge"))
        checked(asyncio.run(first()))


def test_nothing_is_said_to_a_nats_server_without_tls_where_that_is_wanted(telling: Start, tmp_path: Path) -> None:
    with brokers.nats(tmp_path) as port:
        proxy = telling(sink(f"tls://joe:s3cret@127.0.0.1:{port}/sip", "tries = 1"))
        raised(proxy)
        wait_for(lambda: status(proxy)["failed"] == 1)
        assert status(proxy)["problem"] == "Error: nats: the server offers no TLS"


def test_a_pipe_that_nobody_reads_holds_up_no_other_sink_and_not_the_end(telling: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    proxy = telling(sink(f"file:{tmp_path}/pipe", "tries = 2") + sink(f"file:{tmp_path}/lines", name="lines"))
    for _ in range(6):
        raised(proxy)
    wait_for(lambda: status(proxy, "lines")["told"] == 6)
    wait_for(lambda: status(proxy)["failed"] >= 1)
    assert manage(proxy, "reload")[0] == 0
    assert proxy.stop() == 0


def test_counters_of_a_sink_that_changes_never_fall(telling: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        proxy = telling(sink(url, "timeout_seconds = 30"))
        for _ in range(3):
            raised(proxy)
        wait_for(lambda: status(proxy)["waiting"] == 2)
        proxy.file.write_text(proxy.file.read_text().replace("timeout_seconds = 30", "timeout_seconds = 31"))
        assert manage(proxy, "reload")[0] == 0
        # All of them are in one of the counters once the sink of before has ended.
        wait_for(lambda: [proxy.counters()[f"sink_{key}"] for key in ("told", "failed", "dropped")] == [0, 1, 2])


@pytest.mark.slow
def test_rabbitmq_confirms_what_it_got(telling: Start, tmp_path: Path) -> None:
    with brokers.rabbitmq(tmp_path) as port:
        url = f"amqp://guest:guest@127.0.0.1:{port}/"

        async def first() -> aio_pika.abc.AbstractIncomingMessage:
            connection = await aio_pika.connect(url)
            async with connection:
                channel = await connection.channel()
                exchange = await channel.declare_exchange("sip", "topic")
                queue = await channel.declare_queue("all")
                await asyncio.to_thread(raised, proxy)
                # Nobody takes it: it comes back, and is given up.
                await asyncio.to_thread(wait_for, lambda: status(proxy)["failed"] == 1)
                await queue.bind(exchange, "#")
                await asyncio.to_thread(raised, proxy)
                async with asyncio.timeout(5):
                    while (message := await queue.get(fail=False)) is None:
                        await asyncio.sleep(0.05)
                await message.ack()
                return message

        proxy = telling(sink(f"{url}?exchange=sip", "tries = 2"))
        message = asyncio.run(first())
        assert (message.type, message.content_type, message.delivery_mode) == ("X_TRIED", "application/json", 2)
        checked(message.body)


def test_kafka_by_a_broker_of_our_own(telling: Start) -> None:
    """Debian has no Kafka: what the producer sends is looked at here, byte for byte in the record that it made."""
    broker = brokers.Kafka("events")
    try:
        proxy = telling(sink(f"kafka://127.0.0.1:{broker.port}/events"))
        raised(proxy)
        wait_for(lambda: status(proxy)["told"] == 1)
        body = broker.records[0]
        checked(body[body.index(b'{"event"') : body.rindex(b"}") + 1])
        assert b"X_TRIED" in body.partition(b'{"event"')[0], "keyed by the event's name"
    finally:
        broker.close()


def test_a_sink_that_nobody_listens_at_is_not_told_of_itself(telling: Start) -> None:
    proxy = telling(sink(f"udp:127.0.0.1:{free_port()}", "tries = 2", events='["*"]'))
    raised(proxy)
    wait_for(lambda: any(line["event"] == "events cannot be told" for line in proxy.log))
    proxy.told("nothing", seconds=2)
    counted = status(proxy)
    assert counted["told"] + counted["failed"] <= 5, counted
    assert sum(line["event"].startswith("events ") for line in proxy.log) <= 4


def test_what_libraries_say_of_a_broker_that_is_down_is_no_line_of_the_log(telling: Start) -> None:
    broker = f"127.0.0.1:{free_port()}"
    proxy = telling(
        sink(f"amqp://{broker}/?exchange=sip", "tries = 2", name="rabbit") + sink(f"kafka://{broker}/events", "tries = 2", name="kafka")
    )
    raised(proxy)
    wait_for(lambda: [status(proxy, name)["failed"] for name in ("rabbit", "kafka")] == [1, 1], seconds=20)
    lines = (proxy.folder / "edge.log").read_text().splitlines()
    assert [line for line in lines if not line.startswith("{") and line != "ready"] == []


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_program_gets_arguments_without_a_shell(telling: Start, tmp_path: Path) -> None:
    out = tmp_path / "out"
    block = script(tmp_path / "block", f'printf "%s|" "$@" >> {out}; cat >> {out}')
    proxy = telling(sink("", f'command = ["{block}", "--source", "{{who}}", "{{event}}/{{count}}"]'))
    raised(proxy)
    wait_for(lambda: out.exists() and out.read_text().endswith("}\n"))
    arguments, _, body = out.read_text().partition("{")
    assert arguments == "--source|al\u00efce|X_TRIED/3|"
    checked("{" + body)
    # What would be an option, or runs a command in a shell.
    assert manage(proxy, "events", "raise", "X_TRIED", "who=--delete-all")[0] == 0
    wait_for(lambda: status(proxy)["failed"] == 1)
    assert manage(proxy, "events", "raise", "X_TRIED", f"who=$(touch {tmp_path}/hacked); true")[0] == 0
    wait_for(lambda: "hacked" in out.read_text())
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("exit 3", "CommandError: ended with 3: "),
        ("sleep 60 & sleep 60", "CommandError: did not end within 0.5 s"),
        ("yes", "CommandError: said more than 4096 bytes"),
    ],
)
def test_a_program_that_fails_hangs_or_floods_is_ended(text: str, problem: str, telling: Start, tmp_path: Path) -> None:
    program = script(tmp_path / "bad", text)
    proxy = telling(sink("", f'command = ["{program}"]', "timeout_seconds = 0.5", "concurrent = 1"))
    raised(proxy)
    wait_for(lambda: status(proxy)["failed"] == 1)
    assert status(proxy)["problem"] == problem
    # Nothing that it started goes on.
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(program).encode() in _read(path)]
    assert left == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_sinks_come_and_go_at_run_time_and_with_reloads(telling: Start, tmp_path: Path) -> None:
    with webhooks() as hooks:
        url = f"http://127.0.0.1:{hooks.server_port}/"
        proxy = telling(sink(f"file:{tmp_path}/first"))
        assert manage(proxy, "events", "subscribe", "late", url, "X_TRIED", "--expires", "60")[0] == 0
        raised(proxy)
        wait_for(lambda: len(hooks.taken) == 1)
        places = [one["to"] for one in json.loads(manage(proxy, "events", "sinks")[1])["sinks"]]
        assert places == [url, f"file:{tmp_path}/first"]
        for words, wanted in [
            (("subscribe", "out", url, "X_TRIED"), "events.sink.out is one of the file"),
            (("subscribe", "bad", "gopher://x", "X_TRIED"), "to: expected one of http"),
            (("subscribe", "bad", f"file:{tmp_path}/profile", "X_TRIED"), "only the file can name a place"),
            (("subscribe", "bad", url, "E_NOTHING"), "events: no such event: E_NOTHING"),
            (("unsubscribe", "out"), "no sink out was added at run time"),
        ]:
            code, said = manage(proxy, "events", *words)
            assert code == 1
            assert wanted in said
        # A reload leaves what operators added, and takes what the file has no more.
        proxy.file.write_text(proxy.file.read_text().replace("sink.out", "sink.second"))
        assert manage(proxy, "reload")[0] == 0
        assert [one["name"] for one in json.loads(manage(proxy, "events", "sinks")[1])["sinks"]] == ["late", "second"]
        assert manage(proxy, "events", "unsubscribe", "late")[0] == 0
        raised(proxy)
        wait_for(lambda: status(proxy, "second")["told"] == 1)
        assert len(hooks.taken) == 1
        assert manage(proxy, "events", "subscribe", "short", url, "X_TRIED", "--expires", "1")[0] == 0
        wait_for(lambda: len(json.loads(manage(proxy, "events", "sinks")[1])["sinks"]) == 1, 5)
