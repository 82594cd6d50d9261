"""Charts of data as SVG that needs no script: bars with their labels; a page has the same numbers in a table beside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT, FOOT, LEFT = 460, 150, 26, 4
ROW_HEIGHT, LABEL_WIDTH, NUMBER_WIDTH = 24, 120, 90
SHOWN_SHARES = 12


@dataclass(frozen=True, slots=True)
class HistogramBar:
    """A bar of a histogram. `x`, `y`, `width` and `height` are units of the drawing."""

    x: float
    y: float
    width: float
    height: float
    label: str
    rows: int
    first: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram with the figures of its measure."""

    title: str
    bars: tuple[HistogramBar, ...]
    facts: Mapping[str, Any]  # min, median, p95, max, total
    width: int = WIDTH
    height: int = HEIGHT
    base: int = HEIGHT - FOOT

    @property
    def svg(self) -> Any:
        """The drawing, every text in it escaped."""
        from markupsafe import Markup

        drawn = [
            Markup('<line class="axis" x1="0" x2="{}" y1="{}" y2="{}"/>').format(self.width, self.base, self.base),
            *(self._drawn(bar) for bar in self.bars),
        ]
        label = f"{self.title}: rows by range; the table below has the numbers"
        return _framed(label, self.width, self.height, drawn)

    def _drawn(self, bar: HistogramBar) -> Any:
        from markupsafe import Markup

        middle = round(bar.x + bar.width / 2, 1)
        rect = Markup(
            '<rect class="bar-fill" x="{}" y="{}" width="{}" height="{}" rx="2"><title>{}: {:,} rows</title></rect>'
        ).format(bar.x, bar.y, bar.width, bar.height, bar.label, bar.rows)
        text = Markup('<text class="{}" x="{}" y="{}" text-anchor="middle">{:,}</text>')
        count = text.format("bar-count", middle, round(bar.y - 4, 1), bar.rows) if bar.rows else Markup()
        return rect + count + text.format("bar-label", middle, self.base + 15, bar.first)


def histogram_of(title: str, spread: Mapping[str, Any]) -> Histogram:
    """The chart of a measure's spread, as `trainer data stats --format json` has it."""
    bins = spread["histogram"]
    most, room = max(column["rows"] for column in bins), (WIDTH - 2 * LEFT) / len(bins)
    bars = []
    for number, column in enumerate(bins):
        full = (HEIGHT - FOOT - 18) * column["rows"] / most
        height = max(full, 1.5) if column["rows"] else 0
        label = f"{column['first']:,} or more" if column["last"] is None else _range(column["first"], column["last"])
        x, y = round(LEFT + number * room, 1), round(HEIGHT - FOOT - height, 1)
        rows, first = int(column["rows"]), int(column["first"])
        bars.append(HistogramBar(x, y, round(room - 3, 1), round(height, 1), label, rows, first))
    return Histogram(title, tuple(bars), spread)


def _range(first: int, last: int) -> str:
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"


@dataclass(frozen=True, slots=True)
class ShareChart:
    """Numbers of one kind by name, as horizontal bars; `rows` are the table's: name, number, share of `total`."""

    title: str
    rows: tuple[tuple[str, int, float], ...]
    unit: str
    note: str = ""

    @property
    def svg(self) -> Any:
        """The drawing of the first SHOWN_SHARES, every text in it escaped."""
        from markupsafe import Markup

        shown = self.rows[:SHOWN_SHARES]
        most = max((number for _, number, _ in shown), default=0) or 1
        room = WIDTH - LABEL_WIDTH - NUMBER_WIDTH
        drawn = []
        for place, (name, number, _) in enumerate(shown):
            y, width = place * ROW_HEIGHT, round(max(room * number / most, 1.5 if number else 0), 1)
            drawn.append(
                Markup(
                    '<text class="bar-label" x="{}" y="{}" text-anchor="end">{}</text>'
                    '<rect class="bar-fill" x="{}" y="{}" width="{}" height="{}" rx="2"/>'
                    '<text class="bar-count" x="{}" y="{}">{:,}</text>'
                ).format(
                    LABEL_WIDTH - 8, y + 16, name, LABEL_WIDTH, y + 4, width, ROW_HEIGHT - 8,
                    LABEL_WIDTH + width + 6, y + 16, number,
                )
            )  # fmt: skip
        label = f"{self.title}: {self.unit}; the table below has the numbers"
        return _framed(label, WIDTH, max(len(shown), 1) * ROW_HEIGHT, drawn)


def shares_of(title: str, numbers: Mapping[str, int], unit: str, note: str = "") -> ShareChart:
    """The chart of numbers by name, in their order."""
    total = sum(numbers.values()) or 1
    rows = tuple((name, number, number / total) for name, number in numbers.items())
    return ShareChart(title, rows, unit, note)


def _framed(label: str, width: int, height: int, drawn: Sequence[Any]) -> Any:
    from markupsafe import Markup

    frame = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}" class="histogram">{}</svg>')
    return frame.format(width, height, label, Markup().join(drawn))
