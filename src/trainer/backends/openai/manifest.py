"""What a run at the service is made from, and what its launch needs to be taken up again."""

from trainer.backends.openai.bases import Base
from trainer.backends.openai.client import Service
from trainer.backends.openai.data import Checked
from trainer.backends.openai.limits import seed_of
from trainer.backends.openai.names import new_token
from trainer.backends.quote import Quote
from trainer.config.schema import RunConfig
from trainer.runs.manifest import Launch, Manifest, ParentRun, PinnedBase
from trainer.training.manifest import shared

PACKAGES = ("openai", "azure-identity", "azure-mgmt-cognitiveservices", "tiktoken")


def build_manifest(
    config: RunConfig, base: Base, checked: Checked, service: Service, quote: Quote, compares: bool
) -> Manifest:
    """The manifest of a run that is about to start; its token is new. `compares`: its comparison is in the quote."""
    rows, settings = checked.report, config.openai
    quoted = "" if quote.total is None else f", quoted at {quote.total:,.2f} {quote.currency}"
    launch = Launch(
        token=new_token(),
        family=base.family,
        uploads=checked.uploads,
        tokens_counted=checked.train.how,
        bills=f"by the trained token until it ends{quoted}",
        comparison_quoted=compares,
    )
    return Manifest(
        **shared(checked.files, rows.conversations, len(rows.validation), PACKAGES),
        base=PinnedBase(base.model, None, None),
        parent=None if base.parent is None else ParentRun(*base.parent),
        template_sha256=None,
        num_tokens=checked.train.num_tokens,
        num_supervised_tokens=checked.train.num_supervised,
        seed=seed_of(config),
        dtype="the service's own numbers",
        device=f"{service.place}, {settings.training_type or settings.service}",
        launch=launch,
    )
