"""Tables of commands show what anybody may have sent."""

import pytest

from edgeproxy.cli.common import table


def test_texts_from_the_network_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    table(["key", "most"], [["al\x1b[31mice\n\x00@e", "1"], ["[/red]:smile: ü", "2"]])
    shown = capsys.readouterr().out.splitlines()
    assert [line.split() for line in shown] == [["key", "most"], ["al\\x1b[31mice\\n\\x00@e", "1"], ["[/red]:smile:", "ü", "2"]]
