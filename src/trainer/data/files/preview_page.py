"""The preview as one HTML file that needs nothing else: all rows, searchable, with totals."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from trainer.data.files.preview import REASONS, Span, Totals
from trainer.errors import ConfigError

MAX_PAGE_BYTES = 100 * 10**6  # a browser opens this much in seconds; beyond it tabs begin to fail

_KINDS = list(REASONS)


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """A row with the spans of each of its examples."""

    place: str
    examples: Sequence[Sequence[Span]]

    def to_json(self) -> list[Any]:
        """The place, and each example as a list of [kind, number of tokens, text]."""
        spans = [[[_KINDS.index(span.kind), span.num_tokens, span.text] for span in spans] for spans in self.examples]
        return [self.place, spans]


def preview_page(
    title: str, model: str, totals: Totals, rows: Iterable[PreviewRow], notes: Sequence[tuple[str, str]] = ()
) -> str:
    """The page; every text from the data is escaped, and the rows are drawn by the page as they come into view.

    Raises: ConfigError, when it would hold more than a browser can open.
    """
    from jinja2 import Environment

    source = resources.files("trainer.data.files").joinpath("preview.html.jinja").read_text(encoding="utf-8")
    facts = [*totals.facts(), *notes]
    template = Environment(autoescape=True).from_string(source)
    page = template.render(title=title, model=model, facts=facts, totals=totals, reasons=REASONS, kinds=_KINDS)
    before, _, after = page.rpartition("ROWS_AS_JSON")
    return "".join([before, *_rows_as_json(rows, totals.rows), after])


def _rows_as_json(rows: Iterable[PreviewRow], num_rows: int) -> Iterable[str]:
    """A JSON list that cannot end the script element it stands in."""
    num_bytes = 0
    yield "["
    for number, row in enumerate(rows):
        text = json.dumps(row.to_json(), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
        num_bytes += len(text.encode())
        if num_bytes > MAX_PAGE_BYTES:
            raise ConfigError(
                f"--html: {num_rows:,} rows make a page of more than {MAX_PAGE_BYTES // 10**6:,} MB, expected one that "
                f"a browser can open; add --rows {number} or fewer"
            )
        yield "," * (number > 0) + "\n" + text
    yield "\n]"
