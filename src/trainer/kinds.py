"""The kinds of backends, and what the parts below them need to know of each."""

from typing import Literal

Kind = Literal["local", "azureml", "openai"]


def executes_here(kind: str) -> bool:
    """Whether a process of this machine trains the run, and can be asked for."""
    return kind == "local"


def is_service(kind: str) -> bool:
    """Whether a service trains the run in its own way, takes rows by its own rules, and keeps the weights."""
    return kind == "openai"
