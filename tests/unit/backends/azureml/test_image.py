"""The image of jobs, which no test can build: its pins, files and entry point against what the tests ran with."""

import ast
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from trainer.backends.azureml.snapshot import own_files

ROOT = Path(__file__).parents[4]
FOLDER = own_files() / "environment"
# azureml-mlflow's own bounds keep these below what the tests ran with; nothing of ours imports them.
HELD_BACK = {"python-dateutil", "azure-storage-blob"}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return {plain(name): version for name, _, version in (line.partition("==") for line in lines if line)}


IMAGE, TESTED = pins(FOLDER / "requirements.txt"), pins(ROOT / "constraints.txt")


def test_every_version_is_pinned_once() -> None:
    lines = [line for line in (FOLDER / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9.]+", line)] == []
    assert len(lines) == len(IMAGE)


def test_the_image_has_the_versions_that_the_tests_ran_with() -> None:
    others = {name for name in IMAGE.keys() & TESTED.keys() if IMAGE[name] != TESTED[name]}
    assert {name for name in others if not name.startswith("opentelemetry-")} == HELD_BACK


def test_everything_that_training_needs_is_in_the_image() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["local"], "azure-identity", "azureml-mlflow"]
    for requirement in map(Requirement, wanted):
        assert Version(IMAGE[plain(requirement.name)]) in requirement.specifier


@pytest.mark.parametrize("limit", ["mlflow-skinny<=3.15.0", "azure-storage-blob<=12.27.1", "pytz<=2025.2"])
def test_the_bounds_of_azureml_mlflow_are_kept(limit: str) -> None:
    requirement = Requirement(limit)
    assert Version(IMAGE[requirement.name]) in requirement.specifier


def test_the_dockerfile_pins_its_base_and_copies_what_is_there() -> None:
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    (base,) = re.findall(r"^FROM (\S+)$", text, flags=re.MULTILINE)
    assert re.fullmatch(r"nvidia/cuda:\d+\.\d+\.\d+-base-ubuntu24\.04", base)
    copied = re.findall(r"^COPY (\S+) ", text, flags=re.MULTILINE)
    assert copied == ["requirements.txt"]
    assert {path.name for path in FOLDER.iterdir()} == {"Dockerfile", *copied}


def test_the_entry_point_exists_and_takes_the_commands_options() -> None:
    job = yaml.safe_load((own_files() / "job.yml").read_text(encoding="utf-8"))
    words = job["command"].split()
    assert words[:2] == ["python", "-m"]
    assert find_spec(words[2]) is not None
    source = Path(str(find_spec(words[2]).origin)).read_text(encoding="utf-8")  # type: ignore[union-attr]
    named = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    assert {word for word in words if word.startswith("--")} <= named


def test_what_the_package_ships_of_the_folder_is_all_of_it() -> None:
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["data-files"]
    found = {path for patterns in shipped.values() for pattern in patterns for path in ROOT.glob(pattern)}
    wanted = {path for path in own_files().rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert wanted == found
