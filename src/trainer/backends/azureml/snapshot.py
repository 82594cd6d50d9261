"""Snapshot of this machine for a job: a new folder with what it needs, chosen file by file.

Azure ML's client uploads a folder whole, `.env`, `.git` and keys with it. So the user's folder is never given to it:
`code/` holds this package's own files and the config, `data/` the files that the config names, `base/` a local model or
an earlier run's adapter. The config's paths are rewritten to these; nothing else is read.
"""

import hashlib
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trainer
from trainer.config.load import dump_config
from trainer.config.schema import DataSource, RunConfig
from trainer.data.read.origins import record_of
from trainer.data.read.sources import apart, listed_files
from trainer.errors import ConfigError
from trainer.model.lineage import Parent, find_parent
from trainer.model.model_files import model_files
from trainer.model.tiny import FOLDER as TINY_FOLDER
from trainer.runs import files
from trainer.runs.checkpoint import MANIFEST, folder_of

OWN_SUFFIXES = frozenset({".py", ".jinja", ".txt"})


@dataclass(frozen=True, slots=True)
class StagedJob:
    """The staged folders. A base that is not on this machine has none."""

    folder: Path
    base: Path | None

    @property
    def code(self) -> Path:
        return self.folder / "code"

    @property
    def data(self) -> Path:
        return self.folder / "data"


def stage(config: RunConfig, folder: Path) -> StagedJob:
    """Fill `folder` with what a job of this config needs. Raises: ConfigError, when a file cannot be read."""
    try:
        code = folder / "code"
        copy_package(code / "trainer")
        names = _copy_data(config, folder / "data")
        base = _copy_base(config, folder / "base")
        if config.model.chat_template is not None:
            shutil.copyfile(config.model.chat_template, code / "chat_template.jinja")
        (code / "config.yaml").write_text(dump_config(_as_on_the_node(config, names, base)), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{error.filename}: cannot be copied for the job: {error.strerror}, expected a file that can be read"
        ) from error
    return StagedJob(folder, folder / "base" if base is not None else None)


def list_files(folder: Path) -> list[tuple[str, int]]:
    """Path and size in bytes of every file, by path."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in found]


def content_hash(folder: Path) -> str:
    """sha256 over paths and contents: equal folders have equal names at the service."""
    digest = hashlib.sha256()
    for name, size in list_files(folder):
        with (folder / name).open("rb") as file:
            digest.update(f"{name}\0{size}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def data_names(config: RunConfig) -> dict[str, str]:
    """For each data file its path on the node."""
    names = apart(source.path for _, source in listed_files(config.data))
    return {path: f"data/{name}" for path, name in names.items()}


def copy_package(target: Path) -> None:
    """The files of the package `trainer` by their kinds: code, templates, texts, and builtin:tiny."""
    source = Path(trainer.__file__).parent
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
        if path.is_file() and not path.is_symlink() and not hidden and _is_own(path):
            _copy(path, target / relative)


def own_files() -> Path:
    """The folder `azureml/` with job template, environments and scoring script. Raises: ConfigError."""
    places = (Path(__file__).parents[4] / "azureml", Path(sys.prefix) / "share" / "azure-llm-trainer" / "azureml")
    for folder in places:
        if (folder / "job.yml").is_file():
            return folder
    raise ConfigError(f"azureml/job.yml: not found in {' or '.join(map(str, places))}; install the package again")


def _is_own(path: Path) -> bool:
    return path.suffix in OWN_SUFFIXES or path.parent == TINY_FOLDER


def _copy_data(config: RunConfig, folder: Path) -> dict[str, str]:
    names = data_names(config)
    for path, name in names.items():
        _copy(Path(path), folder.parent / name)
        if (record := record_of(Path(path))).is_file():  # the origin of a fetched file, for the job's manifest
            _copy(record, record_of(folder.parent / name))
    return names


def _copy_base(config: RunConfig, folder: Path) -> str | None:
    """`model.base` on the node, where it is on this machine now; None where the node gets it elsewhere."""
    parent = find_parent(config)
    if parent is not None:
        return _copy_parent(parent, folder)
    source = Path(config.model.base)
    if not source.is_dir():
        return None
    for path in model_files(source):
        _copy(path, folder / path.relative_to(source))
    return "base"


def _copy_parent(parent: Parent, folder: Path) -> str:
    """An earlier run: its records, and the adapter or the checkpoint that is trained further."""
    source, target = parent.run.path, folder / parent.run.name
    if Path(parent.base.name).is_dir():
        raise ConfigError(
            f"model.base: {source} was trained on the folder {parent.base.name!r}, which the job has not, expected "
            "a run whose base is on the hub; merge it and upload that: trainer export RUN --merge --output FOLDER"
        )
    for name in ("config.yaml", "manifest.json", "status.json"):
        _copy(source / name, target / name)
    if (template := parent.run.config().model.chat_template) is not None:
        raise ConfigError(
            f"model.base: {source} has a chat template of its own in {template!r}, which the job has not; "
            "give it to this run too: model.chat_template"
        )
    if parent.step is None:
        for path in model_files(parent.adapter):
            _copy(path, target / "adapter" / path.relative_to(parent.adapter))
        return f"base/{parent.run.name}"
    checkpoint = folder_of(parent.run.checkpoints, parent.step)
    for name in (MANIFEST, *map(_flat_name, files.read_record(checkpoint / MANIFEST)["files"])):
        _copy(checkpoint / name, target / "checkpoints" / checkpoint.name / name)
    return f"base/{parent.run.name}@{parent.step}"


def _flat_name(name: str) -> str:
    """A checkpoint is a flat folder; no name in its manifest leads elsewhere."""
    return Path(name).name


def _as_on_the_node(config: RunConfig, names: dict[str, str], base: str | None) -> RunConfig:
    """The config with the paths that the job sees."""
    train: Sequence[DataSource] = [
        source.model_copy(update={"path": names[source.path]}) for source in config.data.train_sources
    ]
    validation = [names[path] for path in config.data.validation_paths] or None
    model = {"base": base or ("base" if config.model.base.startswith("azureml:") else config.model.base)}
    if config.model.chat_template is not None:
        model["chat_template"] = "chat_template.jinja"
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"train": list(train), "validation": validation}),
            "model": config.model.model_copy(update=model),
            "backend": config.backend.model_copy(update={"kind": "local"}),
            "run": config.run.model_copy(update={"root": "runs"}),
        }
    )


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
