"""Document of `trainer data preview`: the tokens that are trained."""

from typing import Literal

from trainer.cli.documents.document import Document, Part


class Span(Part):
    """Neighbouring tokens that are treated alike."""

    kind: Literal["answer", "end", "thought", "rejected", "untrained", "thought-read", "prompt"]
    """The assistant's own words; its end-of-turn token; the thought before an answer; the non-preferred answer of a
    preference row; an answer with weight 0; a thought that is not trained; what the model only reads."""
    trained: bool
    """True where these tokens enter the loss: those of answer, end, thought and rejected do."""
    num_tokens: int
    """Their number."""
    text: str
    """Their text, control tokens included."""


class RenderedRow(Part):
    """A row as the model's chat template renders it."""

    place: str
    """FILE:LINE."""
    examples: list[list[Span]]
    """One, or several where the template rewrites earlier turns; of a preference row one with each answer, the
    preferred first. Each in its parts."""


class Totals(Part):
    """Counts over all rows of the file."""

    rows: int
    """Rows."""
    tokens: int
    """Their tokens."""
    trained: int
    """Those that enter the loss."""
    ends: int
    """End-of-turn tokens that are trained."""
    untrained_answers: int
    """Answers with weight 0."""
    untrained_rows: int
    """Rows that have such an answer."""
    silent_rows: int
    """Rows without a trained token."""
    split_rows: int
    """Rows that become several examples, preference rows aside."""
    pairs: int
    """Preference rows."""


class DataPreview(Document):
    """Trained tokens of a file, as the config's model and chat template see them."""

    document: Literal["data preview"] = "data preview"
    """The command."""
    rows: list[RenderedRow]
    """The first rows: 5, or --rows."""
    totals: Totals
    """Of all rows."""
    too_long: str | None
    """Treatment of rows over data.max_length, in words; null where there are none."""
