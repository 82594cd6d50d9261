"""Names, types and shapes of the tensors in weight files, read off their headers with the standard library."""

import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from trainer.errors import ConfigError, quoted

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000  # what the safetensors library reads
POINTER = b"version https://git-lfs"
GGUF = b"GGUF"
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as a header describes it: `dtype` in the words of safetensors."""

    dtype: str
    shape: tuple[int, ...]


def read_tensors(folder: Path, place: str) -> dict[str, TensorInfo]:
    """Every tensor of the model in `folder`, which is one file or several with an index.

    Raises: ConfigError, with every problem of the files, each as one of `place`.
    """
    found: dict[str, TensorInfo] = {}
    problems: list[str] = []
    for file in files_of(folder, place):
        try:
            tensors = read_header(file)
        except ValueError as error:
            problems.append(f"{place}: {str(file)!r} {error}")
            continue
        problems += [
            f"{place}: {name!r} stands in {str(file)!r} and in another file of {str(folder)!r}, expected it once; "
            "save the model again with save_pretrained of transformers"
            for name in sorted(tensors.keys() & found.keys())[:1]
        ]
        found |= tensors
    if problems:
        raise ConfigError(*problems)
    return found


def read_header(file: Path) -> dict[str, TensorInfo]:
    """The tensors of one file. Raises: ValueError, with what the file is instead and what to do."""
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            start = opened.read(8)
            if start.startswith(GGUF):
                raise ValueError("is a GGUF file under another name, expected safetensors; take the model's own files")
            if POINTER.startswith(start) and start:
                raise ValueError(
                    "is a git-lfs pointer and not the weights, expected the file that it stands for; "
                    f"run in that folder: git lfs pull --include {file.name}"
                )
            (length,) = struct.unpack("<Q", start) if len(start) == 8 else (0,)
            if not 2 <= length <= MAX_HEADER_BYTES:
                raise ValueError(
                    f"is no safetensors file ({size:,} bytes, of which it says {length:,} are its header); "
                    "download it again"
                )
            header = opened.read(length)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}; put it right") from None
    if len(header) < length:
        raise ValueError(f"ends within its header, after {size:,} bytes: it is cut short; download it again")
    return _tensors(header, size - 8 - length)


def _tensors(header: bytes, num_bytes: int) -> dict[str, TensorInfo]:
    """Tensors that a header names; `num_bytes` follow it. Raises: ValueError."""
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        found = {str(name): _tensor(entry) for name, entry in entries.items()}
        places = {name: (int(start), int(end)) for name, (start, end) in _offsets(entries)}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError("has a header that cannot be read: it is damaged; download it again") from None
    ends = sorted(places.values())
    expected = ends[-1][1] if ends else 0
    if num_bytes < expected:
        raise ValueError(f"is cut short: {num_bytes:,} bytes of weights are there, of {expected:,}; download it again")
    follows = all(before[1] == after[0] for before, after in zip([(0, 0), *ends], ends, strict=False))
    fits = all(8 * (end - start) == _num_bits(found[name]) for name, (start, end) in places.items())
    if num_bytes != expected or not follows or not fits:
        raise ValueError("has a header that contradicts its contents: it is damaged; download it again")
    return found


def _offsets(entries: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, entry in entries.items():
        yield str(name), entry["data_offsets"]


def _num_bits(info: TensorInfo) -> int:
    return BITS[info.dtype] * math.prod(info.shape)


def _tensor(entry: Mapping[str, Any]) -> TensorInfo:
    if entry["dtype"] not in BITS or any(size < 0 for size in entry["shape"]):
        raise ValueError(entry)
    return TensorInfo(entry["dtype"], tuple(int(size) for size in entry["shape"]))


def files_of(folder: Path, place: str) -> list[Path]:
    """The files that a load reads: one, or those of the index. Raises: ConfigError."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        return _shards(folder, place)
    known = ", ".join(sorted(file.name for file in folder.glob("*.safetensors"))[:3])
    raise ConfigError(
        f"{place}: the folder {str(folder)!r} has weights that nothing names ({known}), expected {SINGLE}, or {INDEX} "
        "with its files; download the index too, or save the model again with save_pretrained of transformers"
    )


def _shards(folder: Path, place: str) -> list[Path]:
    index = folder / INDEX
    try:
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        names = sorted({str(name) for name in named})
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise ConfigError(f"{place}: {str(index)!r} cannot be read as an index of weights; download it again") from None
    if not names:
        raise ConfigError(f"{place}: {str(index)!r} names no file; download it again")
    refuse_names(names, index, place)
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise ConfigError(
            f"{place}: {len(absent)} of the {len(names)} files that {str(index)!r} names are not there, "
            f"the first is {absent[0]!r}; download them too"
        )
    return [folder / name for name in names]


def refuse_names(names: Iterable[str], index: object, place: str) -> None:
    """Raises: ConfigError, for names in an index that are no safetensors files inside the model's folder."""
    problems = [
        f"{place}: {str(index)!r} names the file {quoted(name)}, expected *.safetensors inside the folder; "
        "do not use this model unless you know why"
        for name in names
        if not name.endswith(".safetensors") or PurePosixPath(name).is_absolute() or ".." in name or "\\" in name
    ]
    if problems:
        raise ConfigError(*problems)
