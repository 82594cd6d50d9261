"""The tables of docs/preflight.md, as `train --check` prints them for workspaces of the twin.

`python -m tests.preflight_page` writes them again; a test compares their words.
"""

import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.integration.azure_twin.commands import World
from tests.integration.azure_twin.journey import CLUSTER, MACHINE
from tests.integration.azure_twin.twin import Twin, twin
from tests.integration.azure_twin.workspaces import hub, isolated, refusing

PAGE = Path(__file__).parents[1] / "docs" / "preflight.md"
BLOCK = re.compile(r"^```text\n.*?^```$", re.DOTALL | re.MULTILINE)
OUTCOMES = ("ok ", "problem ", "not looked at ", "error:")


@dataclass(frozen=True)
class Shown:
    """A workspace on the page, and the settings with which it is checked."""

    title: str
    change: Callable[[Twin], None]
    settings: tuple[str, ...] = ()


def _hub_behind_its_network(twin: Twin) -> None:
    hub(twin)
    isolated("AllowOnlyApprovedOutbound", "files.example.com", builds=CLUSTER)(twin)


def _isolated_without_a_role(twin: Twin) -> None:
    twin.arm.workspace["kind"] = "Project"
    isolated("AllowOnlyApprovedOutbound", "huggingface.co", builds=CLUSTER)(twin)
    refusing("AuthorizationPermissionMismatch")(twin)


WORKSPACES = (
    Shown("A plain workspace", lambda twin: None),
    Shown("A hub with a managed network", _hub_behind_its_network, ("model.base=someone/Model-1B",)),
    Shown("An isolated project that keeps no keys", _isolated_without_a_role, ("azureml.identity=user",)),
)


def written_again(page: str, world: World) -> str:
    """The page with what the check prints now, a table for each workspace."""
    tables = iter([table(world, shown) for shown in WORKSPACES])
    return BLOCK.sub(lambda block: f"```text\n{next(tables)}```", page)


def table(world: World, shown: Shown) -> str:
    """The checks and, where the run is refused, the errors below them."""
    world.twin.start_over()
    world.twin.arm.add_compute(CLUSTER, MACHINE)
    shown.change(world.twin)
    done = world.command("train", "--config", "azure.yaml", "--check", *shown.settings)
    kept, found = False, ""
    for line in done.err.splitlines():
        kept = line.startswith(OUTCOMES) or (kept and line.startswith(" "))  # a long line goes on below
        found += f"{line.rstrip()}\n" if kept else ""
    return found


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="preflight-") as folder, twin(Path(folder) / "twin") as made:
        page = written_again(PAGE.read_text(encoding="utf-8"), World(made, Path(folder) / "user"))
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
