"""The kinds of backends and of training, and what the parts below them need to know of each."""

from typing import Literal, get_args

Kind = Literal["local", "azureml", "openai"]
Method = Literal["sft", "dpo"]


def is_kind(found: object) -> bool:
    """True for the name of a backend."""
    return found in get_args(Kind)


def executes_here(kind: str) -> bool:
    """True if a process of this machine trains the run, and can be signaled."""
    return kind == "local"


def is_service(kind: str) -> bool:
    """True if a service trains the run in its own way, takes rows by its own rules, and keeps the weights."""
    return kind == "openai"


def learns_from_pairs(method: str | None) -> bool:
    """True if a row is a prompt with two answers, one of them preferred, and not a chat."""
    return method == "dpo"
