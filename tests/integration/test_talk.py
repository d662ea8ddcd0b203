"""The talk's snippets as our examples do them."""

from collections.abc import Callable
from pathlib import Path

from tests.integration.agent import Agent, invite
from tests.integration.proxy import Proxy, free_port

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "talk"


def test_t1_converts_tcp_to_udp_and_back(start_proxy: Callable[..., Proxy], run_flow: Callable[..., None]) -> None:
    port, core = free_port(), free_port()
    toml = (EXAMPLES / "t1-protocol-conversion.toml").read_text().replace("5060", str(port)).replace("5070", str(core))
    proxy = start_proxy(toml.replace("[install.listener.public]", '[install]\nstate_directory = "STATE"\n[install.listener.public]', 1))
    for name in ("answered", "reinvite", "cancelled"):
        run_flow(name, port, core, caller="t1", callee="u1")
    assert {record["from_peer"] for record in proxy.records(15)} == {"phones"}
    # What the script lets through: a forged To tag with a Route of the sender's own choice.
    with Agent() as stranger, Agent() as gateway:
        route = f"Route: <sip:127.0.0.1:{port};lr>, <sip:127.0.0.1:{gateway.port};lr>\r\n"
        stranger.send(invite("INVITE", stranger.port, "sip:+1900@gateway", to_tag="forged", extra=route), port)
        assert stranger.receive().startswith("SIP/2.0 403")
        assert gateway.receive(0.5) == ""
