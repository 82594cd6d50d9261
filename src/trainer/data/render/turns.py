"""A long conversation rendered once, and where in the text each message begins, shown on the run itself.

A chat template is a program. What it has written when it first looks at message k it writes for every conversation
with the same first k messages. Where that look is the step of its outermost loop from one message to the next, a
conversation that ends before k leaves the loop there; and where what follows the loop names nothing that the loop or
the messages could have changed, it writes the same end for all of them. So one run holds the renderings of all
beginnings. A template that looks ahead (`loop.last`), counts the messages or keeps notes for its end does so before
the eyes of `Watched`, and shows nothing here: it is rendered for each answer anew.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from trainer.data.render.chat_template import ChatMessages, RenderingError, Tools
from trainer.data.render.template_limits import TemplateLimit, limited

if TYPE_CHECKING:
    from jinja2 import Template
    from transformers import PreTrainedTokenizerBase

BEGINS, ENDS = "\0a message begins\0", "\0a message ends\0"  # what the loop yields around each step
ALL = -1  # a look at how many messages there are
_CLOSED = ("Macro", "CallBlock", "FilterBlock", "Include", "Import", "FromImport", "Extends", "Block", "For")


@dataclass(frozen=True, slots=True)
class Turns:
    """`text` is the rendering; that of the first k messages is `text[: begins[k]] + closing` for each k in `begins`."""

    text: str
    begins: dict[int, int]
    closing: str


class Watched(Sequence[Any]):
    """The messages as a template sees them. `look` is called at every look at one, or for one."""

    def __init__(self, items: Sequence[Any], look: Callable[[int, bool], None], start: int = 0) -> None:
        self._items, self._look, self._start = items, look, start

    def __iter__(self) -> Iterator[Any]:
        for index in range(self._start, len(self._items) + 1):
            self._look(index, True)
            if index < len(self._items):
                yield self._items[index]

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice) and key.stop is None and key.step in (None, 1) and (key.start or 0) >= 0:
            return Watched(self._items, self._look, self._start + (key.start or 0))
        if isinstance(key, int) and key >= 0:
            self._look(self._start + key, False)
        else:
            self._look(ALL, False)
            return list(self._items[self._start :])[key]
        return self._items[self._start + key]

    def __bool__(self) -> bool:
        self._look(self._start, False)
        return self._start < len(self._items)

    def __len__(self) -> int:
        self._look(ALL, False)
        return max(len(self._items) - self._start, 0)

    def __eq__(self, other: object) -> bool:
        self._look(ALL, False)
        return list(self._items[self._start :]) == other

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def __str__(self) -> str:
        self._look(ALL, False)
        return str(list(self._items[self._start :]))

    __repr__ = __str__


class TurnFinder:
    """Renders conversations with one chat template, whose outermost loop is marked."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer

    def find(self, messages: ChatMessages, tools: Tools) -> tuple[Turns, Turns] | None:
        """The conversation, and the same as a prompt; None where the template cannot be followed."""
        template = marked(self._tokenizer.get_chat_template(tools=tools))
        if template is None:
            return None
        try:
            plain, asked = (limited(partial(self._run, template, messages, tools, prompt)) for prompt in (False, True))
        except (TemplateLimit, MemoryError):
            return None
        if plain is None or asked is None or plain.begins != asked.begins:
            return None
        end = plain.begins[len(messages)]
        return (plain, asked) if plain.text[:end] == asked.text[:end] else None

    def _run(self, template: "Template", messages: ChatMessages, tools: Tools, prompt: bool) -> Turns | None:
        from jinja2 import TemplateError

        parts: list[str] = []
        begins: dict[int, int] = {}
        written = seen = 0
        stepping = False

        def look(index: int, iterating: bool) -> None:
            nonlocal seen
            if index == ALL:
                seen = len(messages) + 1
            elif index >= seen:
                if iterating and stepping and index == seen:
                    begins[index] = written
                seen = index + 1

        names = self._tokenizer.special_tokens_map
        context = {"messages": Watched(messages, look), "tools": tools, "documents": None, **names}
        try:
            for piece in template.generate(**context, add_generation_prompt=prompt):
                stepping = piece == ENDS or (stepping and piece != BEGINS)
                if piece not in (BEGINS, ENDS):
                    parts.append(piece)
                    written += len(piece)
                    stepping = False
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError):
            return None  # the plain rendering will tell
        if len(messages) not in begins:
            return None
        text = "".join(parts)
        return Turns(text, begins, text[begins[len(messages)] :])


@cache
def marked(source: str) -> "Template | None":
    """The template with marks around the steps of its outermost loop; None where its end is not the same for all."""
    from jinja2 import Template, nodes
    from transformers.utils.chat_template_utils import _compile_jinja_template

    environment = _compile_jinja_template(source).environment.overlay()
    environment.filters = environment.filters | {"_watched": _watched}
    tree = environment.parse(source)
    places = [place for place, node in enumerate(tree.body) if isinstance(node, nodes.For)]
    if not places:
        return None
    place = places[-1]
    loop = tree.body[place]
    assert isinstance(loop, nodes.For)
    stored = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
    stored |= {macro.name for macro in tree.find_all(nodes.Macro)} | {"messages", "self", "caller", "loop"}
    after = nodes.Template(tree.body[place + 1 :])
    closed = any(True for _ in after.find_all(tuple(getattr(nodes, kind) for kind in _CLOSED)))
    if closed or any(name.name in stored for name in after.find_all(nodes.Name)):
        return None
    if loop.recursive or loop.test is not None or loop.else_:
        return None

    def mark(text: str) -> "nodes.Output":
        return nodes.Output([nodes.TemplateData(text)], lineno=loop.lineno)

    loop.iter = nodes.Filter(loop.iter, "_watched", [], [], None, None, lineno=loop.lineno)
    loop.body = [mark(BEGINS), *loop.body, mark(ENDS)]
    tree.body.insert(place, mark(ENDS))
    tree.set_environment(environment)
    template: Template = environment.from_string(tree)
    return template


def _watched(messages: Any) -> Any:
    """Iterable of the loop, if that is the messages themselves. Raises: RenderingError."""
    if not isinstance(messages, Watched):
        raise RenderingError("the outermost loop goes over something else")
    return messages
