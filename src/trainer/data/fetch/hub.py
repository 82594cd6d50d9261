"""Data sets of the model hub: hf://ORG/NAME@REVISION/FILE?config=…&split=…&prompt=COLUMN&answer=COLUMN.

Only files of Parquet and JSON are read: a data set that is built by a script of its own is refused, and no code of a
data set is ever loaded.
"""

import fnmatch
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from trainer.data.convert.files import convert_file
from trainer.data.fetch.compressed import is_compressed_name, unpacked
from trainer.data.fetch.limits import Limited
from trainer.data.fetch.store import Download, Fetched
from trainer.data.json_scanner import JsonProblem
from trainer.data.layouts.columns import Columns
from trainer.data.quoting import counted, listed, printable, quoted
from trainer.data.rules.row import method_of
from trainer.data.strict_json import parse
from trainer.errors import ConfigError, DataError
from trainer.extras import need
from trainer.kinds import Method, learns_from_pairs

if TYPE_CHECKING:
    from huggingface_hub import DatasetInfo

FORM = "hf://ORG/NAME@REVISION/FILE?config=NAME&split=NAME&prompt=COLUMN&answer=COLUMN&to=dpo"
COLUMNS = ("prompt", "answer", "system", "context")
SUFFIXES = (".parquet", ".jsonl", ".json", ".ndjson")
_SPLITS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
_SPLIT = re.compile(rf"(?:^|[/._ -])({'|'.join(_SPLITS)})(?=[/._ -]|\d|$)", re.IGNORECASE)
_ADDRESS = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?(?:/(?P<file>.+))?")
_PIECE_BYTES = 1 << 20
TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A part of a data set, and the columns of its rows that are question and answer."""

    repo: str
    revision: str | None
    file: str | None
    config: str | None
    split: str
    columns: Columns | None
    method: Method  # the training that rows are converted for


def download_of(address: str, say: Callable[[str], None]) -> Download:
    """Makes chat rows of a data set's files; its revision is the commit. Raises: ConfigError."""
    wanted = _parse(address)

    def download(revision: str | None, target: Limited) -> Fetched | None:
        need("reading data sets of the hub", "huggingface_hub", extra="sources")
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
        with _told(address):
            api = HfApi()
            found = api.dataset_info(
                wanted.repo, revision=wanted.revision, files_metadata=True, timeout=TIMEOUT_SECONDS
            )
        if found.sha == revision:
            return None
        names = _chosen(found, wanted, address)
        sizes = {file.rfilename: file.size or 0 for file in found.siblings or ()}
        target.expect(sum(sizes[name] for name in names))
        for name in names:
            with _told(address):
                path = hf_hub_download(wanted.repo, name, repo_type="dataset", revision=found.sha)
            _append(Path(path), target, wanted, address, say)
        return Fetched(f"{wanted.repo.rpartition('/')[2]}.{wanted.split}.jsonl", found.sha)

    return download


def _parse(address: str) -> _Wanted:
    text, _, query = address.removeprefix("hf://").partition("?")
    found = _ADDRESS.fullmatch(text)
    given = dict(parse_qsl(query))
    if found is None or len(given) < query.count("=") or not given.keys() <= {"config", "split", "to", *COLUMNS}:
        raise ConfigError(f"{printable(address)}: names no data set, expected {FORM}; correct it")
    columns = {name: given[name] for name in COLUMNS if name in given}
    method: Method = "dpo" if (to := given.get("to", "sft")) == "dpo" else "sft"
    if to != method or (learns_from_pairs(method) and columns):
        raise ConfigError(f"{printable(address)}: says to={to}, expected to=sft, or to=dpo without columns; correct it")
    if columns and not {"prompt", "answer"} <= columns.keys():
        raise ConfigError(f"{printable(address)}: names one column alone, expected prompt and answer; add the other")
    mapped = (
        Columns(columns["answer"], columns["prompt"], columns.get("system"), (), columns.get("context"))
        if columns
        else None
    )
    split = given.get("split", "train")
    return _Wanted(found["repo"], found["revision"], found["file"], given.get("config"), split, mapped, method)


def _chosen(found: "DatasetInfo", wanted: _Wanted, address: str) -> list[str]:
    """The files of the split, in the order of their names. Raises: DataError."""
    names = sorted(file.rfilename for file in found.siblings or ())
    place = printable(address)
    if wanted.file is not None:
        if wanted.file not in names:
            raise DataError(f"{place}: the data set has no such file, expected one of its own; correct the address")
        if not _is_data(wanted.file):
            raise DataError(f"{place}: is no file of rows, expected one of {listed(SUFFIXES, 'or')}; name another")
        return [wanted.file]
    rows = [name for name in names if _is_data(name) and not name.startswith(".")]
    if not rows:
        raise DataError(
            f"{place}: has no files of rows, expected {listed(SUFFIXES, 'or')}; what a script of a data set makes is "
            "not fetched"
        )
    splits = _splits(found, rows, wanted.config, place)
    if chosen := splits.get(wanted.split):
        return sorted(chosen)
    known = listed([quoted(name) for name in splits], "or")
    raise DataError(f"{place}: has no split {quoted(wanted.split)}, expected {known}; add split=NAME")


def _is_data(name: str) -> bool:
    plain = name.rpartition(".")[0] if is_compressed_name(name) else name
    return plain.lower().endswith(SUFFIXES)


def _splits(found: "DatasetInfo", rows: Sequence[str], config: str | None, place: str) -> dict[str, list[str]]:
    """The files of each split: as the data set's card says it, else by their names."""
    configs = _configs(found)
    if configs:
        wanted = config or _default_of(configs)
        if wanted not in configs:
            known = listed([quoted(name) for name in list(configs)[:20]], "or")
            shown = "no config of that name" if config else "several configs"
            raise DataError(f"{place}: has {shown}, expected {known}; add config=NAME")
        patterns = configs[wanted]
        return {
            split: [name for name in rows if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns[split])]
            for split in patterns
        }
    if config is not None and not (rows := [name for name in rows if config in name.split("/")[:-1]]):
        raise DataError(f"{place}: has no folder {quoted(config)}, expected one of its own; correct config=NAME")
    splits: dict[str, list[str]] = {}
    for name in rows:
        match = _SPLIT.search(name)
        splits.setdefault(_SPLITS[match[1].lower()] if match else "train", []).append(name)
    return splits


def _configs(found: "DatasetInfo") -> dict[str, dict[str, list[str]]]:
    """For each config of the card the patterns of each split."""
    card: Any = found.card_data
    listed_ones = card.get("configs") if card is not None else None
    made: dict[str, dict[str, list[str]]] = {}
    for entry in listed_ones if isinstance(listed_ones, list) else []:
        match entry:
            case {"config_name": str(name), "data_files": files}:
                made[name] = _patterns(files)
    return made


def _patterns(files: object) -> dict[str, list[str]]:
    match files:
        case str():
            return {"train": [files]}
        case [*entries] if all(isinstance(entry, str) for entry in entries):
            return {"train": [str(entry) for entry in entries]}
        case [*entries]:
            found: dict[str, list[str]] = {}
            for entry in entries:
                match entry:
                    case {"split": str(split), "path": str(path)}:
                        found.setdefault(split, []).append(path)
                    case {"split": str(split), "path": [*paths]}:
                        found.setdefault(split, []).extend(map(str, paths))
            return found
    return {}


def _default_of(configs: Mapping[str, object]) -> str | None:
    return "default" if "default" in configs else next(iter(configs)) if len(configs) == 1 else None


def _append(path: Path, target: Limited, wanted: _Wanted, address: str, say: Callable[[str], None]) -> None:
    """Write the rows of a file: those of the chat format as they are, others converted. Raises: DataError."""
    with tempfile.TemporaryDirectory() as folder:
        source = _plain(path, Path(folder), address)
        if wanted.columns is not None or not _is_native(source, wanted.method):
            made = Path(folder) / "rows.jsonl"
            conversion = convert_file(source, made, columns=wanted.columns, method=wanted.method)
            if conversion.dropped:
                left = ", ".join(f"{name} ({counted(count, 'row')})" for name, count in conversion.dropped.items())
                say(f"{printable(address)}: not carried, as a chat row has no place for it: {left}")
            source = made
        last = b"\n"
        with source.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                target.write(piece)
                last = piece[-1:]
        if last != b"\n":
            target.write(b"\n")


def _plain(path: Path, folder: Path, address: str) -> Path:
    if not is_compressed_name(path.name):
        return path
    plain = folder / path.stem
    with path.open("rb") as raw, plain.open("wb") as file:
        made = unpacked(raw, file, path.name, address)
    return plain if made else path


def _is_native(path: Path, method: Method) -> bool:
    """True for JSON Lines whose first row is of the layout that `method` is trained on."""
    with path.open("rb") as file:
        line = file.readline(_PIECE_BYTES)
    try:
        row = parse(line.decode("utf-8-sig").strip())
    except UnicodeDecodeError:
        return False
    return not isinstance(row, JsonProblem) and isinstance(row, dict) and method_of(row) == method


@contextmanager
def _told(address: str) -> Iterator[None]:
    """The hub's refusals in words."""
    try:
        yield
    except Exception as error:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if not kinds & {"HfHubHTTPError", "EntryNotFoundError", "OfflineModeIsEnabled", "HTTPError", "OSError"}:
            raise
        place = printable(address)
        if "GatedRepoError" in kinds:
            raise DataError(
                f"{place}: is gated, expected an account that may read it; accept its terms on {_host()} and set "
                "HF_TOKEN"
            ) from None
        if "RevisionNotFoundError" in kinds:
            raise DataError(f"{place}: has no such revision, expected a branch, tag or commit; correct it") from None
        if "RepositoryNotFoundError" in kinds:
            raise DataError(
                f"{place}: the hub has no such data set, or HF_TOKEN may not read it, expected hf://ORG/NAME; "
                "correct it"
            ) from None
        found = quoted(" ".join(str(error).split()))
        raise DataError(f"{place}: the hub did not send it ({found}), expected the data set; try again") from None


def _host() -> str:
    from huggingface_hub import constants

    return str(urlsplit(constants.ENDPOINT).hostname)
