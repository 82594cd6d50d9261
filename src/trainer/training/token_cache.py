"""Rendered rows kept for the next start: the tokens of large files, one Arrow file for each set of inputs.

A file's name is the digest of all that its tokens depend on. It is written beside and renamed, so that two processes or
a kill leave a whole file or none; what cannot be read, or is not what was written, is rendered again.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config.schema import DataConfig
from trainer.data.overlength import Touched
from trainer.data.rendering import IGNORE_INDEX, Example, Renderer
from trainer.model.cache_folder import cache_folder
from trainer.runs.files import write_whole

MIN_ROWS = 2000  # fewer are rendered in a second or two
KEPT_FILES = 8
SPLIT, ROW, IDS, TRAINED = "split", "row", "input_ids", "trained"
NOTES = b"notes"

# Examples of each conversation of the training files, then of the validation files; and the notes on long rows.
Tokens = tuple[list[list[Example]], list[list[Example]]]


@dataclass(frozen=True, slots=True)
class TokenCache:
    """Where the tokens of one set of inputs are kept."""

    path: Path

    def load(self, num_rows: tuple[int, int]) -> tuple[Tokens, list[Touched]] | None:
        """What was stored for that many conversations, or None."""
        import pyarrow as pa

        try:
            with pa.memory_map(str(self.path)) as file:
                table = pa.ipc.open_file(file).read_all()
                notes = json.loads(table.schema.metadata[NOTES])
                if notes["digest"] != _digest(table) or notes["num_rows"] != list(num_rows):
                    return None
                tokens: Tokens = ([[] for _ in range(num_rows[0])], [[] for _ in range(num_rows[1])])
                for split, row, example in _examples(table):
                    tokens[split][row].append(example)
        except (OSError, pa.ArrowInvalid, KeyError, ValueError, TypeError):
            return None
        return tokens, [Touched(**note) for note in notes["touched"]]

    def store(self, tokens: Tokens, touched: Sequence[Touched]) -> None:
        """Keep them, and no more than a few others. A cache that cannot be written is done without."""
        import pyarrow as pa

        rows = [
            (split, row, example)
            for split, conversations in enumerate(tokens)
            for row, examples in enumerate(conversations)
            for example in examples
        ]
        ids = [np.asarray(example.input_ids, dtype=np.int32) for *_, example in rows]
        trained = [np.asarray(example.labels, dtype=np.int64) != IGNORE_INDEX for *_, example in rows]
        offsets = np.cumsum([0, *map(len, ids)])
        table = pa.table(
            {
                SPLIT: pa.array([split for split, *_ in rows], pa.int8()),
                ROW: pa.array([row for _, row, _ in rows], pa.int32()),
                IDS: pa.LargeListArray.from_arrays(offsets, np.concatenate(ids)),
                TRAINED: pa.LargeListArray.from_arrays(offsets, np.concatenate(trained).view(np.int8)),
            }
        )
        notes = {
            "digest": _digest(table), "num_rows": [len(part) for part in tokens],
            "touched": [asdict(note) for note in touched],
        }  # fmt: skip
        sink = pa.BufferOutputStream()
        table = table.replace_schema_metadata({NOTES: json.dumps(notes)})
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(self.path, sink.getvalue().to_pybytes())
            _forget_old(self.path.parent)


def find_cache(files: Sequence[str], settings: DataConfig, renderer: Renderer, max_length: int) -> TokenCache:
    """The place for these files as this tokenizer, template and length policy make tokens of them."""
    tokenizer = renderer.tokenizer
    digest = hashlib.sha256()
    for file in files:
        with Path(file).open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    inputs = (
        tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, tokenizer.special_tokens_map, max_length,
        settings.on_overlength, *(metadata.version(name) for name in ("transformers", "tokenizers", "jinja2")),
        *_sources(),
    )  # fmt: skip
    for value in inputs:
        digest.update(hashlib.sha256(str(value).encode()).digest())
    return TokenCache(cache_folder() / "tokens" / f"{digest.hexdigest()[:32]}.arrow")


def _sources() -> Iterator[str]:
    """The code that makes conversations of files and tokens of conversations."""
    for package in ("trainer.data", "trainer.training"):
        for file in sorted(resources.files(package).iterdir(), key=lambda file: file.name):
            if file.name.endswith(".py") and (
                package == "trainer.data" or file.name in ("dataset.py", "token_cache.py")
            ):
                yield file.read_text(encoding="utf-8")


def _examples(table: Any) -> Iterator[tuple[int, int, Example]]:
    splits, rows = (table[name].to_pylist() for name in (SPLIT, ROW))
    ids, trained = (table[name].combine_chunks() for name in (IDS, TRAINED))
    offsets = ids.offsets.to_pylist()
    all_ids = ids.values.to_numpy()
    all_labels = np.where(trained.values.to_numpy() != 0, all_ids, IGNORE_INDEX)
    for number, (split, row) in enumerate(zip(splits, rows, strict=True)):
        begin, end = offsets[number], offsets[number + 1]
        yield split, row, Example(tuple(all_ids[begin:end].tolist()), tuple(all_labels[begin:end].tolist()))


def _digest(table: Any) -> str:
    digest = hashlib.sha256()
    for name in (SPLIT, ROW, IDS, TRAINED):
        column = table[name].combine_chunks()
        values = (column.offsets, column.values) if name in (IDS, TRAINED) else (column,)
        for part in values:
            digest.update(np.ascontiguousarray(part.to_numpy()).tobytes())
    return digest.hexdigest()


def _forget_old(folder: Path) -> None:
    """Keep the files that were written last, and nothing that a kill left unfinished an hour ago."""
    whole = sorted(folder.glob("*.arrow"), key=lambda file: file.stat().st_mtime, reverse=True)
    newest = whole[0].stat().st_mtime
    torn = [file for file in folder.glob(".*.tmp") if file.stat().st_mtime < newest - 3600]
    for file in [*whole[KEPT_FILES:], *torn]:
        file.unlink(missing_ok=True)
