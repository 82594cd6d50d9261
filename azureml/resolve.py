"""Resolve what torch brings into the images, where its index answers: python azureml/resolve.py BUILD.

It writes environment/torch-BUILD.txt anew: torch itself, and every package that pip takes for the pinned list of the
job's image beside those that the list has. It downloads metadata only, and writes nothing unless all of it resolves for
the image's Python. The scoring image has the same torch; its own list is resolved with it, and must be whole.
"""

import json
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

FOLDER = Path(__file__).parent
LISTS = (FOLDER / "environment" / "requirements.txt", FOLDER / "serving" / "requirements.txt")
IMAGE = ("--python-version", "3.12", "--platform", "manylinux_2_28_x86_64", "--only-binary", ":all:")
SECONDS = 900.0


def main(build: str, index: str | None = None) -> int:
    """Write the file of `build`. `index`: another one than the image's, to which the build's name is added."""
    path = FOLDER / "environment" / f"torch-{build}.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    torch = next(line for line in lines if line.startswith("torch=="))
    address = f"{index or argument('TORCH_INDEX')}/{build}"
    brought: dict[str, str] = {}
    for listed in LISTS:
        taken, own = resolve([torch], listed, address), pins(listed)
        beside = {name: version for name, version in taken.items() if name not in own}
        if not brought:
            brought = beside
        elif lacking := sorted(beside.keys() - brought.keys()):
            sys.exit(f"{listed}: lacks {', '.join(lacking)}, expected every package of the image; add them")
    written = [f"{name}=={version}" for name, version in sorted(brought.items())]
    head = [lines[0], f"# Resolved on {datetime.now(UTC):%Y-%m-%d} by: python azureml/resolve.py {build}"]
    path.write_text("\n".join([*head, *written]) + "\n", encoding="utf-8")
    sys.stdout.write(f"{path}: {len(written)} packages\n")
    return 0


def argument(name: str) -> str:
    """The default of a build argument of the job's image."""
    found = re.search(rf"^ARG {name}=(\S+)$", (FOLDER / "environment" / "Dockerfile").read_text(), re.MULTILINE)
    assert found is not None, name
    return found[1]


def pins(path: Path) -> dict[str, str]:
    """Name, as indexes spell it, and version of each line."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return {plain(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def plain(name: str) -> str:
    """One spelling for all that indexes take for the same name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def resolve(wanted: list[str], listed: Path, index: str) -> dict[str, str]:
    """Every package that pip would install. Exits with pip's words where it finds none."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", *IMAGE]
        command += ["--target", folder, "--report", str(report), "--extra-index-url", index, "-r", str(listed), *wanted]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        if done.returncode != 0:
            sys.exit(f"{listed} with {', '.join(wanted)}: cannot be resolved; nothing is written: {done.stderr[-600:]}")
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {plain(one["metadata"]["name"]): one["metadata"]["version"] for one in found}


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit("python azureml/resolve.py BUILD [INDEX], where BUILD has a file environment/torch-BUILD.txt")
    sys.exit(main(*sys.argv[1:]))
