"""Rows in colour: what is trained stands out, what is only read is dim."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from trainer.cli.console import clean, out
from trainer.data.rendering import supervised_runs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from trainer.training.dataset import Row

TRAINED, READ = "bold green", "dim"


def show_rows(tokenizer: "PreTrainedTokenizerBase", rows: "Sequence[Row]", count: int) -> None:
    """Print the first `count` rows; without colour the trained spans stand in double brackets."""
    for row in rows[:count]:
        for example in row.examples:
            num_tokens = len(example.input_ids)
            out.rule(f"{row.conversation.place}  {example.num_supervised} of {num_tokens} tokens trained", align="left")
            text = Text()
            for supervised, ids in supervised_runs(example):
                words = clean(str(tokenizer.decode(ids)))
                if supervised and not out.is_terminal:
                    words = f"⟦{words}⟧"
                text.append(words, TRAINED if supervised else READ)
            out.print(text)
    supervised, total = (sum(getattr(row, name) for row in rows) for name in ("num_supervised", "num_tokens"))
    out.rule(align="left", style="dim")
    out.print(f"{len(rows):,} rows, {supervised:,} of {total:,} tokens trained ({supervised / total:.0%})")
