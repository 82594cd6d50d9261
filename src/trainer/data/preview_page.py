"""The preview as one HTML file that needs nothing else: all rows, searchable, with totals."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from trainer.data.preview import REASONS, Span


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """A row with the spans of each of its examples."""

    place: str
    examples: Sequence[Sequence[Span]]

    def _count(self, *kinds: str) -> int:
        return sum(span.num_tokens for spans in self.examples for span in spans if span.kind in kinds)

    @property
    def num_tokens(self) -> int:
        return self._count("answer", "end", "untrained", "prompt")

    @property
    def num_trained(self) -> int:
        return self._count("answer", "end")

    @property
    def num_ends(self) -> int:
        return self._count("end")

    @property
    def num_untrained(self) -> int:
        """Answers with weight 0."""
        return sum(span.kind == "untrained" for spans in self.examples for span in spans)


def preview_page(title: str, model: str, rows: Sequence[PreviewRow]) -> str:
    """The page; every text from the data is escaped."""
    from jinja2 import Environment

    source = resources.files("trainer.data").joinpath("preview.html.jinja").read_text(encoding="utf-8")
    totals = {
        name: sum(getattr(row, name) for row in rows)
        for name in ("num_tokens", "num_trained", "num_ends", "num_untrained")
    }
    template = Environment(autoescape=True).from_string(source)
    return template.render(title=title, model=model, rows=rows, reasons=REASONS, **totals)
