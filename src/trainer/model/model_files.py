"""The model's own files in a folder: a copy takes files by name, and no link leads out."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from trainer.errors import ConfigError

# What transformers, tokenizers and PEFT read, and what explains it to people.
NAMES = (
    "config.json", "generation_config.json", "adapter_config.json", "manifest.json", "*.safetensors",
    "*.safetensors.index.json", "quantize_config.json", "quantization_config.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "tekken.json", "*.model", "*.tiktoken", "chat_template.json", "chat_template.jinja",
    "additional_chat_templates/*.jinja", "processor_config.json", "preprocessor_config.json",
    "README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "NOTICE.txt", "USE_POLICY.md",
)  # fmt: skip


def model_files(folder: Path) -> list[Path]:
    """A model's own files, in the order of their names.

    Links are followed within the folder, and from a snapshot of the hub's cache to its blobs. Raises: ConfigError, for
    a link that leads elsewhere: what it names may be anything.
    """
    found = sorted(path for path in [*folder.glob("*"), *folder.glob("*/*")] if _is_named(path.relative_to(folder)))
    allowed = list(_roots(folder))
    problems = [
        f"model.base: {str(path)!r} is a link to {str(path.resolve())!r}, expected files of the folder; "
        "put the file itself there, or remove the link"
        for path in found
        if not any(path.resolve().is_relative_to(root) for root in allowed)
    ]
    if problems:
        raise ConfigError(*problems)
    return [path for path in found if path.is_file()]


def _is_named(relative: Path) -> bool:
    path = relative.as_posix()
    return any(fnmatchcase(path, name) and path.count("/") == name.count("/") for name in NAMES)


def _roots(folder: Path) -> Iterator[Path]:
    root = folder.resolve()
    yield root
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        yield root.parent.parent / "blobs"
