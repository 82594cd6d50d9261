"""The section `openai:`, used where `backend.kind` is `openai`."""

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from trainer.config.fields import Flag, NonNegative, Section, Text, of_form, shown_form


def _day_as_text(value: Any) -> Any:
    """YAML reads a date where a version stands."""
    return value.isoformat() if isinstance(value, date) else value


VERSION, VARIABLE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?", r"[A-Za-z_][A-Za-z0-9_]*"
Version = Annotated[
    str,
    shown_form(VERSION),
    of_form(VERSION, "a date such as 2024-10-21, or 2024-10-21-preview"),
    BeforeValidator(_day_as_text),
]
Variable = Annotated[
    str, shown_form(VARIABLE), of_form(VARIABLE, "a variable's name: letters, digits and _, no digit first")
]

TrainingType = Literal["Standard", "GlobalStandard", "DataZone", "Developer"]

Address = Annotated[Text, of_form(r"https?://[^\s/?#@]+(/[^\s?#]*)?", "an address such as https://HOST")]


class WandbConfig(Section):
    """Weights & Biases, to which the service itself reports a job; the service holds the key, set once in its portal."""

    project: Text | None = None
    """The project that gets a run for the job. Unset: the service reports to none."""

    entity: Text | None = None
    """The team or user of the run. Default: that of the service's key."""

    name: Text | None = None
    """The run's name there. Default: the job's id."""

    tags: list[Text] = []  # noqa: RUF012  # pydantic copies a default for each config
    """Tags of the run."""


class OpenAIConfig(Section):
    """Fine-tuning service to use. Keys come from the environment, never from here."""

    service: Literal["azure", "openai", "trainer"] = "azure"
    """`azure`: Azure OpenAI. `openai`: api.openai.com, or whatever speaks its API at `base_url`. `trainer`: a machine on which `trainer api` runs, which trains open bases and sends the adapter back."""

    base_url: Text | None = None
    """API address. Default: AZURE_OPENAI_ENDPOINT for `azure`; OPENAI_BASE_URL, else api.openai.com for `openai`; TRAINER_API_URL for `trainer`."""

    api_version: Version | None = None
    """Azure only: a dated version of the API, such as `2024-10-21`, for a resource that does not have `/openai/v1` yet."""

    training_type: TrainingType | None = None
    """Azure only: where the training runs. `Standard`: in the resource's region, where the data stays. `GlobalStandard`: anywhere, cheaper. `DataZone`: in the data zone of the United States. `Developer`: anywhere, on spare capacity, cheapest; a job may be paused, and resumes by itself. Default: `Standard`, or `GlobalStandard` for a model without regional training, such as the open ones."""

    trust: Literal["table", "service"] | None = None
    """Azure only: which decides where the built-in table of models and the service's own list contradict each other. Default: the contradiction is shown, and the submission asks."""

    file_bom: Flag = False
    """Upload the files with a byte order mark, which some Azure resources ask for."""

    train_url_variable: Variable | None = None
    """The name of an environment variable that holds the URL of the training file, for example one with a SAS token. The file is fetched once to `data.train`, checked there, and on Azure imported from the URL by the service. The URL itself is never stored or shown."""

    validation_url_variable: Variable | None = None
    """The same for `data.validation`."""

    subscription: Text | None = None
    """For deployments on Azure, and to verify region and rights before a run: the subscription's id. Default: AZURE_SUBSCRIPTION_ID."""

    resource_group: Text | None = None
    """For deployments on Azure, and to verify region and rights before a run: the resource group of the resource."""

    account: Text | None = None
    """For deployments on Azure: the resource's name. Default: the first part of the host in `base_url`."""

    management_url: Address = "https://management.azure.com"
    """For deployments on Azure: where Azure Resource Manager is; sovereign clouds have their own."""

    base_deployment: Text | None = None
    """Azure only: a deployment of the base model, to compare with and to talk to."""

    deployment_sku: Literal["developer", "standard", "global-standard", "data-zone"] | None = None
    """Azure only: the kind of deployment that `trainer deploy` and `backend.auto_deploy` make. Default: the first of the model's that the region has."""

    training_price: NonNegative | None = None
    """Your price of a million trained tokens. Default: the built-in list, whose date a quote names."""

    input_price: NonNegative | None = None
    """Price of a million tokens that the tuned model reads."""

    output_price: NonNegative | None = None
    """Price of a million tokens that the tuned model writes."""

    hosting_price: NonNegative | None = None
    """Price of a deployment an hour."""

    wandb: WandbConfig = WandbConfig()
    """The tracker that the service reports a job to."""
