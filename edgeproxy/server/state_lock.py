"""One proxy at a time serves from a state directory."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeproxy.errors import ConfigError


@contextmanager
def held_alone(directory: Path) -> Iterator[None]:
    """Hold a state directory for as long as the context lasts; raise `ConfigError` where another proxy does, or it cannot be written.

    One that is made for it, and that nothing came into, goes again.
    """
    file, is_new = directory / "control.lock", not directory.exists()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = file.open("w")
    except OSError as error:
        raise ConfigError(f"install.state_directory: {error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"install.state_directory: another edgeproxy serves from {directory}") from None
        try:
            yield
        finally:
            if is_new and list(directory.iterdir()) == [file]:
                file.unlink()
                directory.rmdir()
