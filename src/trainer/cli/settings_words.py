"""Settings that are typed as options, as with other trainers: `--epochs 3` is answered with `training.n_epochs=3`."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

import typer
from typer.core import TyperCommand

from trainer.cli.console import err
from trainer.errors import ExitCode

SECTIONS = {"model": "model.base", "data": "data.train", "backend": "backend.kind", "output": "run.root"}

# Options of other trainers whose number would be another one here.
COUNTED_OTHERWISE = {"max_steps", "warmup_steps", "gradient_accumulation_steps", "gradient_checkpointing"}


class SettingsCommand(TyperCommand):
    """A command that takes settings as `section.name=value`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options = {option for parameter in self.params for option in parameter.opts} | set(ctx.help_option_names)
        if meant := list(_meant(args, options)):
            for option, setting in meant:
                err.print(
                    f"error: {option}: settings are no options, expected section.name=value; write {setting}",
                    markup=False,
                )
            raise typer.Exit(ExitCode.BAD_INPUT)
        return super().parse_args(ctx, args)


def _meant(words: Sequence[str], options: set[str]) -> Iterator[tuple[str, str]]:
    """Each option that is a setting, and how it is written here."""
    for word, after in zip_longest(words, words[1:], fillvalue=""):
        option, _, value = word.partition("=")
        if option.startswith("--") and option not in options and (setting := _setting(option[2:])):
            following = after if after and not after.startswith("-") and "=" not in after else "VALUE"
            yield option, _written(setting, "VALUE" if _counts_otherwise(option[2:]) else value or following)


def _written(setting: str, value: str) -> str:
    """`name=value`, with what the name means here; a setting that brings its value keeps it."""
    name, _, remark = setting.partition(" ")
    return f"{name[:-1]}={remark}" if name.endswith(":") else f"{name}={value} {remark}".rstrip()


def _counts_otherwise(word: str) -> bool:
    return word.replace("-", "_") in COUNTED_OTHERWISE


def _setting(word: str) -> str | None:
    """The setting that a name stands for: here, in another trainer, or the one that its section must have."""
    from trainer.config.problems import FOREIGN_NAMES, field_names

    word = word.replace("-", "_")
    if foreign := FOREIGN_NAMES.get(word):
        return foreign
    own = [name for name in field_names() if word in (name, name.rpartition(".")[2])]
    return own[0] if own else SECTIONS.get(word)
