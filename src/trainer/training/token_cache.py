"""Rendered rows kept for the next start: the tokens of large files, one Arrow file for each set of inputs.

A file's name is the digest of all that its tokens depend on. It is written beside and renamed, so that two processes or
a kill leave a whole file or none; what cannot be read, or is not what was written, is rendered again.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import trainer
from trainer.config.schema import DataConfig
from trainer.data.read.sources import row_names
from trainer.data.render.overlength import Touched
from trainer.data.render.rendering import Renderer
from trainer.runs.files import cache_folder, write_whole
from trainer.runs.manifest import DataFile
from trainer.training.tokens import Tokens

MIN_ROWS = 2000  # fewer are rendered in a second or two
KEPT_FILES = 8
ROW, IDS, TRAINED = "row", "input_ids", "trained"
NOTES = b"notes"


@dataclass(frozen=True, slots=True)
class TokenCache:
    """The file that keeps the tokens of one set of inputs."""

    path: Path

    def load(self, num_rows: tuple[int, int]) -> tuple[Tokens, list[Touched]] | None:
        """The tokens stored for that many conversations to train on and to validate, or None."""
        import pyarrow as pa

        try:
            table = pa.ipc.open_file(pa.py_buffer(self.path.read_bytes())).read_all()
            notes = json.loads(table.schema.metadata[NOTES])
            digest = notes.pop("digest")
            if digest != _digest(table, notes) or notes["num_rows"] != list(num_rows):
                return None
            touched = [Touched(**note) for note in notes["touched"]]
            ids, trained = table[IDS].combine_chunks(), table[TRAINED].combine_chunks()
            counts = np.bincount(table[ROW].to_numpy(), minlength=sum(num_rows))
            tokens = Tokens(
                ids.values.to_numpy(), trained.values.to_numpy(), ids.offsets.to_numpy(), np.cumsum([0, *counts])
            )
        except (OSError, pa.ArrowInvalid, KeyError, ValueError, TypeError, AttributeError):
            return None
        return tokens, touched

    def store(self, tokens: Tokens, touched: Sequence[Touched], num_rows: tuple[int, int]) -> None:
        """Keep them, and no more than a few others. A cache that cannot be written is done without."""
        import pyarrow as pa

        rows = np.repeat(np.arange(len(tokens.firsts) - 1, dtype=np.int32), np.diff(tokens.firsts))
        table = pa.table(
            {
                ROW: pa.array(rows),
                IDS: pa.LargeListArray.from_arrays(tokens.starts, tokens.ids),
                TRAINED: pa.LargeListArray.from_arrays(tokens.starts, tokens.trained),
            }
        )
        notes = {"num_rows": list(num_rows), "touched": [asdict(note) for note in touched]}
        notes |= {"digest": _digest(table, notes)}
        sink = pa.BufferOutputStream()
        table = table.replace_schema_metadata({NOTES: json.dumps(notes)})
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(self.path, memoryview(sink.getvalue()))
            self.path.chmod(0o600)
            _forget_old(self.path.parent)


def find_cache(files: Sequence[DataFile], settings: DataConfig, renderer: Renderer, max_length: int) -> TokenCache:
    """The place for these files as this tokenizer, template and length policy make tokens of them."""
    tokenizer = renderer.tokenizer
    digest = hashlib.sha256()
    names = row_names(file.path for file in files)  # notes on long rows have them
    inputs = (
        *((file.role, names[file.path], file.sha256) for file in files),
        tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, tokenizer.special_tokens_map, max_length,
        settings.on_overlength, renderer.train_reasoning,
        *(metadata.version(name) for name in ("transformers", "tokenizers", "jinja2")), *_sources(),
    )  # fmt: skip
    for value in inputs:
        digest.update(hashlib.sha256(str(value).encode()).digest())
    return TokenCache(cache_folder() / "tokens" / f"{digest.hexdigest()[:32]}.arrow")


def _sources() -> Iterator[str]:
    """The code that makes conversations of files and tokens of conversations."""
    root = Path(trainer.__file__).parent
    training = (root / "training" / name for name in ("render.py", "tokens.py", "token_cache.py"))
    for file in (*sorted((root / "data").rglob("*.py")), *training):
        yield file.read_text(encoding="utf-8")


def _digest(table: Any, notes: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(notes, sort_keys=True).encode())
    for name in (ROW, IDS, TRAINED):
        column = table[name].combine_chunks()
        values = (column.offsets, column.values) if name in (IDS, TRAINED) else (column,)
        for part in values:
            digest.update(memoryview(part.to_numpy()))
    return digest.hexdigest()


def _is_ours(file: Path) -> bool:
    """By its name: the folder may be one that the user keeps other things in."""
    return re.fullmatch(r"[0-9a-f]{32}\.arrow|\.[0-9a-f]{32}\.arrow\.[0-9a-f]+\.tmp", file.name) is not None


def _forget_old(folder: Path) -> None:
    """Keep the files that were written last, and nothing that a kill left unfinished an hour ago."""
    whole = sorted(filter(_is_ours, folder.glob("*.arrow")), key=lambda file: file.stat().st_mtime, reverse=True)
    newest = whole[0].stat().st_mtime
    torn = [file for file in folder.glob(".*.tmp") if _is_ours(file) and file.stat().st_mtime < newest - 3600]
    for file in [*whole[KEPT_FILES:], *torn]:
        file.unlink(missing_ok=True)
