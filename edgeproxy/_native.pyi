"""The whole compiled surface of edgeproxy."""

from typing import final

__all__ = ["Engine", "check_document", "drain_log", "install_logger", "set_log_level"]

@final
class Engine:
    """A running proxy: constructing it binds every address and starts its threads."""

    def __new__(cls, document: bytes) -> Engine:
        """Start from a MessagePack document.

        Raises `ConfigError` for a value that means nothing, `BindError` for an address that cannot be bound,
        `EngineError` for anything else that the system refuses. Nothing is left running then.
        """

    def drain(self) -> None:
        """Refuse new requests from now on; what is under way goes on."""

    def is_drained(self) -> bool:
        """Whether a drain has come to its end: nothing is under way that a stop would cut; may lag by a second."""

    @property
    def drain_seconds(self) -> int:
        """How long the configuration lets a drain last."""

    def stop(self) -> None:
        """End all threads and write the records that wait; a second call does nothing."""

    def counters(self) -> dict[str, int]:
        """Return every counter, summed over the workers."""

def check_document(document: bytes) -> None:
    """Check a document as far as that needs no socket; raise as `Engine` does."""

def install_logger() -> None:
    """Take over the logging of native threads; a second call changes nothing."""

def set_log_level(level: str) -> None:
    """Set the least important level logged: error, warning, info or debug; raise `ValueError` for another."""

def drain_log() -> tuple[list[tuple[int, str, str, str]], int]:
    """Take the lines that wait (wall clock in microseconds, level, target, message) and the number of lines lost."""
