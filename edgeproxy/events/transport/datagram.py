"""Datagrams: one for each event, to UDP or a UNIX socket."""

import asyncio
import socket
from typing import Any

from edgeproxy.events.sink import Sink

MOST_BYTES = 65_457
"""What fits a datagram over IPv4 with its headers; more is refused."""


class Datagrams:
    """A connected socket."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    async def send(self, body: bytes, name: str, values: dict[str, int | str]) -> None:
        """Deliver an event; raise `OSError` where nobody listens, or it is too large."""
        if len(body) > MOST_BYTES:
            raise OSError(f"an event of {len(body)} bytes fits no datagram")
        await asyncio.get_running_loop().sock_sendall(self._socket, body)

    async def close(self) -> None:
        """Close the socket."""
        self._socket.close()


async def _address(sink: Sink) -> tuple[socket.AddressFamily, Any]:
    if sink.place.scheme == "unix":
        return socket.AF_UNIX, sink.place.path
    host, _, port = sink.place.path.rpartition(":")
    found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
    return found[0][0], found[0][4]


async def connect(sink: Sink) -> Datagrams:
    """Return the way to a sink; raise `OSError` where there is none."""
    loop = asyncio.get_running_loop()
    family, address = await _address(sink)
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setblocking(False)
    try:
        await loop.sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return Datagrams(made)
