"""What data files hold in tokens, as a model's tokenizer and chat template see them."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any

from trainer.data.conversations import Conversation
from trainer.data.files.spread import Spread, spread
from trainer.data.render.overlength import longest
from trainer.data.render.rendering import Example, Renderer, RenderingError


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """The rows as a model's tokenizer and chat template see them; `refused` are those that cannot be rendered.

    `unique` tokens are left where rows that begin alike share their beginning, as in a prefix tree.
    """

    tokens: Spread
    supervised: Spread
    unique: int
    max_length: int
    over_length: tuple[str, ...]
    rows_of_several_examples: int
    refused: tuple[str, ...]

    @property
    def supervised_share(self) -> float:
        return self.supervised.total / self.tokens.total

    @property
    def shared_prefix_share(self) -> float:
        return 1 - self.unique / self.tokens.total

    def to_json(self) -> dict[str, Any]:
        """The fields and the shares; a service that trains on the rows bills about `tokens.total` an epoch."""
        shares = {"supervised_share": self.supervised_share, "shared_prefix_share": self.shared_prefix_share}
        return asdict(self) | shares | {"billed_per_epoch": self.tokens.total}


def measure_tokens(rows: Sequence[Conversation], renderer: Renderer, max_length: int) -> TokenStatistics | None:
    """The statistics of `rows` in tokens; None where none of them can be rendered."""
    rendered: list[tuple[Conversation, list[Example]]] = []
    refused: list[str] = []
    for row in rows:
        try:
            rendered.append((row, renderer.render(row)))
        except RenderingError as error:
            refused.append(f"{row.place}: TEMPLATE: {error}")
    if not rendered:
        return None
    examples = [example for _, made in rendered for example in made]
    return TokenStatistics(
        tokens=spread([sum(len(example.input_ids) for example in made) for _, made in rendered]),
        supervised=spread([sum(example.num_supervised for example in made) for _, made in rendered]),
        unique=num_unique_tokens([example.input_ids for example in examples]),
        max_length=max_length,
        over_length=tuple(row.place for row, made in rendered if longest(made) > max_length),
        rows_of_several_examples=sum(len(made) > 1 for _, made in rendered),
        refused=tuple(refused),
    )


def num_unique_tokens(sequences: Sequence[Sequence[int]]) -> int:
    """The nodes of the trie of `sequences`: in sorted order each one shares the most with the one before it."""
    return sum(len(sequence) - shared for sequence, shared in _shared_with_previous(sorted(map(tuple, sequences))))


def _shared_with_previous(in_order: Sequence[Sequence[int]]) -> Iterator[tuple[Sequence[int], int]]:
    previous: Sequence[int] = ()
    for sequence in in_order:
        pairs = zip(sequence, previous, strict=False)
        yield sequence, sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        previous = sequence
