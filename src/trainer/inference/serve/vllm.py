"""`trainer serve --engine vllm`: the same runs by vLLM, which is what production serving needs."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from trainer.child_environment import training_environment
from trainer.errors import ConfigError, MissingDependency
from trainer.inference.serve.limits import Limits
from trainer.inference.trained import stop_ids, trained_adapter, trained_base, trained_tokenizer
from trainer.runs import Run

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # of vLLM's --max-lora-rank
KEY_VARIABLE = "VLLM_API_KEY"


def serve_with_vllm(program: str, runs: Sequence[Run], host: str, port: int, key: str, limits: Limits) -> NoReturn:
    """Become vLLM. Raises: ConfigError."""
    words = command(program, runs, host, port, limits)
    os.execve(program, words, training_environment(**environment(key)))  # noqa: S606  # there is no shell to miss


def find_vllm() -> str:
    """Its command, beside this Python or on the path. Raises: MissingDependency."""
    beside = Path(sys.executable).with_name("vllm")
    found = str(beside) if beside.is_file() else shutil.which("vllm")
    if found is None:
        raise MissingDependency("--engine: vllm is not installed; run: pip install vllm")
    return found


def environment(key: str) -> Mapping[str, str]:
    """The key goes by the environment: other users of the machine can read command lines."""
    return {KEY_VARIABLE: key}


def command(program: str, runs: Sequence[Run], host: str, port: int, limits: Limits) -> list[str]:
    """All arguments: the pinned base, the adapters under the runs' names, the tokenizer that was trained.

    Raises: ConfigError, when vLLM cannot serve the runs' adapters.
    """
    refuse_for_vllm(runs)
    first = runs[0]
    adapter, base, settings = trained_adapter(first), trained_base(first), first.config().model
    rank = next(rank for rank in RANKS if rank >= max(run.config().lora.r for run in runs))
    words = [program, "serve", base.source, "--served-model-name", base.name]
    words += ["--enable-lora", "--lora-modules", *(f"{run.name}={trained_adapter(run).resolve()}" for run in runs)]
    words += ["--max-lora-rank", str(rank), "--max-loras", str(len(runs))]
    words += ["--tokenizer", str(adapter.resolve()), "--generation-config", str(_generation_config(first))]
    words += ["--host", host, "--port", str(port), "--dtype", settings.dtype]
    words += ["--max-num-seqs", str(limits.max_requests)]
    if base.from_hub:
        words += ["--revision", str(base.revision)]
    if settings.quantization == "nf4":
        words += ["--quantization", "bitsandbytes"]
    return words


def refuse_for_vllm(runs: Sequence[Run]) -> None:
    """Raises: ConfigError, for every run whose adapter, base or template vLLM does not take."""
    problems, template = [], runs[0].manifest().template_sha256
    for run in runs:
        config = run.config()
        merge = f"merge it with: trainer export {run.name} --output DIR --merge, and serve it with: vllm serve DIR"
        if config.lora.use_dora:
            problems.append(f"run {run.name!r}: has a DoRA adapter, which vLLM does not take; {merge}")
        if config.lora.r > RANKS[-1]:
            problems.append(f"run {run.name!r}: lora.r is {config.lora.r}, expected at most {RANKS[-1]} for vLLM")
        if config.model.quantization == "int8":
            problems.append(f"run {run.name!r}: was trained on an int8 base, which vLLM does not make; {merge}")
        if run.manifest().has_quantized_experts:
            problems.append(f"run {run.name!r}: was trained on experts in NF4, which vLLM does not make; {merge}")
        if run.manifest().template_sha256 != template:
            problems.append(
                f"run {run.name!r}: its chat template is not that of {runs[0].name!r}, expected one template, which "
                "is all that vLLM takes; serve it apart"
            )
    if problems:
        raise ConfigError(*problems)


def _generation_config(run: Run) -> Path:
    """A folder with the ids that end an answer, for vLLM to read: the base's own may lack the template's."""
    from trainer.data.render.rendering import Renderer

    tokenizer = trained_tokenizer(run)
    stops = stop_ids(Renderer(tokenizer).end_markers, tokenizer.eos_token_id)
    folder = Path(tempfile.mkdtemp(prefix="trainer-vllm-"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}), encoding="utf-8")
    return folder
