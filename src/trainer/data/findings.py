"""What is wrong with a data file: findings, each with its place, its rule and what to do about it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from trainer.data.quoting import printable
from trainer.data.rules import RULES, Backend, Severity
from trainer.errors import DataError


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
        return f"{self.place}: {self.code}: {self.where} {self.found}, expected {self.accepted}; {self.fix}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class FindingList:
    """The findings of one file while it is read; `line` is the row that `add` speaks of."""

    file: str
    backend: Backend
    line: int | None = None
    findings: list[Finding] = field(default_factory=list)
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


class Report:
    """What `FileReport` and `DataReport` can tell about their findings."""

    __slots__ = ()
    findings: list[Finding]

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def counts(self) -> dict[str, int]:
        """How many findings there are of each code, the most frequent first."""
        return dict(Counter(finding.code for finding in self.findings).most_common())

    @property
    def severities(self) -> dict[Severity, int]:
        num_errors = len(self.errors)
        return {"error": num_errors, "warning": len(self.findings) - num_errors}

    def raise_on_errors(self) -> None:
        """Raise one `DataError` with the text of every error, if there is one."""
        if errors := self.errors:
            raise DataError(*map(str, errors))


def in_file_order(findings: Sequence[Finding], files: Sequence[str]) -> list[Finding]:
    """`findings` ordered by file as given, line and column; what concerns a whole file comes before its lines."""
    rank = {file: position for position, file in reversed(list(enumerate(files)))}
    return sorted(findings, key=lambda finding: (rank[finding.file], finding.line or 0, finding.column or 0))
