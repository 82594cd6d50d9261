"""The documents of commands that use a run's model."""

from typing import Literal

from trainer.cli.documents.document import Document, Part


class Exchange(Part):
    """Answers to one question. A tool call stands on a line of its own, as text."""

    question: str
    """The question."""
    base: str | None
    """The base's answer; null without --base or --compare."""
    tuned: str | None
    """The tuned model's answer; null with --base."""
    base_thought: str | None
    """The thought before the base's answer; null where there is none."""
    tuned_thought: str | None
    """The thought before the tuned model's answer; null where there is none."""


class Chat(Document):
    """Answers to the questions of the command line or of --questions; a conversation is for people."""

    document: Literal["chat"] = "chat"
    """The command."""
    run: str
    """The run's name."""
    system: str | None
    """The system prompt that the models were given."""
    answers: list[Exchange]
    """In the order of the questions."""


class Drift(Part):
    """Distance of a model from the trained one."""

    num_tokens: int
    """Tokens compared."""
    mean_kl: float
    """The mean divergence, in nats a token."""
    max_kl: float
    """The largest one."""
    max_logprob_change: float
    """The largest change of a token's log-probability."""
    num_same_choice: int
    """Tokens at which both have the same first choice."""
    num_answers: int
    """Answers written out."""
    num_same_answers: int
    """Those that are the same."""
    greedy_gap: float
    """The widest gap, in nats, between both tokens where answers part."""


class Losses(Part):
    """Losses on the validation rows."""

    export: float
    """Of the export."""
    run: float
    """Of the run in the same number format."""
    recorded: float
    """As it was recorded in training."""


class Export(Document):
    """A run's model in a folder of its own. One that is not the trained model is not exported (exit code 1)."""

    document: Literal["export"] = "export"
    """The command."""
    folder: str
    """The folder written."""
    num_bytes: int
    """Bytes of its weights."""
    dtype: str
    """Their number format."""
    rows: str
    """The rows that it was compared on."""
    drift: Drift
    """Its distance from the trained model."""
    change: Drift
    """The base's distance from the trained model: the effect of fine-tuning."""
    losses: Losses | None
    """On the validation rows, where there are any."""


class Register(Document):
    """The run's adapter as a model of the workspace."""

    document: Literal["register"] = "register"
    """The command."""
    run: str
    """The run's name."""
    model: str
    """The model's name and version there."""
