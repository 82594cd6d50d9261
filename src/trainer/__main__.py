"""`python -m trainer` is `trainer`."""

from trainer.cli.main import trainer

trainer()
