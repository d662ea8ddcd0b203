"""The files that were applied, the last ten of them, so that one can go back."""

from pathlib import Path

import msgspec

KEPT = 10


class Revision(msgspec.Struct, frozen=True):
    """One applied file."""

    number: int
    name: str
    """The path that it was read from."""
    text: str
    applied_at: str
    """RFC 3339, UTC."""


class Revisions:
    """Revisions in a folder of the state directory, one file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> list[Revision]:
        """Return what is kept, the oldest first; what cannot be read is left out."""
        found = []
        for path in self._folder.glob("*.json"):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Revision))
            except (OSError, msgspec.MsgspecError):
                continue
        return sorted(found, key=lambda revision: revision.number)

    def add(self, name: str, text: str, applied_at: str) -> int:
        """Keep an applied file and return its number; raise `OSError` where it cannot be written."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = self.all()
        revision = Revision(kept[-1].number + 1 if kept else 1, name, text, applied_at)
        # Renamed into place: a full disk leaves no half file. The file may hold secrets.
        path = self._folder / f"{revision.number}.json"
        part = path.with_suffix(".part")
        part.touch(mode=0o600)
        part.write_bytes(msgspec.json.encode(revision))
        part.rename(path)
        for old in kept[: max(0, len(kept) + 1 - KEPT)]:
            (self._folder / f"{old.number}.json").unlink(missing_ok=True)
        return revision.number
