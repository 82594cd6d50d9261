"""Calls of a model as a developer would make them: curl and Python, with the key in the environment."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.inference.client import ChatMessage, Sampling, Tool


@dataclass(frozen=True, slots=True)
class Target:
    """Address of a chat route, the model's name there, and the variable that holds the key.

    Without a `path` it is no base of an OpenAI client, and answers at the address itself.
    """

    base_url: str  # as the OpenAI client takes it
    model: str
    key_variable: str
    before: str = ""  # what must run first
    limit: str = "max_tokens"
    path: str = "/chat/completions"


@dataclass(frozen=True, slots=True)
class Code:
    """Equal calls in two languages."""

    curl: str
    python: str


def code_for(target: Target, messages: Sequence[ChatMessage], sampling: Sampling, tools: Sequence[Tool]) -> Code:
    """Both calls for a question."""
    body: dict[str, Any] = {"model": target.model, "messages": list(messages)}
    body |= {target.limit: sampling.max_tokens, "temperature": sampling.temperature, "top_p": sampling.top_p}
    body |= {"seed": sampling.seed} | ({"tools": list(tools)} if tools else {})
    return Code(_curl(target, body), _python(target, body))


def _curl(target: Target, body: Mapping[str, Any]) -> str:
    lines = [
        f"curl {shlex.quote(target.base_url + target.path)}",
        f'-H "Authorization: Bearer ${target.key_variable}"',
        "-H 'Content-Type: application/json'",
        f"-d {shlex.quote(json.dumps(body, ensure_ascii=False))}",
    ]
    return " \\\n  ".join(lines)


def _python(target: Target, body: Mapping[str, Any]) -> str:
    if not target.path:
        return _plain_python(target, body)
    arguments = "".join(f"    {name}={_literal(value)},\n" for name, value in body.items())
    return (
        "import os\n\nfrom openai import OpenAI\n\n"
        f"client = OpenAI(base_url={target.base_url!r}, api_key=os.environ[{target.key_variable!r}])\n"
        f"answer = client.chat.completions.create(\n{arguments})\n"
        "print(answer.choices[0].message.content or answer.choices[0].message.tool_calls)"
    )


def _plain_python(target: Target, body: Mapping[str, Any]) -> str:
    arguments = "".join(f"    {name!r}: {_literal(value)},\n" for name, value in body.items())
    return (
        "import json\nimport os\nimport urllib.request\n\n"
        f"body = {{\n{arguments}}}\n"
        f'headers = {{"Authorization": f"Bearer {{os.environ[{target.key_variable!r}]}}", '
        '"Content-Type": "application/json"}\n'
        f"request = urllib.request.Request({target.base_url!r}, json.dumps(body).encode(), headers)\n"
        "answer = json.load(urllib.request.urlopen(request))\n"
        'message = answer["choices"][0]["message"]\nprint(message["content"] or message["tool_calls"])'
    )


def _literal(value: Any) -> str:
    """A value as Python writes it, a message a line."""
    if isinstance(value, list):
        return "[\n" + "".join(f"        {item!r},\n" for item in value) + "    ]"
    return repr(value)
