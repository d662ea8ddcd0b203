"""A user agent of a few lines, for what SIPp cannot be made to do."""

import socket
import time
from typing import Self

CRLF = "\r\n"


def invite(
    method: str,
    port: int,
    target: str,
    *,
    tag: str = "a",
    to_tag: str = "",
    call_id: str = "c1",
    branch: str = "b1",
    extra: str = "",
) -> str:
    """Return a request of an agent on 127.0.0.1."""
    to = f";tag={to_tag}" if to_tag else ""
    return (
        f"{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{branch}\r\nMax-Forwards: 70\r\n"
        f"From: <sip:a@127.0.0.1>;tag={tag}\r\nTo: <sip:b@127.0.0.1>{to}\r\nCall-ID: {call_id}\r\nCSeq: 1 {method}\r\n"
        f"Contact: <sip:a@127.0.0.1:{port}>\r\n{extra}Content-Length: 0\r\n\r\n"
    )


def values(message: str, name: str) -> list[str]:
    """Return the values of every header field `name`."""
    head = message.split("\r\n\r\n", maxsplit=1)[0]
    return [line.split(":", 1)[1].strip() for line in head.split(CRLF)[1:] if line.lower().startswith(f"{name.lower()}:")]


def answer(request: str, status: str, tag: str = "callee") -> str:
    """Return a response to `request`."""
    kept = {"via", "record-route", "from", "call-id", "cseq"}
    lines = [f"SIP/2.0 {status}"]
    for line in request.split("\r\n\r\n", maxsplit=1)[0].split(CRLF)[1:]:
        name = line.split(":")[0].lower()
        if name in kept:
            lines.append(line)
        elif name == "to":
            lines.append(line if ";tag=" in line or status.startswith("100") else f"{line};tag={tag}")
    return CRLF.join([*lines, "Content-Length: 0", "", ""])


class Agent:
    """One UDP socket."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind((host, port))
        self.port: int = self.socket.getsockname()[1]

    def send(self, message: str | bytes, port: int, host: str = "127.0.0.1") -> None:
        self.socket.sendto(message.encode() if isinstance(message, str) else message, (host, port))

    def receive(self, seconds: float = 2) -> str:
        """Return the next message; empty where none comes."""
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(65_535).decode(errors="replace")
        except TimeoutError:
            return ""
        except ConnectionRefusedError:
            return ""

    def receive_until(self, start: str, seconds: float = 3, *, having: str = "") -> str:
        """Return the first message that begins with `start` and has `having`; empty where none comes."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if (message := self.receive(left)).startswith(start) and having in message:
                return message
        return ""

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def call(caller: Agent, core: Agent, port: int, call_id: str, *, extra: str = "") -> tuple[str, str]:
    """Set a call up; return the INVITE as the core got it and the 200 as the caller got it."""
    caller.send(invite("INVITE", caller.port, f"sip:b@127.0.0.1:{core.port}", call_id=call_id, branch=call_id, extra=extra), port)
    request = core.receive_until("INVITE", 10, having=f"Call-ID: {call_id}\r\n")
    assert request
    core.send(answer(request, "200 OK"), port)
    ok = caller.receive_until("SIP/2.0 200")
    assert ok
    return request, ok


def bye(caller: Agent, core: Agent, ok: str, call_id: str) -> str:
    """Return the BYE that ends what `call` set up."""
    routes = "".join(f"Route: {route}\r\n" for route in reversed(values(ok, "Record-Route")))
    return invite(
        "BYE",
        caller.port,
        f"sip:b@127.0.0.1:{core.port}",
        to_tag="callee",
        call_id=call_id,
        branch=f"bye-{call_id}",
        extra=routes,
    ).replace("CSeq: 1", "CSeq: 2")
