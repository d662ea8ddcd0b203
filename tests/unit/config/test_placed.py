"""Faults that the engine finds get the file, the line and the key of what is wrong."""

import pytest

from edgeproxy import _native
from edgeproxy.config import load_text, to_document
from edgeproxy.config.placed import placed
from edgeproxy.errors import BindError, ConfigError, EdgeProxyError

TEXT = """[install.listener.two]
address = "udp:127.0.0.1:5060"
[peer.core]
kind = "core"
match = ["127.0.0.2"]
to = ["sip:127.0.0.1:5060"]
"""


def test_a_fault_of_the_engine_has_file_and_line() -> None:
    loaded = load_text(TEXT, "edge.toml")
    with pytest.raises(ConfigError, match=r"^edge\.toml:6: peer\.core\.to: names this proxy itself: "), placed(loaded):
        _native.check_document(to_document(loaded.config, []))


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (
            BindError("listener.two: cannot bind udp:127.0.0.1:5060: in use"),
            "edge.toml:1: install.listener.two: cannot bind udp:127.0.0.1:5060: in use",
        ),
        (ConfigError("edge.toml:3: peer.core.kind: no"), "edge.toml:3: peer.core.kind: no"),
        (ConfigError("peer.other.to: of no such peer"), "peer.other.to: of no such peer"),
        (ConfigError("what names no key"), "what names no key"),
    ],
)
def test_what_has_no_place_stays_as_it_is(error: EdgeProxyError, wanted: str) -> None:
    with pytest.raises(type(error)) as raised, placed(load_text(TEXT, "edge.toml")):
        raise error
    assert str(raised.value) == wanted
