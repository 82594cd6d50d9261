"""Variety of the rows of a chunk: who asks, in which form, how hard; the same for the same chunk and seed."""

import random
from dataclasses import dataclass

from trainer.workshop.asking.request import digest
from trainer.workshop.generate.kind import Brief, Kind

PERSONAS = (
    "a newcomer who knows none of the terms",
    "someone who uses it every day",
    "a specialist who wants exact details",
    "someone in a hurry, in few words",
    "someone who has just met a problem with it",
    "a colleague who has to explain it to others",
    "someone who compares it with what they know from elsewhere",
    "a careful person who wants to make no mistake",
)
DIFFICULTIES = (
    "easy: one statement of the source answers it",
    "medium: it takes two or three statements of the source",
    "hard: it takes an inference from several statements of the source",
)


@dataclass(frozen=True, slots=True)
class Slot:
    """One example to be written, by its number from 1."""

    number: int
    persona: str
    form: str
    difficulty: str

    @property
    def level(self) -> str:
        """The difficulty in a word."""
        return self.difficulty.partition(":")[0]


def draw_slots(kind: Kind, brief: Brief, chunk_id: str, seed: int, count: int) -> tuple[Slot, ...]:
    """The examples of a chunk; none has the persona, form or difficulty of another one while there are others."""
    chance = random.Random(digest("variety", kind.name, str(seed), chunk_id))
    columns = [_drawn(chance, words, count) for words in (PERSONAS, kind.forms(brief), DIFFICULTIES)]
    return tuple(Slot(number, *words) for number, words in enumerate(zip(*columns, strict=True), 1))


def order_key(purpose: str, seed: int, chunk_id: str) -> str:
    """A key that puts chunks into an order of chance, another one for each purpose and seed."""
    return digest(purpose, str(seed), chunk_id)


def _drawn(chance: random.Random, words: tuple[str, ...], count: int) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        found += chance.sample(words, len(words))
    return found[:count]
