"""A deployment's variables, and what a person sees of its container's log."""

import sys
from pathlib import Path

import pytest

from trainer.backends.azureml.deploy.deployment import SHOWN_LINES, DeploymentTarget, deployment_entity, last_lines
from trainer.backends.azureml.gpu_check import expected_gpus
from trainer.backends.azureml.workspace import Place, quietly
from trainer.config.azureml import DeploymentConfig
from trainer.runs import Run

SCORE = {"TRAINER_MAX_TOKENS": "99", "TRAINER_MAX_SECONDS": "170", "WORKER_COUNT": "1"}
VLLM = {"TRAINER_MAX_REQUESTS": "7", "VLLM_NO_USAGE_STATS": "1"}
VAULT = {"TRAINER_KEY_VAULT": "https://kv.vault.azure.net", "TRAINER_HUB_TOKEN_SECRET": "hf"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("num_gpus", [None, 0, 1, 4])
@pytest.mark.parametrize(("mode", "own"), [("score", SCORE), ("vllm", VLLM)])
def test_a_deployment_states_the_gpus_that_it_counts_on(
    tmp_path: Path, mode: str, own: dict[str, str], num_gpus: int | None
) -> None:
    pytest.importorskip("azure.ai.ml")
    settings = DeploymentConfig.model_validate(
        {"mode": mode, "instance_type": "Standard_NC4as_T4_v3", "max_tokens": 99, "max_requests": 7}
    )
    target = DeploymentTarget(Place("s", "r", "w"), "e", "d", settings, num_gpus, None, "USD", "")
    made = deployment_entity(target, Run(tmp_path / "one"), "azureml:m:1", "azureml:e:1", tmp_path, VAULT)
    stated = {} if num_gpus is None else {"TRAINER_EXPECTED_GPUS": str(num_gpus)}
    served = {} if mode == "score" else {"TRAINER_GPUS": str(num_gpus or 1)}
    assert made.environment_variables == own | VAULT | stated | served | {"HF_HOME": "/tmp/huggingface"}
    assert expected_gpus(made.environment_variables) == num_gpus


def test_a_log_is_shown_from_its_end_where_the_reason_stands() -> None:
    lines = [f"  {number}" for number in range(30)]
    logs = ["log of one:", *lines, "log of two: cannot be read", "log of three:", "  a"]
    assert last_lines(logs) == [
        "log of one:", *lines[-SHOWN_LINES:], "log of two: cannot be read", "log of three:", "  a"
    ]  # fmt: skip
    assert last_lines([]) == []


def test_what_the_sdk_prints_stays_off_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with quietly():
        sys.stdout.write("a dot")
        sys.stderr.write("\x1b[39m")
    sys.stdout.write("ours\n")
    assert capsys.readouterr() == ("ours\n", "")
