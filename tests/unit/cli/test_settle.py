"""A contradiction is settled by a person at a terminal, or by the setting that it names."""

import io

import pytest

from trainer.cli.backends import settle
from trainer.errors import ConfigError

DOUBTS = ("m trained as Standard: the table has it; the service has not; set openai.trust to table or to service",)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_is_asked_where_nothing_contradicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(""))
    settle(())


def test_a_person_settles_it_with_a_yes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    settle(DOUBTS)
    assert "submit it all the same?" in capsys.readouterr().err


def test_anything_else_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    with pytest.raises(ConfigError, match="nothing was done: it was not agreed to"):
        settle(DOUBTS)


def test_without_a_terminal_each_doubt_is_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(ConfigError) as refused:
        settle(DOUBTS)
    assert refused.value.problems == DOUBTS
