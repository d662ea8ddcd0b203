"""The messages of RFC 4475 and RFC 5118, and our own for each of their sections, through the running proxy."""

import os
import re
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agent import Agent
from tests.integration.proxy import Proxy

VECTORS = Path(__file__).parent.parent / "vectors"
BORROWED = os.environ.get("EDGEPROXY_VECTORS")


def _ledger(name: str) -> dict[str, dict[str, Any]]:
    return tomllib.loads((VECTORS / name / "expect.toml").read_text())


def _borrowed() -> list[Any]:
    cases = []
    for folder, ending in (("rfc4475", ".dat"), ("rfc5118", "")):
        for name, entry in _ledger(folder).items():
            mark = [] if BORROWED else [pytest.mark.skip(reason=f"EDGEPROXY_VECTORS is not set: {folder}/{name}")]
            cases.append(pytest.param(folder, name + ending, entry["proxy"], id=f"{folder}-{name}", marks=mark))
    return cases


def _as_sent(folder: str, name: str, message: bytes) -> bytes:
    if folder == "rfc4475":
        return message
    message = message.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    if name in {"ipv6-in-sdp", "mult-ip-in-sdp", "ipv4-mapped-ipv6"}:
        body = message.split(b"\r\n\r\n", 1)[1]
        message = re.sub(rb"Content-Length:.*", b"Content-Length: %d" % len(body), message, count=1)
    return message


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("torture")


TORTURE = """
[install]
state_directory = "STATE"
[install.listener.udp]
address = "udp:127.0.0.1:{port}"
[peer.core]
kind = "core"
match = ["127.0.0.1:{core}"]
to = ["sip:127.0.0.1:{core}"]
first_answer_seconds = 32
[peer.local]
kind = "trusted"
allow_routes = false
match = ["127.0.0.0/8"]
"""


class Bench:
    """A proxy, a caller on port 5060 of its own address and a silent core."""

    def __init__(self, folder: Path) -> None:
        self.seen: set[str] = set()
        self.caller, self.core = Agent("127.0.0.60", 5060), Agent()
        with Agent() as spare:
            self.port = spare.port
        self.proxy = Proxy(folder, TORTURE.format(port=self.port, core=self.core.port)).start()

    def outcome(self, message: bytes) -> int | str:
        """Send a message and say what became of it: a final status code, "forward" or "drop"."""
        self.caller.send(message, self.port)
        forwarded = self._new_request(0.25)
        finals = []
        while reply := self.caller.receive(0.03):
            if reply.startswith("SIP/2.0 ") and reply[8] != "1":
                finals.append(int(reply[8:11]))
        return "forward" if forwarded else finals[0] if finals else "drop"

    def _new_request(self, seconds: float) -> bool:
        """Whether the core gets a request that is no retransmission of an earlier one."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            request = self.core.receive(left)
            if request and (branch := request.split("branch=", 1)[1].split("\r\n", 1)[0]) not in self.seen:
                self.seen.add(branch)
                return True
        return False

    def close(self) -> None:
        self.caller.close()
        self.core.close()
        self.proxy.stop()


@pytest.fixture(scope="module")
def bench(folder: Path) -> Any:
    made = Bench(folder)
    yield made
    made.close()


def _answers_come_to_5060(message: bytes) -> bytes:
    """Send answers back to us: the messages name hosts and ports of their own."""
    text = re.sub(rb"(?i)(SIP\s*/\s*[27]\.0\s*/\s*\w+\s+[\w.\[\]:-]+?)(:\s*\d+)(?=[\s;,])", rb"\1", message, count=1)
    return text


# These share branch and sent-by with an earlier message, which makes them its retransmission.
SAME_BRANCH = {"cparam02", "regescrt", "port-ambiguous", "port-unambiguous", "ipv6-correct-abnf-2-colons"}


@pytest.mark.parametrize(("folder_name", "file", "expected"), _borrowed())
def test_borrowed_message(folder_name: str, file: str, expected: int | str, bench: Bench) -> None:
    assert BORROWED
    message = _as_sent(folder_name, file, (Path(BORROWED) / folder_name / file).read_bytes())
    if isinstance(expected, int):
        message = _answers_come_to_5060(message)
    if file.split(".", maxsplit=1)[0] in SAME_BRANCH:
        message = message.replace(b"branch=z9hG4bK", b"branch=z9hG4bK" + file.split(".", maxsplit=1)[0].encode(), 1)
    assert bench.outcome(message) == expected


def _own() -> list[Any]:
    entries = tomllib.loads((VECTORS / "own" / "torture.toml").read_text())["vector"]
    return [pytest.param(entry, id=f"{entry['section']}-{entry['name']}") for entry in entries]


def _own_message(entry: dict[str, Any]) -> bytes:
    """Build a message: start line, mandatory fields unless given or left out, then what the entry adds."""
    start = entry["start"]
    method = entry.get("method", start.split(" ")[0])
    base = {
        "Via": f"SIP/2.0/UDP 127.0.0.60;branch=z9hG4bK-{entry['name']}",
        "From": "<sip:alice@example.net>;tag=1",
        "To": "<sip:bob@example.net>",
        "Call-ID": f"{entry['name']}@example.net",
        "CSeq": f"1 {method}",
        "Max-Forwards": "70",
    }
    base.update(entry.get("fields", {}))
    lines = [f"{name}: {value}" for name, value in base.items() if name not in entry.get("without", [])]
    body = entry.get("body", "")
    length = [] if "Content-Length" in entry.get("without", []) else [f"Content-Length: {entry.get('length', len(body.encode()))}"]
    head = "\r\n".join([start, *lines, *entry.get("lines", []), *length])
    return (head + "\r\n\r\n" + body).encode("latin-1", "surrogateescape")


@pytest.mark.parametrize("entry", _own())
def test_own_message(entry: dict[str, Any], bench: Bench) -> None:
    assert bench.outcome(_own_message(entry)) == entry["proxy"]


def test_every_section_has_a_message_of_our_own() -> None:
    entries = tomllib.loads((VECTORS / "own" / "torture.toml").read_text())["vector"]
    have = {entry["section"] for entry in entries}
    wanted = {f"4475 {e['section']}" for e in _ledger("rfc4475").values() if e["section"] != "none"}
    wanted |= {f"5118 {e['section']}" for e in _ledger("rfc5118").values()}
    assert have >= wanted, wanted - have
