"""The origin of a run: `manifest.json`, written before anything is trained or created, and enough to do it again.

Format 1 is that of version 0.1.0, whose files carry no number and have the keys of `launch` beside the others.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainer.errors import ConfigError
from trainer.runs import files

if TYPE_CHECKING:
    from pydantic import TypeAdapter

NAME = "manifest.json"
FORMAT = 2

Role = Literal["train", "validation"]


class DamagedManifest(ConfigError):
    """A manifest that is not there, or does not say what each run's says."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path}: does not say what the run was made from, expected the file that training wrote; "
            "bring the old one back, or train again"
        )


@dataclass(frozen=True, slots=True)
class PinnedBase:
    """A base model by what cannot change: a hub's by its commit, a folder's by a digest of its weights."""

    name: str
    revision: str | None
    weights_sha256: str | None

    @property
    def is_pinned(self) -> bool:
        """False for a hub model of a run of version 0.1.0, which noted no commit."""
        return bool(self.revision or self.weights_sha256)

    def __str__(self) -> str:
        pins = (("revision", self.revision), ("weights", self.weights_sha256))
        return ", ".join([self.name, *(f"{name} {pin}" for name, pin in pins if pin)])


@dataclass(frozen=True, slots=True)
class Origin:
    """The place that a data file was fetched from, and what it held: a file of rows, or one to unpack or convert."""

    address: str  # as written; it holds no secret
    revision: str | None  # an ETag, a commit or a version
    sha256: str
    num_bytes: int


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file as the config lists it, and as it was read."""

    path: str  # as written
    role: Role
    sha256: str
    rows: int  # without an error
    weight: float = 1.0  # how often an epoch uses it
    origin: Origin | None = None  # of one that was fetched

    @property
    def is_unchanged(self) -> bool:
        """True while the file is there and holds what was read."""
        try:
            return files.sha256_of(Path(self.path)) == self.sha256
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Rows of each role, after those that are too long were dropped."""

    train: int
    validation: int


@dataclass(frozen=True, slots=True)
class ParentRun:
    """The run whose adapter or model is trained further, and the step of its checkpoint, where one was named."""

    run: str
    step: int | None


@dataclass(frozen=True, slots=True)
class WeightShare:
    """Weights of one kind in the base: how many there are, and how many got an adapter and were quantized."""

    kind: str
    weights: int
    adapted: int
    quantized: int


def has_quantized_experts(shares: Iterable[WeightShare]) -> bool:
    """True where the experts of a mixture are quantized."""
    return any(share.kind == "experts" and share.quantized > 0 for share in shares)


@dataclass(frozen=True, slots=True)
class LongRow:
    """A row that `data.on_overlength` dropped or shortened."""

    place: str
    tokens: int
    outcome: str


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as a service gets it: equal digests are equal bytes."""

    role: Role
    paths: tuple[str, ...]
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Launch:
    """The facts by which an interrupted launch at the fine-tuning service resumes."""

    token: str  # stands in the name of everything that the run creates
    family: str  # names prices and the encoding
    uploads: tuple[Upload, ...]
    tokens_counted: str
    bills: str = ""  # the job, in the words of its quote
    comparison_quoted: bool = False  # with the job
    training_price: float | None = None  # of a million tokens, as quoted
    dearest_price: float | None = None  # the same by the source that has the highest, against which a cap is held


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Every backend writes the same; what only one of them knows is None elsewhere."""

    trainer_version: str
    data: tuple[DataFile, ...]
    system_prompt: str | None  # of most training rows: chatting with the result begins with it
    tools: tuple[dict[str, Any], ...]  # of most training rows
    python: str
    packages: Mapping[str, str]
    git_revision: str | None
    base: PinnedBase
    parent: ParentRun | None
    template_sha256: str | None
    rows: RowCounts
    overlength: tuple[LongRow, ...] = ()
    num_tokens: int
    num_supervised_tokens: int
    seed: int
    dtype: str
    device: str
    num_processes: int = 1
    attention: str | None = None
    weights: tuple[WeightShare, ...] = ()  # of the base, by kind
    num_threads: int | None = None
    fingerprint: Mapping[str, Any] | None = None  # what the result of training here depends on
    launch: Launch | None = None  # at the fine-tuning service

    @property
    def has_quantized_experts(self) -> bool:
        """True where the experts of a mixture were quantized, which bitsandbytes by itself cannot do."""
        return has_quantized_experts(self.weights)

    def files(self, role: Role) -> list[DataFile]:
        """The data files of a role, in the order of the config."""
        return [file for file in self.data if file.role == role]

    def as_json(self) -> dict[str, Any]:
        """The object of the file."""
        return {"format": FORMAT} | asdict(self)


def read(path: Path) -> Manifest | None:
    """The manifest of a file, None where there is no file yet.

    Raises: ConfigError, when it is damaged or a newer version wrote it.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    return parse(content, path)


def parse(content: bytes, path: Path) -> Manifest:
    """The manifest that `content`, of the file at `path`, holds. Raises: ConfigError."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise DamagedManifest(path) from None
    if not isinstance(value, dict):
        raise DamagedManifest(path)
    files.refuse_newer(path, value.get("format"), FORMAT)
    current = value if "format" in value else _from_first(value)
    try:
        return _adapter().validate_json(json.dumps(current), strict=True)
    except ValueError:
        raise DamagedManifest(path) from None


def refuse_newer(path: Path) -> None:
    """The format of a run is that of its manifest. Raises: ConfigError, when a newer version wrote it."""
    files.refuse_newer(path, files.read_record(path).get("format"), FORMAT)


def _from_first(value: dict[str, Any]) -> dict[str, Any]:
    """An object of format 1 in the present form."""
    if "token" not in value:
        return value
    names = ("token", "family", "uploads", "tokens_counted", "bills", "comparison_quoted")
    return value | {"launch": {name: value[name] for name in names if name in value}}


@cache
def _adapter() -> "TypeAdapter[Manifest]":
    from pydantic import TypeAdapter  # slow to import, and listing runs needs none

    return TypeAdapter(Manifest)
