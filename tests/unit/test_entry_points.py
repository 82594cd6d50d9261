"""Entry points: where the commands stand, and Ctrl-C while they load."""

import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]


class Interrupted:
    """An import of the commands during which Ctrl-C is pressed."""

    @staticmethod
    def find_spec(name: str, *rest: Any) -> None:
        if name == "trainer.cli.main":
            raise KeyboardInterrupt


@pytest.mark.parametrize("program", ["train", "trainer"])
def test_an_interrupt_while_the_commands_load_ends_without_a_traceback(program, monkeypatch, capsys):
    module, _, function = SCRIPTS[program].partition(":")
    start = getattr(import_module(module), function)
    monkeypatch.delitem(sys.modules, "trainer.cli.main", raising=False)
    monkeypatch.delattr("trainer.cli.main", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted, *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        start()
    assert ended.value.code == 130
    assert capsys.readouterr() == ("", "\n")
