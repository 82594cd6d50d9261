"""The documents of `trainer data`."""

from typing import Literal

from trainer.cli.documents.document import Document, Part


class Finding(Part):
    """Something that a rule of docs/data_rules.md says about a file."""

    file: str
    """The file, as it was given."""
    line: int | None
    """Its line, from 1; null where the finding is about the whole file."""
    code: str
    """The rule."""
    severity: Literal["error", "warning"]
    """Rows with an error cannot be trained as written."""
    where: str
    """The place in the row, such as messages[2].role; may be empty."""
    found: str
    """What is there."""
    accepted: str
    """What is accepted; may be empty."""
    fix: str
    """What to do about it."""
    column: int | None
    """The character of the line, from 1, where a line is no JSON."""


class Severities(Part):
    """How many findings of each kind there are."""

    error: int
    """Errors."""
    warning: int
    """Warnings."""


class CleanCopy(Part):
    """A copy of a file without its rows with an error."""

    source: str
    """The file that was checked."""
    file: str
    """The copy."""
    rows: int
    """Its rows."""


class Rejects(Part):
    """What `--reject` has written."""

    file: str
    """The file with the rows that have an error."""
    rows: int
    """Its rows."""
    clean: list[CleanCopy]
    """The copies without them."""


class DataCheck(Document):
    """Exit code 0 where every row can be trained, 2 where one has an error."""

    document: Literal["data check"] = "data check"
    """The command."""
    rows: int
    """Rows to train on."""
    validation_rows: int
    """Rows held out."""
    counts: dict[str, int]
    """Findings by rule."""
    severities: Severities
    """Findings by severity."""
    reject: Rejects | None
    """What was set aside; null without --reject, and where nothing was."""
    findings: list[Finding]
    """All of them, in the files' order."""


class Bin(Part):
    """A column of a histogram."""

    first: int
    """The least value that it counts."""
    last: int | None
    """The largest one; null where there is no upper end."""
    rows: int
    """Rows with such a value."""


class Spread(Part):
    """How a measure is spread over the rows."""

    total: int
    """Over all rows."""
    min: int
    """The least of a row."""
    median: float
    """The middle one."""
    p95: int
    """What 95 of 100 rows do not exceed."""
    max: int
    """The largest of a row."""
    histogram: list[Bin]
    """How many rows have how much."""


class TokenStatistics(Part):
    """The rows as the model's tokenizer and chat template see them."""

    tokens: Spread
    """Tokens of a row."""
    supervised: Spread
    """Tokens of a row that enter the loss."""
    unique: int
    """Tokens that are left where rows that begin alike share their beginning."""
    max_length: int
    """The longest row that is accepted: data.max_length."""
    over_length: list[str]
    """Rows over it, as FILE:LINE."""
    rows_of_several_examples: int
    """Rows that become several, as the chat template rewrites earlier turns."""
    refused: list[str]
    """Rows that the chat template cannot render exactly, each in a sentence."""
    supervised_share: float
    """Supervised tokens among all."""
    shared_prefix_share: float
    """Tokens that repeat how another row begins, among all."""
    billed_per_epoch: int
    """Tokens that a service bills for one epoch, about."""


class RowStatistics(Part):
    """Rows of one side; all but `rows` is about those without an error."""

    rows: int
    """All rows."""
    rows_with_errors: int
    """Rows that are left out here; `trainer data check` names them."""
    turns: Spread
    """User messages with what follows them."""
    characters: Spread
    """Characters of messages and calls."""
    system_prompts: int
    """Different system prompts."""
    rows_without_system_prompt: int
    """Rows without one."""
    answers: int
    """Answers."""
    untrained_answers: int
    """Answers of weight 0."""
    tool_calls: int
    """Tool calls."""
    rows_with_tools: int
    """Rows that list tools."""
    duplicates: int
    """Rows that repeat another one."""
    near_duplicates: int
    """Rows that do so but for white space."""
    same_prompts: int
    """Rows that ask what another one asks, with another answer."""
    tokens: TokenStatistics | None
    """The same in tokens; null without --config."""


class DataStats(Document):
    """What the files hold."""

    document: Literal["data stats"] = "data stats"
    """The command."""
    train: RowStatistics
    """Rows to train on."""
    validation: RowStatistics | None
    """Rows held out; null without --validation."""
    leaks: int
    """Rows that are held out and trained on too."""


class Skipped(Part):
    """A row that no chat row could be made of."""

    place: str
    """FILE:LINE, or what else names it."""
    reason: str
    """Why not."""


class DataConvert(Document):
    """What became of a file of another layout."""

    document: Literal["data convert"] = "data convert"
    """The command."""
    output: str
    """The new file."""
    layout: str
    """What the file was recognized as."""
    encoding: str | None
    """Its encoding, where that was told or found."""
    num_read: int
    """Rows read."""
    num_written: int
    """Rows written."""
    num_given_system: int
    """Rows that got the system prompt of --system."""
    shapes: dict[str, int]
    """Rows by the layout that they had."""
    dropped: dict[str, int]
    """Rows by a key whose value a chat row has no place for."""
    skipped: list[Skipped]
    """Rows left out by --skip-bad."""


class Share(Part):
    """How the rows with one system prompt were divided."""

    prompt: str | None
    """The system prompt; null for rows without one."""
    num_train: int
    """Rows to train on."""
    num_validation: int
    """Rows held out."""


class DataSplit(Document):
    """What became of a file that was divided."""

    document: Literal["data split"] = "data split"
    """The command."""
    train: str
    """The file of the rows to train on."""
    validation: str
    """The file of the rows held out."""
    num_train: int
    """Rows to train on."""
    num_validation: int
    """Rows held out."""
    num_wanted: int
    """Rows that were to be held out; others may be, since some rows stay together."""
    num_together: int
    """Rows that have another one at their side because of a shared prompt."""
    num_blank: int
    """Blank lines that were left out."""
    shares: list[Share]
    """By system prompt."""
