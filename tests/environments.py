"""Virtual environments whose pins conflict with ours: made once in the cache folder, again when the pins change."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import installed

INSTALL_SECONDS = 500.0
REPOSITORY = Path(__file__).parent.parent


class CannotInstall(Exception):
    """The package index is not reached, or does not have what is pinned."""


def cache() -> Path:
    """Where what is installed once for the tests is kept."""
    return Path(os.environ.get("TRAINER_CACHE") or Path.home() / ".cache" / "azure-llm-trainer")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder of the cache: workers of the tests come to it at the same time."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """The folder as `build` filled it, once for all processes; what was left half-made is made again."""
    with alone(folder):
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            build(folder)
            (folder / "ready").touch()
    return folder


def environment(
    name: str, packages: Sequence[str], constraints: Path | None = None, hidden: Sequence[str] | None = ()
) -> Path:
    """The interpreter of an environment with these packages, and below them all of ours but the `hidden` ones.

    `hidden`: how the names of what would get in the way begin; None hides everything.

    Raises: CannotInstall.
    """
    pins = constraints.read_bytes() if constraints else b""
    stated = "\n".join([*packages, str(hidden), sys.version, sys.prefix]).encode()

    def build(folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        if hidden is not None:
            _show_ours(folder, tuple(hidden))
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
        pip += ["--constraint", constraints] if constraints else []
        named = ", ".join(packages)
        if (problem := installed([*pip, *packages], f"{named} for {name}, once", INSTALL_SECONDS)) is not None:
            raise CannotInstall(f"{named} cannot be installed here: {problem}")

    return make_once(cache() / f"{name}-{hashlib.sha256(pins + stated).hexdigest()[:16]}", build) / "bin" / "python"


def _show_ours(folder: Path, hidden: tuple[str, ...]) -> None:
    """Links to our packages, beside the environment: what is within it, pip would uninstall."""
    ours = folder.with_name(f"{folder.name}-ours")
    shutil.rmtree(ours, ignore_errors=True)
    ours.mkdir()
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if path.suffix != ".pth" and not path.name.lower().startswith(hidden):
            (ours / path.name).symlink_to(path)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "ours.pth").write_text(f"{ours}\n")


def scoring_python() -> Path:
    """The interpreter with Azure ML's inference server, whose pins conflict with ours (pydantic 2.12)."""
    pins = REPOSITORY / "azureml" / "serving" / "requirements.txt"
    hidden = ("azure", "opentelemetry", "pydantic")  # ours are newer, and parts of one would be mixed with the other
    return environment("azureml-serving", ["azureml-inference-server-http"], pins, hidden)
