"""Bounds the connections to the management API: descriptors are shared with SIP, and idle ones must not use them up."""

import asyncio
from typing import cast

from aiohttp import web

MOST = 256
"""Connections at once to one address."""
FIRST_REQUEST_SECONDS = 10.0
"""Longest wait for the first request of a connection; between further ones the server's own keep-alive limit holds."""


class Gate:
    """Makes the protocols of one listening socket; connections without a request under way make room for others."""

    def __init__(self, server: web.Server) -> None:
        self._server = server
        self._connections: dict[asyncio.Protocol, _Bounded] = {}
        """By the protocol that serves them, those first that were busy longest ago."""

    def __call__(self) -> asyncio.Protocol:
        """Make the protocol of another connection."""
        return _Bounded(self, self._server())

    def admit(self, connection: "_Bounded") -> bool:
        """Take a connection in; false where all there are have requests under way."""
        if len(self._connections) >= MOST:
            idle = next((there for there in self._connections.values() if not there.is_busy), None)
            if idle is None:
                return False
            idle.close()
        self._connections[connection.inner] = connection
        return True

    def leave(self, connection: "_Bounded") -> None:
        """Forget a connection."""
        self._connections.pop(connection.inner, None)

    def busy(self, protocol: asyncio.Protocol, busy: bool) -> None:
        """Note that a request of the connection that `protocol` serves begins or ends."""
        if connection := self._connections.pop(protocol, None):
            connection.set_busy(busy)
            self._connections[protocol] = connection


class _Bounded(asyncio.Protocol):
    """A connection, served by aiohttp's protocol."""

    def __init__(self, gate: Gate, inner: asyncio.Protocol) -> None:
        self.inner = inner
        self.is_busy = False
        self._gate = gate
        self._transport: asyncio.Transport | None = None
        self._admitted = False
        self._timer: asyncio.TimerHandle | None = None

    def set_busy(self, busy: bool) -> None:
        self.is_busy = busy
        if self._timer:
            self._timer.cancel()

    def close(self) -> None:
        self._gate.leave(self)
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self._gate.admit(self):
            self._transport.abort()
            return
        self._admitted = True
        self._timer = asyncio.get_running_loop().call_later(FIRST_REQUEST_SECONDS, self.close)
        self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._admitted:
            self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self.inner.eof_received() if self._admitted else None

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        self._gate.leave(self)
        if self._admitted:
            self.inner.connection_lost(exc)
