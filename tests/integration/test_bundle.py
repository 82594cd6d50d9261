"""What is registered as a model: the run's own files, at an address that is the same each time."""

import json
import shutil
from pathlib import Path

import pytest

from trainer.errors import ConfigError
from trainer.inference.bundle import write_bundle
from trainer.inference.client import Sampling
from trainer.inference.local import TunedModel
from trainer.inference.serve.limits import Limits
from trainer.inference.serve.scoring import Scorer
from trainer.runs import Run
from trainer.runs.checkpoint import list_checkpoints

MESSAGES = [{"role": "system", "content": "You count."}, {"role": "user", "content": "What is number 5?"}]


def test_a_bundle_is_the_runs_own_files_and_its_address_depends_on_nothing_else(tuned: Run, tmp_path: Path) -> None:
    one, two = write_bundle(tuned, tmp_path / "one"), write_bundle(tuned, tmp_path / "two")
    assert (one.sha256, one.digests) == (two.sha256, two.digests)
    for name in ("adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "one" / name).read_bytes() == (tuned.adapter / name).read_bytes()
    shutil.rmtree(tmp_path / "two")
    with pytest.raises(ConfigError, match=r"--checkpoint: .* has no checkpoint '7', expected one of: "):
        write_bundle(tuned, tmp_path / "three", checkpoint="7")
    step = list_checkpoints(tuned.checkpoints)[-1].step
    of_step = write_bundle(tuned, tmp_path / "four", checkpoint=str(step))
    assert of_step.step == step


def test_a_bundle_with_its_base_answers_anywhere_as_the_run_does(tuned: Run, tmp_path: Path) -> None:
    write_bundle(tuned, tmp_path / "bundle")
    moved = tmp_path / "elsewhere" / "1" / "bundle"
    moved.parent.mkdir(parents=True)
    (tmp_path / "bundle").rename(moved)
    config = json.loads((moved / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("base", None)
    body = json.dumps({"model": "tuned", "messages": MESSAGES, "temperature": 0, "max_tokens": 30}).encode()
    scored = Scorer(moved, Limits(max_tokens=50)).score(body)
    assert scored.status == 200
    expected = TunedModel(tuned).tuned.answer(MESSAGES, Sampling(max_tokens=30))
    assert scored.body["choices"][0]["message"]["content"].strip() == expected
