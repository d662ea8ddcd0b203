"""A response as policies see it."""

import msgspec

from edgeproxy.sip import long_name


class Response(msgspec.Struct, frozen=True):
    """A response; one that the proxy made up itself has no text."""

    @property
    def reason_phrase(self) -> str:
        """What the far end said behind its status code."""
        return self._text.split("\r\n", 1)[0].partition(" ")[2].partition(" ")[2]

    @property
    def body(self) -> str:
        """The body."""
        return self._text.partition("\r\n\r\n")[2]

    @property
    def _text(self) -> str:
        return str(getattr(self, "text", ""))

    def header(self, name: str) -> str | None:
        """Return the first value of a header field."""
        return next(iter(self.headers(name)), None)

    def headers(self, name: str) -> list[str]:
        """Return every value of a header field, line by line, in its long or its compact form (RFC 3261 section 7.3.3)."""
        wanted = long_name(name)
        lines = self._text.partition("\r\n\r\n")[0].split("\r\n")[1:]
        parts = (line.partition(":") for line in lines)
        return [value.strip() for have, _, value in parts if long_name(have.strip()) == wanted]
