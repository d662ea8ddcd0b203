"""The files that were applied, the last ten of them, so that one can go back."""

from pathlib import Path

import msgspec

from edgeproxy.errors import ConfigError

KEPT = 10
"""Different files."""
_MOST_AGAIN = 2 * KEPT
"""Older entries of the same files: going back and forth applies them again."""


class Revision(msgspec.Struct, frozen=True):
    """One applied file."""

    number: int
    name: str
    """The path that it was read from."""
    text: str
    applied_at: str
    """RFC 3339, UTC."""
    policy_files: list[str] = []
    """Files of policy modules that were new with it; their text is not kept."""
    of: int = 0
    """The earlier revision that a rollback applied again; 0 for a file of its own."""


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

    def add(self, name: str, text: str, applied_at: str, policy_files: list[str], of: int = 0) -> int:
        """Keep an applied file, unless it is the newest one as it stands, and return its number; raise `OSError` where it cannot be written."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = self.all()
        if kept and (kept[-1].name, kept[-1].text) == (name, text) and not policy_files and not of:
            # A restart, or a reload that changes nothing, must not push out what one could go back to.
            return kept[-1].number
        revision = Revision(kept[-1].number + 1 if kept else 1, name, text, applied_at, policy_files, of)
        # Renamed into place: a full disk leaves no half file. The file may hold secrets.
        path = self._folder / f"{revision.number}.json"
        part = path.with_suffix(".part")
        part.touch(mode=0o600)
        part.write_bytes(msgspec.json.encode(revision))
        part.rename(path)
        texts, again = {text}, 0
        for old in reversed(kept):
            is_again = old.text in texts
            again += is_again
            texts.add(old.text)
            if (is_again and again > _MOST_AGAIN) or len(texts) > KEPT:
                (self._folder / f"{old.number}.json").unlink(missing_ok=True)
        return revision.number

    def wanted(self, number: int, text: str) -> Revision:
        """Return revision `number`, or for 0 the one that served before `text` does; raise `ConfigError` where there is none."""
        kept = self.all()
        if number:
            found = next((revision for revision in kept if revision.number == number), None)
            if found is None:
                raise ConfigError(f"no revision {number}; there are {', '.join(str(revision.number) for revision in kept) or 'none'}")
            return found
        newest = kept[-1] if kept else None
        # What serves may not have been kept, on a full disk: then the newest is the one before.
        serving = newest if newest and newest.text == text else None
        at = (serving.of or serving.number) if serving else None
        for revision in reversed(kept):
            if at is not None and revision.number >= at:
                continue
            if revision.text != text:
                return revision
            if serving and serving.policy_files:
                files = ", ".join(serving.policy_files)
                raise ConfigError(
                    f"the last reload changed policy modules only, whose text is not kept here: put {files} back and reload, "
                    "or name the revision to go back to"
                )
        raise ConfigError("nothing to roll back to: no other file was applied before this one")
