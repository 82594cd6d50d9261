"""Faults between the rows of a file: leaks, repeated rows, prompts with different answers."""

from collections.abc import Iterable

import numpy as np

from trainer.workshop.clean.scan import Scan
from trainer.workshop.clean.similar import Comparison, Numbers, Progress, Resemblance


class RowsLeft:
    """The rows of a file that stay, by their numbers; `removed` holds the kind and the fault of each line that goes."""

    def __init__(self, scan: Scan) -> None:
        self.scan, self.choice, self.said = scan, scan.faults.choice, scan.said
        self.removed = dict(scan.dropped)
        lines = np.asarray(self.said.lines, np.int64)[: scan.num_rows]
        self.numbers: Numbers = np.flatnonzero(~np.isin(lines, np.array(list(self.removed), np.int64)))
        self.held_out: Numbers = np.arange(scan.num_rows, len(self.said))

    def compare(self, similarity: float, progress: Progress | None) -> None:
        """Note every fault between rows, in rounds until one removes nothing: cleaning again then finds nothing new."""
        if self.choice.wants("DUPLICATE"):
            self._drop(self._repeated(), "DUPLICATE")
        comparison = Comparison(self.said, similarity, progress)
        conflicts: list[Resemblance] = []
        before = -1
        while before != len(self.numbers) > 0:
            before = len(self.numbers)
            if self.choice.wants("LEAK", "NEAR_DUPLICATE"):
                comparison.learn_template(self.numbers, self.held_out)
            if self.choice.wants("LEAK") and len(self.held_out):
                self._drop(comparison.leaks(self.numbers, self.held_out), "LEAK")
            if self.choice.wants("NEAR_DUPLICATE"):
                repeated = [repeat.row for repeat in self._repeated()]
                self._drop(comparison.repeats(np.setdiff1d(self.numbers, repeated)), "NEAR_DUPLICATE")
            conflicts = self._conflicts() if self.choice.wants("CONFLICT") else []
            if "CONFLICT" in self.choice.removed:
                self._drop(conflicts, "CONFLICT")
                conflicts = []
        for conflict in conflicts:
            self._note(conflict, "CONFLICT")

    def _repeated(self) -> list[Resemblance]:
        """Rows that repeat an earlier one as it stands."""
        high, low = (np.asarray(column, np.uint64)[self.numbers] for column in (self.said.row_high, self.said.row_low))
        order = np.lexsort((low, high))  # stable: equal rows stay in the order of the file
        is_first = np.ones(len(order), bool)
        is_first[1:] = (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])
        first = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
        rows, firsts = self.numbers[order[~is_first]], self.numbers[order[first[~is_first]]]
        return sorted(Resemblance(row, other, 1.0) for row, other in zip(rows.tolist(), firsts.tolist(), strict=True))

    def _conflicts(self) -> list[Resemblance]:
        """Rows whose prompt has several answers, each with the first row that has another one."""
        prompt, text = (np.asarray(column, np.uint64)[self.numbers] for column in (self.said.prompt, self.said.text))
        order = np.lexsort((text, prompt))
        sames = np.flatnonzero((prompt[order][1:] == prompt[order][:-1]) & (text[order][1:] != text[order][:-1]))
        contested = np.unique(prompt[order[sames]])
        asked = self.numbers[np.isin(prompt, contested[contested != 0])].tolist()
        answers: dict[int, dict[int, int]] = {}  # prompt: text: the first row
        for number in asked:
            answers.setdefault(self.said.prompt[number], {}).setdefault(self.said.text[number], number)
        return [Resemblance(number, self._other(answers, number), 0.0) for number in asked]

    def _other(self, answers: dict[int, dict[int, int]], number: int) -> int:
        text = self.said.text[number]
        return next(first for other, first in answers[self.said.prompt[number]].items() if other != text)

    def _drop(self, resemblances: Iterable[Resemblance], kind: str) -> None:
        dropped = []
        for resemblance in resemblances:
            found = self._note(resemblance, kind)
            self.removed[self.said.lines[resemblance.row]] = kind, found
            dropped.append(resemblance.row)
        self.numbers = np.setdiff1d(self.numbers, np.array(dropped, np.int64))

    def _note(self, resemblance: Resemblance, kind: str) -> str:
        other = self.scan.place(resemblance.other)
        if kind == "CONFLICT":
            found = f"asks what {other} asks, with another answer"
        elif resemblance.similarity == 1:
            found = f"says the same as {other}"
        else:
            # Rounded down: what is not the same is never shown as 1.00.
            found = f"resembles {other} ({int(resemblance.similarity * 100) / 100:.2f})"
        self.scan.faults.add(self.said.lines[resemblance.row], kind, "the row", found)
        return f"the row {found}"
