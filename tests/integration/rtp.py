"""RTP of a few lines: sends packets whose payload says who sent them, and tells whose came."""

import re
import socket
import struct
import time
from typing import Self

CALL = re.compile(r"c=IN IP[46] (\S+)")


def sdp(host: str, port: int, *lines: str, direction: str = "sendrecv", media: str = "") -> str:
    """Return a session description of one audio stream, and of what `media` adds."""
    family = "IP6" if ":" in host else "IP4"
    text = [
        "v=0",
        f"o=- 1 1 IN {family} {host}",
        "s=-",
        f"c=IN {family} {host}",
        "t=0 0",
        f"m=audio {port} RTP/AVP 0",
        f"a={direction}",
        *lines,
        media,
    ]
    return "\r\n".join(line for line in text if line) + "\r\n"


def place(message: str, kind: str = "audio") -> tuple[str, int]:
    """Return where a message wants the packets of its first stream of a kind."""
    body = message.partition("\r\n\r\n")[2]
    host = CALL.findall(body)[0]
    port = re.findall(rf"m={kind} (\d+)", body)[0]
    return host, int(port)


class Talker:
    """A pair of ports that RTP and RTCP go from and come to."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        for _ in range(100):
            self.rtp, self.rtcp = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
            try:
                self.rtp.bind((host, port))
                self.port: int = self.rtp.getsockname()[1]
                self.rtcp.bind((host, self.port + 1))
                break
            except OSError:
                self.close()
        else:
            raise RuntimeError("no pair of ports is free")
        self._sequence = 0

    def say(self, text: str, to: tuple[str, int], count: int = 1, *, pause: float = 0.0) -> None:
        """Send packets of 20 ms that say `text`."""
        for _ in range(count):
            self._sequence += 1
            head = struct.pack("!BBHII", 0x80, 0, self._sequence & 0xFFFF, self._sequence * 160, 0x1234)
            self.rtp.sendto(head + text.encode().ljust(160, b"\xd5"), to)
            if pause:
                time.sleep(pause)

    def report(self, text: str, to: tuple[str, int]) -> None:
        """Send an RTCP packet (APP) that says `text`."""
        body = text.encode().ljust(20, b" ")
        self.rtcp.sendto(struct.pack("!BBHI4s", 0x80, 204, 2 + len(body) // 4, 0x1234, b"test") + body, (to[0], to[1] + 1))

    def hears(self, seconds: float = 1.0, most: int = 1_000) -> list[str]:
        """Return what comes, until nothing does for so long or `most` came."""
        return _texts(self.rtp, seconds, most, 12)

    def hears_all(self, count: int) -> list[str]:
        """Return `count` packets, each awaited for five seconds since a busy machine may stall, and what comes beyond them."""
        found = _texts(self.rtp, 5.0, count, 12, gap_seconds=5.0)
        return found + self.hears(0.1)

    def reports(self, seconds: float = 1.0) -> list[str]:
        """Return what comes as RTCP."""
        return _texts(self.rtcp, seconds, 1_000, 12)

    def close(self) -> None:
        self.rtp.close()
        self.rtcp.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _texts(sock: socket.socket, seconds: float, most: int, head: int, *, gap_seconds: float = 0.3) -> list[str]:
    found: list[str] = []
    sock.settimeout(seconds)
    while len(found) < most:
        try:
            found.append(sock.recv(2_048)[head:].rstrip(b"\xd5 ").decode(errors="replace"))
        except TimeoutError:
            break
        # What is under way comes at once.
        sock.settimeout(min(seconds, gap_seconds))
    return found
