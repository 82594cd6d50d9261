"""One model's chat template: what it renders, and what it does that no setting tells.

How a turn ends, which strings are control tokens and which form of a tool call it takes are all read off its renderings
of small probe conversations, never from a list of models. Templates run only inside transformers' sandboxed
`apply_chat_template`.
"""

import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, takewhile
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from trainer.data.render.pinned_date import with_pinned_date
from trainer.data.render.pinned_thinking import pin_thinking
from trainer.data.render.probes import PROBE as PROBE
from trainer.data.render.probes import QUESTION, USER
from trainer.data.render.probes import RenderingError as RenderingError
from trainer.data.render.template_limits import MAX_BYTES, MAX_SECONDS, TemplateLimit, limited
from trainer.data.render.thoughts import ThoughtForm, thought_form

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ChatMessages = Sequence[Mapping[str, Any]]
Tools = list[dict[str, Any]] | None

_SHORT_ID = re.compile(r"[A-Za-z0-9]{9}")  # what Mistral's templates demand of the id of a tool call
_NAMED = re.compile(r"\w")
_TAG = re.compile(r"[^\w\s].*\w.*[^\w\s]", re.DOTALL)
MAX_KNOWN_TAILS = 64
MAX_TOO_MUCH = 3  # conversations that a template may take too much for before it is not run any more
TOO_MUCH = (
    f"this model's chat template takes more than {MAX_SECONDS:g} seconds or {MAX_BYTES >> 30} GiB for this row, "
    "expected milliseconds; choose another base, or correct the template and set it as model.chat_template"
)


@dataclass(frozen=True, slots=True)
class Rendered:
    """Rendered text with its ids and, for each id, where its characters begin and end."""

    text: str
    ids: list[int]
    offsets: list[tuple[int, int]]

    def after(self, position: int) -> Iterator[int]:
        """Ids of the tokens that begin at character `position` or later."""
        return (
            token
            for token, (start, end) in zip(self.ids, self.offsets, strict=True)
            if start >= position and end > start
        )


class ChatTemplate:
    """Renders with a tokenizer's chat template, and knows what that template does.

    The date of the tokenizer's template is pinned in place, and so is whether it `thinks` where that is known. So the
    tokenizer that is saved with the adapter renders everywhere what was trained.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", thinks: bool | None = None) -> None:
        tokenizer.chat_template = with_pinned_date(tokenizer.chat_template)
        self.tokenizer = tokenizer
        self._num_too_much = 0
        self._tails: dict[str, list[int]] = {}  # what stands between a prompt's last added token and its end
        self._spelled: dict[int, str] = {}
        if thinks is not None:
            pin_thinking(self, thinks)

    def encode(self, messages: ChatMessages, tools: Tools = None, prompt: bool = False) -> Rendered:
        """The conversation; `prompt` adds what makes the model answer. Raises: RenderingError."""
        return self.tokenise(self.text(messages, tools, prompt))

    def text(self, messages: ChatMessages, tools: Tools = None, prompt: bool = False) -> str:
        from jinja2 import TemplateError

        if self._num_too_much >= MAX_TOO_MUCH:
            raise RenderingError(TOO_MUCH)
        try:
            text = limited(
                lambda: self.tokenizer.apply_chat_template(
                    list(messages), tools=tools, add_generation_prompt=prompt, tokenize=False
                )
            )
        except (TemplateLimit, MemoryError):
            self._num_too_much += 1
            raise RenderingError(TOO_MUCH) from None
        except (
            TemplateError,
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
            ArithmeticError,
            RecursionError,
        ) as error:
            raise RenderingError(f"this model's chat template refuses the conversation: {error}") from None
        assert isinstance(text, str)
        return text

    def tokenise(self, text: str) -> Rendered:
        # The template has written the special tokens; adding them again would double the first.
        backend = self.tokenizer.backend_tokenizer
        if backend.truncation is None and backend.padding is None and not self._splits_special_tokens:
            quick = backend.encode(text, add_special_tokens=False)  # what transformers calls, without what it adds
            return Rendered(text, quick.ids, quick.offsets)
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return Rendered(text, list(encoding["input_ids"]), list(encoding["offset_mapping"]))

    @cached_property
    def _splits_special_tokens(self) -> bool:
        return bool(getattr(self.tokenizer, "split_special_tokens", False))

    def check_known(self, row: Rendered, begin: int, end: int) -> None:
        """A text that no token spells would be learned as the unknown token. Raises: RenderingError."""
        unknown = self._unknown
        if unknown is None or unknown not in row.ids[begin:end]:
            return
        for token, (start, stop) in zip(row.ids[begin:end], row.offsets[begin:end], strict=True):
            text = row.text[start:stop].strip()
            if token == unknown and text != self.spelled(token):
                raise RenderingError(
                    f"this model's tokenizer has no token for {text!r} of an answer; remove it or choose another base"
                )

    @cached_property
    def _unknown(self) -> int | None:
        number: int | None = self.tokenizer.unk_token_id
        return number

    def num_prompt_tokens(self, row: Rendered, length: int) -> int | None:
        """Number of tokens of `row` that are exactly those of its first `length` characters in serving.

        None where the row does not begin with those. A tokenizer cuts a text at its added tokens, so what stands
        before the last one of a prompt need not be tokenised again for every row. For each new ending of a prompt that
        is compared with the whole prompt once, for as many as are kept.
        """
        cut = bisect_right(row.offsets, length, key=itemgetter(1)) - 1
        while cut > 0 and row.ids[cut] not in self._added_ids:
            cut -= 1
        at_added = cut >= 0 and row.ids[cut] in self._added_ids
        tail = row.text[row.offsets[cut][0] if at_added else 0 : length]
        known = self._tails.get(tail) if at_added else None
        if known is None and at_added and len(self._tails) >= MAX_KNOWN_TAILS:
            known = self.tokenise(tail).ids
        if known is not None and row.ids[cut : cut + len(known)] == known:
            return cut + len(known)
        ids = self.tokenise(row.text[:length]).ids
        if row.ids[: len(ids)] != ids:
            return None
        if at_added and len(self._tails) < MAX_KNOWN_TAILS:
            self._tails[tail] = ids[cut:]
        return len(ids)

    def continuation(self, prompt: Sequence[int], text: str, begin: int) -> tuple[list[int], list[int]] | None:
        """The ids with which a model continues `prompt`, the first `begin` characters of `text`, and where each ends.

        The rest is tokenised behind an added token, so that it is no beginning of a text either. None where the two
        parts would not be read as `text`: a tokenizer may put a space before each piece.
        """
        whole = self._decoded(self.tokenise(text).ids)
        for before in self._separators:
            rest = self.tokenise(before + text[begin:])
            if before and rest.offsets[0] != (0, len(before)):
                continue
            ids, offsets = (rest.ids[1:], rest.offsets[1:]) if before else (rest.ids, rest.offsets)
            if self._decoded([*prompt, *ids]) == whole:
                return ids, [end - len(before) + begin for _, end in offsets]
        return None

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    @cached_property
    def _separators(self) -> list[str]:
        """An added token that takes nothing from the text beside it, and nothing."""
        added = self.tokenizer.added_tokens_decoder
        plain = (
            token
            for token in sorted(self._special_ids & added.keys())
            if not (added[token].lstrip or added[token].rstrip)
        )
        return [*(self.spelled(token) for token in islice(plain, 1)), ""]

    @cached_property
    def _added_ids(self) -> frozenset[int]:
        return frozenset(self.tokenizer.added_tokens_decoder)

    def check(self) -> None:
        """Raises: RenderingError, when the template cannot be trained with, whatever the conversation."""
        assert self.end_markers
        bos = self.tokenizer.bos_token_id
        if bos is not None and self.encode([USER]).ids[:2] == [bos, bos]:
            raise RenderingError(
                f"the chat template begins with {self.spelled(bos)!r} twice, expected it once; write it into the "
                "template once and set that as model.chat_template"
            )

    # How a turn ends

    def end_marker(self, message: Mapping[str, Any]) -> int:
        """Id of the token that the model ends `message` with. Raises: RenderingError."""
        return self._call_end if message.get("tool_calls") else self._answer_end

    @cached_property
    def end_markers(self) -> frozenset[int]:
        """Ids at which generation stops: the ends of an answer and of a tool call.

        Raises: RenderingError, when the template ends a turn without a special token, so that a tuned model could not
        learn to stop.
        """
        return frozenset({self._answer_end, self._call_end})

    def spelled(self, marker: int) -> str:
        """An added token as the template writes it."""
        if marker not in self._spelled:
            self._spelled[marker] = str(self.tokenizer.convert_ids_to_tokens(marker))
        return self._spelled[marker]

    @cached_property
    def closing(self) -> str:
        """All text that the template writes after the last answer."""
        return self.text([USER, {"role": "assistant", "content": PROBE}]).split(PROBE, 1)[1]

    @cached_property
    def _answer_end(self) -> int:
        return self._end([USER, {"role": "assistant", "content": PROBE}], USER)

    @cached_property
    def _call_end(self) -> int:
        """As of answers where the template has no tool calls."""
        try:
            return self._end(self._call_probe("probe0001"), self._result("probe0001"))
        except RenderingError:
            return self._answer_end

    def _end(self, messages: ChatMessages, following: Mapping[str, Any]) -> int:
        """The last special token that follows PROBE both at the end and before another turn.

        Where the two share none, the template writes another one at the end (harmony: <|return|>, later <|end|>): then
        the first one there is what the model generates.
        """
        last = self._after_probe(messages)
        try:
            middle = self._after_probe([*messages, following])
        except RenderingError:
            middle = []
        pairs = takewhile(lambda pair: pair[0] == pair[1], zip(last, middle, strict=False))
        shared = [token for token, _ in pairs if token in self._special_ids]
        markers = shared[-1:] or [token for token in last if token in self._special_ids]
        if not markers:
            raise RenderingError(
                "the chat template ends an assistant message without a special token, expected an end-of-turn token; "
                "a tuned model would not learn to stop"
            )
        return markers[0]

    def _after_probe(self, messages: ChatMessages) -> list[int]:
        rendered = self.encode(messages)
        position = rendered.text.find(PROBE)
        return list(rendered.after(position + len(PROBE))) if position >= 0 else []

    # What may not stand in a text

    @cached_property
    def control_token(self) -> re.Pattern[str]:
        """Finds text that the tokenizer would read as a control token.

        Those are the special tokens, and of the other added ones those that begin a turn (DeepSeek's user token is
        not special); <think> and <tool_call> are neither, as answers may spell them. An added token without a letter
        is text that the vocabulary keeps whole (Gemma's line breaks, spaces before code, an exclamation mark that
        pads), unless a turn ends with it.
        """
        found = {
            str(token) for token in self.tokenizer.convert_ids_to_tokens(sorted(self._special_ids | self._headers))
        }
        ends = {self.spelled(marker) for marker in self.end_markers}
        strings = sorted((token for token in found if _NAMED.search(token) or token in ends), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, strings)) or "(?!)")

    def control_token_in(self, text: str) -> str | None:
        """The first control token that the tokenizer would read in `text`, as it stands there or as it is normalised.

        Added tokens that are `normalized` are looked for in the normalised text: a tokenizer of small letters finds
        <|im_end|> in <|IM_END|>.
        """
        found = self.control_token.search(text)
        if found is None and self._normalizer is not None:
            found = self.control_token.search(self._normalizer.normalize_str(text))
        return found and found.group()

    @cached_property
    def _normalizer(self) -> Any:
        """Normalizer of texts in which added tokens are searched; None where each is searched in the text itself."""
        normalized = any(token.normalized for token in self.tokenizer.added_tokens_decoder.values())
        return self.tokenizer.backend_tokenizer.normalizer if normalized else None

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        added = self.tokenizer.added_tokens_decoder.items()
        return frozenset(self.tokenizer.all_special_ids) | {index for index, token in added if token.special}

    @cached_property
    def _headers(self) -> frozenset[int]:
        """Added tokens in tags before a user's text, and the first one after it."""
        rendered = self.encode([USER, {"role": "assistant", "content": PROBE}, USER])
        added = self.tokenizer.added_tokens_decoder
        tags = {token for token in {*rendered.ids} if token in added and _TAG.fullmatch(added[token].content)}
        after = [token for token in rendered.after(rendered.text.find(QUESTION)) if token in added]
        num_before = len(rendered.ids) - len(list(rendered.after(rendered.text.find(QUESTION))))
        return frozenset(tags & {*rendered.ids[:num_before], *after[:1]})

    # Which form of a message the template takes

    def adapt(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A message of the chat format in the form that this template takes.

        The role developer becomes system where the template does not name it; arguments of tool calls become an
        object where it writes them as JSON itself; ids of tool calls become nine letters and digits, the same ones
        for the same id, where it demands that.
        """
        adapted = {key: value for key, value in message.items() if value is not None} | {
            "content": message.get("content") or ""
        }
        if message["role"] == "developer" and not self.keeps_developer:
            adapted["role"] = "system"
        if thought := message.get("reasoning_content"):
            adapted["thinking"] = thought  # gpt-oss' name
        if message.get("tool_calls"):
            adapted["tool_calls"] = [self._adapt_call(call) for call in message["tool_calls"]]
        if message.get("tool_call_id"):
            adapted["tool_call_id"] = self._adapt_id(message["tool_call_id"])
        return adapted

    def _adapt_call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        arguments = call["function"]["arguments"]
        if isinstance(arguments, str) and not self._arguments_as_text:
            arguments = json.loads(arguments)
        function = {"name": call["function"]["name"], "arguments": arguments}
        return {"id": self._adapt_id(call["id"]), "type": "function", "function": function}

    def _adapt_id(self, call_id: str) -> str:
        if not self._short_ids or _SHORT_ID.fullmatch(call_id):
            return call_id
        return hashlib.sha256(call_id.encode()).hexdigest()[:9]

    @cached_property
    def keeps_developer(self) -> bool:
        """True if the template compares roles with developer; a template that echoes any role does not know it."""
        return re.search(r"""['"]developer['"]""", str(self.tokenizer.chat_template)) is not None

    @cached_property
    def thoughts(self) -> ThoughtForm | None:
        """Form in which the template writes a thought; None where it has no place for one."""
        return thought_form(self.text)

    @property
    def names_thoughts(self) -> bool:
        """True if the template does something with thoughts, if only to leave them out."""
        return re.search(r"reasoning|thinking|think>", str(self.tokenizer.chat_template)) is not None

    @property
    def thoughts_apart(self) -> bool:
        """True if the template has a place for thoughts that is not <think>, as gpt-oss has a channel for them."""
        return self.thoughts is not None and "</think>" not in self.thoughts.after

    @cached_property
    def _short_ids(self) -> bool:
        return not self._takes(self._call_probe("call_1")) and self._takes(self._call_probe("probe0001"))

    @cached_property
    def _arguments_as_text(self) -> bool:
        """True if the template refuses objects, or writes them in Python's form instead of JSON, and takes text."""
        as_text = self._call_probe("probe0001", json.dumps({"probe": PROBE}))
        as_object = self._call_probe("probe0001", {"probe": PROBE})
        if self._takes(as_object) and "{'" not in self.text(as_object):
            return False
        return self._takes(as_text) and json.dumps({"probe": PROBE}) in self.text(as_text)

    def _takes(self, messages: ChatMessages) -> bool:
        try:
            return PROBE in self.text([*messages, self._result(messages[-1]["tool_calls"][0]["id"])])
        except RenderingError:
            return False

    def _call_probe(self, call_id: str, arguments: object = None) -> list[dict[str, Any]]:
        if arguments is None:
            arguments = json.dumps({"probe": PROBE}) if self._arguments_as_text else {"probe": PROBE}
        function = {"name": "probe_function", "arguments": arguments}
        call = {"id": call_id, "type": "function", "function": function}
        return [USER, {"role": "assistant", "content": "", "tool_calls": [call]}]

    @staticmethod
    def _result(call_id: str) -> dict[str, Any]:
        return {"role": "tool", "name": "probe_function", "content": "probe result", "tool_call_id": call_id}
