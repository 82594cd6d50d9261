"""Every rule for all files of a run: what a training run, an upload and `trainer data check` ask before they start."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from trainer.data.conversations import Conversation
from trainer.data.read.data_files import opened
from trainer.data.read.rows import FileReader
from trainer.data.rules.across_rows import RowComparison, SystemPrompts, note_stray_prompts
from trainer.data.rules.catalog import ROWS_ADVISED, ROWS_NEEDED
from trainer.data.rules.findings import Finding, FindingList, Report, Tally, first_in_file_order
from trainer.data.rules.rule import Backend
from trainer.data.rules.texts import TextChecks
from trainer.errors import DataError
from trainer.kinds import Method, is_service

MAX_AZURE_BYTES = 10**9


@dataclass(frozen=True, slots=True)
class DataReport(Report):
    """The training rows without an error as `conversations`, such validation rows, and all that was found.

    `rows` and `validation_rows` count every row, those with errors too. `method` is the training that they are for.
    """

    conversations: list[Conversation]
    validation: list[Conversation]
    findings: list[Finding]
    rows: int
    validation_rows: int
    left_out: Tally = field(default_factory=Counter)
    method: Method = "sft"

    @property
    def has_thoughts(self) -> bool:
        """True if an answer of any row has a thought before it."""
        return any(row.has_thought for row in (*self.conversations, *self.validation))


def check_files(
    train: Sequence[Path],
    validation: Sequence[Path] = (),
    *,
    backend: Backend = "local",
    allow_leak: bool = False,
    keep_rows: bool = True,
    max_findings: int | None = None,
    progress: Callable[[int], None] | None = None,
    method: Method | None = None,
) -> DataReport:
    """Check every rule that needs no tokenizer; without `method` the first row of a known layout says what all are for.

    Without `keep_rows` and with `max_findings` memory does not grow but by about 250 bytes a row: the report then has
    no conversations, and findings beyond the first are only counted. `progress` receives the bytes read so far.
    Content never raises; files that cannot be opened or read raise one `DataError` that names them all.
    """
    files = _openable([*train, *validation])
    trained, validated = _identities(train), _identities(validation)
    across = _Across(RowComparison(allow_leak), SystemPrompts())
    read: dict[Path, tuple[FileReader, deque[Conversation]]] = {}
    num_bytes = 0
    for identity in dict.fromkeys(trained + validated):
        advance = partial(_add_to, progress, num_bytes) if progress else None
        reader = FileReader(files[identity], backend, max_findings, advance, method)
        rows = across.check(reader, training=identity in trained)
        read[identity] = reader, deque(rows, maxlen=None if keep_rows else 0)
        num_bytes, method = num_bytes + reader.num_bytes, reader.method
    notes = {identity: reader.findings for identity, (reader, _) in read.items()}
    note_stray_prompts(across.prompts, {note.file: note for note in notes.values()})
    for identity, note in notes.items():
        _note_repeated_file(trained.count(identity), validated.count(identity), note, across.comparison)
    _check_sizes([read[identity][0] for identity in trained], [reader for reader, _ in read.values()])
    found, left_out = first_in_file_order(
        [finding for note in notes.values() for finding in note.findings],
        [note.file for note in notes.values()],
        max_findings,
    )
    return DataReport(
        conversations=[row for identity in trained for row in read[identity][1]],
        validation=[row for identity in validated for row in read[identity][1]],
        findings=found,
        rows=sum(read[identity][0].rows for identity in trained),
        validation_rows=sum(read[identity][0].rows for identity in validated),
        left_out=sum((note.left_out for note in notes.values()), left_out),
        method=method or "sft",
    )


def _add_to(progress: Callable[[int], None], num_bytes_before: int, num_bytes: int) -> None:
    progress(num_bytes_before + num_bytes)


def _identities(paths: Iterable[Path]) -> list[Path]:
    return [path.resolve() for path in paths]


def _openable(paths: Sequence[Path]) -> dict[Path, Path]:
    """Each file once, as it was named first, however often it is listed. Raises: DataError."""
    files: dict[Path, Path] = {}
    problems: list[str] = []
    for identity, path in zip(_identities(paths), paths, strict=True):
        try:
            if identity not in files:
                with opened(path):
                    files[identity] = path
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(*problems)
    return files


@dataclass(frozen=True, slots=True)
class _Across:
    """Facts of all rows so far."""

    comparison: RowComparison
    prompts: SystemPrompts

    def check(self, reader: FileReader, training: bool) -> Iterator[Conversation]:
        """The rows of a file, each checked when it has been read."""
        texts = TextChecks(reader.findings)
        for row in reader:
            texts.check(row)
            if training:
                self.prompts.count(row)
            self.comparison.compare(row, reader.findings, training=training)
            yield row


def _note_repeated_file(num_train: int, num_validation: int, notes: FindingList, comparison: RowComparison) -> None:
    notes.line = None
    if num_train and num_validation:
        severity = comparison.leak_severity
        notes.add("LEAK", "the file", "is both trained and validated", "a file of one kind", severity=severity)
    elif num_train > 1 or num_validation > 1:
        notes.add("DUPLICATE", "the file", "is listed more than once", "every file once")


def _check_sizes(trained: list[FileReader], readers: list[FileReader]) -> None:
    if not trained:
        return
    notes = trained[0].findings
    notes.line = None
    num_rows = sum(reader.rows for reader in trained)
    has_rows = "a row" if num_rows == 1 else f"{num_rows} rows"
    if 0 < num_rows < ROWS_NEEDED:
        notes.add("TOO_FEW_ROWS", "the training data", f"has {has_rows}", f"at least {ROWS_NEEDED}")
    elif 0 < num_rows < ROWS_ADVISED:
        notes.add("FEW_ROWS", "the training data", f"has {has_rows}", f"{ROWS_ADVISED} or more for a visible effect")
    num_bytes = sum(reader.num_bytes for reader in readers)
    if num_bytes > MAX_AZURE_BYTES and is_service(notes.backend):
        found, accepted = f"hold {num_bytes} bytes", f"at most {MAX_AZURE_BYTES} in all on Azure OpenAI"
        notes.add("FILE_SIZE", "the files", found, accepted, severity="warning")
