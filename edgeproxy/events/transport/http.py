"""Webhooks: a POST for each event."""

import aiohttp
from multidict import CIMultiDict

from edgeproxy.events.sink import Sink


class Webhook:
    """POSTs to one URL over connections that are kept."""

    def __init__(self, sink: Sink) -> None:
        self._url = sink.to
        # Names of header fields are the same in any case (RFC 9110 section 5.1).
        headers = CIMultiDict({"Content-Type": "application/json", "User-Agent": "edgeproxy"})
        headers.update(sink.headers)
        timeout = aiohttp.ClientTimeout(total=sink.timeout_seconds)
        self._session = aiohttp.ClientSession(headers=headers, timeout=timeout)

    async def send(self, body: bytes, name: str, values: dict[str, int | str]) -> None:
        """Deliver an event; raise `aiohttp.ClientError` where the answer is no 2xx."""
        # A redirect may lead anywhere, with our token.
        async with self._session.post(self._url, data=body, headers={"X-Event": name}, allow_redirects=False) as response:
            if response.status // 100 != 2:
                raise aiohttp.ClientError(f"{response.status} {response.reason}")

    async def close(self) -> None:
        """Give up the connections."""
        await self._session.close()


async def connect(sink: Sink) -> Webhook:
    """Return the way to a sink."""
    return Webhook(sink)
