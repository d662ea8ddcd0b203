"""Programs: one is run for each event, without a shell, for a limited time, and what it says is bounded."""

import asyncio
import os
import signal

from edgeproxy.events.sink import PARAMETER as _PARAMETER
from edgeproxy.events.sink import Sink

MOST_OUTPUT = 4_096
"""Bytes of what a program says that are looked at."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CommandError(Exception):
    """A program that failed, hung or could not be run."""


class Command:
    """One program."""

    def __init__(self, sink: Sink) -> None:
        self._line = sink.command
        self._seconds = sink.timeout_seconds

    async def send(self, body: bytes, name: str, values: dict[str, int | str]) -> None:
        """Run the program; raise `CommandError` where it does not end well in time."""
        line = [self._line[0], *(_filled(part, {**values, "event": name}) for part in self._line[1:])]
        pipe = asyncio.subprocess.PIPE
        try:
            # A session of its own: what it starts ends with it.
            process = await asyncio.create_subprocess_exec(
                *line, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT, env={"PATH": _PATH, "EVENT": name}, start_new_session=True
            )
        except OSError as error:
            raise CommandError(str(error)) from error
        try:
            async with asyncio.timeout(self._seconds):
                said = await _converse(process, body)
                code = await process.wait()
        except TimeoutError:
            raise CommandError(f"did not end within {self._seconds:g} s") from None
        finally:
            _end(process)
            await process.wait()
        if code:
            raise CommandError(f"ended with {code}: {said.decode(errors='replace').strip()[:200]}")

    async def close(self) -> None:
        """Nothing is held."""


def _filled(part: str, values: dict[str, int | str]) -> str:
    """Return an argument with its parameters, which come from the network: none may look like an option, or hold control characters."""
    own = [str(values.get(name, "")) for name in _PARAMETER.findall(part)]
    filled = _PARAMETER.sub(lambda found: str(values.get(found[1], "")), part)
    if not all(map(str.isprintable, own)) or (filled.startswith("-") and not part.startswith("-")):
        raise CommandError(f"a parameter is not fit for an argument: {part}")
    return filled


async def _converse(process: asyncio.subprocess.Process, body: bytes) -> bytes:
    """Give the program its input; return the beginning of what it says, and end it where it says too much."""
    assert process.stdin is not None  # noqa: S101
    assert process.stdout is not None  # noqa: S101
    try:
        process.stdin.write(body + b"\n")
        await process.stdin.drain()
        process.stdin.close()
    except (BrokenPipeError, ConnectionResetError, RuntimeError):
        # It does not care for its input; uvloop says with RuntimeError that it has ended already.
        pass
    said = bytearray()
    while chunk := await process.stdout.read(MOST_OUTPUT):
        said += chunk
        if len(said) > MOST_OUTPUT:
            raise CommandError(f"said more than {MOST_OUTPUT} bytes")
    return bytes(said)


def _end(process: asyncio.subprocess.Process) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # It has ended, and all that it started.
        return


async def connect(sink: Sink) -> Command:
    """Return the way to a sink."""
    return Command(sink)
