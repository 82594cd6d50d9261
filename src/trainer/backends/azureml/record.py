"""What a run remembers of its job, beside the ledger: enough to ask again for the same thing."""

from dataclasses import asdict
from typing import Any

from trainer.backends.azureml.job import JobPlan, job_name, stem_of
from trainer.backends.azureml.workspace import Place
from trainer.runs import Run, files
from trainer.runs.ledger import Entry, Ledger, Thing

NAME = "azureml.json"
BACKEND = "azureml"


def remember(run: Run, place: Place, plan: JobPlan) -> None:
    """Before anything is created."""
    files.write_json(run.path / NAME, {"place": asdict(place), "plan": asdict(plan)})


def recall(run: Run) -> tuple[Place, JobPlan] | None:
    """None for a run whose launch was interrupted before it had begun."""
    found: dict[str, Any] = files.read_record(run.path / NAME)
    return (Place(**found["place"]), JobPlan(**found["plan"])) if found else None


def stem(run: Run) -> str:
    """The run's own name at the service. The moment of its creation tells it from another run of its name."""
    return stem_of(run.name, str(run.status().get("created_at", "")))


def job_thing(run: Run, place: Place, plan: JobPlan, attempt: int, bills: str) -> Thing:
    """The job of an attempt, as the ledger knows it."""
    name = job_name(plan.stem, attempt)
    return Thing(BACKEND, "job", name, place.arm_id, bills, f"trainer cancel {run.path}")


def newest_job(run: Run) -> Entry | None:
    """The job of the last attempt, whether it is known to exist or not."""
    return Ledger(run.path).find("job")


def attempt_of(entry: Entry, plan: JobPlan) -> int:
    """The attempt that a job was."""
    number = entry.thing.key.removeprefix(plan.stem).removeprefix("-")
    return int(number) if number else 1
