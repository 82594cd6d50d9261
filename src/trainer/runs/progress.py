"""Progress of a run: a measured step in words, and the time of the steps that are left."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from statistics import median
from typing import Any

from trainer.runs.files import last_records
from trainer.runs.run import Run

RECENT = 20  # measurements; rows differ in length, and a machine in what else it does

FIGURES = {
    "train_loss": "loss {:.3f}",
    "train_mean_token_accuracy": "accuracy {:.1%}",
    "train_reward_accuracy": "preferred {:.1%}",
    "valid_loss": "valid {:.3f}",
    "full_valid_loss": "all valid {:.3f}",
    "tokens_per_second": "{:,.0f} tokens/s",
}


def figures(row: Mapping[str, float], names: Iterable[str] = FIGURES) -> str:
    """`loss 1.234  accuracy 56.7%  valid 1.345`, of those of the names that were measured."""
    return "  ".join(FIGURES[name].format(row[name]) for name in names if name in row)


def in_words(row: Mapping[str, float], total: int | None, seconds: float | None) -> str:
    """`step 7/20  loss 1.234  accuracy 56.7%  about 30 s left`, of a row of results.csv; the time where it is known."""
    parts = [f"step {row['step']:.0f}{'' if total is None else f'/{total}'}"]
    parts += [figures(row), "" if seconds is None else f"about {duration(seconds)} left"]
    return "  ".join(filter(None, parts))


def total_steps(run: Run) -> int | None:
    """Steps of the whole run; None before that is known."""
    total = run.status().get("total_steps")
    return total if isinstance(total, int) and not isinstance(total, bool) else None


def seconds_left(run: Run, step: float) -> float | None:
    """The time of the steps after `step`, at the median time of the last ones; None where nothing tells it.

    Only training is counted: evaluations, checkpoints and the comparison at the end come on top.
    """
    total = total_steps(run)
    if total is None or step >= total:
        return None
    times = list(_step_seconds(run))
    return median(times) * (total - step) if times else None


def _step_seconds(run: Run) -> Iterator[float]:
    """The time of a step in each of the last measurements, from its tokens and their speed."""
    found = last_records(run.path / "metrics.jsonl", RECENT + 1)
    rows = [row for row in found if "num_tokens" in row]  # others are of an evaluation
    if len(found) <= RECENT:  # the file begins with the first of them
        rows = [{"step": 0, "num_tokens": 0}, *rows]
    for before, row in pairwise(rows):
        steps, tokens = (_difference(before, row, name) for name in ("step", "num_tokens"))
        speed = row.get("tokens_per_second")
        if steps > 0 and tokens > 0 and isinstance(speed, int | float) and speed > 0:
            yield tokens / speed / steps


def _difference(before: Mapping[str, Any], row: Mapping[str, Any], name: str) -> float:
    """Growth of a count between two rows; 0 where a damaged line lacks it."""
    first, second = before.get(name), row.get(name)
    return float(second - first) if isinstance(first, int | float) and isinstance(second, int | float) else 0.0


def duration(seconds: float) -> str:
    """Seconds as a person says them, in the two largest units."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
