"""Config fixtures: a file, a line of dashes, and the exact error or a part of the table that it makes."""

import json
import os
import time
from pathlib import Path

import msgspec
import pytest

from edgeproxy.config import Config, load, load_text, to_document
from edgeproxy.config.address import MatchRule
from edgeproxy.config.registrar import networks
from edgeproxy.errors import ConfigError

FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("*.txt"))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_fixture(path: Path) -> None:
    toml, expected = path.read_text().split("\n-----\n")
    if expected.startswith("{"):
        table = msgspec.to_builtins(load_text(toml, "edge.toml").config)
        for key, value in json.loads(expected).items():
            found = table
            for part in key.split("."):
                found = found[part]
            assert found == value, key
    else:
        with pytest.raises(ConfigError) as caught:
            load_text(toml, "edge.toml")
        assert str(caught.value) == expected.rstrip("\n")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\xef\xbb\xbf[install]\n", ":1: begins with a byte order mark"),
        (b"[install]\n# caf\xe9\n", ":2: not UTF-8: invalid continuation byte"),
        (b"x = " + b"[" * 5_000 + b"]" * 5_000, ":1: not TOML that anybody would write"),
        (b"[install]\r\nnode = \r\n", ":2: not TOML"),
    ],
)
def test_what_is_no_text_is_told_with_its_line(data: bytes, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "edge.toml"
    file.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}{problem}")


def test_every_field_crosses() -> None:
    """What Python has, the native side must read: it refuses what it does not know and what is missing."""
    from edgeproxy import _native  # noqa: PLC0415

    text = (
        '[install]\n[install.listener.a]\naddress = "udp:127.0.0.1:5060"\n[peer.core]\nkind = "core"\n'
        'match = ["10.0.0.0/8", "*;listener=a", "[2001:db8::1]:5060;transport=tcp"]\nto = ["sip:10.0.0.1"]\n'
    )
    document = to_document(load_text(text, "edge.toml").config)
    _native.check_document(document)
    table = msgspec.msgpack.decode(document)
    for part in ("install", "routing"):
        for key in table[part]:
            without = {**table, part: {name: value for name, value in table[part].items() if name != key}}
            with pytest.raises(Exception, match=f"missing field `{key}`"):
                _native.check_document(msgspec.msgpack.encode(without))
        more = {**table, part: {**table[part], "surplus": 1}}
        with pytest.raises(Exception, match="unknown field `surplus`"):
            _native.check_document(msgspec.msgpack.encode(more))


def test_networks_of_mapped_addresses_are_those_of_ipv4() -> None:
    assert networks(["::ffff:198.51.100.0/120", "::ffff:127.0.0.1", "2001:db8::/32"]) == [
        ("198.51.100.0", 24),
        ("127.0.0.1", 32),
        ("2001:db8::", 32),
    ]
    for text, place in (("::ffff:192.0.2.9", ("192.0.2.9", 32, 0)), ("[::ffff:192.0.2.9]:5070", ("192.0.2.9", 32, 5070))):
        rule = MatchRule.parse(text)
        assert (rule.network, rule.prefix, rule.port) == place


def test_defaults_are_within_their_own_bounds() -> None:
    text = '[install.listener.a]\naddress = "udp:127.0.0.1:5060"\n'
    config = load_text(text, "edge.toml").config
    assert msgspec.convert(msgspec.to_builtins(config), Config) == config


def test_as_many_ports_are_ready_as_a_call_with_all_its_streams_needs() -> None:
    toml = '[install]\nmedia_ready = 1\n[install.listener.a]\naddress = "udp:127.0.0.1:5060"\n[media]\nstreams = 5\n'
    assert msgspec.msgpack.decode(to_document(load_text(toml, "edge.toml").config))["install"]["media"]["ready"] == 10


def test_a_key_without_end_is_refused_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    for text in ("a." * 100_000 + "a = 1", "[" + "a . " * 100_000 + "a]", '\n"x".' + "'y'." * 100_000 + "z = 1"):
        with pytest.raises(ConfigError, match=r"^edge.toml:[12]: not TOML that anybody would write: a key of 100 parts and more$"):
            load_text(text, "edge.toml")
    for text in ("a" * 1_000_000, '"' + "a." * 400_000, "-" * 500_000 + "."):
        with pytest.raises(ConfigError, match="not TOML"):
            load_text(text, "edge.toml")
    assert time.monotonic() - began < 5


def test_what_is_no_file_or_too_large_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "large").open("wb") as large:
        large.truncate(8_000_001)
    for name, problem in (
        (f"{tmp_path}/fifo", "expected a file"),
        ("/dev/zero", "expected a file"),
        (f"{tmp_path}/large", "expected 8,000,000 bytes at most, got: 8,000,001"),
        (str(tmp_path), "Is a directory"),
        ("a\0b", "embedded null byte"),
    ):
        with pytest.raises(ConfigError, match=f"cannot be read: {problem}"):
            load(Path(name))
