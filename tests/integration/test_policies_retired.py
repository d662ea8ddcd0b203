"""Handlers of replaced policy processes come to their end, however long their calls ring."""

import time
from collections.abc import Callable
from pathlib import Path

from tests.integration.agent import Agent, answer, bye, invite
from tests.integration.proxy import Proxy, manage, wait_for
from tests.integration.test_control import children

Local = Callable[..., tuple[Proxy, int, int]]
SERIES = """
from edgeproxy.policy import Policy

policy = Policy()


@policy.on_request("INVITE")
async def decide(call):
    call.note("revision", "{revision}")
    async for failure in call.attempts(["sip:127.0.0.1:{first}", "sip:127.0.0.1:{second}"]):
        call.note("failed", str(failure.status_code))
    return call.best_response()
"""


def test_a_call_that_rings_through_a_reload_is_decided_by_what_it_began_with(local: Local, tmp_path: Path) -> None:
    with Agent() as caller, Agent() as core, Agent() as other:
        module = tmp_path / "series.py"
        module.write_text(SERIES.format(revision=1, first=core.port, second=other.port))
        proxy, port, _ = local(core=core.port, extra='[[policy]]\nmodule = "series"')
        caller.send(invite("INVITE", caller.port, "sip:bob@127.0.0.1", call_id="rings", branch="rings"), port)
        ringing = core.receive()
        core.send(answer(ringing, "180 Ringing"), port)
        assert caller.receive_until("SIP/2.0 180")
        (before,) = children(proxy)
        module.write_text(SERIES.format(revision=2, first=core.port, second=other.port))
        assert manage(proxy, "reload")[0] == 0
        time.sleep(6)
        assert before in children(proxy)
        core.send(answer(ringing, "486 Busy Here"), port)
        assert core.receive_until("ACK").startswith("ACK")
        second = other.receive_until("INVITE")
        other.send(answer(second, "200 OK"), port)
        ok = caller.receive_until("SIP/2.0 200")
        # Nothing runs there any more: it goes long before `drain_seconds`.
        wait_for(lambda: before not in children(proxy), 10)
        assert len(children(proxy)) == 1
        caller.send(bye(caller, other, ok, "rings"), port)
        other.send(answer(other.receive_until("BYE"), "200 OK"), port)
        (record,) = proxy.records(1)
        assert record["notes"] == {"revision": "1", "failed": "486"}


def test_configurations_whose_handlers_still_run_are_bounded(local: Local, tmp_path: Path) -> None:
    with Agent() as caller, Agent() as core, Agent() as other:
        module = tmp_path / "series.py"
        module.write_text(SERIES.format(revision=0, first=core.port, second=other.port))
        proxy, port, _ = local(core=core.port, extra='[[policy]]\nmodule = "series"')
        rings = []
        for number in range(10):
            caller.send(invite("INVITE", caller.port, "sip:bob@127.0.0.1", call_id=f"call-{number}", branch=f"call-{number}"), port)
            rings.append(core.receive_until("INVITE"))
            core.send(answer(rings[-1], "180 Ringing"), port)
            module.write_text(SERIES.format(revision=number + 1, first=core.port, second=other.port))
            assert manage(proxy, "reload")[0] == 0
        wait_for(lambda: len(children(proxy)) == 9, 10)
        assert [
            line["at_most"] for line in proxy.log if line["event"] == "policies of an older configuration end before their handlers"
        ] == [8, 8]
        # The oldest has nobody to ask any more, and gets what its attempt ended with.
        core.send(answer(rings[0], "486 Busy Here"), port)
        assert "Call-ID: call-0\r\n" in caller.receive_until("SIP/2.0 486")
        core.send(answer(rings[9], "486 Busy Here"), port)
        assert "Call-ID: call-9\r\n" in other.receive_until("INVITE")
