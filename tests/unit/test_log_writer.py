"""Lines for a reader of standard error that is quick, slow, standing still, or gone."""

import os
import time
from pathlib import Path

import pytest

from edgeproxy.server.log_writer import MOST_WAITING, LogWriter


def printed(writer: LogWriter, text: str) -> None:
    print(text, file=writer, flush=True)  # type: ignore[call-overload]


def test_lines_come_in_their_order_and_at_once_where_somebody_reads(tmp_path: Path) -> None:
    file = tmp_path / "log"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    writer = LogWriter(descriptor)
    printed(writer, "one")
    printed(writer, "x" * 100_000)
    assert file.read_text() == "one\n" + "x" * 100_000 + "\n"
    os.close(descriptor)
    reader, descriptor = os.pipe()
    writer = LogWriter(descriptor)
    printed(writer, "half a pair \udce9")
    assert os.read(reader, 100) == b"half a pair \\udce9\n"
    # A long line may have to wait, and what comes behind it does so too.
    printed(writer, "y" * 100_000)
    printed(writer, "last")
    found = b""
    while not found.endswith(b"last\n"):
        found += os.read(reader, 65_536)
    assert found == b"y" * 100_000 + b"\nlast\n"
    writer.finish(5)
    printed(writer, "at once again")
    assert os.read(reader, 100) == b"at once again\n"
    os.close(descriptor)
    os.close(reader)


def test_a_reader_that_stands_still_holds_up_nobody_and_costs_what_finds_no_room() -> None:
    reader, descriptor = os.pipe()
    writer = LogWriter(descriptor)
    begun, refused = time.monotonic(), 0
    for number in range(MOST_WAITING + 5_000):
        try:
            printed(writer, f"{number} {'z' * 100}")
        except OSError:
            refused += 1
    writer.finish(0.1)
    assert time.monotonic() - begun < 2
    assert 0 < refused < 5_000
    os.set_blocking(reader, False)
    end, found = time.monotonic() + 10, b""
    while found.count(b"\n") < MOST_WAITING + 5_000 - refused:
        assert time.monotonic() < end
        try:
            found += os.read(reader, 65_536)
        except BlockingIOError:
            time.sleep(0.01)
    numbers = [int(line.split()[0]) for line in found.splitlines()]
    assert numbers == sorted(set(numbers))
    os.close(descriptor)
    os.close(reader)


def test_a_reader_that_is_gone_is_told_as_such() -> None:
    reader, descriptor = os.pipe()
    writer = LogWriter(descriptor)
    printed(writer, "first")
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        printed(writer, "second")
    os.close(descriptor)
