"""What is sent to Azure ML for an endpoint and a deployment."""

from pathlib import Path
from typing import TYPE_CHECKING

from trainer.backends.azureml.deploy.environment import SCRIPT
from trainer.backends.azureml.deploy.things import Target
from trainer.runs import Run

if TYPE_CHECKING:
    from azure.ai.ml.entities import ManagedOnlineDeployment, ManagedOnlineEndpoint, OnlineRequestSettings

HUB_CACHE = "/tmp/huggingface"  # noqa: S108  # a container's own disk: nobody else writes there, and home may be read-only
ANSWER_MS = 180_000  # the most that Azure ML takes; its default of 5,000 cuts long answers off
ANSWER_SECONDS = 170  # of the scoring script, which must give up before the endpoint does
LOADING_SECONDS = 600  # before a container that does not answer yet counts as dead: the base is loaded
MADE_BY = "azure-llm-trainer"


def endpoint_entity(target: Target, run: Run) -> "ManagedOnlineEndpoint":
    """An endpoint without traffic yet."""
    from azure.ai.ml.entities import ManagedOnlineEndpoint

    auth = {"key": "key", "entra": "aad_token"}[target.settings.auth]
    return ManagedOnlineEndpoint(name=target.endpoint, auth_mode=auth, tags={"made_by": MADE_BY, "run": run.name[:250]})


def deployment_entity(
    target: Target, run: Run, model: str, environment: str, code: Path, vault: dict[str, str]
) -> "ManagedOnlineDeployment":
    """A deployment with room and time for a language model."""
    from azure.ai.ml.entities import CodeConfiguration, ManagedOnlineDeployment, ProbeSettings

    settings = target.settings
    scripted = settings.mode == "score"
    return ManagedOnlineDeployment(
        name=target.deployment,
        endpoint_name=target.endpoint,
        model=model,
        environment=environment,
        code_configuration=CodeConfiguration(code=str(code), scoring_script=SCRIPT) if scripted else None,
        environment_variables=(_score_variables(target) if scripted else _vllm_variables(target)) | vault,
        instance_type=target.instance_type,
        instance_count=settings.instance_count,
        request_settings=_requests(target),
        liveness_probe=ProbeSettings(initial_delay=LOADING_SECONDS, period=30, timeout=10, failure_threshold=30),
        readiness_probe=ProbeSettings(initial_delay=10, period=10, timeout=10, failure_threshold=30),
        egress_public_network_access="enabled" if settings.egress else "disabled",
        tags={"made_by": MADE_BY, "run": run.name[:250], "model": model, "mode": settings.mode},
    )


def _requests(target: Target) -> "OnlineRequestSettings":
    from azure.ai.ml.entities import OnlineRequestSettings

    at_a_time = 1 if target.settings.mode == "score" else target.settings.max_requests
    return OnlineRequestSettings(request_timeout_ms=ANSWER_MS, max_concurrent_requests_per_instance=at_a_time)


def _score_variables(target: Target) -> dict[str, str]:
    return {
        "TRAINER_MAX_TOKENS": str(target.settings.max_tokens),
        "TRAINER_MAX_SECONDS": str(ANSWER_SECONDS),
        "WORKER_COUNT": "1",  # each would load the model once more
        "HF_HOME": HUB_CACHE,
    }


def _vllm_variables(target: Target) -> dict[str, str]:
    settings = target.settings
    given = {
        "TRAINER_MAX_REQUESTS": str(settings.max_requests),
        "TRAINER_GPUS": str(target.num_gpus),
        "HF_HOME": HUB_CACHE,
        "VLLM_NO_USAGE_STATS": "1",
    }
    if settings.max_length is not None:
        given["TRAINER_MAX_LENGTH"] = str(settings.max_length)
    if settings.tool_parser is not None:
        given["TRAINER_TOOL_PARSER"] = settings.tool_parser
    return given
