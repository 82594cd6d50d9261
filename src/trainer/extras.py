"""Extras of this package: which of them a module needs, and the sentence that names the missing one."""

import importlib.util
import json
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from trainer.errors import MissingDependency

TO_LOAD_A_MODEL = ("torch", "transformers", "peft")
# By backend: the extra, and what a config for it cannot be used without.
NEEDED_BY = {
    "local": ("local", TO_LOAD_A_MODEL),
    "azureml": ("azure", ("azure.ai.ml", "azure.identity")),
    "openai": ("openai", ("openai",)),
}
PACKAGE = "azure-llm-trainer"
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+).*extra == [\"'](?P<extra>[\w-]+)[\"']")


def need(what: str, *modules: str, extra: str, otherwise: str = "") -> None:
    """Raises: MissingDependency, where a module is not installed; `otherwise` is another way than installing it."""
    if gone := absent(modules):
        raise missing(what, *gone, extra=extra, otherwise=otherwise)


def missing(what: str, *modules: str, extra: str | None, otherwise: str = "") -> MissingDependency:
    """The error for modules that are not installed and that `extra` brings, if any does."""
    names = [_distribution(module) for module in modules]
    command = install(extra) if extra else f"pip install {' '.join(names)}"
    ways = " or ".join(filter(None, [f"run: {command}", otherwise]))
    return MissingDependency(f"{what} needs {', '.join(names)}, which {_are(names)} not installed; {ways}")


def install(extra: str) -> str:
    """The command that adds an extra to this installation, from where it was made."""
    source = _source()
    address = str(source.get("url", ""))
    if not address:
        return f"pip install '{PACKAGE}[{extra}]'"
    if urlsplit(address).scheme != "file":
        return f"pip install {shlex.quote(f'{PACKAGE}[{extra}] @ {_remote(source, address)}')}"
    path = Path(unquote(urlsplit(address).path))
    if not path.exists():
        return f"pip install {shlex.quote(f'{path.name}[{extra}]')} in the folder that holds {path.name} now"
    editable = "--editable " if source.get("dir_info", {}).get("editable") else ""
    place = "." if path == Path.cwd() else path
    return f"pip install {editable}{shlex.quote(f'{place}[{extra}]')}"


def _source() -> dict[str, Any]:
    """Origin of this installation, as PEP 610 has it written down; empty where that was an index."""
    from importlib import metadata  # slow to import, and only failures need it

    try:
        text = metadata.distribution(PACKAGE).read_text("direct_url.json")
        source = json.loads(text or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        return {}
    return source if isinstance(source, dict) else {}


def _remote(source: dict[str, Any], address: str) -> str:
    if isinstance(repository := source.get("vcs_info"), dict):
        address = f"{repository.get('vcs')}+{address}@{repository.get('commit_id')}"
    return address + (f"#subdirectory={folder}" if (folder := source.get("subdirectory")) else "")


def not_installed(error: ModuleNotFoundError, doing: str) -> MissingDependency | None:
    """An import that failed somewhere below a command, in words; None where the module is one of ours."""
    module = error.name or ""
    if not module or module.partition(".")[0] == "trainer":
        return None
    return missing(doing, module, extra=extra_of(module))


def absent(modules: Iterable[str]) -> list[str]:
    """Those that are not installed."""
    return [module for module in modules if not is_installed(module)]


def lack(modules: Iterable[str]) -> str:
    """Modules that are not installed, in words; empty where all are."""
    names = [_distribution(module) for module in absent(modules)]
    return f"{', '.join(names)} {_are(names)} not installed here" if names else ""


def is_installed(module: str) -> bool:
    """True if it could be imported; nothing is."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is missing too
        return False


def extra_of(module: str) -> str | None:
    """The first extra with a package of that name, or with one whose name begins so: `azure`, azure-identity."""
    wanted = _distribution(module)
    extras = list(_extras())
    same = [extra for name, extra in extras if wanted == name or wanted.startswith(f"{name}-")]
    begun = [extra for name, extra in extras if name.startswith(f"{wanted}-")]
    return next(iter([*same, *begun]), None)


def _extras() -> list[tuple[str, str]]:
    """Package and extra, in the order of pyproject.toml; nothing where this package is not installed itself."""
    from importlib import metadata

    try:
        requirements = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return []
    found = [match for requirement in requirements if (match := REQUIREMENT.match(requirement))]
    return [(match["name"].lower(), match["extra"]) for match in found]


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _distribution(module: str) -> str:
    """Package of that module, where it is called after it."""
    return re.sub(r"[._]", "-", module.lower())
