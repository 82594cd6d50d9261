"""Where a model may be held for chat: runs of the machine's queue come first."""

from pathlib import Path

from trainer.api import model_process
from trainer.api.model_process import training_wants
from trainer.runs.queue import Queue


def test_no_model_is_held_beside_a_queue_that_cannot_be_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(model_process, "visible_gpus", lambda: ["0"])
    assert training_wants(tmp_path) is None
    queue = Queue(tmp_path)
    queue.folder.mkdir(parents=True)
    queue.file.write_text("{")
    reason = training_wants(tmp_path)
    assert reason == "the queue of this machine cannot be read, and a run may be training"
