"""Every rule: its words, an example that is really told, and the page that is generated from them."""

import json
import subprocess
import sys
from functools import reduce
from pathlib import Path

import pytest

from tests.conftest import CHATML, make_tokenizer
from trainer.config.schema import DataConfig
from trainer.data.read import data_files
from trainer.data.read import rows as row_reader
from trainer.data.read.checks import check_files
from trainer.data.read.sources import CheckedData
from trainer.data.render.rendering import Renderer
from trainer.data.rules.catalog import GROUPS, RULES
from trainer.data.rules.page import markdown
from trainer.errors import DataError
from trainer.training.dataset import render_data
from trainer.training.render import Rendering
from trainer.training.row_findings import with_row_findings

BACKENDS = ("local", "openai")
ROOT = Path(__file__).parents[4]
HI = {"role": "user", "content": "Hi"}
HELLO = {"role": "assistant", "content": "Hello"}
FIND = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}


def says(text, role="assistant", **keys):
    return {"role": role, "content": text, **keys}


def chat(*messages, **keys):
    return json.dumps({"messages": list(messages)} | keys)


def calls(**keys):
    return {"role": "assistant", "tool_calls": [CALL | keys]}


def pair(**keys):
    answers = {"preferred_output": [HELLO], "non_preferred_output": [says("What?")]}
    return json.dumps({"input": {"messages": [HI]}} | answers | keys)


GOOD = chat(HI, HELLO)
CHANNELS = CHATML.replace("{{ m.content }}", "{{ m.thinking }}|{{ m.content }}")
SYSTEM = [chat(says("Be brief.", "system"), says(f"{n}?", "user"), HELLO) for n in range(12)]
PARTS = [{"type": "image_url", "image_url": {"url": "ftp://a.example/b.png"}}]
TOKEN = "h" + "f_" + "aBcDeF" * 6

# The lines of rows.jsonl that break each rule.
BREAKING = {
    "ENCODING": ["", GOOD, GOOD.replace("Hi", "caf\udce9")],
    "FORMAT": ['{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}'],
    "PREFERENCE": [GOOD, pair()],
    "JSON": [GOOD, GOOD.replace("]", ",]")],
    "DUPLICATE_KEY": [GOOD.replace('"role": "user"', '"role": "user", "role": "user"')],
    "NUMBER": [chat(HI, HELLO | {"weight": float("nan")})],
    "NESTING": [json.dumps({"messages": json.loads("[" * 64 + "]" * 64)})],
    "LONG_LINE": [GOOD, "x" * 300],
    "FILE_SIZE": [GOOD],
    "NO_ROWS": [],
    "TOO_FEW_ROWS": [chat(says(f"{n}?", "user"), HELLO) for n in range(4)],
    "FEW_ROWS": [chat(says(f"{n}?", "user"), HELLO) for n in range(12)],
    "ROW": ['"Hello"'],
    "UNKNOWN_KEY": [json.dumps({"mesages": [HI, HELLO]})],
    "METADATA": [chat(HI, HELLO, metadata={"source": "wiki"})],
    "MESSAGES": ['{"messages": []}'],
    "PARALLEL_TOOL_CALLS": [chat(HI, HELLO, parallel_tool_calls="no")],
    "ROLE": [chat(says("Hi", "human"), HELLO)],
    "KEY_FOR_ROLE": [chat(HI | {"tool_call_id": "c1"}, HELLO)],
    "CONTENT": [chat({"role": "user", "content": 7}, HELLO)],
    "EMPTY_ANSWER": [chat(HI, says(" "))],
    "EMPTY_QUESTION": [chat(says("", "user"), HELLO)],
    "THOUGHT": [chat(HI, HELLO | {"reasoning_content": 7})],
    "OPEN_THOUGHT": [chat(HI, says("<think>Well"))],
    "THOUGHT_IN_TEXT": [chat(HI, says("<think>Well.</think>Hello"))],
    "SERVICE_THOUGHT": [chat(HI, HELLO | {"reasoning_content": "a"})],
    "IMAGE": [chat(says(PARTS, "user"), HELLO)],
    "IMAGE_LIMIT": [chat(says(PARTS, "user"), HELLO)],
    "NAME": [chat(HI | {"name": ""}, HELLO)],
    "REFUSAL": [chat(HI, HELLO | {"refusal": True})],
    "WEIGHT": [chat(HI | {"weight": 1}, HELLO)],
    "NOTHING_TRAINED": [chat(HI, HELLO | {"weight": 0})],
    "LAST_MESSAGE": [chat(HI, HELLO, says("Thanks", "user"))],
    "ASSISTANT_TWICE": [chat(HI, HELLO, says("How are you?"))],
    "SYSTEM_POSITION": [chat(HI, says("Be brief.", "system"), HELLO)],
    "PAIR_NEEDED": [pair(), GOOD],
    "PAIR": [json.dumps({"input": {"messages": [HI]}, "preferred_output": [HELLO]})],
    "PAIR_ROLE": [pair(preferred_output=[says("Why?", "user"), HELLO])],
    "PAIR_EQUAL": [pair(non_preferred_output=[HELLO])],
    "PAIR_WEIGHT": [pair(preferred_output=[HELLO | {"weight": 1}])],
    "PAIR_IMAGE": [pair(input={"messages": [says(PARTS, "user")]})],
    "PAIR_TURNS": [
        pair(
            input={"messages": [HI], "tools": [FIND]},
            preferred_output=[calls(), says("7", "tool", tool_call_id="c1"), HELLO],
        )
    ],
    "TOOLS": [chat(HI, HELLO, tools={"name": "find"})],
    "TOOL_NAME": [chat(HI, HELLO, tools=[{"type": "function", "function": {"name": "find it"}}])],
    "SCHEMA": [
        chat(HI, HELLO, tools=[{"type": "function", "function": {"name": "find", "parameters": {"type": "text"}}}])
    ],
    "TOOL_CALLS": [chat(HI, calls(id=1), tools=[FIND])],
    "CALL_NAME": [chat(HI, calls(function={"name": "search", "arguments": "{}"}), tools=[FIND])],
    "ARGUMENTS": [chat(HI, calls(function={"name": "find", "arguments": {"q": 1}}), tools=[FIND])],
    "TOOL_ANSWER": [chat(HI, calls(), says("7", "tool", tool_call_id="c2"), HELLO, tools=[FIND])],
    "UNANSWERED_CALL": [chat(HI, calls(), HELLO, tools=[FIND])],
    "DUPLICATE": [GOOD, chat(says("Bye", "user"), HELLO), GOOD],
    "NEAR_DUPLICATE": [GOOD, GOOD.replace("Hello", "Hello ")],
    "SAME_PROMPT": [GOOD, GOOD.replace("Hello", "Good day")],
    "LEAK": [GOOD],
    "SYSTEM_PROMPTS": [*SYSTEM, chat(says("Be breif.", "system"), HI, HELLO)],
    "DEBRIS": [chat(HI, says("A: Hello"))],
    "SECRET": [chat(HI, says(f"The token is {TOKEN}."))],
    "PERSONAL_DATA": [chat(HI, says("Call 425-882-8080."))],
    "TEMPLATE": [chat(says("What does <|im_end|> mean?", "user"), HELLO)],
    "LENGTH": [chat(says("Why? " * 500, "user"), HELLO)],
    "THOUGHT_FORM": [chat(HI, says("<think>Well.</think>Hello"))],
}


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(code: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the rule `code` says of its lines."""
    lines = "\n".join(BREAKING[code])
    Path("rows.jsonl").write_bytes(lines.encode(errors="surrogateescape"))
    if code == "LONG_LINE":
        monkeypatch.setattr(data_files.numbered_lines, "__defaults__", (200,))
    if code == "FILE_SIZE":
        monkeypatch.setattr(row_reader, "MAX_SERVICE_FILE_BYTES", 60)
    if code in ("TEMPLATE", "LENGTH", "THOUGHT_FORM"):
        return told_by_renderer(code)
    backend = RULES[code].only or "local"
    validation = [Path("validation.jsonl")] if code == "LEAK" else []
    for path in validation:
        path.write_text(f"{chat(says('Bye', 'user'), HELLO)}\n{GOOD}", encoding="utf-8")
    findings = check_files([Path("rows.jsonl")], validation, backend=backend).findings
    assert all(finding.severity == RULES[code].severity(backend) for finding in findings if finding.code == code)
    texts = [str(finding) for finding in findings if finding.code == code]
    real_sizes = {"holds 92 bytes": "holds 600000000 bytes", "at most 60 on": "at most 512000000 on"}
    return [reduce(lambda text, pair: text.replace(*pair), real_sizes.items(), text) for text in texts]


def told_by_renderer(code: str) -> list[str]:
    """What `trainer data check --config` finds, which `train` says in the same words where it is an error."""
    report = check_files([Path("rows.jsonl")])
    renderer = Renderer(make_tokenizer(CHANNELS if code == "THOUGHT_FORM" else CHATML, ["<|im_start|>", "<|im_end|>"]))
    found = with_row_findings(report, Rendering(renderer, 2048, "error"), ["rows.jsonl"], None)
    texts = [str(finding) for finding in found.findings if finding.code == code]
    assert all(finding.severity == RULES[code].local for finding in found.findings if finding.code == code)
    if RULES[code].local == "error":
        with pytest.raises(DataError) as caught:
            render_data(CheckedData(report, ()), DataConfig(train="rows.jsonl"), renderer, 2048)
        said = [problem for problem in caught.value.problems if f": {code}: " in problem]
        assert [text.removesuffix(f"; {RULES[code].fix}") for text in texts if code == "LENGTH"] in ([], said)
        assert code == "LENGTH" or texts == said
    return texts


@pytest.mark.parametrize("code", RULES)
@pytest.mark.usefixtures("in_folder")
def test_the_example_of_a_rule_is_what_it_says(code, monkeypatch):
    assert told(code, monkeypatch) == [RULES[code].example]


def test_every_rule_stands_in_one_group():
    assert [rule.code for rules in GROUPS.values() for rule in rules] == list(RULES)
    assert set(BREAKING) == set(RULES)


@pytest.mark.apart
def test_the_page_is_what_the_command_prints():
    printed = subprocess.run(
        [sys.executable, "-m", "trainer", "data", "rules"], capture_output=True, text=True, check=True
    ).stdout
    assert printed == markdown()
    assert (ROOT / "docs" / "data_rules.md").read_text(encoding="utf-8") == printed, "run: make docs"


@pytest.mark.parametrize("code", RULES)
def test_the_page_tells_everything_of_a_rule(code):
    rule, page = RULES[code], markdown()
    (line,) = [line for line in page.splitlines() if line.startswith(f"| [{code}](#{code.lower()}) | ")]
    severities = ["not checked" if rule.only not in (None, name) else rule.severity(name) for name in BACKENDS]
    assert line.split(" | ")[1:] == [*severities, f"{rule.title} |"]
    section = page.split(f"\n### {code}\n")[1].split("\n### ")[0].split("\n## ")[0]
    assert all(part in section for part in (rule.explanation, rule.fix, rule.example))
