"""Rules of the source that no linter knows."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

from edgeproxy.admin.metrics import GAUGES

ROOT = Path(__file__).parent.parent.parent
MAY_IMPORT_NATIVE = {"server", "sip", "testing"}
LAYERS = [{"syntax", "ring-queue"}, {"proto", "guard", "routing", "media"}, {"edge"}, {"net"}, {"edgeproxy-native"}]


def test_only_the_server_imports_the_native_module() -> None:
    for path in (ROOT / "edgeproxy").rglob("*.py"):
        room = path.relative_to(ROOT / "edgeproxy").parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            assert room in MAY_IMPORT_NATIVE or "_native" not in [*names, *module.split(".")], path


def test_a_native_room_uses_only_rooms_below_it() -> None:
    rank = {name: index for index, names in enumerate(LAYERS) for name in names}
    for manifest in (ROOT / "native").glob("*/Cargo.toml"):
        data = tomllib.loads(manifest.read_text())
        name = data["package"]["name"]
        if name in rank:
            used = [dependency for dependency in data.get("dependencies", {}) if dependency in rank]
            assert all(rank[other] < rank[name] for other in used), (name, used)
        assert ("pyo3" in data.get("dependencies", {})) == (name == "edgeproxy-native")


def test_unsafe_code_stays_in_net_and_ring_and_says_why() -> None:
    for path in (ROOT / "native").rglob("*.rs"):
        text = path.read_text()
        if re.search(r"\bunsafe\b(?!_code)", re.sub(r"//.*", "", text)):
            assert path.is_relative_to(ROOT / "native" / "net") or path == ROOT / "native/ring/src/shared.rs", path
            assert text.count("// SAFETY:") >= len(re.findall(r"unsafe (?:\{|impl)", text)), path
    for room in ("syntax", "proto", "guard", "routing", "edge", "py"):
        assert "#![forbid(unsafe_code)]" in (ROOT / "native" / room / "src" / "lib.rs").read_text()
    assert "#![deny(unsafe_code)]" in (ROOT / "native/ring/src/lib.rs").read_text()


def test_the_generated_pages_are_those_of_the_source() -> None:
    made = subprocess.run([ROOT / ".venv/bin/python", ROOT / "ci/configuration_page.py"], capture_output=True, text=True, check=True).stdout
    assert (ROOT / "docs" / "configuration.md").read_text() == made
    made = subprocess.run([ROOT / ".venv/bin/python", ROOT / "ci/events_page.py"], capture_output=True, text=True, check=True).stdout
    assert (ROOT / "docs" / "events.md").read_text() == made


def test_every_counter_is_explained() -> None:
    text = (ROOT / "native/edge/src/counters.rs").read_text()
    names = re.findall(r"^    (\w+),$", text, re.MULTILINE)
    page = (ROOT / "docs" / "operations.md").read_text()
    assert names
    assert [name for name in names if f"`{name}`" not in page] == []


def test_what_may_fall_is_no_counter_for_prometheus() -> None:
    sources = (path.read_text() for path in (ROOT / "native/edge/src").rglob("*.rs"))
    present = {name for text in sources for name in re.findall(r"counters\.(\w+)\.set\(", text)}
    assert present
    assert present - GAUGES == set()


def test_no_file_holds_two_things() -> None:
    for path in [*(ROOT / "native").rglob("src/**/*.rs"), *(ROOT / "edgeproxy").rglob("*.py")]:
        limit = 800 if path.suffix == ".rs" else 500
        assert len(path.read_text().splitlines()) <= limit, path


def test_the_examples_and_the_readme_are_working_configurations(tmp_path: Path) -> None:
    readme = re.findall(r"^```toml\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert readme
    texts = [*readme, *(path.read_text() for path in (ROOT / "examples").rglob("*.toml"))]
    for module in (ROOT / "examples").rglob("*.py"):
        (tmp_path / module.name).write_text(module.read_text())
    for number, text in enumerate(texts):
        file = tmp_path / f"{number}.toml"
        file.write_text(re.sub(r'state_directory = ".*"', f'state_directory = "{tmp_path}"', text))
        done = subprocess.run([ROOT / ".venv/bin/edgeproxy", "check", file], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
