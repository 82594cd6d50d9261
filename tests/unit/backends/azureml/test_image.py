"""The image of jobs, which no test can build: its pins, files and entry point against what the tests ran with."""

import ast
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from trainer.backends.azureml.image import TorchBuild, builds, default_build
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


SERVING = own_files() / "serving"
BUILDS = {build.name: FOLDER / f"torch-{build.name}.txt" for build in builds()}
TORCH = {name: pins(path) for name, path in BUILDS.items()}
IMAGE = pins(FOLDER / "requirements.txt") | {
    name: version.partition("+")[0] for name, version in TORCH["cu126"].items()
}
TESTED = pins(ROOT / "constraints.txt")


@pytest.mark.parametrize("path", [FOLDER / "requirements.txt", SERVING / "requirements.txt", *BUILDS.values()])
def test_every_version_is_pinned_once(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9.+]+", line)] == []
    assert len(lines) == len(pins(path))


@pytest.mark.parametrize("folder", [FOLDER, SERVING])
@pytest.mark.parametrize("build", BUILDS)
def test_every_package_that_a_package_of_an_image_needs_is_pinned(folder: Path, build: str) -> None:
    """As far as the packages that run the tests tell: what is left out would come in another version each time."""
    image = pins(folder / "requirements.txt") | TORCH[build]
    context = {"python_version": "3.12", "python_full_version": "3.12.3", "sys_platform": "linux", "extra": ""}
    unmet = []
    for name, version in image.items():
        with contextlib.suppress(metadata.PackageNotFoundError):
            if Version(metadata.version(name)).public == Version(version).public:
                needed = map(Requirement, metadata.requires(name) or [])
                unmet += [f"{name}: {one}" for one in needed if one.marker is None or one.marker.evaluate(context)
                          if Version(image.get(plain(one.name), "0")) not in one.specifier]  # fmt: skip
    assert unmet == []


@pytest.mark.parametrize("build", BUILDS)
def test_a_build_brings_its_own_cuda(build: str) -> None:
    """Of one major version, which torch's build is named after; no other list has a part of it."""
    own, major = TORCH[build], build.removeprefix("cu")[:2]
    assert own["torch"] == f"{TESTED['torch']}+{build}"
    assert own["cuda-toolkit"].startswith(f"{major}.{build[-1]}")
    assert {name[-2:] for name in own if re.search(r"-cu\d\d$", name)} == {major}
    for others in (pins(FOLDER / "requirements.txt"), pins(SERVING / "requirements.txt")):
        assert own.keys() & others.keys() == set()
        assert {name for name in others if name.startswith(("nvidia-", "cuda-", "triton"))} == set()


def test_builds_have_kernels_for_what_azure_rents() -> None:
    """T4, A10, A100, H100; the RTX PRO 6000 needs another build than the default."""
    default = default_build()
    assert default.name == "cu126"
    assert [default.runs_on(capability) for capability in ("7.0", "7.5", "8.0", "8.6", "8.9", "9.0")] == [True] * 6
    assert not default.runs_on("12.0")
    assert [build.name for build in builds() if build.runs_on("12.0")] == ["cu130"]
    assert not TorchBuild("x", ("8.6",)).runs_on("8.0")


BUILT = re.compile(r"/__pycache__/|\.egg-info/")  # an installation writes the names of all files down


def test_torchs_build_and_index_are_named_in_one_place() -> None:
    files = [path for folder in ("src", "azureml", "configs") for path in (ROOT / folder).rglob("*") if path.is_file()]
    others = [path for path in files if path.parent != FOLDER and not BUILT.search(path.as_posix())]
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(errors="replace") for path in others}
    words = re.compile(r"download\.pytorch\.org|\bcu(?:126|130)\b")
    assert [name for name, text in texts.items() if words.search(text) and "tiny_base" not in name] == []


@pytest.mark.parametrize("path", BUILDS.values(), ids=str)
def test_a_list_that_could_not_be_resolved_is_an_assumption(path: Path) -> None:
    told = path.read_text().splitlines()[1]
    if not told.startswith("# Resolved on "):
        assert told.startswith("# Not resolved: ")
        assert f"`azureml/environment/{path.name}`" in (ROOT / "docs" / "assumptions.md").read_text()


def test_the_list_is_resolved_where_the_index_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By pip, from two indexes of small wheels; with a package that a list lacks, nothing is written."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    wheel(tmp_path / "index" / "cu126", "torch", "9.1+cu126", ["nvidia-one==3.*", "shared"])
    for name, version in (("nvidia-one", "3.7"), ("shared", "1.0"), ("web", "2.0")):
        wheel(tmp_path / "packages", name, version, [])
    wheel(tmp_path / "packages", "trl", "4.0", ["torch", "shared"])
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "packages").as_uri())
    azureml, old = tmp_path / "azureml", "# kernels\n# Not resolved\ntorch==9.1+cu126\nold==1.0\n"
    texts = {"environment/requirements.txt": "trl==4.0\nshared==1.0\n", "environment/torch-cu126.txt": old}
    for name, text in (texts | {"serving/requirements.txt": "web==2.0\n"}).items():
        (azureml / name).parent.mkdir(parents=True, exist_ok=True)
        (azureml / name).write_text(text)
    script = shutil.copy(own_files() / "resolve.py", azureml)

    def resolve() -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(script), "cu126", (tmp_path / "index").as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    before = (azureml / "environment" / "torch-cu126.txt").read_text()
    lacking = resolve()
    assert lacking.returncode == 1
    assert "lacks shared" in lacking.stderr
    assert (azureml / "environment" / "torch-cu126.txt").read_text() == before
    (azureml / "serving" / "requirements.txt").write_text("web==2.0\nshared==1.0\n")
    assert resolve().returncode == 0
    lines = (azureml / "environment" / "torch-cu126.txt").read_text().splitlines()
    assert lines[0] == "# kernels"
    assert re.fullmatch(r"# Resolved on \d{4}-\d\d-\d\d by: python azureml/resolve.py cu126", lines[1])
    assert lines[2:] == ["nvidia-one==3.7", "torch==9.1+cu126"]
    shutil.rmtree(tmp_path / "index")
    silent = resolve()
    assert silent.returncode == 1
    assert "cannot be resolved; nothing is written" in silent.stderr
    assert (azureml / "environment" / "torch-cu126.txt").read_text().splitlines() == lines


def wheel(index: Path, name: str, version: str, requires: list[str]) -> None:
    """A package without contents in an index of files."""
    (index / name).mkdir(parents=True)
    stem = f"{name.replace('-', '_')}-{version}"
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {one}" for one in requires)]
    with zipfile.ZipFile(index / name / f"{stem}-py3-none-any.whl", "w") as file:
        file.writestr(f"{stem}.dist-info/METADATA", "\n".join(lines) + "\n")
        file.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{stem}.dist-info/RECORD", "")
    (index / name / "index.html").write_text(f'<a href="{stem}-py3-none-any.whl">{stem}-py3-none-any.whl</a>')


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
    copied = re.findall(r"^COPY (\S+) ", text, flags=re.MULTILINE)
    assert copied == ["requirements.txt", "torch-*.txt"]
    found = {"Dockerfile", "requirements.txt", *(path.name for path in BUILDS.values())}
    assert {path.name for path in FOLDER.iterdir()} == found


def test_images_start_from_microsofts_registry_at_one_version() -> None:
    bases = [
        re.findall(r"^FROM (\S+)$", (folder / "Dockerfile").read_text(), re.MULTILINE) for folder in (FOLDER, SERVING)
    ]
    assert bases[0] == bases[1]
    assert re.fullmatch(r"mcr\.microsoft\.com/azureml/openmpi[\d.]+-ubuntu24\.04:\d{8}\.v\d+", bases[0][0])


def test_pip_takes_nothing_that_is_not_pinned() -> None:
    for path in (FOLDER / "Dockerfile", SERVING / "Dockerfile", SERVING / "vllm" / "Dockerfile"):
        text = path.read_text().replace("\\\n", " ")
        assert [line for line in re.findall(r"pip install .*", text) if "--no-deps" not in line] == []


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
