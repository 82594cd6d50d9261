"""The section `openai:`, used where `backend.kind` is `openai`."""

from typing import Literal

from trainer.config.fields import Section, Text


class OpenAIConfig(Section):
    """Which fine-tuning service is used. Keys come from the environment, never from here."""

    service: Literal["azure", "openai"] = "azure"
    """`azure`: Azure OpenAI. `openai`: api.openai.com, or whatever speaks its API at `base_url`."""

    base_url: Text | None = None
    """Where the API is. Default: AZURE_OPENAI_ENDPOINT for `azure`; OPENAI_BASE_URL, else api.openai.com for `openai`."""
