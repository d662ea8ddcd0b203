"""Builds requests."""

import itertools
from collections.abc import Mapping

_numbers = itertools.count(1)


def request(  # noqa: PLR0913
    method: str,
    uri: str = "sip:bob@example.net",
    *,
    user: str = "alice",
    headers: Mapping[str, str] | None = None,
    body: str = "",
    call_id: str = "",
) -> bytes:
    """Return a request of `user` that opens something, as a phone would send it over UDP; each call makes another one."""
    number = next(_numbers)
    lines = [
        f"{method} {uri} SIP/2.0",
        f"Via: SIP/2.0/UDP phone.invalid:5060;branch=z9hG4bK-test-{number};rport",
        "Max-Forwards: 70",
        f"From: <sip:{user}@example.net>;tag=from-{number}",
        f"To: <{uri}>",
        f"Call-ID: {call_id or f'test-{number}'}",
        f"CSeq: 1 {method}",
        f"Contact: <sip:{user}@phone.invalid>",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
        f"Content-Length: {len(body.encode())}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()
