"""Policy processes: started beside the engine, watched, replaced, and ended."""

import asyncio
import contextlib
import os
import socket
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgeproxy import _native
from edgeproxy.config import Loaded
from edgeproxy.config.database import database_url
from edgeproxy.config.positions import Positions
from edgeproxy.errors import PolicyError
from edgeproxy.events import Event, name_of
from edgeproxy.policy.load import ModuleSpec
from edgeproxy.server.policy_orders import DRAIN, Counts, Hello, Orders, Told, changed_at

Log = Callable[..., None]
Values = Callable[[], socket.socket]
"""Makes a way to counters and sets."""
State = Callable[[int, str], None]
"""Is told how the processes do: negative is not ready, with the reason."""
_HELLO_BYTES = 1 << 24
WORK = ("policy_questions_taken", "policy_wait_microseconds", "policy_handling_microseconds")
"""Counters of what policy processes do, in the order in which a link tells them."""
MOST_EVENT_BYTES = 1 << 20
"""Events that wait to be read by a policy process; more are dropped."""
_LAST_VERDICTS_SECONDS = 0.5
_LEAST_RESTART_SECONDS = 0.2
_MOST_RESTART_SECONDS = 10.0


def compiled_cache(loaded: Loaded) -> Path:
    """Return where compiled modules of this configuration lie."""
    return Path(loaded.config.install.state_directory) / "compiled"


def orders(loaded: Loaded, descriptors: list[int], values: int = -1) -> Orders:
    """Return what a policy process of this configuration is told."""
    config = loaded.config
    return Orders(
        modules=[ModuleSpec(policy.module, policy.options) for policy in config.policy],
        deadlines=[policy.deadline_seconds for policy in config.policy],
        statuses=[policy.on_error.status for policy in config.policy],
        kinds={name: peer.kind for name, peer in config.peer.items()},
        directory=str(Path(loaded.name).resolve().parent),
        cache=str(compiled_cache(loaded)),
        descriptors=descriptors,
        heartbeat_seconds=config.tuning.policy.heartbeat_seconds,
        nice=config.tuning.policy.nice,
        database=database_url(config),
        values=values,
        lookups={name: lookup for name, lookup in config.lookup.items() if any(name in peer.lookups for peer in config.peer.values())},
        peer_lookups={name: peer.lookups for name, peer in config.peer.items() if peer.lookups},
        mask_identities=config.log.mask_identities,
        trusted=[name for name, peer in config.peer.items() if peer.is_trusted],
    )


async def start_process(
    loaded: Loaded, link: "_native.PolicyLink | None", values: socket.socket | None = None
) -> tuple[asyncio.subprocess.Process, Hello]:
    """Start one process and return it with what it says of its modules; without a link it only checks them. It gets `values`, its way to counters and sets.

    Raise `PolicyError` where a module cannot be loaded or takes too long.
    """
    descriptors = link.descriptors() if link else []
    way = values.fileno() if values else -1
    passed = [*descriptors, *([way] if values else [])]
    # Not from the current directory: whoever may write there could have code run by us, which may be root.
    line = [sys.executable, "-P", "-m", "edgeproxy.server.policy_process"]
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(*line, stdin=pipe, stdout=pipe, pass_fds=passed, limit=_HELLO_BYTES)
    except OSError as error:
        raise PolicyError(f"policies: no process can be started with {sys.executable} (may this user run it?): {error}") from error
    finally:
        # The process has its own, or there is none.
        if values:
            values.close()
    try:
        positions = Positions(loaded.text)
        told = orders(loaded, descriptors, way)
        told.places = [f"{loaded.name}:{positions.line(('policy', str(number), 'module'))}" for number in range(len(told.modules))]
        hello = await _hello(process, told, loaded.config.tuning.policy.start_seconds)
        if link and not hello.faults:
            return process, hello
        await _end(process)
    except BaseException:
        # Nobody would know of it any more.
        await _end(process, at_once=True)
        raise
    if hello.faults:
        raise PolicyError(hello.faults)
    return process, hello


async def _hello(process: asyncio.subprocess.Process, orders: Orders, seconds: float) -> Hello:
    if process.stdin is None or process.stdout is None:
        raise PolicyError("policies: the process has no pipes")
    process.stdin.write(msgspec.json.encode(orders) + b"\n")
    try:
        async with asyncio.timeout(seconds):
            await process.stdin.drain()
            return msgspec.json.decode(await process.stdout.readline(), type=Hello)
    except TimeoutError:
        raise PolicyError(f"policies: no sign of life within {seconds} s of the start") from None
    except (msgspec.MsgspecError, OSError, ValueError):
        with contextlib.suppress(TimeoutError):
            # It may have closed its output and live on; whoever called ends it then.
            async with asyncio.timeout(1):
                await process.wait()
        code = process.returncode
        raise PolicyError(
            f"policies: the process {'closed its output' if code is None else f'ended with {code}'} before it was ready: a module may have done so while it was imported"
        ) from None


async def _end(process: asyncio.subprocess.Process, *, at_once: bool = False) -> None:
    """End a process: it goes when its input closes, or is made to."""
    if process.stdin:
        process.stdin.close()
    try:
        async with asyncio.timeout(0 if at_once else 1):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _resident_bytes(process: asyncio.subprocess.Process | None) -> int:
    """Return what a process holds in memory; 0 for one that is gone."""
    if process is None:
        return 0
    try:
        return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def route_handlers(hooks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names by which rules may know handlers."""
    return sorted({name for hook in hooks if hook["hook"] == "route" for name in hook["methods"]})


class PolicyProcess:
    """One process with its link, started anew whenever it ends or hangs."""

    def __init__(self, loaded: Loaded, log: Log, state: State, values: Values) -> None:
        self._loaded = loaded
        self._log = log
        self._state = state
        self._values = values
        self._engine: _native.Engine | None = None
        self._link: _native.PolicyLink | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self.restarts = 0
        self.hello = Hello()
        self.lookups: Counter[tuple[str, str]] = Counter()
        """How often each lookup came to what, over all that ran in this place."""
        self._before: Counter[tuple[str, str]] = Counter()
        self._worked: Counter[str] = Counter()
        """By those that ran here before."""
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process; raise `PolicyError` where that fails."""
        tuning = self._loaded.config.tuning.policy
        link = _native.PolicyLink(self._loaded.config.install.workers, tuning.queue_bytes)
        self._process, self.hello = await start_process(self._loaded, link, self._values())
        self._link = link
        self._before = Counter(self.lookups)
        self._reading = asyncio.create_task(self._read(self._process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Take what the process tells of its work until it ends."""
        while process.stdout and (line := await process.stdout.readline()):
            try:
                told = msgspec.json.decode(line, type=Counts).lookups
            except msgspec.MsgspecError:
                # Whatever a module wrote there is none of ours.
                continue
            now = Counter({(name, outcome): count for name, counts in told.items() for outcome, count in counts.items()})
            self.lookups = self._before + now

    @property
    def work(self) -> Counter[str]:
        """Questions taken, how long they waited and how long they were handled, over all that ran in this place."""
        link = self._link
        return self._worked + Counter(dict(zip(WORK, link.work, strict=True))) if link else self._worked

    @property
    def memory_bytes(self) -> int:
        """What it holds in memory."""
        return _resident_bytes(self._process)

    @property
    def link(self) -> "_native.PolicyLink | None":
        """The way to it; None while it is not there."""
        return self._link

    def watch(self, engine: "_native.Engine") -> None:
        """Watch over it from now on; the engine has its link."""
        self._engine = engine
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        pause = _LEAST_RESTART_SECONDS
        while True:
            started = asyncio.get_running_loop().time()
            reason = await self._until_lost()
            self._remove()
            self.restarts += 1
            self._log("policy process lost", level="error", values={"reason": reason, "restarts": self.restarts})
            self._state(-1, reason)
            lived = asyncio.get_running_loop().time() - started
            pause = _LEAST_RESTART_SECONDS if lived > _MOST_RESTART_SECONDS else min(pause * 2, _MOST_RESTART_SECONDS)
            while True:
                await asyncio.sleep(pause)
                try:
                    await self.start()
                    if self._engine and self._link:
                        self._engine.add_policy_link(self._link)
                    break
                except Exception as error:
                    # Whatever it was, there must be a process again: the supervisor never gives up.
                    self._remove()
                    if self._process:
                        await _end(self._process, at_once=True)
                    pause = min(pause * 2, _MOST_RESTART_SECONDS)
                    self._log("policy process does not start", level="error", values={"error": str(error)})
            self._log("policy process started", values={"restarts": self.restarts})
            self._state(1, "started anew")

    async def _until_lost(self) -> str:
        """Wait until the process ends or shows no sign of life; return why."""
        process, link = self._process, self._link
        if process is None or link is None:
            return "it was never started"
        tuning = self._loaded.config.tuning.policy
        seconds, most = tuning.heartbeat_seconds, tuning.memory_bytes
        beats = link.beats
        while True:
            try:
                async with asyncio.timeout(seconds):
                    return f"it ended with {await process.wait()}"
            except TimeoutError:
                if link.beats == beats:
                    await _end(process, at_once=True)
                    return f"no sign of life for {seconds} s"
                if link.is_damaged:
                    await _end(process, at_once=True)
                    return "its queue in shared memory is damaged"
                if most and (held := _resident_bytes(process)) > most:
                    await _end(process, at_once=True)
                    return f"it held {held} bytes of memory, more than tuning.policy.memory_bytes"
                beats = link.beats

    def tell(self, event: Event) -> bool:
        """Tell its handlers of an event; false where it does not take them as fast as they come, or is not there."""
        stdin = self._process.stdin if self._process and self._link else None
        if stdin is None or stdin.transport.get_write_buffer_size() > MOST_EVENT_BYTES:
            return False
        stdin.write(msgspec.json.encode(Told(name_of(event), event.at, event.parameters())) + b"\n")
        return True

    def _remove(self) -> None:
        self._worked = self.work
        if self._engine and self._link:
            self._engine.remove_policy_link(self._link.id)
        self._link = None

    async def stop(self, drain_seconds: float = 0.0) -> None:
        """Ask it nothing more, let its handlers come to their end, for `drain_seconds` at most, and end it."""
        # Let go of it, or it keeps itself, and the descriptors of its link with it, until garbage is looked for.
        if watching := self._watching:
            self._watching = None
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        try:
            if self._engine and self._link and self._process and self._process.stdin and drain_seconds:
                self._engine.drain_policy_link(self._link.id)
                self._process.stdin.write(msgspec.json.encode(Told(DRAIN, 0, {})) + b"\n")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(drain_seconds):
                        await self._until_lost()
                        # Workers still take what it decided last.
                        await asyncio.sleep(_LAST_VERDICTS_SECONDS)
        finally:
            self._remove()
            if self._process and self._process.returncode is None:
                await _end(self._process)


class Policies:
    """The processes of one configuration."""

    def __init__(self, loaded: Loaded, log: Log, state: State, values: Values) -> None:
        count = loaded.config.install.policy_processes if loaded.config.uses_policies else 0
        self._loaded = loaded
        self._processes = [PolicyProcess(loaded, log, state, values) for _ in range(count)]

    async def start(self) -> list[dict[str, Any]]:
        """Start every process and return the hooks of the modules; raise `PolicyError` where one fails, with none left running."""
        results = await asyncio.gather(*(process.start() for process in self._processes), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        if errors:
            await self.stop()
            raise errors[0]
        return self.hooks

    @property
    def hooks(self) -> list[dict[str, Any]]:
        """What the modules want to decide."""
        return self._processes[0].hello.hooks if self._processes else []

    def serve_also(self, staged: Loaded) -> bool:
        """Whether these processes would be the same under another configuration: same modules, options, peers, and files."""
        if orders(self._loaded, []) != orders(staged, []) or self._loaded.config.tuning.policy != staged.config.tuning.policy:
            return False
        return not self.changed_files()

    def changed_files(self) -> list[str]:
        """Return the files of modules that are other ones now than when the processes started."""
        files = {path: at for process in self._processes for path, at in process.hello.files.items()}
        return sorted(path for path, at in files.items() if changed_at(Path(path)) != at)

    @property
    def links(self) -> "list[_native.PolicyLink]":
        """The ways to them, for the engine."""
        return [process.link for process in self._processes if process.link]

    def watch(self, engine: "_native.Engine") -> None:
        """Watch over them from now on; the engine has their links."""
        for process in self._processes:
            process.watch(engine)

    @property
    def events(self) -> list[str]:
        """The events that handlers want to be told of."""
        return self._processes[0].hello.events if self._processes else []

    def tell(self, event: Event) -> bool:
        """Tell the handlers of one process of an event; false where it was dropped."""
        return any(process.tell(event) for process in self._processes)

    @property
    def work(self) -> Counter[str]:
        """What all of them did."""
        return sum((process.work for process in self._processes), Counter())

    @property
    def memory_bytes(self) -> int:
        """What all of them hold in memory."""
        return sum(process.memory_bytes for process in self._processes)

    @property
    def lookups(self) -> Counter[tuple[str, str]]:
        """How often each lookup came to what."""
        return sum((process.lookups for process in self._processes), Counter())

    @property
    def restarts(self) -> int:
        """How often one was started anew."""
        return sum(process.restarts for process in self._processes)

    async def stop(self, drain_seconds: float = 0.0) -> None:
        """End every process."""
        await asyncio.gather(*(process.stop(drain_seconds) for process in self._processes))
