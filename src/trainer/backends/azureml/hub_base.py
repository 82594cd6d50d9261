"""Bases on the model hub, as a node without a token finds them: public, or gated."""

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from trainer.backends.http import timeout_seconds
from trainer.runs import Run

HUB = "https://huggingface.co"
ANSWER_SECONDS = 15.0


def hub_id(base: str) -> str | None:
    """The hub id that a config's base leads to, through an earlier run too; None for a base that is no hub model."""
    name = base.partition("@")[0]
    if base.startswith(("builtin:", "azureml:")):
        return None
    if not Path(name).exists():
        return name
    manifest = Run(Path(name)).find_manifest() if (Path(name) / "config.yaml").is_file() else None
    return None if manifest is None or Path(manifest.base.name).exists() else hub_id(manifest.base.name)


def is_gated(model: str) -> bool | None:
    """Return True for a hub model that is gated or private; None if the hub does not answer."""
    hub = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    if not hub.startswith("https://") or os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return None
    address = f"{hub}/api/models/{urllib.parse.quote(model)}"
    try:
        # urlopen would keep the proxies of its first call for good.
        opener = urllib.request.build_opener()
        with opener.open(address, timeout=min(ANSWER_SECONDS, timeout_seconds())) as answer:
            return bool(json.load(answer).get("gated"))
    except urllib.error.HTTPError as error:
        return True if error.code in (401, 403) else None
    except (OSError, ValueError, AttributeError):
        return None
