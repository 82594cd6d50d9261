"""Report of `trainer data clean`: each kind with its count, its lines and its first findings."""

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from trainer.data.quoting import printable
from trainer.workshop.clean.kinds import KINDS, KindChoice, Remedy

KEPT_FINDINGS = 20
_NOT_EDITED = "left as it is, since without it the row would break a rule"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; `fix` says what --fix does, or what a person can do."""

    file: str
    line: int
    kind: str
    where: str
    found: str
    fix: str

    def __str__(self) -> str:
        return f"{printable(self.file)}:{self.line}: {self.kind}: {self.where} {self.found}; {self.fix}"


@dataclass(slots=True)
class FaultList:
    """The faults of one kind: all lines, each once and in order, and the first faults in full; all without `limit`."""

    kind: str
    remedy: Remedy
    limit: int | None
    lines: "array[int]" = field(default_factory=lambda: array("Q"))
    faults: list[Fault] = field(default_factory=list)
    num_faults: int = 0

    def add(self, fault: Fault) -> None:
        """Note a fault; in any order, and quickly in that of the file."""
        at = bisect_left(self.lines, fault.line) if self.lines and fault.line <= self.lines[-1] else len(self.lines)
        if at == len(self.lines) or self.lines[at] != fault.line:
            self.lines.insert(at, fault.line)
        self.num_faults += 1
        if self.limit is None or len(self.faults) < self.limit or fault.line < self.faults[-1].line:
            insort(self.faults, fault, key=lambda known: known.line)
            if self.limit is not None:
                del self.faults[self.limit :]

    def to_json(self) -> dict[str, Any]:
        counts = {"rows": len(self.lines), "faults": self.num_faults, "lines": list(self.lines)}
        return {"kind": self.kind, "remedy": self.remedy, **counts, "findings": self.faults}


class Faults:
    """The faults of a file by kind."""

    def __init__(self, file: str, choice: KindChoice, limit: int | None = KEPT_FINDINGS) -> None:
        self.file, self.choice = file, choice
        self._lists = {code: FaultList(code, self._remedy(code), limit) for code in KINDS if code in choice.wanted}

    def _remedy(self, code: str) -> Remedy:
        return "remove" if code in self.choice.removed else KINDS[code].remedy

    def add(self, line: int, kind: str, where: str, found: str, *, edited: bool = True) -> None:
        """Note a fault, unless its kind is not looked for."""
        if kind in self._lists:
            fixed = self._lists[kind].remedy == "remove" and KINDS[kind].remedy == "leave"
            fix = "the row is removed" if fixed else KINDS[kind].fix if edited else _NOT_EDITED
            self._lists[kind].add(Fault(self.file, line, kind, where, found, fix))

    def __iter__(self) -> Iterator[FaultList]:
        return (found for found in self._lists.values() if found.lines)

    def lines(self, kind: str) -> "array[int]":
        """The lines with a fault of a kind."""
        return self._lists[kind].lines if kind in self._lists else array("Q")
