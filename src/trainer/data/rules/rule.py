"""Rule for data: its code, its severity on each backend, its reason and the remedy."""

from dataclasses import dataclass
from typing import Literal

from trainer.kinds import Kind, is_service

Severity = Literal["error", "warning"]
Backend = Kind


@dataclass(frozen=True, slots=True)
class Rule:
    """`fix` ends a finding that has no better advice; `local` holds for azureml too.

    `only` names the backend that has the rule, where not all have it.
    """

    code: str
    title: str
    explanation: str
    fix: str
    example: str
    local: Severity = "error"
    openai: Severity = "error"
    only: Literal["local", "openai"] | None = None

    def severity(self, backend: Backend) -> Severity:
        return self.openai if is_service(backend) else self.local


def warning(code: str, title: str, explanation: str, fix: str, example: str) -> Rule:
    """A rule that stops nothing."""
    return Rule(code, title, explanation, fix, example, local="warning", openai="warning")
