"""The section `azureml:`, used where `backend.kind` is `azureml`."""

from trainer.config.fields import Section, Text


class AzureMLConfig(Section):
    """Where in Azure Machine Learning a run executes. Credentials come from the environment or `az login`, never from here."""

    subscription: Text | None = None
    """The subscription's id. Default: AZURE_SUBSCRIPTION_ID, a workspace's `config.json`, or the default of `az`."""

    resource_group: Text | None = None
    """The workspace's resource group."""

    workspace: Text | None = None
    """The workspace's name."""
