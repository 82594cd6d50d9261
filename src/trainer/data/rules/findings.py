"""Findings: faults of a data file, each with its place, its rule and the remedy."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from trainer.data.quoting import printable
from trainer.data.rules.catalog import RULES
from trainer.data.rules.rule import Backend, Severity
from trainer.errors import DataError

Tally = Counter[tuple[str, Severity]]

ROOM = 100  # findings beyond a limit before they are sorted and cut


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake; `line` is None where it concerns the whole file, `column` counts characters from 1."""

    file: str
    line: int | None
    code: str
    severity: Severity
    where: str
    found: str
    accepted: str
    fix: str
    column: int | None = None

    @property
    def place(self) -> str:
        return ":".join(str(part) for part in (printable(self.file), self.line, self.column) if part is not None)

    def __str__(self) -> str:
        where = f"{self.where} " if self.where else ""
        accepted = f", expected {self.accepted}" if self.accepted else ""  # some reasons say it in their own words
        return f"{self.place}: {self.code}: {where}{self.found}{accepted}; {self.fix}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class FindingList:
    """The findings of one file while it is read; `line` is the row that `add` speaks of.

    With a `limit` at least so many are kept, the first ones of the file, and the others are only counted: a file of a
    million mistakes must not fill the memory.
    """

    file: str
    backend: Backend
    limit: int | None = None
    line: int | None = None
    findings: list[Finding] = field(default_factory=list)
    left_out: Tally = field(default_factory=Counter)
    num_added: int = 0
    num_errors: int = 0

    def add(
        self,
        code: str,
        where: str,
        found: str,
        accepted: str,
        fix: str | None = None,
        *,
        column: int | None = None,
        severity: Severity | None = None,
    ) -> None:
        """Note a mistake of the current row; `fix` and `severity` are those of its rule unless given."""
        rule = RULES[code]
        severity = severity or rule.severity(self.backend)
        self.num_errors += severity == "error"
        finding = Finding(self.file, self.line, code, severity, where, found, accepted, fix or rule.fix, column)
        self.findings.append(finding)
        self.num_added += 1
        if self.limit is not None and len(self.findings) > 2 * self.limit + ROOM:
            self.findings, dropped = first_in_file_order(self.findings, [self.file], self.limit)
            self.left_out += dropped

    def advise_too(self, fix: str) -> None:
        """Give the errors of the current row a second remedy."""
        for at in range(len(self.findings) - 1, -1, -1):
            if self.findings[at].line != self.line:
                break
            if (finding := self.findings[at]).severity == "error":
                first = finding.fix + ("" if finding.fix.endswith("?") else ",")
                self.findings[at] = replace(finding, fix=f"{first} or {fix}")

    def extend(self, others: "FindingList") -> None:
        """Add the findings of another list of the same file."""
        self.findings += others.findings
        self.left_out += others.left_out
        self.num_added += others.num_added
        self.num_errors += others.num_errors


class Report:
    """Counts that `FileReport` and `DataReport` make of their findings, those included that were only counted."""

    __slots__ = ()
    findings: list[Finding]
    left_out: Tally

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def num_findings(self) -> int:
        return len(self.findings) + self.left_out.total()

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each code, the most frequent first."""
        codes = Counter(finding.code for finding in self.findings)
        for (code, _), count in self.left_out.items():
            codes[code] += count
        return dict(codes.most_common())

    @property
    def severities(self) -> dict[Severity, int]:
        num_errors = len(self.errors) + sum(n for (_, severity), n in self.left_out.items() if severity == "error")
        return {"error": num_errors, "warning": self.num_findings - num_errors}

    def raise_on_errors(self) -> None:
        """Raise one `DataError` with the text of every error, if there is one."""
        if errors := self.errors:
            raise DataError(*map(str, errors))


def in_file_order(findings: Sequence[Finding], files: Sequence[str]) -> list[Finding]:
    """`findings` ordered by file as given, line and column; what concerns a whole file comes before its lines."""
    rank = {file: position for position, file in reversed(list(enumerate(files)))}
    return sorted(findings, key=lambda finding: (rank[finding.file], finding.line or 0, finding.column or 0))


def first_in_file_order(
    findings: Sequence[Finding], files: Sequence[str], limit: int | None
) -> tuple[list[Finding], Tally]:
    """The first `limit` findings in file order, and how many others there are by code and severity."""
    ordered = in_file_order(findings, files)
    others = [] if limit is None else ordered[limit:]
    return ordered[:limit], Counter((finding.code, finding.severity) for finding in others)
