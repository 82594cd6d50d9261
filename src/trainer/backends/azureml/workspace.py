"""The workspace that is meant, the client that speaks to it, and how its answers are read.

Subscription, resource group and workspace come, each from the first place that has it, from the config, the
environment, a `config.json` as the studio offers it for download (in this folder or one above it), and the defaults of
`az`. The credential is the SDK's own chain: environment, managed identity, `az login`.
"""

import configparser
import contextlib
import functools
import io
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from trainer.backends.arm import read_one
from trainer.backends.http import Say, seconds_of, timeout_seconds
from trainer.config.azureml import AzureMLConfig
from trainer.errors import ConfigError
from trainer.extras import need

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.credentials import TokenCredential

T = TypeVar("T")

FIELDS = ("subscription", "resource_group", "workspace")
# az reads AZURE_DEFAULTS_GROUP as its default group: every setting of its config has such a name.
ENVIRONMENT = {
    "subscription": ("AZURE_SUBSCRIPTION_ID", "AZUREML_ARM_SUBSCRIPTION"),
    "resource_group": ("AZURE_RESOURCE_GROUP", "AZURE_DEFAULTS_GROUP", "AZUREML_ARM_RESOURCEGROUP"),
    "workspace": ("AZUREML_WORKSPACE_NAME", "AZURE_DEFAULTS_WORKSPACE", "AZUREML_ARM_WORKSPACE_NAME"),
}
CONFIG_JSON = {"subscription": "subscription_id", "resource_group": "resource_group", "workspace": "workspace_name"}
PACKAGES = ("azure.ai.ml", "azure.identity", "azure.storage.blob")
POLLING_SECONDS = 5.0
WORKSPACES = "2024-10-01"  # the version of workspaces


@dataclass(frozen=True, slots=True)
class Place:
    """A workspace."""

    subscription: str
    resource_group: str
    workspace: str

    @classmethod
    def of_arm_id(cls, path: str) -> "Place":
        """The workspace of a path that `arm_id` made."""
        parts = path.split("/")
        return cls(parts[2], parts[4], parts[8])

    @property
    def arm_id(self) -> str:
        """The workspace's path in Azure's resource manager."""
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.workspace}"
        )

    @property
    def options(self) -> str:
        """Options by which `az` acts on it."""
        return f"--subscription {self.subscription} -g {self.resource_group} -w {self.workspace}"

    def __str__(self) -> str:
        return f"{self.workspace} in {self.resource_group}, subscription {self.subscription}"


def find_place(config: AzureMLConfig) -> Place:
    """The workspace that is meant. Raises: ConfigError, naming everything that is not known."""
    sources = [config.model_dump(include=set(FIELDS)), _environment(), _config_json(Path.cwd()), _az_defaults()]
    found = {name: next((source[name] for source in sources if source.get(name)), None) for name in FIELDS}
    if missing := [name for name, value in found.items() if value is None]:
        raise ConfigError(
            *(
                f"azureml.{name}: is not known, expected it in the config, in {ENVIRONMENT[name][0]}, in a workspace's "
                f"config.json in this folder or above, or as a default of az; give azureml.{name}"
                for name in missing
            )
        )
    return Place(**{name: str(value) for name, value in found.items()})


@functools.cache
def credential() -> "TokenCredential":
    """The SDK's chain of credentials, which keeps the one that worked and renews its token by itself."""
    check_packages()
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()


def connect(place: Place) -> "MLClient":
    """The SDK's client of a workspace, without its retries.

    They would repeat a POST that creates something. `retry_total` reaches every call to Azure's resource manager: code,
    data, environments, jobs, models, compute, endpoints, deployments, and the polling of long operations. It does not
    reach the blob uploads, whose names come from their content so that a repeated one changes nothing.
    """
    check_packages()
    from azure.ai.ml import MLClient

    logging.getLogger("azure.ai.ml").setLevel(logging.ERROR)  # its warnings are about its own experimental classes
    return MLClient(
        credential(),
        place.subscription,
        place.resource_group,
        place.workspace,
        show_progress=True,  # without it an upload that fails is waited for until the end of days
        enable_telemetry=False,
        retry_total=0,
        polling_interval=polling_seconds(),
        connection_timeout=timeout_seconds(),
        read_timeout=timeout_seconds(),
    )


def read_workspace(place: Place, say: Say) -> dict[str, Any] | None:
    """The workspace as the resource manager describes it, None where there is none. Raises: BackendError."""
    return read_one(place.arm_id, WORKSPACES, "reading the workspace", credential(), say)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep the SDK's progress bars, dots, color codes and advice for its own developers from the terminal."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def word_of(status: object) -> str:
    """The service's word for a status, which the SDK wraps in an enumeration."""
    return str(getattr(status, "value", status))


def polling_seconds() -> float:
    """Between two looks at something that takes long."""
    return seconds_of("TRAINER_POLLING_SECONDS", POLLING_SECONDS)


def check_packages() -> None:
    """Raises: MissingDependency."""
    need("the azureml backend", *PACKAGES, extra="azure")


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, variables in ENVIRONMENT.items()
        if (value := next((os.environ[variable] for variable in variables if os.environ.get(variable)), None))
    }


def _config_json(start: Path) -> dict[str, str]:
    """Values of the nearest workspace file, in `start` or a folder above it."""
    for folder in (start, *start.parents):
        for path in (folder / "config.json", folder / ".azureml" / "config.json"):
            found = _object(path)
            if CONFIG_JSON["workspace"] in found:
                return {name: str(found[key]) for name, key in CONFIG_JSON.items() if found.get(key)}
    return {}


def _az_defaults() -> dict[str, str]:
    """Values that `az configure --defaults` and `az account set` have stored."""
    folder = Path(os.environ.get("AZURE_CONFIG_DIR") or Path.home() / ".azure")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(folder / "config", encoding="utf-8")
        stored: Mapping[str, str] = parser["defaults"] if parser.has_section("defaults") else {}
    except (configparser.Error, UnicodeDecodeError):
        stored = {}
    found = {"resource_group": stored.get("group", ""), "workspace": stored.get("workspace", "")}
    return found | {"subscription": next(_default_subscriptions(_object(folder / "azureProfile.json")), "")}


def _default_subscriptions(profile: dict[str, Any]) -> Iterator[str]:
    for entry in profile.get("subscriptions") or []:
        if isinstance(entry, dict) and entry.get("isDefault") and entry.get("id"):
            yield str(entry["id"])


def _object(path: Path) -> dict[str, Any]:
    """A JSON object in a file; az writes its own with a byte-order mark. Empty where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
