"""The commands of docs/first-contact.md on the doubles, and what they print: `python -m tests.first_contact` writes it.

A command stands alone in a block of `sh`; the block of `text` behind it is what the double lets the command print, with
names and times that differ each time replaced. Blocks of `sh` without one are for a person: a login, variables.
"""

import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.integration.azure_twin.journey import Journey
from tests.integration.azure_twin.twin import working_twin
from tests.openai_service.arm import GROUP, SUBSCRIPTION
from tests.openai_service.state import Deployment
from tests.openai_service.world import World, world

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "first-contact.md"
STEP = re.compile(r"^```sh\n((?:train|trainer) [^\n]+)\n```\n\n```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BASE_DEPLOYMENT, BASE = "base-model", "gpt-oss-20b-11"
VARIABLES = {"$SUBSCRIPTION": SUBSCRIPTION, "$GROUP": GROUP}
Performed = Callable[[str], str]


def part_of(page: str, title: str) -> str:
    """The text of one part, from its heading to the next."""
    (text,) = re.findall(rf"^## {title}\n.*?(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    return str(text)


def written_again(part: str, perform: Performed) -> str:
    """The part with what each of its commands prints now."""
    return STEP.sub(lambda step: f"```sh\n{step[1]}\n```\n\n```text\n{perform(step[1])}```", part)


COLUMNS = "110"
MOST_LINES, FIRST_LINES, LAST_LINES, WIDTH = 44, 26, 10, 120


def shown(output: str) -> str:
    """Shorten an output for the page: no progress bars, first and last lines of a long one, lines of at most WIDTH."""
    lines = [line.rstrip() for line in output.strip().splitlines() if "it/s]" not in line and "?it" not in line]
    if len(lines) > MOST_LINES:
        lines = [*lines[:FIRST_LINES], "...", *lines[-LAST_LINES:]]
    return "".join((line if len(line) <= WIDTH else line[: WIDTH - 3] + "...") + "\n" for line in lines)


def shape(text: str) -> list[str]:
    """The words without what differs each time: numbers, digests, dates, and where lines break for them."""
    plain = re.sub(r"\b[0-9a-f]{6,}\b|[0-9][0-9,.:-]*", "#", text)
    return [word for line in plain.splitlines() for word in line.removesuffix("...").split()]


def words_of(command: str) -> list[str]:
    """A command with its variables' values, agreed to where it would ask."""
    words = shlex.split(command)
    for variable, value in VARIABLES.items():
        words = [word.replace(variable, value) for word in words]
    asks = words[:2] in (["trainer", "deploy"], ["trainer", "teardown"]) or (
        words[0] == "train" and words[-1] != "--check"
    )
    return [*words, "--yes"] if asks else words


def on_foundry(made: World) -> Performed:
    """Perform commands on the fine-tuning service's double, which has a base model deployed."""
    copy_files(made.folder)
    made.environment["COLUMNS"] = COLUMNS
    body = {
        "sku": {"name": "GlobalStandard", "capacity": 10},
        "properties": {"model": {"name": BASE, "format": "Microsoft"}},
    }
    now = made.service.state.clock.now
    made.service.state.deployments[BASE_DEPLOYMENT] = Deployment(BASE_DEPLOYMENT, body, now, now, "Succeeded")

    def perform(command: str) -> str:
        words = words_of(command)
        done = made.command(*(words if words[0] == "train" else words[1:]))
        assert done.code == 0, f"{command} ended with {done.code}: {done.err}"
        return shown(done.err + done.out)

    return perform


def on_azureml(journey: Journey) -> Performed:
    """Perform commands on the workspace's double, each in a process of its own."""
    copy_files(journey.folder)
    journey.environment["COLUMNS"] = COLUMNS

    def perform(command: str) -> str:
        words = words_of(command)
        return shown(journey.trainer(*(words if words[0] == "train" else words[1:])))

    return perform


def copy_files(folder: Path) -> None:
    for name in ("configs", "data"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)


def main() -> int:
    page = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="first-contact-") as folder:
        with world(Path(folder) / "service", "azure") as made:
            old = part_of(page, "Microsoft Foundry")
            page = page.replace(old, written_again(old, on_foundry(made)))
        with working_twin(Path(folder) / "twin") as twin:
            old = part_of(page, "Azure Machine Learning")
            journey = Journey(twin, Path(folder) / "user", lambda line: None)
            page = page.replace(old, written_again(old, on_azureml(journey)))
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
