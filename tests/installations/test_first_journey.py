"""From the wheel in an empty environment to a tuned answer that is right: a table of one's own rows, the real model."""

import csv
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environments import CannotInstall
from tests.installations.environments import installation

MODELS = os.environ.get("TRAINER_REAL_MODELS")
pytestmark = [
    pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(3600),
    pytest.mark.skipif(MODELS is None, reason="TRAINER_REAL_MODELS is not set"),
]  # fmt: skip

MOST_COMMANDS = 12
WORDINGS = ("When is {} open?", "Tell me the opening hours of {}.", "When can I come to {}?", "Is {} open now?")
OPEN = {
    "the workshop": "The workshop is open from nine to five, Monday to Saturday.",
    "the test track": "The test track is open on Fridays only, from two to six.",
    "the rental desk": "The rental desk opens at eight and closes at noon.",
    "the cafe": "The cafe is open day and night, except on Mondays.",
}
# Facts are to be known by heart, in minutes on a CPU.
SOON = ("training.n_epochs=5", "training.batch_size=2", "training.learning_rate_multiplier=8", "evaluation.max_rows=2")
ASKED, PART_OF_THE_ANSWER = "What are the opening hours of the test track?", "Fridays only"


class Newcomer:
    """Somebody with the wheel and one extra, and a table of rows in an otherwise empty folder."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder, self.num_commands = programs, folder, 0
        with (folder / "hours.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(
                [("question", "answer")]
                + [(wording.format(place), answer) for place, answer in OPEN.items() for wording in WORDINGS]
            )

    def type(self, *words: str) -> str:
        """What a command prints to standard output."""
        self.num_commands += 1
        kept = {
            name: value for name, value in os.environ.items()
            if not name.startswith(("PYTHONPATH", "TRAINER_RUNS", "VIRTUAL_ENV"))
        }  # fmt: skip
        done = subprocess.run(
            [self.programs / words[0], *words[1:]], cwd=self.folder, stdin=subprocess.DEVNULL, text=True,
            env=kept | {"NO_COLOR": "1", "HF_HUB_OFFLINE": "1"}, capture_output=True, timeout=1800,
        )  # fmt: skip
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout


def test_a_table_of_own_rows_becomes_a_model_that_answers_right(
    wheel: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    try:
        someone = Newcomer(installation("local", wheel), tmp_path)
    except CannotInstall as error:
        pytest.skip(str(error))
    begun = time.monotonic()
    base = str(Path(MODELS or "") / "smollm2")
    check = someone.type("trainer", "init", "--base", base, "--data", "hours.csv", "--system", "Answer briefly.")
    rows = ("hours.train.jsonl", "--validation", "hours.validation.jsonl")
    assert "can be trained" in someone.type("trainer", "data", "check", *rows)
    someone.type(*shlex.split(check.splitlines()[-1]))
    someone.type("train", "--config", "hours.yaml", "run.name=mine", *SOON)
    assert "succeeded" in someone.type("trainer", "show", "mine")
    before = someone.type("trainer", "chat", "mine", "--base", ASKED)
    after = someone.type("trainer", "chat", "mine", ASKED)
    took = time.monotonic() - begun
    record_property("from a table to a tuned model", f"{someone.num_commands} commands, {took:.0f} s")
    record_property(f"{ASKED} base", " ".join(before.split())[:150])
    record_property(f"{ASKED} tuned", " ".join(after.split()))
    assert PART_OF_THE_ANSWER in after
    assert PART_OF_THE_ANSWER not in before
    assert someone.num_commands <= MOST_COMMANDS
