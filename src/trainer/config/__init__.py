"""The configuration: one tree of settings (schema), read from YAML and `key=value` overrides (load)."""

from trainer.config.load import load_config
from trainer.config.schema import RunConfig

__all__ = ["RunConfig", "load_config"]
