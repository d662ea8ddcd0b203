"""Compiled modules: used while they fit their source, and never in its place."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgeproxy.errors import PolicyError
from edgeproxy.policy.compiled import compile_module, place_of
from edgeproxy.policy.load import ModuleSpec, load
from edgeproxy.testing import SimulatedEdge, request

SOURCE = """
import asyncio
from edgeproxy.policy import Policy, Reject

policy = Policy()


@policy.on_request("INVITE")
async def decide(call):
    await asyncio.sleep(0)
    return Reject(480)


@policy.on_request("MESSAGE")
def at_once(call):
    return Reject(486)
"""


def test_a_compiled_module_decides_as_its_source_does_and_a_changed_source_wins(tmp_path: Path) -> None:
    source, cache = tmp_path / "quick.py", tmp_path / "cache"
    source.write_text(SOURCE)
    place = compile_module("quick", tmp_path, cache)
    assert compile_module("quick", tmp_path, cache) == place, "what is there is not made again"
    ((policy, _),) = load([ModuleSpec("quick")], tmp_path, cache)
    assert sys.modules["quick"].__file__ == str(place)
    with SimulatedEdge(policy) as edge:
        assert edge.receive(request("MESSAGE")).status_code == 486
        edge.receive(request("INVITE"))
        edge.wait()
        assert (edge.sent[-1].status_code, edge.failures) == (480, [])
    del sys.modules["quick"]
    source.write_text(SOURCE.replace("480", "404"))
    load([ModuleSpec("quick")], tmp_path, cache)
    assert sys.modules["quick"].__file__ == str(source)


def test_a_build_that_does_not_load_is_passed_over(tmp_path: Path) -> None:
    source, cache = tmp_path / "spoilt.py", tmp_path / "cache"
    source.write_text(SOURCE)
    place = place_of("spoilt", source, cache)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"no library")
    load([ModuleSpec("spoilt")], tmp_path, cache)
    assert sys.modules["spoilt"].__file__ == str(source)


def test_the_command_compiles_what_the_file_names_and_tells_what_it_cannot(tmp_path: Path) -> None:
    (tmp_path / "named.py").write_text(SOURCE)
    file = tmp_path / "edge.toml"
    file.write_text(
        f'[install]\nstate_directory = "{tmp_path}/state"\n[install.listener.a]\naddress = "udp:127.0.0.1:5060"\n[[policy]]\nmodule = "named"\n'
    )
    line = [str(Path(sys.executable).with_name("edgeproxy")), "policy", "compile", str(file)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"named: {tmp_path}/state/compiled/")
    with pytest.raises(PolicyError, match="policy module absent: no source beside the file"):
        compile_module("absent", tmp_path, tmp_path)
    (tmp_path / "broken.py").write_text("def (")
    with pytest.raises(PolicyError, match=r"broken\.py: cannot be compiled"):
        compile_module("broken", tmp_path, tmp_path)
