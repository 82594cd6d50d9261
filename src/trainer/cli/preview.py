"""Rows in colour: what is trained stands out, what is only read is dim."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from trainer.cli.console import clean, out, say
from trainer.data.files.preview import REASONS, Kind, PreviewRow, Span, Totals, count, explain, preview_page
from trainer.data.quoting import counted
from trainer.data.render.overlength import in_words
from trainer.data.render.rendering import Renderer
from trainer.runs import files

if TYPE_CHECKING:
    from trainer.config.schema import RunConfig
    from trainer.training.dataset import Row, TrainingData

STYLES: dict[Kind, str] = {
    "answer": "bold green",
    "end": "black on green",
    "thought": "bold blue",
    "rejected": "bold red",
    "untrained": "yellow",
    "thought-read": "blue",
    "prompt": "dim",
}


def show_rows(data: "TrainingData", renderer: Renderer, max_length: int, num_rows: int) -> None:
    """Print the first rows and the totals of all; without color the trained spans stand in double brackets."""
    for row in _explained(renderer, data.train[:num_rows]):
        is_pair = any(span.kind == "rejected" for spans in row.examples for span in spans)
        for number, spans in enumerate(row.examples):
            which = ("  preferred answer", "  other answer")[number] if is_pair else ""
            trained, total = (sum(s.num_tokens for s in spans if s.trained or every) for every in (False, True))
            out.rule(
                f"{clean(row.place)}{which}  {trained:,} of {total:,} tokens trained ({trained / total:.0%})",
                align="left",
            )
            out.print(_colored(spans))
    out.rule(align="left", style="dim")
    if out.is_terminal:
        for kind, reason in REASONS.items():
            out.print(Text.assemble(("text", STYLES[kind]), f"  {reason}"))
    for name, text in (*_totals(renderer, data.train).facts(), *_notes(data, max_length)):
        out.print(Text.assemble((f"{name:<13}", "dim"), text))


def print_document(data: "TrainingData", renderer: Renderer, max_length: int, num_rows: int) -> None:
    """The same as JSON."""
    from trainer.cli.documents import preview

    rows = [
        preview.RenderedRow(
            place=row.place, examples=[list(map(preview.Span.model_validate, spans)) for spans in row.examples]
        )
        for row in _explained(renderer, data.train[:num_rows])
    ]
    totals = preview.Totals.model_validate(_totals(renderer, data.train))
    too_long = in_words(data.touched, max_length) if data.touched else None
    preview.DataPreview(rows=rows, totals=totals, too_long=too_long).print()


def write_page(
    config: "RunConfig", data: "TrainingData", renderer: Renderer, max_length: int, file: Path, num_rows: int | None
) -> None:
    """Write the first rows, or all, as a page for the browser."""
    rows, notes = data.train[:num_rows], _notes(data, max_length)
    if hidden := len(data.train) - len(rows):
        notes.append(("left out", f"{counted(hidden, 'row')} after these"))
    title = ", ".join(source.path for source in config.data.train_sources)
    page = preview_page(title, config.model.base, _totals(renderer, rows), _explained(renderer, rows), notes)
    files.write_page("--html", file, page)
    say(f"wrote {counted(len(rows), 'row')} to {file}; open it in a browser")


def _totals(renderer: Renderer, rows: "Sequence[Row]") -> Totals:
    return count(((row.conversation, row.examples) for row in rows), renderer.end_markers)


def _notes(data: "TrainingData", max_length: int) -> list[tuple[str, str]]:
    """Changes to rows before their display."""
    return [("too long", in_words(data.touched, max_length))] if data.touched else []


def _explained(renderer: Renderer, rows: "Sequence[Row]") -> Iterator[PreviewRow]:
    for row in rows:
        yield PreviewRow(row.conversation.place, explain(renderer, row.conversation, row.examples))


def _colored(spans: Sequence[Span]) -> Text:
    text, brackets = Text(), not out.is_terminal
    for number, span in enumerate(spans):
        opens = brackets and span.trained and (number == 0 or not spans[number - 1].trained)
        closes = brackets and span.trained and (number == len(spans) - 1 or not spans[number + 1].trained)
        text.append("⟦" * opens + clean(span.text) + "⟧" * closes, STYLES[span.kind])
    return text
