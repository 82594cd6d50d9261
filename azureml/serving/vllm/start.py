"""Become vLLM: the pinned base with the adapter that Azure ML has mounted, the trained template, its end markers.

It needs the standard library alone, and gpu_check.py beside it. What it does not find ends it with the reason in the
container's log.
"""

import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # of vLLM's --max-lora-rank
PORT = "8000"


def main() -> None:
    """Replace this process by vLLM, on a machine whose GPUs can be used."""
    import gpu_check  # trainer deploy puts it beside this file

    if unusable := gpu_check.problem(gpu_check.expected_gpus(os.environ)):
        sys.exit(unusable)
    words = command(Path(os.environ["AZUREML_MODEL_DIR"]), os.environ)
    sys.stdout.write(f"starting: {shlex.join(words)}\n")
    sys.stdout.flush()  # it is lost in the exec otherwise
    os.execvp(words[0], words)  # noqa: S606  # becomes vLLM without a shell: the words are arguments


def command(model_dir: Path, environment: Mapping[str, str]) -> list[str]:
    """All arguments. Without a key: Azure ML asks for the endpoint's own before a request gets here."""
    folder = bundle(model_dir)
    origin, adapter = read(folder / "parity.json"), read(folder / "adapter_config.json")
    named, revision = str(adapter["base_model_name_or_path"]), adapter.get("revision")
    base = str(folder / named) if (folder / named).is_dir() else named
    words = ["vllm", "serve", base, "--served-model-name", str(origin["base"])]
    words += ["--enable-lora", "--lora-modules", f"{origin['run']}={folder}", "--max-lora-rank", rank(adapter["r"])]
    words += ["--tokenizer", str(folder), "--generation-config", str(folder)]
    words += ["--dtype", str(origin["dtype"]), "--host", "0.0.0.0", "--port", PORT]  # noqa: S104  # a container's only way out
    words += ["--max-num-seqs", environment.get("TRAINER_MAX_REQUESTS", "32")]
    words += ["--tensor-parallel-size", environment.get("TRAINER_GPUS", "1")]
    if revision:
        words += ["--revision", str(revision)]
    if origin["quantization"] == "nf4":
        words += ["--quantization", "bitsandbytes"]
    if length := environment.get("TRAINER_MAX_LENGTH"):
        words += ["--max-model-len", length]
    if parser := environment.get("TRAINER_TOOL_PARSER"):
        words += ["--enable-auto-tool-choice", "--tool-call-parser", parser]
    return words


def bundle(model_dir: Path) -> Path:
    """The model's folder, which Azure ML mounts under its name and version."""
    found = sorted(path.parent for path in model_dir.rglob("parity.json"))
    if len(found) != 1:
        sys.exit(f"{model_dir}: has {len(found)} models, expected one, registered by: trainer register")
    return found[0]


def rank(r: int) -> str:
    """The next one that vLLM allows."""
    allowed = next((rank for rank in RANKS if rank >= r), None)
    if allowed is None:
        sys.exit(f"adapter_config.json: r is {r}, expected at most {RANKS[-1]} for vLLM")
    return str(allowed)


def read(path: Path) -> Any:
    """The value of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
