"""A model on the hub: its weights are looked at by requests for the first bytes of their files."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from tests.hub import COMMIT
from tests.loopback import Loopback, Request, Response

pytestmark = pytest.mark.slow

PROGRAM = """
from trainer.config.schema import ModelConfig
from trainer.errors import ConfigError
from trainer.model.base import find_base
try:
    base = find_base(ModelConfig(base="org/model"))
    print(base.pinned(), base.notes)
except ConfigError as error:
    print(error)
"""


class Hub:
    """Serves a folder as the repository org/model, with ranges."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sent: dict[str, int] = {}
        self.shows_weights = True

    def __call__(self, request: Request) -> Response:
        if request.path.startswith("/api/models/org/model"):
            return Response(200, {"id": "org/model", "sha": COMMIT, "siblings": []})
        name = request.path.rpartition("/")[2]
        file = self.folder / name
        if "/resolve/" not in request.path or not file.is_file():
            return Response(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        if name.endswith(".safetensors") and not self.shows_weights:
            return Response(403, {"error": "not for you"})
        content = file.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        headers = {"X-Repo-Commit": COMMIT, "ETag": etag, "Accept-Ranges": "bytes"}
        if request.method == "HEAD":
            return Response(200, None, headers | {"X-Linked-Size": str(len(content))})
        if span := request.headers.get("range"):
            first, _, last = span.removeprefix("bytes=").partition("-")
            content = content[int(first) : int(last) + 1]
        self.sent[name] = self.sent.get(name, 0) + len(content)
        return Response(206 if span else 200, content, headers)


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    shape = {"hidden_size": 64, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=64, **shape)).save_pretrained(tmp_path / "model")
    return Hub(tmp_path / "model")


def found(hub: Hub, tmp_path: Path) -> str:
    with Loopback(hub) as service:
        plain = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        place = {"HF_ENDPOINT": f"http://127.0.0.1:{service.port}", "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=plain | place | {"HF_HUB_OFFLINE": "0"},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_names_and_shapes_are_read_and_the_weights_are_not_fetched(hub: Hub, tmp_path: Path) -> None:
    assert found(hub, tmp_path) == f"org/model, revision {COMMIT} []"
    assert hub.sent["model.safetensors"] <= 100_001
    assert (hub.folder / "model.safetensors").stat().st_size > 1_000_000


def test_a_model_whose_weights_do_not_fit_is_refused_before_they_are_fetched(hub: Hub, tmp_path: Path) -> None:
    config = hub.folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_hidden_layers": 5}))
    assert "of the model's 48 tensors are not among its weights" in found(hub, tmp_path)


def test_weights_that_are_not_shown_are_said_to_be_not_looked_at(hub: Hub, tmp_path: Path) -> None:
    hub.shows_weights = False
    assert "the weights of 'org/model' were not looked at: the hub did not show them: " in found(hub, tmp_path)
