"""The rows that a run was trained on, as it was trained on them, and the adapter that they are measured with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.config.schema import DataSource, RunConfig
from trainer.data.quoting import printable
from trainer.data.read.sources import check_data
from trainer.data.render.pinned_thinking import pinned_mode
from trainer.errors import ConfigError, DataError
from trainer.inference.trained import stored_tokenizer, template_digest, trained_adapter, trained_base
from trainer.kinds import is_service, learns_from_pairs
from trainer.model.base import Base
from trainer.runs import Run
from trainer.runs.checkpoint import list_checkpoints
from trainer.runs.lifecycle import is_worked_on
from trainer.training.dataset import Rows, render_data
from trainer.training.prepare import load_preprocessing

AT_WORK = ("running", "validating_files", "queued")


@dataclass(frozen=True, slots=True)
class RunRows:
    """A run's rows rendered as in training; `config` and `base` are those of the run."""

    rows: Rows
    config: RunConfig
    base: Base
    max_length: int
    notes: tuple[str, ...]

    @property
    def token_budget(self) -> int:
        assert isinstance(self.config.memory.token_budget, int)  # a run's config is resolved
        return self.config.memory.token_budget


def find_adapter(run: Run, step: int | None) -> Path:
    """The folder of the run's adapter, or of the checkpoint of `step`.

    Raises: ConfigError, where it is not there, damaged or about to be replaced.
    """
    if is_service(run.backend):
        raise ConfigError(
            f"run {run.name!r}: its model is kept by the service, which gives neither weights nor the loss of a row "
            "away, expected a run with an adapter; look at the rows with: trainer data clean FILE"
        )
    if step is not None:
        return _checkpoint(run, step)
    if is_worked_on(run) or run.state in AT_WORK:
        raise ConfigError(
            f"run {run.name!r}: is {run.state}, expected a finished run; wait until it has ended, or measure with one "
            "of its checkpoints: --checkpoint STEP"
        )
    return trained_adapter(run)


def _checkpoint(run: Run, step: int) -> Path:
    found = {checkpoint.step: checkpoint for checkpoint in list_checkpoints(run.checkpoints)}
    if step not in found:
        known = ", ".join(f"{number}" for number in found) or "none, as it has kept no checkpoint"
        raise ConfigError(f"--checkpoint: run {run.name!r} has none of step {step}, expected one of: {known}")
    if problem := found[step].problem():
        raise ConfigError(f"--checkpoint: step {step} of run {run.name!r} is not whole: {problem}; choose another step")
    return found[step].path


def trained_files(run: Run) -> list[DataSource]:
    """The training files as the run read them. Raises: DataError, for each that is gone or has changed."""
    manifest = run.manifest()
    problems = []
    for file in manifest.files("train"):
        if file.is_unchanged:
            continue
        path = printable(file.path)
        found = "holds other rows than the run was trained on" if Path(file.path).is_file() else "is not there"
        problems.append(
            f"{path}: {found}, expected the file of sha256 {file.sha256[:12]}…; bring it back, or name rows to examine "
            "with --data FILE"
        )
    if problems:
        raise DataError(*problems)
    return [DataSource(path=file.path, weight=file.weight) for file in manifest.files("train")]


def render_rows(run: Run, given: Sequence[Path]) -> RunRows:
    """The training rows, or those of the files `given`, with the run's template, mask and length policy.

    Raises: ConfigError, where base or template are others now; DataError, where rows are.
    """
    config = run.config()
    if learns_from_pairs(config.training.method):
        raise ConfigError(
            f"run {run.name!r}: learned from preferences, whose rows have no loss of their own, expected a run on chat "
            "rows"
        )
    sources = [DataSource(path=str(path)) for path in given] or trained_files(run)
    data = config.data.model_copy(update={"train": sources, "validation": None})
    checked = check_data(data, "sft")
    base, thinks = trained_base(run), pinned_mode(stored_tokenizer(run.adapter).chat_template)
    found = load_preprocessing(config, thinks)
    if template_digest(found.renderer.tokenizer) != run.manifest().template_sha256:
        raise ConfigError(f"run {run.name!r}: its base has another chat template now; bring the old one back")
    rendered = render_data(checked, data, found.renderer, found.max_length)
    notes = [f"{note.place}: {note.num_tokens:,} tokens, {note.outcome}" for note in rendered.touched]
    if given:
        named = ", ".join(printable(str(path)) for path in given)
        notes.append(f"the rows are those of {named}; whether the run was trained on them is not known")
    return RunRows(rendered.train, found.config, base, found.max_length, tuple(notes))
