"""The point from which a run resumes: its newest complete checkpoint, if nothing that its result depends on changed."""

import shutil
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

from trainer.config.load import dump_config
from trainer.data.render.overlength import in_words
from trainer.model.threads import use_threads
from trainer.model.tiny import refuse_former
from trainer.runs import Run, files
from trainer.runs.checkpoint import Checkpoint, forget_after, newest_complete
from trainer.runs.damage import readable_manifest
from trainer.runs.manifest import Manifest
from trainer.training.fingerprint import Fingerprint, fingerprint, refuse_changes
from trainer.training.manifest import build_manifest, other_versions
from trainer.training.prepare import Prepared


@dataclass(frozen=True, slots=True)
class Start:
    """The checkpoint to resume from, or None to begin, and what the run's result depends on."""

    checkpoint: Checkpoint | None
    fingerprint: Fingerprint


def find_start(prepared: Prepared, run: Run, allowed: Collection[str], say: Callable[[str], None]) -> Start:
    """Look for the checkpoint to resume from, and put the run's files into the state of its step.

    Raises: ConfigError, when something else than what is `allowed` has changed; nothing is written then.
    """
    refuse_former(run)
    checkpoint, passed_over = newest_complete(run.checkpoints)
    manifest, now = readable_manifest(run), fingerprint(prepared)  # cut short by a mount it is written anew
    if manifest is not None and manifest.num_threads is not None:
        use_threads(manifest.num_threads)
    before = checkpoint.state()["fingerprint"] if checkpoint else (manifest and manifest.fingerprint) or now
    changes = refuse_changes(before, now, allowed, run.path)
    for reason in passed_over:
        run.event(reason, level="warning")
        say(reason)
    step = checkpoint.step if checkpoint else 0
    if manifest or checkpoint:
        _tell(prepared, run, manifest, step, changes, say)
    else:
        _tell_overlength(prepared, run)
    if not manifest or changes:
        run.write_manifest(build_manifest(prepared, now))
    files.write_whole(run.path / "config.yaml", dump_config(prepared.config))
    _restore_logs(run, checkpoint)
    forget_after(run.checkpoints, step)
    return Start(checkpoint, now)


def _tell_overlength(prepared: Prepared, run: Run) -> None:
    if touched := prepared.data.touched:
        words = f"{in_words(touched, prepared.plan.max_length)}; manifest.json lists them"
        counts = Counter[str](note.outcome for note in touched)
        run.event(words, level="warning", kind="overlength", **counts)


def _tell(
    prepared: Prepared, run: Run, manifest: Manifest | None, step: int, changes: list[str], say: Callable[[str], None]
) -> None:
    run.event(f"resumed from step {step}", kind="resumed", step=step)
    say(f"resuming {run.name} from step {step}")
    notes = list(changes)
    if manifest is not None and (differences := other_versions(manifest, build_manifest(prepared, {}))):
        notes.append(f"the last bits may differ from here on: {', '.join(differences)}")
    if prepared.device.type == "cuda" and not prepared.config.training.deterministic:
        notes.append(
            "same data order, random numbers and optimizer state; the same to the last bit only with "
            "training.deterministic: true"
        )
    for note in notes:
        run.event(note)
        say(note)


def _restore_logs(run: Run, checkpoint: Checkpoint | None) -> None:
    """Measurements are those that the checkpoint has seen: a resumed run makes the later ones anew."""
    run.checkpoints.mkdir(exist_ok=True)
    for log in run.measured:
        saved = checkpoint.path / log.name if checkpoint else None
        if saved is not None and saved.is_file():
            files.write_whole(log, saved.read_bytes())
        else:
            log.unlink(missing_ok=True)
    if checkpoint is None:
        shutil.rmtree(run.adapter, ignore_errors=True)
