"""Lists of addresses in header fields, each with or without a display name (RFC 3261 section 25.1, `name-addr` and `addr-spec`)."""

import re
from typing import NamedTuple

# Without going back over what was read: a sender must not be able to make us take long.
_ADDRESS = re.compile(
    r"""\s*+(?:(?:"(?:[^"\\]|\\.)*+"|[^"<>,;]*+)\s*+<(?P<enclosed>[^<>\s]++)>|(?P<bare>[A-Za-z][^\s"<>,;]*+))(?P<parameters>(?:\s*+;\s*+(?:"(?:[^"\\]|\\.)*+"|[^",;])++)*+)\s*+(?:,|$)""",
    re.DOTALL,
)


class NameAddr(NamedTuple):
    """One address of a list."""

    uri: str
    parameters: dict[str, str]
    """Of the header field, by name in lower case; those of the URI stand in that."""


def read_name_addrs(text: str) -> list[NameAddr]:
    """Return the addresses of a header field's value; raise `ValueError` where it is no list of them."""
    found: list[NameAddr] = []
    at = 0
    while at < len(text) or not found:
        match = _ADDRESS.match(text, at)
        if match is None:
            raise ValueError(f"expected a list of addresses, got: {text[at : at + 64]}")
        pairs = (part.partition("=") for part in match["parameters"].split(";")[1:])
        found.append(NameAddr(match["enclosed"] or match["bare"], {name.strip().lower(): value.strip() for name, _, value in pairs}))
        at = match.end()
    if text.rstrip().endswith(","):
        raise ValueError("expected another address behind the comma")
    return found
