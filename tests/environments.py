"""Virtual environments whose pins conflict with ours: made once in the cache folder, again when the pins change."""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


class CannotInstall(Exception):
    """The package index is not reached, or does not have what is pinned."""


def cache() -> Path:
    """Where what is installed once for the tests is kept."""
    return Path(os.environ.get("TRAINER_CACHE") or Path.home() / ".cache" / "azure-llm-trainer")


def environment(name: str, packages: Sequence[str], constraints: Path | None = None, alone: bool = False) -> Path:
    """The interpreter of an environment with these packages, and unless `alone` with everything of ours below them.

    Raises: CannotInstall.
    """
    pins = constraints.read_bytes() if constraints else b""
    stated = "\n".join([*packages, str(alone), sys.version, sys.prefix]).encode()
    folder = cache() / f"{name}-{hashlib.sha256(pins + stated).hexdigest()[:16]}"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        if not alone:
            site = next(folder.glob("lib/python*/site-packages"))
            (site / "parent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
        pip += ["--constraint", constraints] if constraints else []
        done = subprocess.run([*pip, *packages], capture_output=True, text=True, timeout=500)
        if done.returncode != 0:
            raise CannotInstall(f"{', '.join(packages)} cannot be installed here: {done.stderr[-500:]}")
        (folder / "ready").touch()
    return folder / "bin" / "python"


def scoring_python() -> Path:
    """The interpreter with Azure ML's inference server, whose pins conflict with ours (pydantic 2.12)."""
    pins = REPOSITORY / "azureml" / "serving" / "requirements.txt"
    return environment("azureml-serving", ["azureml-inference-server-http"], pins)
