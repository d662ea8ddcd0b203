"""Reads a file into a `Config`, telling every fault at once."""

import re
import tomllib
import typing
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

import msgspec

from edgeproxy.config.faults import Faults
from edgeproxy.config.positions import KeyPath, Positions
from edgeproxy.config.root import Config
from edgeproxy.errors import ConfigError

MOST_BYTES = 8_000_000
"""Of a file that is read."""
MOST_KEY_PARTS = 100
_DEEP_KEY = re.compile(rf"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{MOST_KEY_PARTS}}}""")
"""In time that is bounded by the length of the text: no part is walked back over."""


class Loaded(msgspec.Struct, frozen=True):
    """A configuration and where it came from."""

    config: Config
    name: str
    text: str


def load(path: Path) -> Loaded:
    """Read and check the file at `path`.

    Raise `ConfigError` with one line for each fault: file, line, key, what was expected and found.
    """
    try:
        # What is no file may never end, or never begin.
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ConfigError(f"{path}: cannot be read: expected a file")
        if path.is_file() and (size := path.stat().st_size) > MOST_BYTES:
            raise ConfigError(f"{path}: cannot be read: expected {MOST_BYTES:,} bytes at most, got: {size:,}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8: {error.reason}") from error
    except ValueError as error:
        raise ConfigError(f"{str(path)!r}: cannot be read: {error}") from error
    return load_text(text, str(path))


def load_text(text: str, name: str) -> Loaded:
    """Read and check a file's text; raise as `load` does."""
    if text.startswith("\ufeff"):
        raise ConfigError(f"{name}:1: begins with a byte order mark, which TOML does not have: save it as UTF-8 without one")
    if deep := _DEEP_KEY.search(text):
        # Time and memory for such a key grow with the square of its parts.
        line = text.count("\n", 0, deep.start()) + 1
        raise ConfigError(f"{name}:{line}: not TOML that anybody would write: a key of {MOST_KEY_PARTS} parts and more")
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{name}:1: not TOML that anybody would write: brackets within brackets without end") from None
    except tomllib.TOMLDecodeError as error:
        told = re.search(r"line (\d+)", str(error))
        raise ConfigError(f"{name}:{told[1] if told else 1}: not TOML: {error}") from error
    faults = Faults(name, Positions(text))
    clean = _checked(Config, data, (), faults)
    if faults:
        raise faults.error()
    config = msgspec.convert(clean, Config, strict=True)
    config.check(faults)
    if faults:
        raise faults.error()
    return Loaded(config, name, text)


def _checked(kind: Any, data: Any, path: KeyPath, faults: Faults) -> Any:
    """Return `data` as far as it fits `kind`; what does not fit is noted."""
    # A table that may be left out is looked into like any other.
    if len(others := [one for one in typing.get_args(kind) if one is not NoneType]) == 1 and _is_struct(others[0]) and _is_optional(kind):
        kind = others[0]
    if _is_struct(kind):
        if not isinstance(data, dict):
            faults.add(path, f"expected a table, got: {data!r}")
            return {}
        return _checked_struct(kind, data, path, faults)
    if typing.get_origin(kind) is dict and isinstance(data, dict):
        value_kind = typing.get_args(kind)[1]
        return {key: _checked(value_kind, value, (*path, key), faults) for key, value in data.items()}
    if typing.get_origin(kind) is list and isinstance(data, list) and _is_struct(typing.get_args(kind)[0]):
        return [_checked(typing.get_args(kind)[0], value, (*path, str(number)), faults) for number, value in enumerate(data)]
    try:
        msgspec.convert(data, kind, strict=True)
    except msgspec.ValidationError as error:
        problem = re.sub(r" - at `.*`$", "", str(error))
        shown = "..." if "password" in path[-1] or "secret" in path[-1] else repr(data)
        choices = ", ".join(map(str, _choices(kind)))
        faults.add(path, f"{problem[0].lower()}{problem[1:]}, got: {shown}", f"valid here: {choices}" if choices else "")
    return data


def _choices(kind: Any) -> list[object]:
    """Return the values of every `Literal` in a type."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return list(arguments)
    return [choice for argument in arguments for choice in _choices(argument)]


def _is_optional(kind: Any) -> bool:
    return isinstance(kind, UnionType) and NoneType in typing.get_args(kind)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _checked_struct(kind: type[msgspec.Struct], data: dict[str, Any], path: KeyPath, faults: Faults) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    required = {field.name for field in msgspec.structs.fields(kind) if field.required}
    clean = {}
    for key, value in data.items():
        if key in hints:
            clean[key] = _checked(hints[key], value, (*path, key), faults)
        else:
            faults.unknown((*path, key), hints)
    for key in sorted(required - data.keys()):
        faults.add((*path, key), "missing")
    return clean
