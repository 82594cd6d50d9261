"""The folder `azureml/`: job template, environments and scoring script."""

import sys
from pathlib import Path

from trainer.errors import ConfigError


def own_files() -> Path:
    """The folder, in a checkout or where the installed package keeps it. Raises: ConfigError."""
    places = (Path(__file__).parents[4] / "azureml", Path(sys.prefix) / "share" / "azure-llm-trainer" / "azureml")
    for folder in places:
        if (folder / "job.yml").is_file():
            return folder
    raise ConfigError(f"azureml/job.yml: not found in {' or '.join(map(str, places))}; install the package again")
