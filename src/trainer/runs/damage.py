"""Files of a run that cannot be what the run wrote: those who show runs ask here, so that one stops no other."""

from pathlib import Path

from trainer.errors import ConfigError, TrainerError
from trainer.runs import files
from trainer.runs.ledger import NAME as LEDGER
from trainer.runs.ledger import Ledger
from trainer.runs.manifest import DamagedManifest, Manifest
from trainer.runs.ownership import STATES
from trainer.runs.results import is_damaged_at_its_end
from trainer.runs.run import Run, unfit_details

# What reading damaged files may raise; AttributeError, since a value of another type lacks what is asked of it.
UNREADABLE = (TrainerError, OSError, ValueError, TypeError, LookupError, AttributeError)
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


def reason_of(error: Exception) -> str:
    """The reason that a run cannot be read; an error that is none of ours keeps the name of its type."""
    words, kind = str(error), type(error).__name__
    return words if isinstance(error, TrainerError) else f"{kind}: {words}" if words else kind


def readable_manifest(run: Run) -> Manifest | None:
    """The manifest, for those who show or resume runs: None without one, or with a damaged one. Raises: ConfigError."""
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
    is_odd = status.get("state") not in STATES or not isinstance(pid, int) or bool(unfit_details(status))
    return bool(status) and is_odd
