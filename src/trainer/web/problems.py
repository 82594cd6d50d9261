"""Refusals as pages show them: a status and one sentence, `place: what was found; what to do`."""

from trainer.backends.unexpected import without_secrets
from trainer.errors import BackendError, ConfigError, DataError, MissingDependency, TrainerError


class Problem(Exception):
    """Request that is not answered; the sentence is shown, escaped."""

    def __init__(self, status: int, sentence: str, allow: tuple[str, ...] = ()) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.allow = status, sentence, allow


def problem_of(error: TrainerError) -> Problem:
    """A user's mistake, or a service's refusal, with its status."""
    words = without_secrets(str(error))  # a service's own words among them
    match error:
        case ConfigError() | DataError() | MissingDependency():
            return Problem(400, words)
        case BackendError():
            return Problem(502, words)
    return Problem(500, words)
