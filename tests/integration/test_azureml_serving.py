"""The images of deployments, which cannot run here: what they copy exists, what they call takes what it is told."""

import importlib.util
import re
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import REPOSITORY
from trainer.backends.azureml.deploy.register import (
    CONTEXTS,
    PORT,
    environment_version,
    routes,
    stage_code,
    stage_context,
)
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
    assert sorted(path.name for path in (tmp_path / mode).iterdir()) == sorted(Path(p).name for p in CONTEXTS[mode])
    text = (tmp_path / mode / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (\S+) ", text, flags=re.MULTILINE)
    assert copied == [Path(name).name for name in CONTEXTS[mode] if Path(name).name != "Dockerfile"]
    (image,) = re.findall(r"^FROM (\S+)$", text, flags=re.MULTILINE)
    assert re.search(r":v?\d+\.\d+", image), "a tag that moves is no version"
    assert "latest" not in image
    assert f"EXPOSE {PORT[mode]}" in text
    assert routes(mode)["scoring_route"]["port"] == PORT[mode]
    assert environment_version(mode) == environment_version(mode)


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


def test_a_container_without_a_model_ends_with_the_reason(tmp_path: Path, start: ModuleType) -> None:
    with pytest.raises(SystemExit, match="has 0 models, expected one, registered by: trainer register"):
        start.bundle(tmp_path)
