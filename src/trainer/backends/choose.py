"""The backend of each kind: the one place that tells them apart."""

from typing import Any

from rich.console import Console

from trainer.backends.contract import Backend, Deploys, Screen
from trainer.certificates import use_certificates
from trainer.errors import ConfigError

SILENT = Screen(Console(stderr=True, quiet=True))


def choose(kind: str, screen: Screen = SILENT, asks: bool = True) -> Backend[Any]:
    """Make the backend of a kind; what works in this process shows its progress on `screen`.

    Without `asks` it serves to read a run's files, whatever keeps the service from being asked.

    Raises: ConfigError, MissingDependency.
    """
    match kind:
        case "local":
            from trainer.backends.local.backend import Local

            return Local(screen)
        case "azureml":
            if asks:
                use_certificates()
            from trainer.backends.azureml.backend import AzureML

            return AzureML()
        case "openai":
            if asks:
                use_certificates()
            from trainer.backends.openai.backend import OpenAIService

            return OpenAIService()
    raise ConfigError(f"backend.kind: is {kind!r}, expected 'local', 'azureml' or 'openai'")


def choose_service(kind: str) -> Deploys[Any] | None:
    """The service of a backend, which keeps and deploys models; None for this machine.

    Raises: ConfigError, MissingDependency.
    """
    backend = choose(kind)
    return backend if isinstance(backend, Deploys) else None
