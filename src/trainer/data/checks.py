"""Every rule for all files of a run: what a training run, an upload and `trainer data check` ask before they start."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.data.across_checks import RowComparison, SystemPrompts, note_stray_prompts
from trainer.data.conversations import Conversation, FileReport, read_conversations
from trainer.data.findings import Finding, FindingList, Report, in_file_order
from trainer.data.rules import ROWS_ADVISED, ROWS_NEEDED, Backend
from trainer.data.text_checks import TextChecks
from trainer.errors import DataError

MAX_AZURE_BYTES = 10**9


@dataclass(frozen=True, slots=True)
class DataReport(Report):
    """The training rows without an error as `conversations`, such validation rows, and all that was found.

    `rows` and `validation_rows` count every row, those with errors too.
    """

    conversations: list[Conversation]
    validation: list[Conversation]
    findings: list[Finding]
    rows: int
    validation_rows: int


def check_files(
    train: Sequence[Path], validation: Sequence[Path] = (), *, backend: Backend = "local", allow_leak: bool = False
) -> DataReport:
    """Check every rule that needs no tokenizer.

    Content never raises; files that cannot be opened or read raise one `DataError` that names them all.
    """
    reports = _read([*train, *validation], backend)
    notes = {path: FindingList(report.file, backend) for path, report in reports.items()}
    _check_across(_identities(train), _identities(validation), reports, notes, RowComparison(allow_leak))
    trained = [reports[path] for path in _identities(train)]
    if trained:
        _check_sizes(trained, list(reports.values()), notes[_identities(train)[0]])
    validated = [reports[path] for path in _identities(validation)]
    found = [finding for path, report in reports.items() for finding in (*report.findings, *notes[path].findings)]
    return DataReport(
        conversations=[row for report in trained for row in report.conversations],
        validation=[row for report in validated for row in report.conversations],
        findings=in_file_order(found, [report.file for report in reports.values()]),
        rows=sum(report.rows for report in trained),
        validation_rows=sum(report.rows for report in validated),
    )


def _identities(paths: Iterable[Path]) -> list[Path]:
    return [path.resolve() for path in paths]


def _read(paths: Sequence[Path], backend: Backend) -> dict[Path, FileReport]:
    """Each file once, however often it is listed."""
    reports: dict[Path, FileReport] = {}
    problems: list[str] = []
    for identity, path in zip(_identities(paths), paths, strict=True):
        try:
            if identity not in reports:
                reports[identity] = read_conversations(path, backend)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(*problems)
    return reports


def _check_across(
    train: list[Path],
    validation: list[Path],
    reports: dict[Path, FileReport],
    notes: dict[Path, FindingList],
    comparison: RowComparison,
) -> None:
    prompts = SystemPrompts()
    for path in dict.fromkeys(train + validation):
        texts = TextChecks(notes[path])
        for row in reports[path].conversations:
            texts.check(row)
            if path in train:
                prompts.count(row)
        comparison.compare(reports[path].conversations, notes[path], training=path in train)
    note_stray_prompts(prompts, {note.file: note for note in notes.values()})
    for path, note in notes.items():
        _note_repeated_file(train.count(path), validation.count(path), note, comparison)


def _note_repeated_file(num_train: int, num_validation: int, notes: FindingList, comparison: RowComparison) -> None:
    notes.line = None
    if num_train and num_validation:
        severity = comparison.leak_severity
        notes.add("LEAK", "the file", "is both trained and validated", "a file of one kind", severity=severity)
    elif num_train > 1 or num_validation > 1:
        notes.add("DUPLICATE", "the file", "is listed more than once", "every file once")


def _check_sizes(trained: list[FileReport], reports: list[FileReport], notes: FindingList) -> None:
    notes.line = None
    num_rows = sum(report.rows for report in trained)
    has_rows = "a row" if num_rows == 1 else f"{num_rows} rows"
    if 0 < num_rows < ROWS_NEEDED:
        notes.add("TOO_FEW_ROWS", "the training data", f"has {has_rows}", f"at least {ROWS_NEEDED}")
    elif 0 < num_rows < ROWS_ADVISED:
        notes.add("FEW_ROWS", "the training data", f"has {has_rows}", f"{ROWS_ADVISED} or more for a visible effect")
    num_bytes = sum(report.num_bytes for report in reports)
    if num_bytes > MAX_AZURE_BYTES and notes.backend == "openai":
        found, accepted = f"hold {num_bytes} bytes", f"at most {MAX_AZURE_BYTES} in all on Azure OpenAI"
        notes.add("FILE_SIZE", "the files", found, accepted, severity="warning")
