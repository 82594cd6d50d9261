"""Where this machine keeps what can be made again: rendered rows."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """TRAINER_CACHE, or a folder of ours in the user's cache."""
    if own := os.environ.get("TRAINER_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "azure-llm-trainer"
