"""Where events may go, and that a file gets whole lines."""

import asyncio
import os
import resource
from pathlib import Path

import pytest

from edgeproxy.events import CATALOGUE
from edgeproxy.events.sink import Sink
from edgeproxy.events.transport.lines import Lines


@pytest.mark.parametrize(
    ("to", "problem"),
    [
        ("kafka://a:9092,b:9092/topic", ""),
        ("kafkas://a,[::1]:9092/topic", ""),
        ("kafka://a:9092,b:x/topic", "expected host:port, several with commas between, got: b:x"),
        ("kafka://a:9092", "expected a topic"),
        ("kafka://joe:s3cret@a/topic", "expected no user and no password: brokers that ask for them are not spoken to"),
        ("nats://h/a/b.c", ""),
        ("nats://h/a..b", "expected a host, and a subject"),
        ("tls://h/a.>", "expected a host, and a subject"),
        ("redis://h/0?stream=s", ""),
        ("redis://h/zzz?stream=s", "expected a host, the number of a database, and ?stream=NAME"),
        (f"unix:/{'x' * 107}", f"expected unix:/path of at most 107 bytes, got: unix:/{'x' * 107}"),
        ("//joe:s3cret@h/x", "expected one of "),
        ("http://h:0/", "expected a host"),
    ],
)
def test_places_are_looked_at_before_anything_is_told(to: str, problem: str) -> None:
    found = Sink(["X_A"], to=to).problem()
    assert (found[1] if found else "").startswith(problem)
    assert bool(found) == bool(problem)
    assert "s3cret" not in str(found)


def test_an_argument_names_parameters_that_there_are() -> None:
    assert Sink(["E_BAN_ADDED"], command=["/bin/x", "{ip} {event}"]).problem() is None
    assert Sink(["X_A"], command=["/bin/x", "{whatever}"]).problem() is None
    found = Sink(["E_BAN_ADDED"], command=["/bin/x", "{adress}"]).problem()
    assert found is not None
    assert found[:2] == ("command", "no such parameter of these events: adress")


def test_a_line_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    lines = Lines(file)
    asyncio.run(lines.send(b"first", "X_A", {}))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            asyncio.run(lines.send(b"x" * 20, "X_A", {}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    asyncio.run(lines.send(b"last", "X_A", {}))
    assert file.read_text() == "first\nlast\n"


def test_a_pipe_that_nobody_reads_is_an_error_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device"):
        asyncio.run(Lines(tmp_path / "pipe").send(b"x", "X_A", {}))


def test_all_events_of_the_proxy_and_one_of_a_policy_are_both_told() -> None:
    names = Sink(["*", "X_A"], to="file:/tmp/x").names
    assert names == sorted({*CATALOGUE, "X_A"})
