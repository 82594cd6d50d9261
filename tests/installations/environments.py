"""Installations as users make them: the wheel and one extra, in a virtual environment of their own.

What an extra brings is installed once for each state of pyproject.toml and constraints.txt and kept in the cache
folder. The wheel is built for each session and put on top of it where its files differ from the one that is there.
Torch is the one of the tests' own environment.
"""

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import zipfile
from pathlib import Path

from tests.environments import REPOSITORY, CannotInstall, alone, cache, make_once

TORCH = ("torch", "torchgen", "functorch", "nvidia", "triton")  # how the names of what it consists of begin
WITH_TORCH = ("local", "serve", "lm-eval")
SECONDS = 900


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout's files. Raises: CannotInstall."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split("\0")
    with tempfile.TemporaryDirectory() as copy:  # a build leaves folders behind, whose files would come along next time
        for name in filter(None, names):
            if (REPOSITORY / name).is_file():
                (Path(copy) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(REPOSITORY / name, Path(copy) / name)
        _pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", str(folder), copy)
    return next(folder.glob("*.whl"))


def installation(extra: str, wheel: Path) -> Path:
    """The folder with the programs of an environment that has the wheel with this extra, or with none: `base`.

    Raises: CannotInstall.
    """
    constraints = REPOSITORY / "constraints.txt"
    stated = (REPOSITORY / "pyproject.toml").read_bytes() + constraints.read_bytes() + sys.version.encode()

    def build(folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        if extra in WITH_TORCH:
            _show_torch(folder)
        _pip(folder / "bin" / "python", "install", "--constraint", str(constraints), *_requirements(extra))

    folder = make_once(cache() / f"installation-{extra}-{hashlib.sha256(stated).hexdigest()[:16]}", build)
    programs, digest = folder / "bin", _contents(wheel)
    with alone(folder):
        if not (folder / "wheel").exists() or (folder / "wheel").read_text() != digest:
            (folder / "wheel").unlink(missing_ok=True)
            _pip(programs / "python", "install", "--no-deps", "--force-reinstall", str(wheel))
            (folder / "wheel").write_text(digest)
    _pip(programs / "python", "check")
    return programs


def _contents(wheel: Path) -> str:
    """A digest of names and contents: the wheels of two builds differ in their times."""
    with zipfile.ZipFile(wheel) as archive:
        stated = sorted((entry.filename, entry.CRC, entry.file_size) for entry in archive.infolist())
    return hashlib.sha256(repr(stated).encode()).hexdigest()


def _requirements(extra: str) -> list[str]:
    """What pyproject.toml states, with what an extra takes from another one."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = list(project["dependencies"])
    for name in ("local", extra) if extra in ("serve", "lm-eval") else [extra] if extra != "base" else []:
        wanted += [one for one in extras[name] if not one.startswith(project["name"])]
    return wanted


def _show_torch(folder: Path) -> None:
    """Links to our torch, beside the environment: what is within it, pip would replace."""
    ours = folder.with_name(f"{folder.name}-torch")
    shutil.rmtree(ours, ignore_errors=True)
    ours.mkdir()
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if path.name.lower().startswith(TORCH):
            (ours / path.name).symlink_to(path)
    (next(folder.glob("lib/python*/site-packages")) / "torch.pth").write_text(f"{ours}\n")


def _pip(python: str | Path, *words: str) -> None:
    done = subprocess.run([python, "-m", "pip", *words], capture_output=True, text=True, timeout=SECONDS)
    if done.returncode != 0:
        raise CannotInstall(f"pip {words[0]} failed: {(done.stdout + done.stderr)[-800:]}")
