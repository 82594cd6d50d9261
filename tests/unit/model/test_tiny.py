import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from trainer.model.tiny import _conversations, tiny_base


def test_it_is_built_once(capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_base()
    told: list[str] = []
    assert tiny_base(told.append) == folder
    assert told == []


def test_the_bundled_text_is_all_chat() -> None:
    for messages in _conversations():
        assert messages[-1]["role"] == "assistant"
        assert {message["role"] for message in messages} <= {"system", "user", "assistant"}


@pytest.mark.long
def test_it_is_the_same_model_wherever_it_is_built(tmp_path: Path) -> None:
    code = "from trainer.model.tiny import tiny_base; print(tiny_base())"
    environment = os.environ | {"TRAINER_CACHE": str(tmp_path)}
    built = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    again = Path(built.stdout.strip().splitlines()[-1])
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tiny_base(), again))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
    assert (tiny_base() / "tokenizer.json").read_bytes() == (again / "tokenizer.json").read_bytes()
