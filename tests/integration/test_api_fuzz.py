"""The management API under random input: always an answer with a reason, never a fault of ours, and nothing changed."""

import json
import random
import socket
from collections.abc import Callable
from pathlib import Path

from tests.integration.agent import Agent, call
from tests.integration.proxy import Proxy, free_port, manage

Local = Callable[..., tuple[Proxy, int, int]]
PATHS = [
    *("/status", "/counters", "/metrics", "/calls", "/calls/end", "/trace", "/events", "/events/follow", "/reload", "/diff", "/rollback"),
    *("/log-level", "/drain", "/", "//", "/../etc/passwd", "/%00", "/status/x"),
]
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "X"]
VALUES = [None, True, 0, -1, 1 << 70, 1e300, "", "x", "\u0000", "now", [], [[]], {}, {"a": 1}]
KEYS = ["path", "text", "level", "call_id", "event", "parameters", "limit", "cursor", "nope", ""]
TOKEN = "0123456789abcdef-token"  # noqa: S105 - of this test alone


def bodies(chance: random.Random) -> bytes:
    """Return a body: JSON of the wrong shape, cut, repeated, deep, or no JSON at all."""
    value = {chance.choice(KEYS): chance.choice(VALUES) for _ in range(chance.randrange(4))}
    text = json.dumps(value).encode()
    match chance.randrange(7):
        case 0:
            return text[: chance.randrange(len(text) + 1)]
        case 1:
            return text * 2
        case 2:
            return b"[" * 5_000
        case 3:
            return chance.randbytes(chance.randrange(64))
        case 4:
            return b""
        case _:
            return text


def query(chance: random.Random) -> str:
    key, value = chance.choice(KEYS), str(chance.choice(VALUES)).replace(" ", "%20").replace("\u0000", "%00")
    return chance.choice(["", f"?{key}={value}", "?", "?&&=", f"?{key}={value}&{key}={value}"])


def ask(connection: socket.socket, data: bytes) -> tuple[int, bytes]:
    """Send a request and return status and body of the answer; 0 where the connection ends without one."""
    connection.settimeout(5)
    try:
        connection.sendall(data)
        received = b""
        while b"\r\n\r\n" not in received:
            part = connection.recv(65_536)
            if not part:
                return 0, received
            received += part
        head, _, body = received.partition(b"\r\n\r\n")
        if b"x-ndjson" in head:
            return int(head.split()[1]), b""
        while part := connection.recv(65_536):
            body += part
        return int(head.split()[1]), body
    except OSError:
        return 0, b""


def test_random_requests_get_a_reason_and_change_nothing(local: Local, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    management = free_port()
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port, extra=f'[api]\nlisten = "127.0.0.1:{management}"\ntoken_file = "{token}"\n')
        before = json.loads(manage(proxy, "status")[1])
        chance = random.Random(7)  # noqa: S311 - the same requests every time
        for number in range(800):
            path, method, body = chance.choice(PATHS), chance.choice(METHODS), bodies(chance)
            if (path, method) in {("/drain", "POST"), ("/reload", "POST"), ("/rollback", "POST")} and body in {b"", b"{}"}:
                continue
            over_tcp, known = number % 2 == 0, number % 4 == 0
            header = f"Authorization: Bearer {TOKEN if known else 'wrong' * (number % 3)}\r\n" if over_tcp else ""
            length = chance.choice([len(body), len(body), len(body), len(body) // 2])
            head = f"{method} {path}{query(chance)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}Content-Length: {length}\r\n\r\n"
            with socket.create_connection(("127.0.0.1", management)) if over_tcp else socket.socket(socket.AF_UNIX) as connection:
                if not over_tcp:
                    connection.connect(str(proxy.state / "control.sock"))
                status, said = ask(connection, head.encode() + body)
            what = (number, method, path, body[:80], status, said[:200])
            assert status in {200, 400, 401, 404, 405, 409, 413, 422} or (method == "X" and status == 0), what
            if over_tcp and not known:
                assert status == 401 or (status in {400, 404, 405} and b"Bad" not in said), what
            assert TOKEN.encode() not in said, what
            if status >= 400 and method != "HEAD" and said.startswith(b"{"):
                assert json.loads(said)["error"], what
        assert not [line for line in proxy.log if line["event"] == "management request failed"]
        after = json.loads(manage(proxy, "status")[1])
        assert {key: after[key] for key in ("state", "file", "peers")} == {key: before[key] for key in ("state", "file", "peers")}
        call(caller, core, port, "unharmed")


def test_a_body_that_never_ends_or_is_too_large_is_refused(local: Local) -> None:
    proxy, _, _ = local()

    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(proxy.state / "control.sock"))
        return connection

    with connect() as large:
        size = (4 << 20) + 1
        head = f"POST /reload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
        status, said = ask(large, head.encode() + b" " * size)
        assert (status, json.loads(said)["error"]) == (413, "the body may have 4194304 bytes at most")
    with connect() as held:
        held.sendall(b"POST /reload HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        # Others are served meanwhile.
        assert manage(proxy, "status")[0] == 0
