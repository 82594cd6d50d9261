"""A conversation with a model, line by line: what is typed goes in, what is to be shown comes out.

Whatever shows it, a terminal or a page, and wherever the model runs, is the business of others: a model is a
ChatClient here. When two models answer, both answer the same conversation, which continues with the first one's answer.
"""

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.data.json_scanner import JsonProblem
from trainer.data.read.file_shape import HEAD_BYTES, recognise
from trainer.data.rules.findings import FindingList
from trainer.data.rules.row import check_row
from trainer.data.rules.tools import ToolLists
from trainer.data.strict_json import parse
from trainer.errors import DataError, TrainerError, similar
from trainer.inference.client import ChatClient, Piece, Sampling, Tool
from trainer.inference.thoughts import Thought
from trainer.inference.tool_calls import Call
from trainer.runs import files
from trainer.runs.files import expanded

COMMANDS = {
    "/base": "show the base model's answers too, or no longer",
    "/system TEXT": "another system prompt from here on; '' for none; without TEXT show it",
    "/tool RESULT": "answer the tool call in place of the tool",
    "/save [FILE]": "append the last turn to a chat JSONL file, as a row to train on",
    "/reset": "begin a new conversation",
    "/help": "show these commands",
    "/quit": "leave; so does Ctrl-D",
}


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that is said by the program and not by a model."""

    text: str


@dataclass(frozen=True, slots=True)
class Speaker:
    """The model whose words follow."""

    name: str


Shown = Notice | Speaker | Piece


@dataclass
class Dialogue:
    """One conversation. `submit` takes a line and yields what is to be shown of it, words as they come."""

    model: ChatClient
    base: ChatClient | None
    sampling: Sampling
    system: str | None = None
    tools: Sequence[Tool] = ()
    with_base: bool = False
    save_to: Path = Path("saved.jsonl")
    messages: list[dict[str, Any]] = field(default_factory=list)
    ended: bool = False
    saved: tuple[Path, dict[str, Any]] | None = None  # the file and the answer that were saved last

    def submit(self, line: str) -> Generator[Shown]:
        """Whoever stops reading in the middle of an answer takes the question back."""
        text = line.strip()
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            yield Notice("the line is not UTF-8 text")
        elif text.startswith("//"):
            yield from self._answered([{"role": "user", "content": text[1:]}])
        elif text.startswith("/"):
            name, _, rest = text.partition(" ")
            yield from self._command(name, rest.strip())
        elif text:
            yield from self._answered([{"role": "user", "content": text}])

    def _command(self, name: str, rest: str) -> Iterator[Shown]:
        match name:
            case "/base":
                yield self._switch_base()
            case "/system":
                yield self._change_system(rest)
            case "/tool":
                yield from self._answer_call(rest)
            case "/save":
                yield self._save(expanded(rest) if rest else self.save_to)
            case "/reset":
                self.messages = []
                yield Notice("forgotten")
            case "/help":
                width = max(map(len, COMMANDS))
                yield Notice("\n".join(f"{usage:<{width}}  {meaning}" for usage, meaning in COMMANDS.items()))
            case "/quit" | "/exit":
                self.ended = True
            case _:
                near = similar(name, [usage.split()[0] for usage in COMMANDS])
                yield Notice(f"{name!r} is no command{near}; /help shows them, and //{name[1:]} says it to the model")

    # Answers

    def _answered(self, messages: list[dict[str, Any]]) -> Iterator[Shown]:
        """Add `messages` and let the models answer; without an answer nothing is added."""
        before = list(self.messages)
        self.messages += messages
        clients = [self.base, self.model] if self.with_base and self.base is not None else [self.model]
        try:
            for client in clients:
                if len(clients) > 1:
                    yield Speaker(client.name)
                answer = yield from self._answer_of(client)
        except TrainerError as error:
            self.messages = before
            yield Notice(f"{error}; /reset begins a new conversation")
            return
        except BaseException:  # Ctrl-C, or nobody reads on
            self.messages = before
            raise
        self.messages.append(answer)
        if self._open_calls():
            yield Notice("/tool RESULT answers in place of the tool")

    def _answer_of(self, client: ChatClient) -> Generator[Shown, None, dict[str, Any]]:
        """Yield a model's answer as it comes; return it as a message."""
        head = [{"role": "system", "content": self.system}] if self.system else []
        text, thought, calls = "", "", []
        for piece in client.stream([*head, *self.messages], self.sampling, self.tools):
            if isinstance(piece, Call):
                calls.append(piece)
            elif isinstance(piece, Thought):
                thought += piece.text
            else:
                text += piece
            yield piece
        number = sum(len(m.get("tool_calls", ())) for m in self.messages) + 1
        return _message(text.strip(), calls, number) | with_thought(thought)

    def _open_calls(self) -> list[dict[str, Any]]:
        """The calls of the last answer that no tool has answered yet."""
        answered = {message.get("tool_call_id") for message in self.messages}
        calls = [call for message in self.messages for call in message.get("tool_calls", ())]
        return [call for call in calls if call["id"] not in answered]

    # Commands

    def _switch_base(self) -> Notice:
        if self.base is None:
            return Notice("there is no base model to compare with here")
        self.with_base = not self.with_base
        shown = "both answer" if self.with_base else f"only {self.model.name} answers"
        return Notice(f"from here on {shown}; the conversation continues with the answers of {self.model.name}")

    def _change_system(self, text: str) -> Notice:
        if text:
            self.system = None if text in ("''", '""') else text
        return Notice(f"system: {self.system}" if self.system else "there is no system prompt")

    def _answer_call(self, result: str) -> Iterator[Shown]:
        calls = self._open_calls()
        if not calls or not result:
            yield Notice("no tool call waits for a result" if not calls else "say what the tool returns: /tool RESULT")
            return
        message = {"role": "tool", "content": result, "tool_call_id": calls[0]["id"]}
        if len(calls) == 1:
            yield from self._answered([message])
        else:
            self.messages.append(message)
            function = calls[1]["function"]
            yield Notice(f"next: {Call(function['name'], json.loads(function['arguments']))}")

    def _save(self, file: Path) -> Notice:
        if not self.messages or self.messages[-1]["role"] != "assistant":
            return Notice("there is no answer to save yet")
        if self.saved == (file, self.messages[-1]):
            return Notice(f"this turn is in {file} already")
        try:
            save_row(file, training_row(self.system, self.messages, self.tools))
        except DataError as error:
            return Notice(f"not saved: {error}")
        self.saved = (file, self.messages[-1])
        return Notice(f"saved to {file}")


def _message(text: str, calls: Sequence[Call], first_number: int) -> dict[str, Any]:
    """An answer as the chat format has it."""
    if not calls:
        return {"role": "assistant", "content": text}
    functions = [{"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)} for call in calls]
    made = [
        {"id": f"call_{number}", "type": "function", "function": function}
        for number, function in enumerate(functions, start=first_number)
    ]
    return {"role": "assistant", "content": text or None, "tool_calls": made}


def with_thought(thought: str) -> dict[str, str]:
    """The key of a message that holds its thought; none where there is none. A template shows of it what it wants."""
    return {"reasoning_content": thought.strip()} if thought.strip() else {}


def training_row(
    system: str | None, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The conversation as a row that trains its last answer; those before it are only read."""
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    turns = [
        {**message, "weight": 0} if index in answers[:-1] else dict(message) for index, message in enumerate(messages)
    ]
    head = [{"role": "system", "content": system}] if system else []
    return {"messages": [*head, *turns]} | ({"tools": [dict(tool) for tool in tools]} if tools else {})


def save_row(file: Path, row: dict[str, Any]) -> None:
    """Append `row`, which is first checked as `trainer data check` would.

    Raises: DataError, when the row breaks a rule, or the file cannot be written or holds something else.
    """
    findings = FindingList(str(file), "local")
    value = parse(json.dumps(row))
    if isinstance(value, JsonProblem):
        findings.add(value.code, "the row", value.found, value.accepted, value.fix)
    else:
        check_row(value, ToolLists(), findings)
    if errors := [str(finding) for finding in findings.findings if finding.severity == "error"]:
        raise DataError(*errors)
    try:
        _refuse_other_files(file)
        files.append_line(file, row)
    except OSError as error:
        raise DataError(f"{file}: cannot be written: {error.strerror}; name another file") from None


def _refuse_other_files(file: Path) -> None:
    if not file.exists():
        return
    with file.open("rb") as opened:
        head = opened.read(HEAD_BYTES + 1)
    if shape := recognise(head[:HEAD_BYTES], whole=len(head) <= HEAD_BYTES):
        raise DataError(f"{file}: {shape.found}, expected chat JSONL; name another file")
