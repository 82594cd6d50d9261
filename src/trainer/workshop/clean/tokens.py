"""Length of rows in the tokens of a base."""

from pathlib import Path

from trainer.config.schema import RunConfig
from trainer.data.conversations import Conversation
from trainer.data.render.overlength import longest
from trainer.data.render.rendering import RenderingError
from trainer.training.prepare import load_preprocessing


class TokenCounter:
    """Measures rows as training renders them; `max_length` is the longest that the base takes.

    Raises: MissingDependency, ConfigError.
    """

    def __init__(self, base: str, file: Path) -> None:
        settings = RunConfig.model_validate({"model": {"base": base}, "data": {"train": str(file)}})
        found = load_preprocessing(settings)
        self.renderer, self.max_length = found.renderer, found.max_length

    def __call__(self, row: Conversation) -> tuple[int, str]:
        """The tokens of a row, with its longer answer; 0 where the chat template refuses it."""
        try:
            return longest(self.renderer.render(row)), "tokens"
        except RenderingError:  # `trainer data check --config` says why
            return 0, "tokens"
