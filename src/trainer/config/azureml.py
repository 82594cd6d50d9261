"""The section `azureml:`, used where `backend.kind` is `azureml`, and by `trainer deploy` and `trainer register`."""

from typing import Annotated, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from trainer.config.fields import Auto, Count, Flag, Length, Positive, Section, Text, of_form, shown_form

# Letters, digits, - and _, as Azure ML names its jobs' experiments.
EXPERIMENT, SIZE, VAULT, CURRENCY = (
    r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}", r"[1-9][0-9]*[bkmg]", r"https://[^/@?#]+/?", r"[A-Z]{3}",
)  # fmt: skip
Experiment = Annotated[
    str,
    shown_form(EXPERIMENT),
    of_form(EXPERIMENT, "a name of up to 255 letters, digits, - and _ that begins with a letter or digit"),
]
Size = Annotated[str, shown_form(SIZE), of_form(SIZE, "a number and its unit, b, k, m or g, such as 16g")]
Address = Annotated[str, shown_form(VAULT), of_form(VAULT, "an address such as https://NAME.vault.azure.net")]
Currency = Annotated[str, shown_form(CURRENCY), of_form(CURRENCY, "three capital letters, such as USD")]

# What the SDK takes for a job's environment; other words it refuses only once data has been uploaded.
Environment = Annotated[
    Text,
    of_form(
        r"azureml:[A-Za-z0-9][\w.-]*(:[\w.-]+|@latest)"
        r"|azureml://registries/[\w.-]+/environments/[\w.-]+/(versions|labels)/[\w.-]+"
        r"|azureml:/subscriptions/[^/]+/.+/environments/[\w.-]+/versions/[\w.-]+",
        "azureml:NAME:VERSION, azureml:NAME@latest or azureml://registries/REGISTRY/environments/NAME/versions/VERSION",
    ),
]
# With a registry, as a name alone means Docker Hub's, and with a tag or digest, as an image without one moves.
Image = Annotated[
    Text,
    of_form(
        r"[\w-]+(\.[\w-]+)+(:\d+)?(/[a-z0-9._-]+)+(:[\w.-]+|@sha256:[0-9a-f]{64})",
        "REGISTRY/NAME:TAG, such as NAME.azurecr.io/vllm/vllm-openai:v0.33.0-cu129",
    ),
]
Secret = Annotated[Text, of_form(r"[A-Za-z0-9-]{1,127}", "a secret's name: up to 127 letters, digits and -")]


class DeploymentConfig(Section):
    """Deployment of a model behind a managed online endpoint."""

    mode: Literal["score", "vllm"] = "score"
    """`score`: the scoring script on Azure ML's inference server, the trained model as it is, one request at a time and whole answers. `vllm`: vLLM with the adapter on its base, for many requests at a time, with streaming."""

    instance_type: Text | None = None
    """The machine, for example `Standard_NC4as_T4_v3`. Default: the one of the training job."""

    instance_count: Count = 1
    """Number of machines that answer; each bills."""

    auth: Literal["key", "entra"] = "key"
    """Proof of a client's identity: a `key` of the endpoint, or a token of Microsoft Entra (`entra`) and a role on it."""

    max_requests: Count = 32
    """Requests at a time on a machine, with `vllm`; more are refused until one ends. With `score` it is one."""

    max_tokens: Length = 1024
    """The longest answer in tokens, with `score`."""

    max_length: Length | None = None
    """The longest conversation in tokens that `vllm` keeps room for. Default: what the base can read."""

    tool_parser: Text | None = None
    """vLLM's name of the form in which the model calls tools (`--tool-call-parser`, for example `hermes`), for clients other than `trainer chat`, which reads the form that was trained by itself."""

    include_base: Flag | Auto = "auto"
    """Upload the base with the model. `auto`: where it needs a token of the hub, or `egress` is false, since a container that cannot download it bills until it fails."""

    vllm_image: Image | None = None
    """A copy of vLLM's image in your own registry, for example `NAME.azurecr.io/vllm/vllm-openai:v0.33.0-cu129`, with `vllm`. Default: Docker Hub's, which limits anonymous pulls."""

    price_per_hour: Positive | None = None
    """Price of one machine an hour. Default: the Retail Prices API's figure."""

    egress: Flag = True
    """Let the machines reach the internet. The base comes from the hub unless `include_base` says otherwise."""


class AzureMLConfig(Section):
    """Place of a run in Azure Machine Learning. Credentials come from the environment or `az login` only."""

    subscription: Text | None = None
    """The subscription's id. Default: AZURE_SUBSCRIPTION_ID, a workspace's `config.json`, or the default of `az`."""

    resource_group: Text | None = None
    """The workspace's resource group. Default: AZURE_RESOURCE_GROUP, a workspace's `config.json`, or the default of `az`."""

    workspace: Text | None = None
    """The workspace's name. Default: AZUREML_WORKSPACE_NAME, a workspace's `config.json`, or the default of `az`."""

    compute: Text | None = None
    """A compute cluster of the workspace that the job runs on. Give this or `instance_type`."""

    instance_type: Text | None = None
    """The machine of a job without a cluster (serverless compute), for example `Standard_NC24ads_A100_v4`."""

    instance_count: Count = 1
    """Number of machines that train together; every GPU of each is used."""

    tier: Literal["dedicated", "low_priority"] = "dedicated"
    """`low_priority` is cheaper and may be taken away at any time: the job then resumes from its last checkpoint. A cluster has its own tier, which must be this one."""

    max_attempts: Count = 3
    """Most submissions of a job whose machine was taken away, the first included, while somebody follows the run."""

    experiment: Experiment = "azure-llm-trainer"
    """The name under which the studio groups the jobs."""

    environment: Environment | None = None
    """An environment of the workspace as `azureml:NAME:VERSION` or `azureml:NAME@latest`, or of a registry as `azureml://registries/REGISTRY/environments/NAME/versions/VERSION`. Default: built once from `azureml/environment`."""

    datastore: Text = "workspaceblobstore"
    """The datastore (blob) that receives checkpoints and results."""

    identity: Literal["default", "user", "managed"] = "default"
    """As whom the job reads and writes: the workspace's own way, as you, or as the compute's managed identity."""

    shm_size: Size = "16g"
    """Shared memory of the container. Azure ML's own default of 2g is too small for several GPUs."""

    key_vault: Address | None = None
    """A Key Vault (`https://NAME.vault.azure.net`) with a hub token, for models that need one. The job reads it with its identity."""

    hub_token_secret: Secret = "hf-token"
    """The name of the secret in `key_vault`."""

    hours: Positive | None = None
    """Your own estimate of the training time, instead of the one computed from tokens and GPU."""

    max_hours: Positive | None = None
    """The job is ended after this time. Default: what `backend.spend_cap` pays for, else three times the estimate and at least 2."""

    price_per_hour: Positive | None = None
    """Price of one machine an hour. Default: the Retail Prices API's figure."""

    currency: Currency = "USD"
    """The currency of the quote."""

    checkpoints: Literal["all", "none"] = "all"
    """Checkpoints that are downloaded with the adapter, the report and the records."""

    deployment: DeploymentConfig = DeploymentConfig()
    """Settings of `trainer deploy`, which puts the result behind an endpoint."""

    @model_validator(mode="after")
    def _one_machine(self) -> Self:
        if self.compute is not None and self.instance_type is not None:
            raise PydanticCustomError(
                "both_set", "compute and instance_type are both set, expected a cluster or a machine without one"
            )
        return self
