"""`builtin:tiny`: a very small chat model for machines without a network, for CI and for first steps.

A Llama of two million parameters and a byte-level BPE tokenizer, both trained on the bundled text by `tiny_recipe.py`
and shipped: it is the same model on every machine. It has learned what an answer looks like and little else.
"""

import hashlib
from functools import cache
from pathlib import Path

from trainer.errors import ConfigError
from trainer.runs import Run
from trainer.runs.damage import readable_manifest

NAME = "builtin:tiny"
FOLDER = Path(__file__).with_name("tiny_base")
DIGEST = "bc73f979ede0e47d17079ca15e222ef6e656fd79455fdeaf5e5c57818cb382d2"


@cache
def tiny_base() -> Path:
    """The folder with the model.

    Raises: ConfigError, when it is not what was shipped.
    """
    if digest(FOLDER) != DIGEST:
        raise ConfigError(
            f"model.base: {str(FOLDER)!r} is not the {NAME} that was shipped, expected files of digest {DIGEST[:12]}; "
            "install azure-llm-trainer again"
        )
    return FOLDER


def refuse_former(run: Run) -> None:
    """Raises: ConfigError, for a run on a base of this name that was made on first use, other on each machine."""
    manifest = readable_manifest(run)
    if manifest is None or manifest.launch is not None:  # a server pins its bases itself
        return
    if manifest.base.name == NAME and not manifest.base.weights_sha256:
        raise ConfigError(
            f"{run.path}: was trained on a {NAME} that an earlier version made on its first use, expected the one that "
            f"this version ships; train it again: train --config {run.path}/config.yaml run.name=NAME"
        )


def digest(folder: Path) -> str:
    """sha256 over the names and contents of a folder's files."""
    total = hashlib.sha256()
    for file in sorted(folder.glob("*")):
        total.update(file.name.encode())
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()
