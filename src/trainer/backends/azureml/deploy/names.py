"""Names that are valid, and the same each time for the same thing, so that asking twice makes one."""

import hashlib
import re

from trainer.errors import ConfigError
from trainer.runs import Run

LONGEST = 32  # of an endpoint and of a deployment, as of 3 characters
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
ENDPOINT_NAME = re.compile(r"[A-Za-z](?=.{2,31}$)[A-Za-z0-9-]*[A-Za-z0-9]")
DIGEST_CHARS = 12


def model_name(run: Run, name: str | None) -> str:
    """The model's name. Raises: ConfigError, for one that Azure ML does not take."""
    if name is None:
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", run.name).strip("-_.")[:200] or "model"
    if not MODEL_NAME.fullmatch(name):
        raise ConfigError(
            f"--name: is {name!r}, expected letters, digits, '-', '_' and '.' for a model; choose another"
        )
    return name


def model_version(sha256: str) -> str:
    """The content's address: the same adapter is never a second version."""
    return sha256[:DIGEST_CHARS]


def endpoint_name(run: Run, workspace_id: str, name: str | None) -> str:
    """The endpoint's name, which no other may have in the whole region. Raises: ConfigError."""
    if name is None:
        salt = f"{workspace_id} {run.name} {run.status().get('created_at')}"
        return f"{_stem(run.name, 23)}-{hashlib.sha256(salt.encode()).hexdigest()[:8]}"
    if not ENDPOINT_NAME.fullmatch(name):
        raise ConfigError(
            f"--name: is {name!r}, expected 3 to {LONGEST} letters, digits and '-' for an endpoint, a letter first and "
            "no '-' last; choose another"
        )
    return name


def deployment_name(mode: str, *parts: object) -> str:
    """Of everything that makes this deployment another one: a changed model or machine gets a name of its own."""
    return f"{mode}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:DIGEST_CHARS]}"


def _stem(name: str, length: int) -> str:
    letters = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return (letters if letters[:1].isalpha() else f"run-{letters}")[:length].strip("-")
