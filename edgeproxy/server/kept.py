"""A small file of the state directory that is read at the start and written whole."""

import contextlib
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from edgeproxy.errors import StorageError

T = TypeVar("T")


class Kept(Generic[T]):
    """What is kept in `file` as JSON of a type."""

    def __init__(self, file: Path, kind: Any, otherwise: T) -> None:
        self._file = file
        self.value: T = otherwise
        self.problem = ""
        """Why what was kept could not be read; empty where it could."""
        try:
            self.value = msgspec.json.decode(file.read_bytes(), type=kind)
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError) as error:
            self.problem = f"{file}: {error}"
            with contextlib.suppress(OSError):
                # The next write would go over it.
                file.replace(file.with_suffix(".unreadable"))

    def write(self, value: T, what: str) -> None:
        """Keep another value; raise `StorageError` where it cannot be written. `what` says what was done nevertheless."""
        self.value = value
        staged = self._file.with_suffix(".new")
        try:
            staged.write_bytes(msgspec.json.encode(value))
            staged.replace(self._file)
        except OSError as error:
            raise StorageError(f"{what}, but a restart will not know of it: {error}") from error
