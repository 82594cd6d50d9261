"""The document of `trainer data preview`: which tokens are trained."""

from typing import Literal

from trainer.cli.documents.document import Document, Part


class Span(Part):
    """Neighbouring tokens that are treated alike."""

    kind: Literal["answer", "end", "untrained", "prompt"]
    """The assistant's own words; its end-of-turn token; an answer with weight 0; what the model only reads."""
    trained: bool
    """Whether these tokens enter the loss: those of answer and end do."""
    num_tokens: int
    """How many they are."""
    text: str
    """What they stand for, control tokens included."""


class Row(Part):
    """A row as the model's chat template renders it."""

    place: str
    """FILE:LINE."""
    examples: list[list[Span]]
    """One, or several where the template rewrites earlier turns; each in its parts."""


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
    """Rows that become several examples."""


class DataPreview(Document):
    """Which tokens of a file are trained, as the config's model and chat template see them."""

    document: Literal["data preview"] = "data preview"
    """The command."""
    rows: list[Row]
    """The first rows: 5, or --rows."""
    totals: Totals
    """Of all rows."""
    too_long: str | None
    """What became of rows over data.max_length; null where there are none."""
