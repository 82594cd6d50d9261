"""What of the section `model` can be seen to be wrong before any library is loaded."""

from trainer.config.schema import RunConfig
from trainer.errors import Attempts
from trainer.model.base import read_template
from trainer.model.base_folder import refuse_base
from trainer.model.lineage import find_parent, inherit


def refuse_model(config: RunConfig) -> None:
    """Raises: ConfigError, for a base that cannot be one, an earlier run without an adapter, an unreadable template."""
    attempts = Attempts()
    attempts.make(_refuse_base, config)
    if config.model.chat_template is not None:
        attempts.make(read_template, config.model.chat_template)
    attempts.end()


def _refuse_base(config: RunConfig) -> None:
    parent = find_parent(config)
    if parent is None:
        refuse_base(config.model.base)
    else:
        inherit(config, parent)
