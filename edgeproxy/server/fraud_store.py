"""Fraud figures and bars over a restart: written to the state directory once a minute and at the end."""

import asyncio
import time
from pathlib import Path

import msgspec

from edgeproxy import _native
from edgeproxy.server.kernel_bans import Log

ROUND_SECONDS = 60


class _File(msgspec.Struct):
    at: float
    kept: bytes


class FraudStore:
    """Those of one state directory."""

    def __init__(self, directory: Path, log: Log) -> None:
        self._file = directory / "fraud.msgpack"
        self._log = log
        self.kept_at = 0.0
        """When what was taken over was kept, seconds since 1970; 0 where nothing was."""

    def restore(self, engine: _native.Engine) -> None:
        """Take over what an earlier process kept."""
        try:
            kept = msgspec.msgpack.decode(self._file.read_bytes(), type=_File)
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError) as error:
            self._log("fraud figures cannot be read, they begin anew", level="error", values={"error": f"{self._file}: {error}"})
            return
        self.kept_at = kept.at
        ago = max(0, round(time.time() - kept.at))
        if kept.kept and not engine.restore_fraud(kept.kept, ago):
            self._log("fraud figures are not taken over", level="warning", values={"file": str(self._file)})

    def write(self, engine: _native.Engine) -> None:
        """Keep them as they are now."""
        kept = engine.fraud_kept()
        if not kept:
            return
        staged = self._file.with_suffix(".new")
        try:
            staged.write_bytes(msgspec.msgpack.encode(_File(time.time(), kept)))
            staged.replace(self._file)
        except OSError as error:
            self._log("fraud figures cannot be kept", level="error", values={"error": str(error)})

    async def run(self, engine: _native.Engine) -> None:
        """Keep them again and again."""
        while True:
            await asyncio.sleep(ROUND_SECONDS)
            await asyncio.to_thread(self.write, engine)
