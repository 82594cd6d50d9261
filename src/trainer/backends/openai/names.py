"""Names of the run's things at the service and in its ledger: chosen by us, and the same after every crash."""

import re
import secrets
from typing import Any

from trainer.runs import Run
from trainer.runs.ledger import Ledger, Thing
from trainer.runs.manifest import NAME as MANIFEST
from trainer.runs.manifest import DamagedManifest, Launch, Role

TOKEN_KEY = "trainer_token"


def new_token() -> str:
    """The word that stands in everything the run creates; it is written into its manifest before anything else."""
    return secrets.token_hex(6)


def file_name(run: Run, role: Role) -> str:
    """The name of an uploaded file, unique to the run: a job can be found by it even where it keeps no metadata."""
    return f"{_plain(run.name)}-{token_of(run)}-{role}.jsonl"


def metadata(run: Run) -> dict[str, str]:
    """Marks of the job, where the API keeps such."""
    return {"trainer_run": run.name[:64], TOKEN_KEY: token_of(run)}


def launch_of(run: Run) -> Launch:
    """Notes of the run's launch. Raises: ConfigError, where there is none."""
    launch = run.manifest().launch
    if launch is None:
        raise DamagedManifest(run.path / MANIFEST)
    return launch


def token_of(run: Run) -> str:
    """The run's token, as its manifest holds it."""
    return launch_of(run).token


def file_thing(run: Run, role: Role, place: str) -> Thing:
    """An uploaded file as the ledger knows it."""
    return Thing("openai", "file", file_name(run, role), place, delete_with=_teardown(run, everything=True))


def job_thing(run: Run, place: str, bills: str) -> Thing:
    """The job as the ledger knows it."""
    return Thing("openai", "job", f"{run.name}-{token_of(run)}", place, bills, f"trainer cancel {run.path}")


def model_thing(run: Run, model: str, place: str) -> Thing:
    """The tuned model as the ledger knows it."""
    return Thing("openai", "model", model, place, delete_with=_teardown(run, everything=True))


def deployment_thing(run: Run, name: str, place: str, bills: str) -> Thing:
    """A deployment as the ledger knows it."""
    return Thing("openai", "deployment", name, place, bills, _teardown(run, everything=False))


def fact(run: Run, kind: str, key: str, name: str) -> Any:
    """Value that the ledger holds for a thing that exists; None of one that does not, or may not."""
    entry = Ledger(run.path).find(kind, key)
    return entry.facts.get(name) if entry is not None and entry.step == "exists" else None


def _teardown(run: Run, everything: bool) -> str:
    return f"trainer teardown {run.path}{' --everything' if everything else ''}"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)[:48]
