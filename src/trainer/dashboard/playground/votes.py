"""Votes on pairs of answers whose models were hidden, and the share of them that the tuned model wins."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from trainer.runs import Run, files
from trainer.runs.intervals import wilson

Choice = Literal["tuned", "base", "same"]


@dataclass(frozen=True, slots=True)
class Vote:
    """A choice between two answers to one question."""

    created_at: str
    choice: Choice
    system: str
    question: str
    tuned: str
    base: str


@dataclass(frozen=True, slots=True)
class Tally:
    """Votes so far; `low` and `high` bound the share of the tuned model among those that prefer one (Wilson, 95 %)."""

    tuned: int
    base: int
    same: int
    low: float
    high: float

    @property
    def decided(self) -> int:
        return self.tuned + self.base

    @property
    def sentence(self) -> str:
        """The tally in words."""
        if not self.decided:
            return f"no vote for either answer yet{f', {self.same} for neither' if self.same else ''}"
        share = f"{self.tuned} of {self.decided} votes for the tuned model"
        interval = f"95 % interval {self.low:.0%} to {self.high:.0%}"
        verdict = "better" if self.low > 0.5 else "worse" if self.high < 0.5 else "not decided"
        return f"{share}{f', {self.same} for neither' if self.same else ''}; {interval}: {verdict}"


class Votes:
    """The votes on a run's answers, a line each."""

    def __init__(self, root: Path, run: Run) -> None:
        self.path = root / ".ui" / "votes" / f"{run.name}.jsonl"

    def add(self, vote: Vote) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        files.append_line(self.path, asdict(vote))

    def tally(self) -> Tally:
        """Count the votes; a question that was voted on several times counts once, by its last vote."""
        last = {(vote["system"], vote["question"]): vote["choice"] for vote in self._read()}
        counts = {choice: list(last.values()).count(choice) for choice in get_args(Choice)}
        low, high = wilson(counts["tuned"], counts["tuned"] + counts["base"])
        return Tally(counts["tuned"], counts["base"], counts["same"], low, high)

    def _read(self) -> Iterator[dict[str, str]]:
        wanted = ("system", "question", "choice")
        return (line for line in files.read_lines(self.path) if all(isinstance(line.get(key), str) for key in wanted))
