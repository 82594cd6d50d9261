"""Declaration of a kind of rows: the instruction to the model, the JSON of its answer, and the row that it becomes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainer.kinds import Method
from trainer.workshop.documents.chunk import Chunk

Schema = Mapping[str, Any]
Item = Mapping[str, Any]  # one example as the model has written it, valid by the kind's schema
Row = dict[str, Any]  # a line of the data file

SPACE = re.compile(r"\s+")
LEAST_QUOTE = 8  # characters: a shorter one occurs by chance


class Unusable(Exception):
    """An example that becomes no row; the reason in a few words."""


@dataclass(frozen=True, slots=True)
class Brief:
    """Wishes for all rows: language and tone of the answers, their system prompt, and rows that show the style.

    `functions` are those of all operations among the sources, each as JSON.
    """

    language: str | None = None
    tone: str | None = None
    system: str | None = None
    labels: tuple[str, ...] = ()
    examples: tuple[Row, ...] = ()
    functions: tuple[str, ...] = ()

    @property
    def opening(self) -> list[dict[str, str]]:
        """The system message that each row begins with, if any."""
        return [{"role": "system", "content": self.system}] if self.system else []


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of rows. All texts go to the model in English; `Brief.language` says which language it writes.

    `fields` are JSON Schemas of an example's fields, by name; `number` and `quote` come by themselves. `row` makes an
    example and the judge's verdict (None without a judge) into a line of the file, or raises Unusable. `shown` is an
    example as the judge sees it.
    """

    name: str
    summary: str  # for --help and the page
    task: Callable[[Brief], str]
    fields: Callable[[Brief], Mapping[str, Schema]]
    forms: Callable[[Brief], tuple[str, ...]]  # of which each example gets one
    judged: Callable[[Brief], str]  # what an example has to be to stay
    row: Callable[[Item, Item | None, Chunk, Brief], Row]
    prompt_of: Callable[[Item, Chunk], str]  # two rows that ask the same are one too many
    shown: Callable[[Item], Item] = dict
    method: Method = "sft"
    verdict: Mapping[str, Schema] = field(default_factory=dict)  # fields of a verdict beside `supported` and `reason`
    needs_judge: bool = False
    needs: tuple[str, ...] = ()  # settings of the brief that it does not go without
    row_tokens: int = 180  # of one example, for the quote
    needs_function: bool = False  # its chunks are operations of an API

    def answer_schema(self, brief: Brief) -> dict[str, Any]:
        """The JSON Schema of the answer to a request for examples."""
        number = {"type": "integer", "description": "the number of the example in the request"}
        quote = {"type": "string", "description": "a passage of the source, copied character by character, that "
                 "holds what the example says"}  # fmt: skip
        return _list_of("examples", {"number": number, **self.fields(brief), "quote": quote})

    def verdict_schema(self) -> dict[str, Any]:
        """The JSON Schema of the judge's answer."""
        number = {"type": "integer", "description": "the number of the example"}
        reason = {"type": "string", "description": "why, in one short sentence"}
        supported = {"type": "boolean", "description": "true only if the example passes"}
        return _list_of("verdicts", {"number": number, "reason": reason, "supported": supported, **self.verdict})


def _list_of(name: str, fields: Mapping[str, Schema]) -> dict[str, Any]:
    """An object with one list of objects; all fields required and no others, as strict structured output demands."""
    item = {"type": "object", "properties": dict(fields), "required": list(fields), "additionalProperties": False}
    listed = {name: {"type": "array", "items": item}}
    return {"type": "object", "properties": listed, "required": [name], "additionalProperties": False}


def text(description: str) -> Schema:
    """The schema of a text field."""
    return {"type": "string", "description": description}


def spaced(words: str) -> str:
    """Text with each run of white space as one blank."""
    return SPACE.sub(" ", words).strip()


def filled(item: Item, *names: str) -> list[str]:
    """Text fields without white space around them. Raises: Unusable, where one is empty."""
    found = [str(item[name]).strip() for name in names]
    for name, words in zip(names, found, strict=True):
        if not words:
            raise Unusable(f"its {name} is empty")
    return found


def hold_quote(item: Item, chunk: Chunk) -> str:
    """The quote, which occurs in the chunk but for white space. Raises: Unusable."""
    quote, source = spaced(str(item["quote"])), spaced(chunk.text)
    if len(quote) < min(LEAST_QUOTE, len(source)):
        raise Unusable(f"its quote has fewer than {LEAST_QUOTE} characters")
    if quote not in source:
        raise Unusable("its quote does not occur in the source")
    return quote
