"""A TCP relay that takes its time, or is cut: the way to a store that is far away."""

import asyncio
import contextlib
import threading
from typing import Self

from tests.integration.proxy import free_port


class SlowLink:
    """Relays connections to a port; each byte takes `delay_seconds` one way, and none arrives while it is `cut`."""

    def __init__(self, target: int, delay_seconds: float) -> None:
        self.port = free_port()
        self.cut = False
        self._target = target
        self._delay = delay_seconds
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._relays: list[asyncio.Task[None]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._accept, "127.0.0.1", self.port), self._loop).result(5)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _end(self) -> None:
        if self._server:
            self._server.close()
        # Whoever tries again meanwhile may have been accepted in the turn before.
        for _ in range(3):
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for writer in self._writers:
                writer.close()
            # Sockets are closed by the loop a turn later.
            await asyncio.sleep(0.02)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Here, not in the task: one that is cancelled before it begins would leave it open.
        self._writers.append(writer)
        self._relays.append(self._loop.create_task(self._relay(reader, writer)))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            try:
                there, back = await asyncio.open_connection("127.0.0.1", self._target)
                self._writers.append(back)
                await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
            finally:
                writer.close()

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Pass on what comes, each piece after the delay, without holding up the next."""
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def read() -> None:
            while True:
                try:
                    data = await source.read(65_536)
                except OSError:
                    data = b""
                await pieces.put((self._loop.time() + self._delay, data))
                if not data:
                    return

        task = asyncio.create_task(read())
        try:
            while True:
                due, data = await pieces.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                while self.cut:
                    await asyncio.sleep(0.02)
                if not data:
                    break
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            task.cancel()
            sink.close()
