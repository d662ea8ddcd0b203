"""A small zone for tests."""

import time

from dnslib import AAAA, QTYPE, RR, SRV, A


class Zone:
    """Answers like a small zone; `silent` answers nothing."""

    def __init__(self, ports: list[int], *, silent: bool = False) -> None:
        self.ports, self.silent = ports, silent

    def resolve(self, request: object, _handler: object) -> object:
        if self.silent:
            time.sleep(60)
        reply = request.reply()  # type: ignore[attr-defined]
        name, kind = str(request.q.qname), QTYPE[request.q.qtype]  # type: ignore[attr-defined]
        if kind == "SRV" and name == "_sip._udp.core.test.":
            for priority, port in enumerate(self.ports):
                reply.add_answer(RR(name, QTYPE.SRV, ttl=60, rdata=SRV(priority, 1, port, "host.core.test.")))
        if kind == "A" and name == "host.core.test.":
            reply.add_answer(RR(name, QTYPE.A, ttl=60, rdata=A("127.0.0.1")))
        if kind == "AAAA" and name == "none.core.test.":
            reply.add_answer(RR(name, QTYPE.AAAA, ttl=60, rdata=AAAA("::1")))
        return reply
