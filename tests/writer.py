"""A model that writes examples as `trainer data generate` asks for them: the same for the same request."""

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.loopback import Request, Response

SOURCE = re.compile(r"={16}\n(.*)\n={16}", re.DOTALL)
WANTED = re.compile(r"^(\d+)\. for ", re.MULTILINE)
Item = dict[str, Any]


def source_of(body: dict[str, Any]) -> str:
    return SOURCE.search(body["messages"][1]["content"])[1]  # type: ignore[index]


def sentences(source: str) -> list[str]:
    return [each.strip() for each in re.split(r"(?<=[.!?])\s+", source) if len(each.split()) > 2]


def digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:12]


def write_qa(source: str, number: int) -> Item:
    """An example about one sentence of the source."""
    said = sentences(source)
    sentence = said[(number - 1) % len(said)]
    name = " ".join(sentence.split()[:6]).rstrip(".")
    return {
        "number": number,
        "question": f"Can you tell me about {name!r} ({number})?",
        "answer": sentence,
        "quote": sentence,
    }


class Writer:
    """Handles chat requests. `paid` counts the requests that it has answered, by their body."""

    def __init__(self, write: Callable[[str, int], Item] = write_qa) -> None:
        self.write = write
        self.paid: Counter[str] = Counter()
        self.doubts: Callable[[Item], str] = lambda item: ""  # the judge's objection
        self.verdicts: Callable[[Item], Item] = lambda item: {}  # and what else it says
        self.said: Callable[[dict[str, Any], str], str] = lambda body, text: text  # what it says instead
        self.headers: dict[str, str] = {}
        self.refuses: Callable[[dict[str, Any]], Response | None] = lambda body: None
        self.lock = threading.Lock()

    def __call__(self, request: Request) -> Response:
        body = request.json()
        if (refused := self.refuses(body)) is not None:
            return refused
        self.paid[json.dumps(body, sort_keys=True)] += 1
        text = self.said(body, json.dumps(self.answer(body), ensure_ascii=False))
        usage = {"prompt_tokens": len(request.body) // 4, "completion_tokens": len(text) // 4}
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return Response(200, {"id": f"chat-{digest(body)}", "choices": [choice], "usage": usage}, self.headers)

    def answer(self, body: dict[str, Any]) -> Any:
        asked = body["messages"][1]["content"]
        if "The examples:" in asked:
            items = [json.loads(line) for line in asked.partition("The examples:\n")[2].splitlines()]
            return {"verdicts": [self.verdict(item) for item in items]}
        numbers = [int(number) for number in WANTED.findall(asked.rpartition("=" * 16)[2])]
        return {"examples": [self.write(source_of(body), number) for number in numbers]}

    def verdict(self, item: Item) -> Item:
        doubt = self.doubts(item)
        verdict = {"number": item["number"], "reason": doubt or "the source says so", "supported": not doubt}
        return verdict | self.verdicts(item)
