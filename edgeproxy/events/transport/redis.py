"""Redis or Valkey: each event is an entry of a stream, with the fields `event` and `body`."""

from redis.asyncio import Redis

from edgeproxy.events.sink import Sink


class Stream:
    """One stream, which keeps about so many entries."""

    def __init__(self, client: "Redis", name: str, length: int) -> None:
        self._client = client
        self._name = name
        self._length = length

    async def send(self, body: bytes, name: str, values: dict[str, int | str]) -> None:
        """Add an event; raise `redis.RedisError` where that fails."""
        await self._client.xadd(self._name, {"event": name, "body": body}, maxlen=self._length, approximate=True)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def connect(sink: Sink) -> Stream:
    """Return the way to a sink; raise where the server is not there."""
    seconds = sink.timeout_seconds
    client = Redis.from_url(sink.to.partition("?")[0], socket_timeout=seconds, socket_connect_timeout=seconds)
    try:
        await client.ping()
    except BaseException:
        await client.aclose()
        raise
    return Stream(client, sink.option("stream"), sink.stream_length)
