"""Which applied file one goes back to."""

from pathlib import Path

import pytest

from edgeproxy.errors import ConfigError
from edgeproxy.server.revisions import KEPT, Revisions


def added(revisions: Revisions, text: str, *, files: list[str] | None = None, of: int = 0) -> int:
    return revisions.add("edge.toml", text, "2026-01-01T00:00:00+00:00", files or [], of)


def back(revisions: Revisions, text: str) -> str:
    """Roll back from `text` and return what serves then."""
    wanted = revisions.wanted(0, text)
    added(revisions, wanted.text, of=wanted.of or wanted.number)
    return wanted.text


def test_each_rollback_goes_further_back_and_a_new_file_begins_from_there(tmp_path: Path) -> None:
    revisions = Revisions(tmp_path)
    for text in "abcd":
        added(revisions, text)
    assert [back(revisions, "d"), back(revisions, "c"), back(revisions, "b")] == ["c", "b", "a"]
    with pytest.raises(ConfigError, match="nothing to roll back to"):
        revisions.wanted(0, "a")
    added(revisions, "e")
    assert [back(revisions, "e"), revisions.wanted(3, "a").text] == ["a", "c"]
    with pytest.raises(ConfigError, match="no revision 99; there are 1, 2, 3"):
        revisions.wanted(99, "a")


def test_what_changes_nothing_pushes_nothing_out(tmp_path: Path) -> None:
    revisions = Revisions(tmp_path)
    assert (added(revisions, "a"), added(revisions, "b")) == (1, 2)
    assert [added(revisions, "b") for _ in range(20)] == [2] * 20
    # A policy that is worked on is reloaded often, and so is going back and forth.
    for _ in range(100):
        added(revisions, "b", files=["policy.py"])
    assert {revision.text for revision in revisions.all()} <= {"a", "b"}
    for number in range(30):
        added(revisions, f"text {number}")
    assert len(revisions.all()) == KEPT
    # Three files round and round leave the seven others where they are.
    for number in range(90):
        added(revisions, f"text {27 + number % 3}")
    assert len({revision.text for revision in revisions.all()}) == KEPT
    assert len(revisions.all()) <= 3 * KEPT
    assert revisions.wanted(0, "text 29").text == "text 28"


def test_a_reload_of_modules_alone_is_not_undone_by_something_else(tmp_path: Path) -> None:
    revisions = Revisions(tmp_path)
    added(revisions, "a")
    added(revisions, "b")
    added(revisions, "b", files=["/etc/policy.py"])
    with pytest.raises(ConfigError, match=r"put /etc/policy\.py back and reload"):
        revisions.wanted(0, "b")


def test_what_serves_and_could_not_be_kept_goes_back_to_the_newest(tmp_path: Path) -> None:
    revisions = Revisions(tmp_path)
    added(revisions, "a")
    (tmp_path / "2.json").write_text("no revision")
    assert revisions.wanted(0, "b").text == "a"
    with pytest.raises(ConfigError, match="there are none"):
        Revisions(tmp_path / "nowhere").wanted(1, "b")
