"""Messages with a few bytes wrong, the same ones for the same seed."""

import random
from collections.abc import Iterator

METHODS = [b"INVITE", b"MESSAGE", b"BYE", b"ACK", b"CANCEL", b"OPTIONS", b"SIP/2.0 200"]


def mutated(base: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield `count` variants of `base`, an INVITE with branch b1, each damaged in one to five places."""
    chance = random.Random(seed)  # noqa: S311
    for number in range(count):
        message = bytearray(base.replace(b"b1", str(number).encode()).replace(b"INVITE", chance.choice(METHODS)))
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(message))
            message[at : at + chance.randrange(0, 3)] = bytes([chance.randrange(256)])
        yield bytes(message)
