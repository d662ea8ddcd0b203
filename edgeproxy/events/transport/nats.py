"""NATS: each event is published below the subject of the sink, `subject.E_NAME`."""

from nats.aio.client import Client
from nats.errors import Error

from edgeproxy.events.sink import Sink


class Publisher:
    """One connection."""

    def __init__(self, client: Client, subject: str) -> None:
        self._client = client
        self._subject = subject

    async def send(self, body: bytes, name: str, values: dict[str, int | str]) -> None:
        """Publish an event, and see that the server got it; raise `nats.errors.Error` where it did not."""
        await self._client.publish(f"{self._subject}.{name}", body)
        await self._client.flush()

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()


class _Secure(Client):
    """A client that says nothing without TLS, whatever the server, or somebody in its place, asks for: the library would go on in the clear."""

    def _connect_command(self) -> bytes:
        if not self._server_info.get("tls_required"):
            raise Error("nats: the server offers no TLS")
        return super()._connect_command()


async def connect(sink: Sink) -> Publisher:
    """Return the way to a sink; raise where the server is not there."""
    place = sink.place
    client = _Secure() if place.scheme == "tls" else Client()

    async def tell(error: Exception) -> None:
        """Failures are those of deliveries, which are counted there; while there is no connection the library would try for ever."""
        if not client.is_connected:
            raise error

    # One that is lost is opened anew by the next delivery, under our own pauses.
    await client.connect(
        f"{place.scheme}://{place.netloc}", connect_timeout=max(1, round(sink.timeout_seconds)), allow_reconnect=False, error_cb=tell
    )
    return Publisher(client, place.path.strip("/").replace("/", "."))
