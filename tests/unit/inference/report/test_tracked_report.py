"""The report in the trackers: figures by name, and trackers of which each may fail alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.environments import CannotInstall, environment
from trainer.inference.report.tracked_report import attach_report, numbers_of, words_of
from trainer.runs import Run

RESULT = {
    "verdict": {"kind": "better", "sentence": "better: all", "answers": 8, "better": 7, "same": 1, "worse": None},
    "measures": [{"key": "loss", "base": 2.0, "tuned": 1.0}],
    "suite": {"base_right": 4, "kept": 3, "lost": 1, "gained": 0},
}
NUMBERS = {"answers": 8, "better": 7, "same": 1, "loss_base": 2, "loss_tuned": 1,
           "suite_base_right": 4, "suite_kept": 3, "suite_lost": 1, "suite_gained": 0}  # fmt: skip


def test_the_final_figures_have_names_of_their_own() -> None:
    assert numbers_of(RESULT) == {f"report/{name}": float(value) for name, value in NUMBERS.items()}
    assert words_of(RESULT) == {"report/kind": "better", "report/sentence": "better: all"}
    assert (numbers_of({}), words_of({})) == ({}, {})


def test_a_tracker_that_fails_keeps_the_report_from_no_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in for a tracker here raises what a service raises, or takes what it is given."""
    got: dict[str, Any] = {}

    def refuse(*words: object) -> None:
        raise ConnectionError("no route\nto the tracker")

    running = SimpleNamespace(log_metrics=got.update, log_others=got.update,
                              log_asset_folder=lambda folder, log_file_name: got.update(folder=folder))  # fmt: skip
    monkeypatch.setitem(sys.modules, "swanlab", SimpleNamespace(has_run=lambda: True, log=refuse))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=None))
    monkeypatch.setitem(sys.modules, "comet_ml", SimpleNamespace(get_running_experiment=lambda: running))
    names = ["swanlab", "wandb", "clearml", "comet_ml", "tensorboard"]
    config = SimpleNamespace(tracking=SimpleNamespace(report_to=names))
    run: Any = SimpleNamespace(config=lambda: config, comparison=lambda: RESULT, report=Path("report"), name="tuned")
    told: list[str] = []
    attach_report(run, told.append)
    assert told == ["the report was not stored in swanlab: no route",
                    "the report was not stored in clearml: No module named 'clearml'"]  # fmt: skip
    assert got == {**numbers_of(RESULT), **words_of(RESULT), "folder": "report"}


@pytest.mark.slow
def test_wandb_gets_settings_figures_and_report_without_a_network(tmp_path: Path) -> None:
    try:
        python = environment("wandb", ["wandb==0.31.0"])
    except CannotInstall as error:
        pytest.skip(str(error))
    words = ["run.name=tracked", f"run.root={tmp_path}", "tracking.report_to=[wandb]", "training.n_epochs=1",
             "evaluation.max_rows=2", "evaluation.max_new_tokens=4"]  # fmt: skip
    offline = os.environ | {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "HOME": str(tmp_path),
                            "PYTHONPATH": str(REPOSITORY / "src")}  # fmt: skip
    done = subprocess.run([python, "-m", "trainer", "train", "--config", "configs/tiny.yaml", *words],
                          cwd=REPOSITORY, env=offline, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = Run(tmp_path / "tracked")
    warnings = [event["message"] for event in run.events() if event["level"] == "warning"]
    assert [words for words in warnings if "wandb" in words] == []
    (kept,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    data = kept.read_bytes()
    sentence = json.dumps(run.comparison()["verdict"]["sentence"]).strip('"').encode()
    for wanted in (b"tracked-report", b"report.json", b"config.lora.r", b"report/right_tuned", sentence[:40]):
        assert wanted in data, wanted
