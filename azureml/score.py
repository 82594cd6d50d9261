"""Azure ML's scoring script: an exported model behind the inference server's `init()` and `run()`.

`trainer deploy` registers the model and sends this file with the package beside it; the environment is made from
`azureml/serving`. By hand, a folder that `trainer export` wrote serves as the model too. Request and answer are those
of OpenAI's chat completions, without streaming.

TRAINER_MAX_TOKENS and TRAINER_MAX_SECONDS limit an answer. The deployment's request_timeout_ms must be longer than the
latter: Azure ML's default is 5000.
"""

import json
import os
from pathlib import Path
from typing import Any

from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

from trainer.backends.azureml import gpu_check
from trainer.errors import ConfigError
from trainer.inference.serve.limits import Limits
from trainer.inference.serve.scoring import Scorer

scorer: Scorer | None = None


def init() -> None:
    """Load the model; the server ends where this fails, and its log says why."""
    global scorer
    if unusable := gpu_check.problem(gpu_check.expected_gpus(os.environ)):
        raise ConfigError(unusable)  # or the processor would answer, slowly, at the price of a GPU
    read_hub_token()
    limits = Limits(
        max_requests=1,  # of one worker; the server's WORKER_COUNT says how many there are
        max_tokens=int(os.environ.get("TRAINER_MAX_TOKENS", "1024")),
        max_seconds=float(os.environ.get("TRAINER_MAX_SECONDS", "60")),
    )
    scorer = Scorer(exported_folder(Path(os.environ["AZUREML_MODEL_DIR"])), limits)


def read_hub_token() -> None:
    """The hub token of the Key Vault that the deployment names, read as the endpoint; it stands in no setting."""
    vault, name = os.environ.get("TRAINER_KEY_VAULT"), os.environ.get("TRAINER_HUB_TOKEN_SECRET")
    if vault and name and not os.environ.get("HF_TOKEN"):
        from trainer.backends.azureml.key_vault import read_secret

        os.environ["HF_TOKEN"] = read_secret(vault, name)


def exported_folder(model_dir: Path) -> Path:
    """The export in the model's folder, which Azure ML mounts under its name and version."""
    found = sorted(path.parent for path in model_dir.rglob("parity.json"))
    if len(found) != 1:
        raise ConfigError(
            f"{model_dir}: has {len(found)} exports, expected one, written by: trainer export or trainer register"
        )
    return found[0]


@rawhttp
def run(request: Any) -> AMLResponse:
    """Answer one chat request, which the server gives as flask's object."""
    if request.method != "POST":
        return AMLResponse({"status": "ready"}, 200, json_str=True)
    assert scorer is not None
    scored = scorer.score(request.get_data(cache=False))
    headers = scored.headers | {"Content-Type": "application/json"}
    return AMLResponse(json.dumps(scored.body), scored.status, headers)
