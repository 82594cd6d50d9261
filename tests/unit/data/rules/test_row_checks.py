"""Every rule of a row, its messages, tools and calls: of each malformed row the code, place and value."""

import json

import pytest

from tests.golden_messages import finding
from trainer.data.read.checks import check_files
from trainer.data.read.rows import read_conversations

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}
SYSTEM = {"role": "system", "content": "Be brief."}
FUNCTION = {"name": "find", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
CALLING = {"role": "assistant", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "7"}


def chat(*messages, **keys):
    return {"messages": list(messages), **keys}


def user(content):
    return {"role": "user", "content": content}


def answer(content="Hello", **keys):
    return {"role": "assistant", "content": content, **keys}


def called(call=None, **keys):
    """A row that ends with one call, changed by `keys`."""
    return chat(USER, {"role": "assistant", "tool_calls": [(call or CALL) | keys]}, tools=[TOOL])


def calling(name="find", **keys):
    """The same, changed inside the called function."""
    return called(function={"name": name, "arguments": "{}"} | keys)


def offering(**keys):
    """A row whose only tool is changed by `keys`."""
    return chat(USER, ANSWER, tools=[{"type": "function", "function": FUNCTION | keys}])


def without(fields, key):
    return {name: value for name, value in fields.items() if name != key}


def told(row, tmp_path, backend="local"):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(chat(USER, ANSWER)), encoding="utf-8")
    findings = read_conversations(path, backend, "sft").findings
    assert all(finding.line in (1, None) for finding in findings)
    return [str(finding).removeprefix(f"{path}:1: ").replace(str(path), "FILE") for finding in findings]


MALFORMED = {
    "row is a number": (7, "ROW: the row is 7"),
    "row is a string": ("hello", "ROW: the row is 'hello'"),
    "row is null": (None, "ROW: the row is null"),
    "row is a list": ([USER, ANSWER], "ROW: the row is a list"),
    "row is an empty object": ({}, ("MESSAGES: the row is an empty object")),
    "row without messages": ({"text": "Hi"}, ("MESSAGES: the row has no messages, only 'text'")),
    "row without messages but with many keys": (
        dict.fromkeys("abcdefg", 1),
        ("MESSAGES: the row has no messages, only 'a', 'b', 'c', 'd', 'e' and more"),
    ),
    "messages mistyped": ({"mesages": [USER, ANSWER]}, ("UNKNOWN_KEY: the row has the unknown key 'mesages'")),
    "messages in capitals": ({"Messages": [USER, ANSWER]}, ("UNKNOWN_KEY: the row has the unknown key 'Messages'")),
    "messages is null": ({"messages": None}, "MESSAGES: messages is null"),
    "messages is a string": ({"messages": "Hi"}, "MESSAGES: messages is 'Hi'"),
    "messages is an object": ({"messages": USER}, "MESSAGES: messages is an object"),
    "messages is empty": ({"messages": []}, "MESSAGES: messages is an empty list"),
    "unknown key": (chat(USER, ANSWER, temperature=1), ("UNKNOWN_KEY: the row has the unknown key 'temperature'")),
    "two unknown keys": (
        chat(USER, ANSWER, temperature=1, seed=2),
        ("UNKNOWN_KEY: the row has the unknown keys 'temperature' and 'seed'"),
    ),
    "five unknown keys": (
        chat(USER, ANSWER, a=1, b=2, c=3, d=4, e=5),
        ("UNKNOWN_KEY: the row has the unknown keys 'a', 'b', 'c', 'd' and 'e'"),
    ),
    "more unknown keys than are listed": (
        chat(USER, ANSWER, a=1, b=2, c=3, d=4, e=5, f=6),
        ("UNKNOWN_KEY: the row has the unknown keys 'a', 'b', 'c', 'd', 'e' and more"),
    ),
    "tools mistyped": (chat(USER, ANSWER, tool=[]), ("UNKNOWN_KEY: the row has the unknown key 'tool'")),
    "key with a terminal escape": (
        chat(USER, ANSWER, **{"\x1b[31mred": 1}),
        ("UNKNOWN_KEY: the row has the unknown key '\\x1b[31mred'"),
    ),
    "very long key": (
        chat(USER, ANSWER, **{"k" * 500: 1}),
        ("UNKNOWN_KEY: the row has the unknown key 'kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk…'"),
    ),
    "parallel_tool_calls is a string": (
        chat(USER, ANSWER, parallel_tool_calls="true"),
        "PARALLEL_TOOL_CALLS: parallel_tool_calls is 'true'",
    ),
    "parallel_tool_calls is null": (
        chat(USER, ANSWER, parallel_tool_calls=None),
        "PARALLEL_TOOL_CALLS: parallel_tool_calls is null",
    ),
    "parallel_tool_calls is 1": (
        chat(USER, ANSWER, parallel_tool_calls=1),
        "PARALLEL_TOOL_CALLS: parallel_tool_calls is 1",
    ),
    "metadata": (chat(USER, ANSWER, metadata={"id": "7"}), "METADATA: the row has metadata"),
    "preference row": (
        {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]},
        ("PREFERENCE: the row has the preference format"),
    ),
    "chosen and rejected": (
        {"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]},
        ("PREFERENCE: the row has the layout of chosen and rejected"),
    ),
    "ShareGPT row": (
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        "FORMAT: the row has the ShareGPT layout",
    ),
    "Alpaca row": ({"instruction": "Greet.", "input": "", "output": "Hello"}, "FORMAT: the row has the Alpaca layout"),
    "prompt and completion": (
        {"prompt": "Hi", "completion": "Hello"},
        "FORMAT: the row has the prompt/completion layout",
    ),
    "message is a string": (chat(USER, "Hello", ANSWER), "MESSAGES: messages[1] is 'Hello'"),
    "message is null": (chat(USER, None), "MESSAGES: messages[1] is null"),
    "message is a list": (chat([USER], ANSWER), "MESSAGES: messages[0] is a list"),
    "message is empty": (chat(USER, {}, ANSWER), "ROLE: messages[1] has no role"),
    "role is absent": (chat({"content": "Hi"}, ANSWER), "ROLE: messages[0] has no role"),
    "role mistyped key": (
        chat({"rol": "user", "content": "Hi"}, ANSWER),
        "UNKNOWN_KEY: messages[0] has the unknown key 'rol'",
    ),
    "role is null": (chat({"role": None, "content": "Hi"}, ANSWER), "ROLE: messages[0].role is null"),
    "role is a number": (chat({"role": 1, "content": "Hi"}, ANSWER), "ROLE: messages[0].role is 1"),
    "role is a list": (chat({"role": ["user"], "content": "Hi"}, ANSWER), "ROLE: messages[0].role is a list"),
    "role is human": (chat({"role": "human", "content": "Hi"}, ANSWER), "ROLE: messages[0].role is 'human'"),
    "role in capitals": (chat({"role": "User", "content": "Hi"}, ANSWER), "ROLE: messages[0].role is 'User'"),
    "role with a space": (chat({"role": "user ", "content": "Hi"}, ANSWER), "ROLE: messages[0].role is 'user '"),
    "role mistyped": (chat(USER, {"role": "asistant", "content": "Hello"}), ("ROLE: messages[1].role is 'asistant'")),
    "role is empty": (chat({"role": "", "content": "Hi"}, ANSWER), "ROLE: messages[0].role is ''"),
    "role is very long": (
        chat({"role": "u" * 1000, "content": "Hi"}, ANSWER),
        ("ROLE: messages[0].role is 'uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu…'"),
    ),
    "role with a terminal escape": (
        chat({"role": "\x1b]0;x\x07", "content": "Hi"}, ANSWER),
        "ROLE: messages[0].role is '\\x1b]0;x\\x07'",
    ),
    "role with a bidi override": (
        chat({"role": "\u202euser", "content": "Hi"}, ANSWER),
        ("ROLE: messages[0].role is '\\u202euser'"),
    ),
    "from and value": (
        chat({"from": "human", "value": "Hi"}, ANSWER),
        ("UNKNOWN_KEY: messages[0] has the unknown keys 'from' and 'value'"),
    ),
    "content mistyped key": (
        chat(USER, {"role": "assistant", "contnt": "Hello"}),
        ("UNKNOWN_KEY: messages[1] has the unknown key 'contnt'"),
    ),
    "content called text": (
        chat({"role": "user", "text": "Hi"}, ANSWER),
        "UNKNOWN_KEY: messages[0] has the unknown key 'text'",
    ),
    "unknown key in a message": (
        chat(USER, answer(timestamp=5)),
        ("UNKNOWN_KEY: messages[1] has the unknown key 'timestamp'"),
    ),
    "content of the user is absent": (chat({"role": "user"}, ANSWER), "CONTENT: messages[0].content is absent"),
    "content of the user is null": (chat(user(None), ANSWER), "CONTENT: messages[0].content is null"),
    "content of the system is null": (
        chat({"role": "system", "content": None}, USER, ANSWER),
        "CONTENT: messages[0].content is null",
    ),
    "content of the answer is absent": (chat(USER, {"role": "assistant"}), "CONTENT: messages[1].content is absent"),
    "content of the answer is null": (chat(USER, answer(None)), "CONTENT: messages[1].content is null"),
    "content is a number": (chat(user(5), ANSWER), "CONTENT: messages[0].content is 5"),
    "content is true": (chat(user(True), ANSWER), "CONTENT: messages[0].content is true"),
    "content is an object": (chat(user({"text": "Hi"}), ANSWER), "CONTENT: messages[0].content is an object"),
    "content is an empty list": (chat(user([]), ANSWER), "CONTENT: messages[0].content is an empty list"),
    "part is a string": (chat(user(["Hi"]), ANSWER), "CONTENT: messages[0].content[0] is 'Hi'"),
    "part without type": (chat(user([{"text": "Hi"}]), ANSWER), "CONTENT: messages[0].content[0].type is absent"),
    "part of another type": (
        chat(user([{"type": "input_audio", "input_audio": {}}]), ANSWER),
        "CONTENT: messages[0].content[0].type is 'input_audio'",
    ),
    "part without text": (chat(user([{"type": "text"}]), ANSWER), "CONTENT: messages[0].content[0].text is absent"),
    "part whose text is null": (
        chat(user([{"type": "text", "text": None}]), ANSWER),
        "CONTENT: messages[0].content[0].text is null",
    ),
    "part with an unknown key": (
        chat(user([{"type": "text", "text": "Hi", "cache": 1}]), ANSWER),
        "UNKNOWN_KEY: messages[0].content[0] has the unknown key 'cache'",
    ),
    "empty answer": (chat(USER, answer("")), ("EMPTY_ANSWER: messages[1].content is empty")),
    "answer of white space": (chat(USER, answer(" \n\t")), ("EMPTY_ANSWER: messages[1].content is only white space")),
    "answer of empty parts": (
        chat(USER, answer([{"type": "text", "text": " "}])),
        ("EMPTY_ANSWER: messages[1].content is only white space"),
    ),
    "empty question": (chat(user(""), ANSWER), "EMPTY_QUESTION: messages[0].content is empty"),
    "question of white space": (chat(user("\n"), ANSWER), "EMPTY_QUESTION: messages[0].content is only white space"),
    "image locally": (
        chat(user([{"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}]), ANSWER),
        "IMAGE: messages[0].content[0] is an image",
    ),
    "name is empty": (chat(USER | {"name": ""}, ANSWER), "NAME: messages[0].name is ''"),
    "name is null": (chat(USER | {"name": None}, ANSWER), "NAME: messages[0].name is null"),
    "name is a number": (chat(USER, answer(name=3)), "NAME: messages[1].name is 3"),
    "refusal is a list": (chat(USER, answer(refusal=[])), "REFUSAL: messages[1].refusal is a list"),
    "thought is a list": (chat(USER, answer(reasoning_content=[])), "THOUGHT: messages[1].reasoning_content is a list"),
    "thought is null": (chat(USER, answer(reasoning_content=None)), "THOUGHT: messages[1].reasoning_content is null"),
    "thought is empty": (chat(USER, answer(reasoning_content="")), "THOUGHT: messages[1].reasoning_content is empty"),
    "thought is white space": (
        chat(USER, answer(reasoning_content=" \n")),
        "THOUGHT: messages[1].reasoning_content is only white space",
    ),
    "thought with its tag": (
        chat(USER, answer(reasoning_content="<think>Well.")),
        "THOUGHT: messages[1].reasoning_content holds <think>",
    ),
    "thought of a question": (
        chat(USER | {"reasoning_content": "Well."}, ANSWER),
        "KEY_FOR_ROLE: messages[0] has reasoning_content in a user message",
    ),
    "thought in the text, too": (
        chat(USER, answer("<think>Well.</think>Hi", reasoning_content="Well.")),
        "THOUGHT: messages[1].content begins with <think> beside reasoning_content",
    ),
    "thought in the text": (
        chat(USER, answer("<think>Well.</think>Hi")),
        "THOUGHT_IN_TEXT: messages[1].content begins with <think>",
    ),
    "thought without an end in parts": (
        chat(USER, answer([{"type": "text", "text": "<think>"}, {"type": "text", "text": "Well."}])),
        "OPEN_THOUGHT: messages[1].content has <think> without an end",
    ),
    "weight is 2": (chat(USER, answer(weight=2)), "WEIGHT: messages[1].weight is 2"),
    "weight is minus one": (chat(USER, answer(weight=-1)), "WEIGHT: messages[1].weight is -1"),
    "weight is a half": (chat(USER, answer(weight=0.5)), "WEIGHT: messages[1].weight is 0.5"),
    "weight is one as a float": (chat(USER, answer(weight=1.0)), "WEIGHT: messages[1].weight is 1.0"),
    "weight is a string": (chat(USER, answer(weight="1")), "WEIGHT: messages[1].weight is '1'"),
    "weight is true": (chat(USER, answer(weight=True)), "WEIGHT: messages[1].weight is true"),
    "weight is false": (chat(USER, answer(weight=False)), "WEIGHT: messages[1].weight is false"),
    "weight is null": (chat(USER, answer(weight=None)), "WEIGHT: messages[1].weight is null"),
    "weight on a user message": (
        chat(USER | {"weight": 0}, ANSWER),
        "WEIGHT: messages[0] has weight in a user message",
    ),
    "weight on a system message": (
        chat(SYSTEM | {"weight": 1}, USER, ANSWER),
        "WEIGHT: messages[0] has weight in a system message",
    ),
    "nothing trained": (
        chat(USER, answer(weight=0), USER, answer("Bye", weight=0)),
        ("NOTHING_TRAINED: messages hold only assistant messages of weight 0"),
    ),
    "ends with a user message": (
        chat(USER, ANSWER, USER),
        ("LAST_MESSAGE: messages[2] is a user message and the last one"),
    ),
    "ends with a system message": (
        chat(USER, ANSWER, SYSTEM),
        ("LAST_MESSAGE: messages[2] is a system message and the last one"),
    ),
    "ends with a tool message": (
        chat(USER, CALLING, RESULT, tools=[TOOL]),
        ("LAST_MESSAGE: messages[2] is a tool message and the last one"),
    ),
    "no answer at all": (chat(SYSTEM, USER), ("LAST_MESSAGE: messages[1] is a user message and the last one")),
    "two answers in a row": (chat(USER, ANSWER, ANSWER), ("ASSISTANT_TWICE: messages[2] follows messages[1]")),
    "three answers in a row": (
        chat(USER, ANSWER, ANSWER, ANSWER),
        ("ASSISTANT_TWICE: messages[2] follows messages[1]"),
    ),
    "system message later": (chat(USER, SYSTEM, ANSWER), "SYSTEM_POSITION: messages[1] is a system message"),
    "second system message": (
        chat(SYSTEM, {"role": "developer", "content": "Be kind."}, USER, ANSWER),
        "SYSTEM_POSITION: messages[1] is a developer message",
    ),
    "tool_calls on a user message": (
        chat(USER | {"tool_calls": [CALL]}, ANSWER, tools=[TOOL]),
        ("KEY_FOR_ROLE: messages[0] has tool_calls in a user message"),
    ),
    "tool_call_id on an answer": (
        chat(USER, answer(tool_call_id="c1")),
        ("KEY_FOR_ROLE: messages[1] has tool_call_id in an assistant message"),
    ),
    "refusal on a user message": (
        chat(USER | {"refusal": "No"}, ANSWER),
        ("KEY_FOR_ROLE: messages[0] has refusal in a user message"),
    ),
    "tools is null": (chat(USER, ANSWER, tools=None), "TOOLS: tools is null"),
    "tools is an object": (chat(USER, ANSWER, tools=TOOL), "TOOLS: tools is an object"),
    "tool is a string": (chat(USER, ANSWER, tools=["find"]), ("TOOLS: tools[0] is 'find'")),
    "tool without type": (chat(USER, ANSWER, tools=[without(TOOL, "type")]), "TOOLS: tools[0].type is absent"),
    "tool of another type": (
        chat(USER, ANSWER, tools=[TOOL | {"type": "retrieval"}]),
        "TOOLS: tools[0].type is 'retrieval'",
    ),
    "tool without function": (chat(USER, ANSWER, tools=[{"type": "function"}]), ("TOOLS: tools[0].function is absent")),
    "tool whose function is a string": (
        chat(USER, ANSWER, tools=[{"type": "function", "function": "find"}]),
        ("TOOLS: tools[0].function is 'find'"),
    ),
    "tool not wrapped": (chat(USER, ANSWER, tools=[FUNCTION]), "TOOLS: tools[0] is a function by itself"),
    "tool with an unknown key": (
        chat(USER, ANSWER, tools=[TOOL | {"id": 1}]),
        "UNKNOWN_KEY: tools[0] has the unknown key 'id'",
    ),
    "function mistyped key": (
        chat(USER, ANSWER, tools=[{"type": "function", "functon": FUNCTION}]),
        "UNKNOWN_KEY: tools[0] has the unknown key 'functon'",
    ),
    "function with an unknown key": (
        offering(paramters={}),
        ("UNKNOWN_KEY: tools[0].function has the unknown key 'paramters'"),
    ),
    "tool name is absent": (
        chat(USER, ANSWER, tools=[{"type": "function", "function": {}}]),
        "TOOL_NAME: tools[0].function.name is absent",
    ),
    "tool name is null": (offering(name=None), "TOOL_NAME: tools[0].function.name is null"),
    "tool name is empty": (offering(name=""), "TOOL_NAME: tools[0].function.name is ''"),
    "tool name with a space": (offering(name="find it"), "TOOL_NAME: tools[0].function.name is 'find it'"),
    "tool name of 65 characters": (
        offering(name="f" * 65),
        ("TOOL_NAME: tools[0].function.name is 'fffffffffffffffffffffffffffffffffffffffffffffffffffffffff…'"),
    ),
    "tool name with a line end": (offering(name="find\n"), "TOOL_NAME: tools[0].function.name is 'find\\n'"),
    "tool twice": (chat(USER, ANSWER, tools=[TOOL, TOOL]), ("TOOL_NAME: tools hold 2 functions of the name 'find'")),
    "description is a list": (offering(description=["Find"]), "TOOLS: tools[0].function.description is a list"),
    "strict is a string": (offering(strict="yes"), "TOOLS: tools[0].function.strict is 'yes'"),
    "parameters is null": (offering(parameters=None), "SCHEMA: tools[0].function.parameters is null"),
    "parameters is a string": (offering(parameters="{}"), "SCHEMA: tools[0].function.parameters is '{}'"),
    "schema with an unknown type": (
        offering(parameters={"type": "strng"}),
        ("SCHEMA: tools[0].function.parameters.type is 'strng'"),
    ),
    "schema with an unknown type below": (
        offering(parameters={"type": "object", "properties": {"a": {"type": "int"}}}),
        ("SCHEMA: tools[0].function.parameters.properties.a.type is 'int'"),
    ),
    "schema whose properties are a list": (
        offering(parameters={"properties": []}),
        ("SCHEMA: tools[0].function.parameters.properties is a list"),
    ),
    "schema whose required is a string": (
        offering(parameters={"required": "a"}),
        "SCHEMA: tools[0].function.parameters.required is 'a'",
    ),
    "schema whose required repeats": (
        offering(parameters={"required": ["a", "a"]}),
        "SCHEMA: tools[0].function.parameters.required is a list",
    ),
    "schema with a negative length": (
        offering(parameters={"minLength": -1}),
        ("SCHEMA: tools[0].function.parameters.minLength is -1"),
    ),
    "schema with a bad pattern": (
        offering(parameters={"pattern": "("}),
        "SCHEMA: tools[0].function.parameters.pattern is '('",
    ),
    "parameters as xLAM lists them": (
        offering(parameters={"city": {"type": "string", "description": "Where"}, "days": {"type": "int"}}),
        "SCHEMA: tools[0].function.parameters lists 'city' itself",
    ),
    "tools and functions": (
        chat(USER, ANSWER, tools=[TOOL], functions=[FUNCTION]),
        "TOOLS: the row has both tools and functions",
    ),
    "functions is an object": (chat(USER, ANSWER, functions={}), "TOOLS: functions is an object"),
    "older function without a name": (
        chat(USER, ANSWER, functions=[without(FUNCTION, "name")]),
        "TOOL_NAME: functions[0].name is absent",
    ),
    "tool_calls is null": (
        chat(USER, answer(tool_calls=None), tools=[TOOL]),
        "TOOL_CALLS: messages[1].tool_calls is null",
    ),
    "tool_calls is empty": (
        chat(USER, answer(tool_calls=[]), tools=[TOOL]),
        ("TOOL_CALLS: messages[1].tool_calls is an empty list"),
    ),
    "tool_calls is an object": (
        chat(USER, answer(tool_calls=CALL), tools=[TOOL]),
        "TOOL_CALLS: messages[1].tool_calls is an object",
    ),
    "call is a string": (
        chat(USER, answer(tool_calls=["find"]), tools=[TOOL]),
        ("TOOL_CALLS: messages[1].tool_calls[0] is 'find'"),
    ),
    "call without id": (called(without(CALL, "id")), ("TOOL_CALLS: messages[1].tool_calls[0].id is absent")),
    "call whose id is empty": (called(id=""), ("TOOL_CALLS: messages[1].tool_calls[0].id is ''")),
    "call whose id is a number": (called(id=1), ("TOOL_CALLS: messages[1].tool_calls[0].id is 1")),
    "call without type": (called(without(CALL, "type")), ("TOOL_CALLS: messages[1].tool_calls[0].type is absent")),
    "call of another type": (called(type="tool"), ("TOOL_CALLS: messages[1].tool_calls[0].type is 'tool'")),
    "call without function": (
        called(without(CALL, "function")),
        ("TOOL_CALLS: messages[1].tool_calls[0].function is absent"),
    ),
    "call whose function is a string": (
        called(function="find"),
        ("TOOL_CALLS: messages[1].tool_calls[0].function is 'find'"),
    ),
    "call with an unknown key": (
        called(index=0),
        ("UNKNOWN_KEY: messages[1].tool_calls[0] has the unknown key 'index'"),
    ),
    "call without a name": (
        called(function={"arguments": "{}"}),
        ("TOOL_CALLS: messages[1].tool_calls[0].function.name is absent"),
    ),
    "call whose name is a number": (calling(name=3), ("TOOL_CALLS: messages[1].tool_calls[0].function.name is 3")),
    "call of an unknown tool": (calling(name="fnd"), ("CALL_NAME: messages[1].tool_calls[0].function.name is 'fnd'")),
    "call in a row without tools": (
        chat(USER, CALLING),
        ("CALL_NAME: messages[1].tool_calls[0].function.name is 'find' in a row without tools"),
    ),
    "two calls in a row without tools": (
        chat(USER, answer(tool_calls=[CALL, CALL | {"id": "c2"}])),
        ("CALL_NAME: messages[1].tool_calls[0].function.name is 'find' in a row without tools"),
    ),
    "two calls of one id": (
        chat(USER, answer(tool_calls=[CALL, CALL]), tools=[TOOL]),
        ("TOOL_CALLS: messages[1].tool_calls hold the id 'c1' 2 times"),
    ),
    "arguments are absent": (
        called(function={"name": "find"}),
        ("ARGUMENTS: messages[1].tool_calls[0].function.arguments is absent"),
    ),
    "arguments are an object": (
        calling(arguments={}),
        ("ARGUMENTS: messages[1].tool_calls[0].function.arguments is an object"),
    ),
    "arguments are null": (
        calling(arguments=None),
        ("ARGUMENTS: messages[1].tool_calls[0].function.arguments is null"),
    ),
    "arguments are empty": (
        calling(arguments=""),
        ("ARGUMENTS: messages[1].tool_calls[0].function.arguments is empty (character 1)"),
    ),
    "arguments are cut off": (
        calling(arguments='{"a": '),
        ("ARGUMENTS: messages[1].tool_calls[0].function.arguments ends inside an object (character 7)"),
    ),
    "arguments are a list": (
        calling(arguments="[]"),
        ("ARGUMENTS: messages[1].tool_calls[0].function.arguments holds a list"),
    ),
    "arguments are a number": (
        calling(arguments="7"),
        ("ARGUMENTS: messages[1].tool_calls[0].function.arguments holds 7"),
    ),
    "arguments with single quotes": (
        calling(arguments="{'a': 1}"),
        ('ARGUMENTS: messages[1].tool_calls[0].function.arguments holds the quote "\'" (character 2)'),
    ),
    "arguments with a duplicate key": (
        calling(arguments='{"a": 1, "a": 2}'),
        ("ARGUMENTS: messages[1].tool_calls[0].function.arguments has the key 'a' twice in one object (character 10)"),
    ),
    "arguments mistyped key": (
        called(function={"name": "find", "argumnts": "{}"}),
        ("UNKNOWN_KEY: messages[1].tool_calls[0].function has the unknown key 'argumnts'"),
    ),
    "tool_calls and function_call": (
        chat(USER, CALLING | {"function_call": CALL["function"]}, tools=[TOOL]),
        ("TOOL_CALLS: messages[1] has both tool_calls and function_call"),
    ),
    "function_call is a string": (
        chat(USER, answer(function_call="find"), functions=[FUNCTION]),
        ("TOOL_CALLS: messages[1].function_call is 'find'"),
    ),
    "function_call without arguments": (
        chat(USER, answer(function_call={"name": "find"}), functions=[FUNCTION]),
        ("ARGUMENTS: messages[1].function_call.arguments is absent"),
    ),
    "function_call of an unknown function": (
        chat(USER, answer(function_call={"name": "x", "arguments": "{}"}), functions=[FUNCTION]),
        "CALL_NAME: messages[1].function_call.name is 'x'",
    ),
    "answer to no call": (chat(USER, RESULT, ANSWER, tools=[TOOL]), ("TOOL_ANSWER: messages[1].tool_call_id is 'c1'")),
    "answer before its call": (
        chat(USER, RESULT, CALLING, tools=[TOOL]),
        ("TOOL_ANSWER: messages[1].tool_call_id is 'c1'"),
    ),
    "answer with another id": (
        chat(USER, CALLING, RESULT | {"tool_call_id": "c2"}, ANSWER, tools=[TOOL]),
        ("TOOL_ANSWER: messages[2].tool_call_id is 'c2'"),
    ),
    "answer without id": (
        chat(USER, CALLING, without(RESULT, "tool_call_id"), ANSWER, tools=[TOOL]),
        ("TOOL_ANSWER: messages[2].tool_call_id is absent"),
    ),
    "answer with id null": (
        chat(USER, CALLING, RESULT | {"tool_call_id": None}, ANSWER, tools=[TOOL]),
        ("TOOL_ANSWER: messages[2].tool_call_id is null"),
    ),
    "answer with a list as id": (
        chat(USER, CALLING, RESULT | {"tool_call_id": ["c1"]}, ANSWER, tools=[TOOL]),
        ("TOOL_ANSWER: messages[2].tool_call_id is a list"),
    ),
    "answered twice": (
        chat(USER, CALLING, RESULT, RESULT, ANSWER, tools=[TOOL]),
        ("TOOL_ANSWER: messages[3].tool_call_id is 'c1', which is answered already"),
    ),
    "call without answer before a user message": (
        chat(USER, CALLING, USER, ANSWER, tools=[TOOL]),
        ("UNANSWERED_CALL: messages[1] calls 'c1', which has no answer before messages[2]"),
    ),
    "call without answer before an answer": (
        chat(USER, CALLING, ANSWER, tools=[TOOL]),
        ("UNANSWERED_CALL: messages[1] calls 'c1', which has no answer before messages[2]"),
    ),
    "one of two calls without answer": (
        chat(USER, answer(tool_calls=[CALL, CALL | {"id": "c2"}]), RESULT, ANSWER, tools=[TOOL]),
        ("UNANSWERED_CALL: messages[1] calls 'c2', which has no answer before messages[3]"),
    ),
    "content of a tool message is null": (
        chat(USER, CALLING, RESULT | {"content": None}, ANSWER, tools=[TOOL]),
        "CONTENT: messages[2].content is null",
    ),
    "function message without a call": (
        chat(USER, {"role": "function", "name": "find", "content": "7"}, ANSWER, functions=[FUNCTION]),
        ("TOOL_ANSWER: messages[1].name is 'find'"),
    ),
    "function message of another function": (
        chat(
            USER,
            answer(None, function_call=CALL["function"]),
            {"role": "function", "name": "fnd", "content": "7"},
            ANSWER,
            functions=[FUNCTION],
        ),
        "TOOL_ANSWER: messages[2].name is 'fnd'",
    ),
}


@pytest.mark.parametrize(("row", "expected"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_row_is_told_once(row, expected, tmp_path):
    assert list(map(finding, told(row, tmp_path))) == [expected]


VALID = {
    "plain": chat(USER, ANSWER),
    "system first": chat(SYSTEM, USER, ANSWER),
    "developer first": chat({"role": "developer", "content": "Be brief."}, USER, ANSWER),
    "greeting first": chat(ANSWER, USER, ANSWER),
    "two user messages in a row": chat(USER, USER, ANSWER),
    "names": chat(USER | {"name": "ann"}, answer(name="bot")),
    "some weights are 0": chat(USER, answer(weight=0), USER, answer(weight=1)),
    "text parts": chat(user([{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]), ANSWER),
    "a thought": chat(USER, answer(reasoning_content="Well.")),
    "a thought before a call": chat(USER, CALLING | {"reasoning_content": "Well."}, tools=[TOOL]),
    "an answer about tags": chat(USER, answer("Write <think> before a thought.")),
    "an open thought that is not trained": chat(USER, answer("<think>Well", weight=0), USER, ANSWER),
    "refusal beside content": chat(USER, answer("No.", refusal=None)),
    "function_call is null": chat(USER, answer(function_call=None)),
    "ends with a call": called(),
    "content beside a call": chat(USER, answer("", tool_calls=[CALL]), tools=[TOOL]),
    "content null beside a call": chat(USER, answer(None, tool_calls=[CALL]), tools=[TOOL]),
    "call and answer": chat(USER, CALLING, RESULT, ANSWER, tools=[TOOL]),
    "answer ends with a new call of the same id": chat(USER, CALLING, RESULT, CALLING, RESULT, ANSWER, tools=[TOOL]),
    "two calls, answered in another order": chat(
        USER,
        answer(None, tool_calls=[CALL, CALL | {"id": "c2"}]),
        RESULT | {"tool_call_id": "c2"},
        RESULT,
        ANSWER,
        tools=[TOOL],
    ),
    "empty tool result": chat(USER, CALLING, RESULT | {"content": ""}, ANSWER, tools=[TOOL]),
    "tool without parameters": chat(USER, ANSWER, tools=[{"type": "function", "function": {"name": "now"}}]),
    "no tools": chat(USER, ANSWER, tools=[]),
    "reference is not fetched": offering(parameters={"$ref": "http://127.0.0.1:9/never"}),
    "strict": offering(strict=True),
    "parallel_tool_calls": chat(USER, ANSWER, parallel_tool_calls=False),
    "older functions": chat(
        USER,
        answer(None, function_call=CALL["function"]),
        {"role": "function", "name": "find", "content": "7"},
        ANSWER,
        functions=[FUNCTION],
    ),
}


@pytest.mark.parametrize("backend", ["local", "azureml", "openai"])
@pytest.mark.parametrize("row", VALID.values(), ids=VALID)
def test_valid_row_is_accepted(row, backend, tmp_path):
    thinks = backend == "openai" and "reasoning_content" in json.dumps(row)
    assert [finding.partition(":")[0] for finding in told(row, tmp_path, backend)] == ["SERVICE_THOUGHT"] * thinks


def image(url="https://a.example/b.png", **keys):
    return {"type": "image_url", "image_url": {"url": url, **keys}}


IMAGES = {
    "url": (chat(user([image()]), ANSWER), None),
    "data url": (chat(user([image("data:image/png;base64,iVBO", detail="low")]), ANSWER), None),
    "64 images": (chat(user([image()] * 64), ANSWER), None),
    "65 images": (chat(user([image()] * 65), ANSWER), "messages[0].content holds 65 images, expected at most 64"),
    "in an answer": (
        chat(USER, answer([image()])),
        (
            "messages[1].content[0] is an image in a message of the role 'assistant'"
            ", expected images in user messages only"
        ),
    ),
    "file path": (
        chat(user([image("/tmp/b.png")]), ANSWER),
        (
            "messages[0].content[0].image_url.url is '/tmp/b.png', expected an http(s) URL, "
            "or a data URL of a JPEG, PNG or WEBP image in base64"
        ),
    ),
    "another format": (
        chat(user([image("data:image/gif;base64,R0lG")]), ANSWER),
        (
            "messages[0].content[0].image_url.url is 'data:image/gif;base64,R0lG', expected an http(s) URL, "
            "or a data URL of a JPEG, PNG or WEBP image in base64"
        ),
    ),
    "too large": (
        chat(user([image("data:image/png;base64," + "A" * 13_400_000)]), ANSWER),
        "messages[0].content[0].image_url.url holds an image of 10050000 bytes, expected at most 10000000",
    ),
    "unknown detail": (
        chat(user([image(detail="full")]), ANSWER),
        "messages[0].content[0].image_url.detail is 'full', expected auto, low or high",
    ),
    "without url": (
        chat(user([{"type": "image_url", "image_url": "https://a.example/b.png"}]), ANSWER),
        "messages[0].content[0].image_url has no url, expected an object {url, detail}",
    ),
}


@pytest.mark.parametrize(("row", "expected"), IMAGES.values(), ids=IMAGES)
def test_images_are_held_against_the_limits_of_the_service(row, expected, tmp_path):
    findings = told(row, tmp_path, "openai")
    assert [text.split("; ")[0] for text in findings] == ([f"IMAGE_LIMIT: {expected}"] if expected else [])


def test_a_schema_as_deep_as_a_row_may_be_is_checked(tmp_path):
    schema = {"type": "object"}
    for _ in range(27):
        schema = {"type": "object", "properties": {"a": schema}}
    assert told(offering(parameters=schema), tmp_path) == []


@pytest.mark.filterwarnings("error")
def test_a_pattern_that_python_warns_of_is_taken_without_a_word(tmp_path):
    row = offering(parameters={"type": "object", "properties": {"q": {"type": "string", "pattern": "[[a]"}}})
    assert told(row, tmp_path) == []


def test_a_property_name_cannot_steer_a_terminal(tmp_path):
    row = offering(parameters={"properties": {"\x1b[31m": {"type": "strng"}}})
    assert told(row, tmp_path) == [
        (
            "SCHEMA: tools[0].function.parameters.properties.\\x1b[31m.type is 'strng', "
            "expected array, boolean, integer, null, number, object or string; correct the schema"
        )
    ]


@pytest.mark.parametrize(
    "pattern",
    [r"^\p{L}+$", r"(?<year>\d{4})-\k<year>", r"(?<=a+)b", r"[^]*", r"\u{1F600}", r"\cM", r"[\p{Lu}\-]", "^a$"],
)
def test_a_pattern_of_ecma_262_is_valid_though_python_knows_it_not(tmp_path, pattern):
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(offering(parameters=schema)) + "\n")
    findings = check_files([tmp_path / "rows.jsonl"]).findings
    assert [str(finding) for finding in findings if finding.code == "SCHEMA"] == []


@pytest.mark.parametrize("pattern", ["(", "a)", "[a", "*", "a{2,1}", "\\"])
def test_a_pattern_that_no_dialect_takes_is_told(tmp_path, pattern):
    (tmp_path / "rows.jsonl").write_text(json.dumps(offering(parameters={"pattern": pattern})) + "\n")
    findings = check_files([tmp_path / "rows.jsonl"]).findings
    assert [finding.accepted for finding in findings if finding.code == "SCHEMA"] == ["a valid regex"]


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {"type": {"type": "string"}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}},
        {"description": "nothing", "x-extra": {"type": "string"}},
        {"properties": {"a": {"description": "a"}}, "a": {"description": "beside"}},
    ],
)
def test_a_schema_that_only_looks_flat_passes(tmp_path, schema):
    (tmp_path / "rows.jsonl").write_text(json.dumps(offering(parameters=schema)) + "\n")
    assert "SCHEMA" not in check_files([tmp_path / "rows.jsonl"]).counts
