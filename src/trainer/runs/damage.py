"""Which files of a run cannot be what the run wrote: looked at by those who show runs, so that one stops no other."""

from pathlib import Path

from trainer.errors import ConfigError
from trainer.runs import files
from trainer.runs.ledger import NAME as LEDGER
from trainer.runs.ledger import Ledger
from trainer.runs.manifest import DamagedManifest, Manifest
from trainer.runs.ownership import STATES
from trainer.runs.results import is_damaged_at_its_end
from trainer.runs.run import Run

RECORDS = ("status.json", "manifest.json", "report/report.json")


def damaged(run: Run) -> list[str]:
    """The names of the damaged files, as far as a quick look finds them."""
    found = [name for name in RECORDS if _is_no_record(run.path / name)]
    if "status.json" not in found and _has_odd_status(run):
        found.append("status.json")
    if is_damaged_at_its_end(run.path / "results.csv"):
        found.append("results.csv")
    if _is_no_ledger(run.path):
        found.append(LEDGER)
    return found


def readable_manifest(run: Run) -> Manifest | None:
    """For those who show runs: None where no manifest is written, or it is damaged. Raises: ConfigError, as `Run`."""
    try:
        return run.find_manifest()
    except DamagedManifest:
        return None


def _is_no_record(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size > 0 and not files.read_record(path)
    except OSError:
        return True


def _is_no_ledger(folder: Path) -> bool:
    try:
        Ledger(folder).entries()
    except (ConfigError, OSError):
        return True
    return False


def _has_odd_status(run: Run) -> bool:
    status = files.read_record(run.path / "status.json")
    pid = status.get("pid", 1)
    return bool(status) and (status.get("state") not in STATES or not isinstance(pid, int))
