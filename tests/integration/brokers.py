"""Real brokers on free ports in temporary folders, and one of our own where Debian has none."""

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.integration.proxy import free_port


def _until_open(port: int, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args} ended with {process.returncode}") from None
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"nobody listens at {port}")


@contextmanager
def started(line: list[str], port: int, folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the context ends."""
    with (folder / f"{Path(line[0]).name}.log").open("ab") as log:
        process = subprocess.Popen(
            line, stdout=log, stderr=log, cwd=folder, env={**os.environ, **(environment or {})}, start_new_session=True
        )
    try:
        _until_open(port, process)
        yield process
    finally:
        # Its own session: what it started ends with it.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def redis(folder: Path, port: int = 0) -> Iterator[int]:
    """Run a Redis without persistence; its port."""
    port = port or free_port()
    with started(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"], port, folder):
        yield port


@contextmanager
def mongo(folder: Path, port: int = 0) -> Iterator[int]:
    """Run a server that speaks MongoDB's protocol, since nobody packs a real one; its port."""
    port = port or free_port()
    program = Path(sys.executable).parent / "secantusd-py"
    with started([str(program), "--port", str(port), "--storage-path", ":memory:", "--standalone"], port, folder):
        yield port


@contextmanager
def nats(folder: Path) -> Iterator[int]:
    """Run a NATS server; its port."""
    port = free_port()
    program = shutil.which("nats-server", path="/usr/sbin:/usr/bin:/sbin:/bin") or "nats-server"
    with started([program, "-a", "127.0.0.1", "-p", str(port)], port, folder):
        yield port


@contextmanager
def rabbitmq(folder: Path) -> Iterator[int]:
    """Run a RabbitMQ; its port."""
    port, distribution, names = free_port(), free_port(), free_port()
    home = folder / "rabbit"
    home.mkdir()
    (home / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\nloopback_users = none\nlog.console = true\n")
    (home / "enabled_plugins").write_text("[].\n")
    environment = {
        "HOME": str(home),
        "RABBITMQ_NODENAME": f"edge{port}@localhost",
        "RABBITMQ_MNESIA_BASE": str(home / "db"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_PID_FILE": str(home / "pid"),
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    # Names of nodes are given out by a daemon that nobody else has: RabbitMQ would start one that outlives it.
    with (
        started(["epmd", "-address", "127.0.0.1", "-port", str(names)], names, folder),
        started(["/usr/lib/rabbitmq/bin/rabbitmq-server"], port, folder, environment),
    ):
        yield port


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


class Kafka:
    """A broker of one topic that speaks just as much of the protocol as a producer asks for: what it was told is in `records`."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self.records: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while head := stream.read(4):
                request = stream.read(struct.unpack(">i", head)[0])
                key, version, correlation = struct.unpack_from(">hhi", request)
                body = self._answer(key, version, request)
                answer = struct.pack(">i", correlation) + body
                connection.sendall(struct.pack(">i", len(answer)) + answer)

    def _answer(self, key: int, version: int, request: bytes) -> bytes:
        match key:
            case 18:  # ApiVersions: what there is, and in which versions
                apis = [(0, 3, 3), (3, 1, 1), (18, 0, 0)]
                return struct.pack(">hi", 0 if version == 0 else 35, len(apis)) + b"".join(struct.pack(">hhh", *api) for api in apis)
            case 3:  # Metadata, version 1: one broker, which leads the one partition of the topic
                broker = struct.pack(">ii", 1, 0) + _text("127.0.0.1") + struct.pack(">ih", self.port, -1)
                partition = struct.pack(">ihiiiiii", 1, 0, 0, 0, 1, 0, 1, 0)
                return broker + struct.pack(">iih", 0, 1, 0) + _text(self._topic) + b"\0" + partition
            case 0:  # Produce, version 3
                self.records.append(request)
                return struct.pack(">i", 1) + _text(self._topic) + struct.pack(">iihqqi", 1, 0, 0, len(self.records), -1, 0)
        raise RuntimeError(f"api {key} version {version}")

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()
