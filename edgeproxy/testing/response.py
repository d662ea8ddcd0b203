"""What the simulated edge sent."""

import msgspec


class Response(msgspec.Struct, frozen=True):
    """One message that the edge sent: a response to the caller, or a request to a target."""

    text: str
    to: str
    """Destination, `address:port`."""

    @property
    def first_line(self) -> str:
        """The start line."""
        return self.text.split("\r\n", 1)[0]

    @property
    def status_code(self) -> int:
        """The status code of a response; 0 for a request."""
        return int(self.first_line.split(" ")[1]) if self.first_line.startswith("SIP/2.0 ") else 0

    @property
    def method(self) -> str:
        """The method of a request; empty for a response."""
        return "" if self.status_code else self.first_line.split(" ")[0]

    def header(self, name: str) -> str | None:
        """Return the first value of a header field."""
        found = self.headers(name)
        return found[0] if found else None

    def headers(self, name: str) -> list[str]:
        """Return every value of a header field, line by line."""
        lines = self.text.split("\r\n\r\n", 1)[0].split("\r\n")[1:]
        return [value.strip() for have, _, value in (line.partition(":") for line in lines) if have.strip().lower() == name.lower()]
