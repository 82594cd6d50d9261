"""The documents of `trainer data`."""

from typing import TYPE_CHECKING, Literal, Self

from trainer.cli.documents.document import Document, Part

if TYPE_CHECKING:
    from trainer.workshop.generate.generate import Generated


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
    """The fault, in words."""
    accepted: str
    """The accepted form; may be empty."""
    fix: str
    """The remedy."""
    column: int | None
    """The character of the line, from 1, where a line is no JSON."""


class Severities(Part):
    """Numbers of findings of each kind."""

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
    """Files that `--reject` has written."""

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
    method: Literal["sft", "dpo"]
    """The training that the rows are for: sft for chat rows, dpo for preference rows."""
    rows: int
    """Rows to train on."""
    validation_rows: int
    """Rows held out."""
    counts: dict[str, int]
    """Findings by rule."""
    severities: Severities
    """Findings by severity."""
    reject: Rejects | None
    """The rows set aside; null without --reject, and where there are none."""
    findings: list[Finding]
    """All of them, in the files' order."""


class Fault(Part):
    """A fault that docs/clean.md describes."""

    file: str
    """The file, as it was given."""
    line: int
    """Its line, from 1."""
    kind: str
    """The kind of fault."""
    where: str
    """The place in the row, such as messages[2].content."""
    found: str
    """The fault, in words."""
    fix: str
    """The change that --fix makes, or advice for a person."""


class FaultsOfKind(Part):
    """The faults of one kind."""

    kind: str
    """The kind, by its code."""
    remedy: Literal["edit", "remove", "leave"]
    """The part of --fix: it edits the text, removes the row, or leaves it to a person."""
    rows: int
    """Rows with such a fault."""
    faults: int
    """Faults; a row may have several."""
    lines: list[int]
    """The lines of these rows, from 1, all of them."""
    findings: list[Fault]
    """The first 20 faults in full; all of them with --all."""


class CleanedCopy(Part):
    """Files that --fix has written."""

    file: str
    """The cleaned copy."""
    rows: int
    """Its rows."""
    log: str
    """The log of changes: a JSON object a line with file, line, kind and before and after, or removed."""


class DataClean(Document):
    """Faults of rows that are legal and yet bad."""

    document: Literal["data clean"] = "data clean"
    """The command."""
    file: str
    """The file, as it was given."""
    rows: int
    """Its rows."""
    validation_rows: int
    """Rows held out."""
    rows_removed: int
    """Rows that --fix removes."""
    rows_edited: int
    """Rows that --fix edits, and does not remove."""
    kinds: list[FaultsOfKind]
    """Kinds that were found."""
    written: CleanedCopy | None
    """The cleaned copy; null without --fix."""


class Bin(Part):
    """A column of a histogram."""

    first: int
    """The least value that it counts."""
    last: int | None
    """The largest one; null where there is no upper end."""
    rows: int
    """Rows with such a value."""


class Spread(Part):
    """Distribution of a measure over the rows."""

    total: int
    """Over all rows."""
    min: int
    """The least of a row."""
    median: float
    """The middle one."""
    p95: int
    """The 95th percentile: 95 of 100 rows do not exceed it."""
    max: int
    """The largest of a row."""
    histogram: list[Bin]
    """Numbers of rows by ranges of the measure."""


class StepTokens(Part):
    """Tokens that the steps of an epoch compute: a count, beside which attention, loss and optimizer take time."""

    rows_per_step: int
    """Rows of an optimizer step."""
    token_budget: int
    """The most tokens of a pack; a plan with little memory takes fewer, and shares less."""
    steps: int
    """Steps of an epoch."""
    counted_steps: int
    """Steps that the following are about, evenly spaced."""
    padded: int
    """Tokens where each row is padded to the longest of its step."""
    unshared: int
    """Tokens without padding and without sharing."""
    computed: int
    """Tokens that go through the model: rows of a step compute what they begin with alike once."""
    fewer_than_unshared: float
    """Unshared tokens over computed ones."""
    fewer_than_padded: float
    """Padded tokens over computed ones."""


class Languages(Part):
    """Languages of questions and answers, as a detector tells them from their letters."""

    rows: int
    """Rows that were looked at: all, or 2,000 of them, evenly spaced."""
    by_code: dict[str, int]
    """Rows by ISO 639 code; und where the detector is less than 50 % sure, zxx for what is no language."""
    confidence: float | None
    """The median confidence of the determined rows, from 0.5 to 1; null where there is none."""


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
    steps: StepTokens | None
    """The tokens that training on this machine computes; null for held-out rows."""


class PairStatistics(Part):
    """Lengths of the two answers of preference rows."""

    preferred_characters: Spread
    """Characters of the preferred answer."""
    other_characters: Spread
    """Characters of the other one."""
    preferred_longer: int
    """Rows whose preferred answer is the longer one."""


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
    roles: dict[str, int]
    """Messages by role."""
    languages: Languages | None
    """Rows by language; null where py3langid is not installed."""
    pairs: PairStatistics | None
    """Of preference rows; null of chat rows."""
    tokens: TokenStatistics | None
    """The same in tokens; null without --config."""


class DataStats(Document):
    """Statistics of data files."""

    document: Literal["data stats"] = "data stats"
    """The command."""
    train: RowStatistics
    """Rows to train on."""
    validation: RowStatistics | None
    """Rows held out; null without --validation."""
    leaks: int
    """Rows that are held out and trained on too."""


class SuspectRow(Part):
    """A training row, its losses in nats a supervised token, and the reasons why it deserves a look."""

    file: str
    """The file, as the run's config or --data names it."""
    line: int
    """Its line, from 1."""
    score: float
    """Larger deserves a look sooner; comparable within one file and run."""
    reasons: list[str]
    """Each in a sentence; empty where nothing stands out."""
    question: str
    """The last user message, cut off after 160 characters."""
    answer: str
    """The last message, cut off likewise."""
    loss_before: float
    """Loss under the model that training began with."""
    loss_after: float
    """Loss with the adapter."""
    loss_elsewhere: float | None
    """Loss of the answer behind other rows' questions, with the adapter; null where no other row has room for it."""
    supervised_tokens: int
    """Tokens that the loss is the mean of."""
    hard: float
    """Robust standard deviations of loss_after above the median row's, from 0 to 10."""
    unexplained: float
    """The same of loss_after less loss_elsewhere."""
    agreement: float | None
    """Share of words in common with answers to nearly the same question, where it is below a half; else null."""


class DataDoctor(Document):
    """Training rows of a run that deserve a look."""

    document: Literal["data doctor"] = "data doctor"
    """The command."""
    run: str
    """The run."""
    step: int | None
    """The checkpoint; null for the run's adapter."""
    rows: int
    """Rows measured."""
    rows_with_reasons: int
    """Rows with a reason."""
    median_before: float
    """Loss of the median row before training."""
    median_after: float
    """Loss of the median row after training."""
    notes: list[str]
    """Remarks without which the numbers mislead."""
    suspects: list[SuspectRow]
    """The first rows by score; --rows says how many."""
    written: str | None
    """The file of --output, with every row; null without it."""


class Skipped(Part):
    """A row that no chat row could be made of."""

    place: str
    """FILE:LINE, or what else names it."""
    reason: str
    """The reason."""


class DataConvert(Document):
    """Result of converting a file of another layout."""

    document: Literal["data convert"] = "data convert"
    """The command."""
    output: str
    """The new file."""
    layout: str
    """The recognized layout of the file."""
    encoding: str | None
    """Its encoding, where that was given or detected."""
    num_read: int
    """Rows read."""
    num_written: int
    """Rows written."""
    num_given_system: int
    """Rows that got the system prompt of --system."""
    num_without_thoughts: int
    """Rows whose thoughts --no-thoughts left out."""
    shapes: dict[str, int]
    """Rows by the layout that they had."""
    dropped: dict[str, int]
    """Rows by a key whose value a chat row has no place for."""
    skipped: list[Skipped]
    """Rows left out by --skip-bad."""


class Share(Part):
    """Division of the rows with one system prompt."""

    prompt: str | None
    """The system prompt; null for rows without one."""
    num_train: int
    """Rows to train on."""
    num_validation: int
    """Rows held out."""


class DataSplit(Document):
    """Result of dividing a file."""

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


class DataGenerate(Document):
    """A chat set that was generated from documents."""

    document: Literal["data generate"] = "data generate"
    """The command."""
    file: str
    """The rows to train on."""
    validation: str | None
    """The rows held out; null where there are none."""
    provenance: str
    """A line for each row, dropped example and failed chunk, with its source."""
    side: str
    """The folder that keeps the answers and the ledger."""
    rows: int
    """Rows to train on."""
    validation_rows: int
    """Rows held out."""
    dropped: dict[str, int]
    """Examples that became no row, by the reason."""
    failures: list[str]
    """Chunks without rows, each with the reason in words."""
    chunks: int
    """Chunks that were asked about, now or before."""
    requests: int
    """Requests that this call has sent."""
    input_tokens: int
    """Tokens read that were paid for, now and before; 0 at an endpoint that is free."""
    output_tokens: int
    """Tokens written that were paid for, now and before; 0 at an endpoint that is free."""
    cost: float | None
    """The cost in USD, now and before, with requests of unknown end at their most; null where no price is known."""
    unknown_requests: int
    """Requests without an answer that may have been paid."""
    unknown_cost: float | None
    """The most that these may have cost; null where no price is known."""

    @classmethod
    def of(cls, made: "Generated") -> Self:
        """The document of a generated set."""
        names = ("rows", "validation_rows", "dropped", "failures", "chunks", "requests", "input_tokens",
                 "output_tokens", "cost", "unknown_requests", "unknown_cost")  # fmt: skip
        files = made.files
        validation = files.validation if made.validation_rows else None
        paths = {"file": files.rows, "validation": validation, "provenance": files.provenance, "side": files.side}
        return cls.model_validate(paths | {name: getattr(made, name) for name in names})
