"""Rows in colour: what is trained stands out, what is only read is dim."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from trainer.cli.console import clean, out, say
from trainer.data.preview import REASONS, Kind, Span, explain
from trainer.data.preview_page import PreviewRow, preview_page
from trainer.data.rendering import Renderer
from trainer.errors import ConfigError
from trainer.runs.files import write_whole

if TYPE_CHECKING:
    from trainer.training.dataset import Row
    from trainer.training.prepare import Prepared

STYLES: dict[Kind, str] = {"answer": "bold green", "end": "black on green", "untrained": "yellow", "prompt": "dim"}


def show_rows(prepared: "Prepared", count: int) -> None:
    """Print the first `count` rows; without colour the trained spans stand in double brackets."""
    rows = prepared.data.train
    for row in _explained(prepared, rows[:count]):
        for spans in row.examples:
            trained, total = (sum(s.num_tokens for s in spans if s.trained or every) for every in (False, True))
            out.rule(f"{row.place}  {trained} of {total} tokens trained", align="left")
            out.print(_colored(spans))
    out.rule(align="left", style="dim")
    if out.is_terminal:
        for kind, reason in REASONS.items():
            out.print(Text.assemble(("text", STYLES[kind]), f"  {reason}"))
    num_trained, total = prepared.data.num_supervised, prepared.data.num_tokens
    out.print(f"{len(rows):,} rows, {num_trained:,} of {total:,} tokens trained ({num_trained / total:.0%})")


def write_page(prepared: "Prepared", file: Path) -> None:
    """Write all rows as a page for the browser."""
    rows = list(_explained(prepared, prepared.data.train))
    title = ", ".join(source.path for source in prepared.config.data.train_sources)
    try:
        write_whole(file, preview_page(title, prepared.config.model.base, rows))
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be written: {error.strerror}, expected a file in a folder that exists"
        ) from None
    say(f"wrote {len(rows):,} rows to {file}; open it in a browser")


def _explained(prepared: "Prepared", rows: "Sequence[Row]") -> Iterator[PreviewRow]:
    renderer = Renderer(prepared.tokenizer)
    for row in rows:
        yield PreviewRow(row.conversation.place, explain(renderer, row.conversation, row.examples))


def _colored(spans: Sequence[Span]) -> Text:
    text, brackets = Text(), not out.is_terminal
    for number, span in enumerate(spans):
        opens = brackets and span.trained and (number == 0 or not spans[number - 1].trained)
        closes = brackets and span.trained and (number == len(spans) - 1 or not spans[number + 1].trained)
        text.append("⟦" * opens + clean(span.text) + "⟧" * closes, STYLES[span.kind])
    return text
