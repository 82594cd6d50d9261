"""The files of configs/: those of runs, which are one tree, and the server's, which is another."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
SERVER = ROOT / "configs" / "server.yaml"
OF_RUNS = sorted(path for path in (ROOT / "configs").glob("*.yaml") if path != SERVER)
