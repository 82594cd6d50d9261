"""Files of others are those that were published, with their licenses, and a wheel holds them."""

import hashlib
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
VENDOR = ROOT / "src/trainer/web/static/vendor"


def test_vendored_files_are_as_they_were_published():
    lines = [line for line in (VENDOR / "SHA256SUMS").read_text().splitlines() if not line.startswith("#")]
    stated = {name: digest for digest, name in (line.split("  ") for line in lines)}
    found = {str(path.relative_to(VENDOR)): path for path in VENDOR.rglob("*") if path.is_file()}
    del found["SHA256SUMS"]
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()} == stated
    assert all(f"{Path(name).parent}/LICENSE" in stated for name in stated)


def test_a_wheel_gets_every_file_of_the_studio():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package in ("web", "dashboard"):
        folder = ROOT / "src/trainer" / package
        packed = {path for pattern in data[f"trainer.{package}"] for path in folder.glob(pattern) if path.is_file()}
        others = {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        assert {path for path in others if path.suffix != ".py"} == packed
