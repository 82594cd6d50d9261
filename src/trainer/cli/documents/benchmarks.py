"""The document of published benchmarks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from trainer.cli.documents.document import Document, Part
from trainer.runs import Run


class Measured(Part):
    """A metric of one model."""

    value: float | None
    """Its value; null where the harness has no number."""
    stderr: float | None
    """Its standard error; null where the harness has none."""


class Metric(Part):
    """A metric of a task."""

    task: str
    """The task, or a group of tasks."""
    metric: str
    """The metric's name, such as acc."""
    filter: str
    """The filter that the answers went through; none without one."""
    higher_is_better: bool | None
    """The better direction; null where the harness does not tell."""
    version: float | str | None
    """The task's version."""
    questions: int | None
    """Questions asked; null for a group."""
    base: Measured
    """Before fine-tuning."""
    tuned: Measured
    """After it."""


class Benchmarks(Document):
    """Published benchmarks of base and tuned model, which have joined the run's report."""

    document: Literal["evaluate --tasks"] = "evaluate --tasks"
    """The command."""
    run: str
    """The run's name."""
    harness: str
    """The program that asked, with its version."""
    limit: int | None
    """The most questions of a task; null for all."""
    num_fewshot: int | None
    """Examples before each question; null where the task decides."""
    apply_chat_template: bool
    """True where the questions were put into the chat template."""
    metrics: list[Metric]
    """Each metric of each task."""
    page: str
    """The run's report."""


def benchmarked(run: Run, found: Mapping[str, Any], page: Path) -> Benchmarks:
    """The result of `trainer evaluate --tasks`."""
    names = ("harness", "limit", "num_fewshot", "apply_chat_template", "metrics")
    values = {name: found[name] for name in names}
    return Benchmarks.model_validate(values | {"run": run.name, "page": str(page)})
