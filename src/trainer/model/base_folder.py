"""Reasons why a name given as `model.base` is no model, each with its remedy."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from trainer.errors import ConfigError
from trainer.model.tiny import NAME as TINY
from trainer.model.weight_files import GGUF

ADAPTER_CONFIG = "adapter_config.json"
HUB_ID = re.compile(r"(?:[\w.-]{1,96}/)?[\w.-]{1,96}")


def refuse_base(name: str) -> None:
    """Raises: ConfigError, for a name of which no library and no network is needed to see that it is no model."""
    if name == TINY:
        return
    if name.startswith("builtin:"):
        raise ConfigError(f"model.base: {name!r} is not known, expected {TINY!r}")
    refuse_folder(name)
    if not Path(name).is_dir() and not HUB_ID.fullmatch(name):
        raise ConfigError(
            f"model.base: {name!r} was not found as a folder here nor on the model hub (no id there has this form), "
            "expected a hub id, a folder or builtin:tiny; correct the path"
        )


def refuse_folder(name: str) -> None:
    """Raises: ConfigError, for a file, and for a folder without a config or without weights as safetensors.

    Other formats can run code when they are read.
    """
    path = Path(name)
    if path.is_file():
        raise ConfigError(f"model.base: {name!r} is {_file_kind(path)}")
    if path.is_dir() and (problem := next(_problems(path), None)):
        raise ConfigError(f"model.base: the folder {name!r} {problem}")


def _file_kind(file: Path) -> str:
    with file.open("rb") as opened:
        is_gguf = opened.read(4) == GGUF
    return _gguf(file) if is_gguf else "a file, expected the folder that holds the model"


def _gguf(file: Path) -> str:
    folder = str(file.parent)
    return (
        "a GGUF file, the format of llama.cpp, expected safetensors with a config.json; take the model's own files, "
        'or convert the file, which stays as coarse as it is: pip install gguf; python -c "from transformers import '
        f"AutoModelForCausalLM as M, AutoTokenizer as T, GgufConfig as G; f = {folder!r}; n = {file.name!r}; "
        "M.from_pretrained(f, gguf_file=n, quantization_config=G(dequantize=True)).save_pretrained('converted'); "
        "T.from_pretrained(f, gguf_file=n).save_pretrained('converted')\""
    )


def _problems(folder: Path) -> Iterator[str]:
    has_config, is_adapter = (folder / "config.json").is_file(), (folder / ADAPTER_CONFIG).is_file()
    weights, gguf = sorted(folder.glob("*.safetensors")), sorted(folder.glob("*.gguf"))
    if is_adapter and not has_config:
        yield f"holds an adapter and no model, expected a model; {_way_on(folder)}"
    if gguf and not (has_config and weights):
        yield f"holds {_gguf(gguf[0])}"
    if not has_config:
        yield "has no config.json, expected a model in Hugging Face format"
    if is_adapter:
        yield (
            f"holds a model and an adapter, expected one of them; move {ADAPTER_CONFIG} and adapter_model.safetensors "
            "to another folder"
        )
    if not weights:
        yield ("has no safetensors weights, expected *.safetensors; convert it with save_pretrained of transformers")


def _way_on(folder: Path) -> str:
    """Our own export says which run it is from."""
    try:
        run = json.loads((folder / "parity.json").read_text(encoding="utf-8"))["run"]
    except (OSError, ValueError, LookupError, TypeError):
        run = None
    if not isinstance(run, str):
        return "merge it into its base with merge_and_unload of PEFT, and give the folder of the result"
    return (
        f"to train it further give its run: model.base=runs/{run}; or write the merged model: "
        f"trainer export runs/{run} --merge --output FOLDER"
    )
