"""The images of deployments, which cannot run here: what they copy exists, what they call takes what it is told."""

import importlib.util
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import REPOSITORY
from tests.integration.azure_twin.gpus import GPUs, equip
from trainer.backends.azureml.deploy.register import PORT, environment_version, routes, stage_code
from trainer.backends.azureml.image import default_build, stage_context
from trainer.config.azureml import DeploymentConfig
from trainer.inference.bundle import write_bundle
from trainer.inference.serve import vllm
from trainer.runs import Run

SERVING = REPOSITORY / "azureml" / "serving"
# vLLM 0.33's own options, read from its argument parser; the image has that version.
VLLM_OPTIONS = {
    "--served-model-name", "--enable-lora", "--lora-modules", "--max-lora-rank", "--tokenizer", "--generation-config",
    "--dtype", "--host", "--port", "--max-num-seqs", "--tensor-parallel-size", "--revision", "--quantization",
    "--max-model-len", "--enable-auto-tool-choice", "--tool-call-parser",
}  # fmt: skip


@pytest.fixture(scope="module")
def start() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vllm_start", SERVING / "vllm" / "start.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("mode", ["score", "vllm"])
def test_an_image_copies_files_that_are_sent_and_is_pinned(mode: str, tmp_path: Path) -> None:
    stage_context(mode, tmp_path / mode)
    text = (tmp_path / mode / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (\S+) ", text, flags=re.MULTILINE)
    found = {path.name for pattern in copied for path in (tmp_path / mode).glob(pattern)}
    assert {path.name for path in (tmp_path / mode).iterdir()} == {"Dockerfile", *found}
    given = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, flags=re.MULTILINE))
    assert re.findall(r"^ARG \w+$", text, flags=re.MULTILINE) == [], "Azure ML passes no build arguments"
    assert given.get("TORCH_BUILD") == {"score": default_build().name, "vllm": None}[mode]
    (base,) = re.findall(r"^FROM (\S+)$", text, flags=re.MULTILINE)
    image = given["VLLM_IMAGE"] if base == "${VLLM_IMAGE}" else base
    assert re.search(r":v?\d+\.[\dv]+", image), "a tag that moves is no version"
    assert "latest" not in image
    assert f"EXPOSE {PORT[mode]}" in text
    assert routes(mode)["scoring_route"]["port"] == PORT[mode]
    settings = DeploymentConfig.model_validate({"mode": mode})
    assert environment_version(settings) == environment_version(settings)


def test_a_copy_of_vllms_image_takes_its_place(tmp_path: Path) -> None:
    copy = "me.azurecr.io/vllm/vllm-openai:v0.33.0-cu129"
    stage_context("vllm", tmp_path / "vllm", copy)
    text = (tmp_path / "vllm" / "Dockerfile").read_text()
    assert re.findall(r"^ARG (.*)$", text, flags=re.MULTILINE) == [f"VLLM_IMAGE={copy}"]
    versions = {environment_version(DeploymentConfig(mode="vllm", vllm_image=image)) for image in (None, copy)}
    assert len(versions) == 2


def test_the_scoring_image_starts_the_server_that_the_tests_start() -> None:
    from tests.integration.test_azureml_score import START

    text = (SERVING / "Dockerfile").read_text()
    assert START.format(port=5001).replace("127.0.0.1", "0.0.0.0") in text


def test_the_code_that_is_sent_imports_alone(tmp_path: Path) -> None:
    """The package and the script, and nothing of the user's folder."""
    import subprocess
    import sys

    stage_code(tmp_path / "code")
    sent = [path for path in (tmp_path / "code").rglob("*") if path.is_file()]
    assert {path.suffix for path in sent if path.parent.name != "tiny_base"} <= {".py", ".jinja", ".txt"}
    program = "import trainer, trainer.inference.serve.scoring; print(trainer.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(tmp_path / "code"), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "code"), done.stderr


def test_vllm_is_told_what_the_registered_model_holds(tuned: Run, tmp_path: Path, start: ModuleType) -> None:
    folder = tmp_path / "model" / "1" / "adapter"
    folder.parent.mkdir(parents=True)
    write_bundle(tuned, folder)
    words = start.command(tmp_path / "model", {"TRAINER_GPUS": "2", "TRAINER_MAX_LENGTH": "512"})
    assert words[:3] == ["vllm", "serve", str(folder / "base")]
    assert {word for word in words if word.startswith("--")} <= VLLM_OPTIONS
    told = dict(pairwise(words))
    assert told["--lora-modules"] == f"tuned={folder}"
    assert told["--served-model-name"] == "builtin:tiny"
    assert (told["--max-lora-rank"], told["--tensor-parallel-size"], told["--max-model-len"]) == ("8", "2", "512")
    assert "--quantization" not in words
    assert "--enable-auto-tool-choice" not in words
    parsing = start.command(tmp_path / "model", {"TRAINER_TOOL_PARSER": "hermes"})
    assert parsing[-3:] == ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    assert start.RANKS == vllm.RANKS


def test_vllm_is_not_started_where_no_gpu_can_be_used(tmp_path: Path) -> None:
    """In the container's own folder, before it looks for a model: none is named."""
    stage_context("vllm", tmp_path / "context")
    gpus = equip(tmp_path / "gpus", GPUs(1, cuda="13.0", starts=False), os.environ["PATH"])
    own = {name: value for name, value in os.environ.items() if name != "AZUREML_MODEL_DIR"}
    done = subprocess.run(
        [sys.executable, tmp_path / "context" / "start.py"], env=own | gpus | {"TRAINER_EXPECTED_GPUS": "1"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("GPU: 0 can be used and the plan counts on 1; driver 535.274.02; torch 2.13.0+cu126")


def test_a_container_without_a_model_ends_with_the_reason(tmp_path: Path, start: ModuleType) -> None:
    with pytest.raises(SystemExit, match="has 0 models, expected one, registered by: trainer register"):
        start.bundle(tmp_path)
