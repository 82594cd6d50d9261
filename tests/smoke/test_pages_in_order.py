"""README's and the guide's commands, typed in order in a fresh copy of the repository: each does what the page says."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.unit.test_readme import blocks, section, text_of
from trainer.runs import Run
from trainer.runs.lifecycle import is_worked_on

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

# The demo's training is shortened: what is shown here is that the commands work, one after the other.
SHORT = {"n_epochs": 2, "save_steps": 15}
LAST_STEP = 30
SECONDS = 900
ANSWERS = "Question,Reply\n" + "".join(f"What is part {n}?,Part {n} holds part {n + 1}.\n" for n in range(40))
# What no test can do, or what others do: a model of the hub, an account, other machines, packages, an environment.
ELSEWHERE = (
    "make ", "accelerate ", "vllm ", "pip ", "git ", "cd ", "train --config configs/smollm.yaml",
    "train --config configs/azure", "trainer serve first --engine vllm",
    "trainer init --base HuggingFaceTB/SmolLM2-135M-Instruct", "trainer evaluate first --tasks",
    "trainer compare first --judge",
)  # fmt: skip
NEVER_ENDS = ("trainer serve",)  # until Ctrl-C, once it is ready
ENDS_WITH = {"trainer data check data/broken.jsonl": 2}  # its rows are broken on purpose, as the page says


class Reader:
    """Somebody who types what a page says, in a folder with a copy of the repository's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("configs", "data"):
            shutil.copytree(REPOSITORY / name, folder / name)
        tiny = folder / "configs" / "tiny.yaml"
        config = yaml.safe_load(tiny.read_text(encoding="utf-8"))
        config["training"] |= SHORT
        config["evaluation"] = {"max_new_tokens": 8}
        tiny.write_text(yaml.safe_dump(config), encoding="utf-8")
        (folder / "answers.csv").write_text(ANSWERS, encoding="utf-8")

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRAINER_", "AZURE_"))}
        return kept | {"NO_COLOR": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY / "src")}

    def type(self, line: str) -> None:
        """Run a command of a page; a run's last step is another one here than there."""
        words = shlex.split(re.sub(r"@\d+", f"@{LAST_STEP}", line), comments=True)
        program = words if words[0] == "train" else words[1:]
        agreed = ["--yes"] if line.startswith("trainer delete") else []  # nobody is there to be asked
        command = [sys.executable, "-m", "trainer", *program, *agreed]
        if line.startswith(NEVER_ENDS):
            self._until_ready(command)
            return
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=SECONDS,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, (line, done.stderr)
        self._wait_as_a_person_would(words)
        assert done.returncode == ENDS_WITH.get(line, 0), (line, done.stdout[-500:], done.stderr[-1500:])

    def _wait_as_a_person_would(self, words: list[str]) -> None:
        """For what a command asks of a run in the background."""
        name = next((word.removeprefix("run.name=") for word in words if word.startswith("run.name=")), words[-1])
        if "--detach" in words:
            name, wanted = (name if words[0] == "train" else words[2]), "running"
        elif words[1] in ("pause", "cancel"):
            wanted = "paused" if words[1] == "pause" else "cancelled"
        else:
            return
        run, until = Run(self.folder / "runs" / name), time.monotonic() + SECONDS
        while run.state != wanted or (wanted != "running" and is_worked_on(run)):
            assert time.monotonic() < until, (words, run.state)
            time.sleep(0.2)

    def _until_ready(self, command: list[str]) -> None:
        pipes = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        command = [*command, "--port", "0"]
        with subprocess.Popen(command, cwd=self.folder, env=self.environment, text=True, **pipes) as server:
            assert server.stderr is not None
            said = []
            for line in server.stderr:
                said.append(line)
                if "/v1" in line:
                    break
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=60)
        assert "/v1" in said[-1], said


def typed(text: str) -> Iterator[str]:
    """The commands of a page's shell blocks, in order, but those that are tried elsewhere."""
    for block in blocks(text, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip() and not line.startswith(ELSEWHERE):
                yield line


@pytest.mark.parametrize(
    ("page", "text"),
    [("README.md", section("The journey of a fine-tune")), ("docs/guide.md", text_of("docs/guide.md"))],
    ids=["README.md", "docs/guide.md"],
)
def test_the_commands_of_a_page_run_in_order_in_a_fresh_folder(page: str, text: str, tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    lines = list(typed(text))
    assert len(lines) >= 8, page
    for line in lines:
        assert line.startswith(("train ", "trainer ")), line
        reader.type(line)


def test_every_command_that_is_tried_elsewhere_stands_in_a_page() -> None:
    lines = [line for page in ("README.md", "docs/guide.md") for block in blocks(text_of(page), "sh")
             for line in block.splitlines()]  # fmt: skip
    assert [start for start in ELSEWHERE if not any(line.startswith(start) for line in lines)] == []
