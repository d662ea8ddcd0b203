"""Ways out for events: each module knows one kind of far end."""

import importlib
import importlib.util
from typing import Protocol

from edgeproxy.events.sink import Sink


class Transport(Protocol):
    """A way to one far end; what it raises counts as a failed delivery."""

    async def send(self, body: bytes, name: str, values: dict[str, int | str]) -> None:
        """Deliver an event: its JSON, its name and its parameters."""

    async def close(self) -> None:
        """Give up what is held."""


_MODULES = {
    "http": "http",
    "https": "http",
    "udp": "datagram",
    "unix": "datagram",
    "file": "lines",
    "amqp": "amqp",
    "amqps": "amqp",
    "nats": "nats",
    "tls": "nats",
    "redis": "redis",
    "rediss": "redis",
    "kafka": "kafka",
    "kafkas": "kafka",
}
EXTRAS = {"amqp": ("aio_pika", "amqp"), "nats": ("nats", "nats"), "redis": ("redis", "redis"), "kafka": ("aiokafka", "kafka")}
"""The library of a way out, and the extra that installs it."""


def module_of(sink: Sink) -> str:
    """Return the module that knows the way to a sink."""
    return "command" if sink.command else _MODULES[sink.place.scheme]


def missing_extra(sink: Sink) -> str:
    """Return the extra that must be installed for a sink, empty where nothing lacks."""
    library, extra = EXTRAS.get(module_of(sink), ("", ""))
    return extra if library and importlib.util.find_spec(library) is None else ""


async def open_transport(sink: Sink) -> Transport:
    """Return the way to a sink; raise whatever keeps it from being opened."""
    module = importlib.import_module(f"edgeproxy.events.transport.{module_of(sink)}")
    transport: Transport = await module.connect(sink)
    return transport
