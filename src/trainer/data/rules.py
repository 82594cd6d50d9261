"""Every rule of the chat JSONL format: its code, how serious it is on which backend, why it exists and what to do.

The documentation page of the format is generated from this table.
"""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]
Backend = Literal["local", "azureml", "openai"]

ROWS_NEEDED = 10
ROWS_ADVISED = 50


@dataclass(frozen=True, slots=True)
class Rule:
    """`fix` ends a finding that has no better advice; `local` holds for azureml too."""

    code: str
    title: str
    explanation: str
    fix: str
    local: Severity = "error"
    openai: Severity = "error"

    def severity(self, backend: Backend) -> Severity:
        return self.openai if backend == "openai" else self.local


def _warning(code: str, title: str, explanation: str, fix: str) -> Rule:
    return Rule(code, title, explanation, fix, local="warning", openai="warning")


_FILE_RULES = (
    Rule(
        "ENCODING",
        "the file is UTF-8 text",
        "With or without a byte order mark. UTF-16, NUL bytes, bytes that are not UTF-8 and halves of surrogate pairs "
        "are refused, since every reader repairs them differently.",
        "save the file as UTF-8",
    ),
    Rule(
        "FORMAT",
        "the file is chat JSONL",
        "A JSON array, a pretty-printed file, CSV, Parquet, and the ShareGPT, Alpaca and prompt/completion layouts are "
        "recognised and can be converted. Compressed and other binary files are recognised.",
        "run: trainer data convert FILE",
    ),
    Rule(
        "PREFERENCE",
        "supervised runs need messages",
        "Rows with input, preferred_output and non_preferred_output belong to preference training (DPO).",
        "supervised runs need messages; to train on the preferred answers run: trainer data convert FILE",
    ),
    Rule(
        "JSON",
        "every line is one JSON object",
        "Cut off lines, trailing commas, single quotes, comments and a second object on the line are named with their "
        "column.",
        "write rows with a JSON library",
    ),
    Rule(
        "DUPLICATE_KEY",
        "a key stands once in an object",
        "Of two equal keys most readers silently keep the last. Which one was meant cannot be known.",
        "keep one of the two",
    ),
    Rule(
        "NUMBER",
        "numbers are finite and fit in 64 bits",
        "NaN and Infinity are not JSON, and larger numbers are changed by the services that read the file.",
        "write it as a string or remove it",
    ),
    Rule(
        "NESTING",
        "objects and lists are nested at most 64 deep",
        "Deeper nesting is never meant and makes some readers crash.",
        "flatten the value",
    ),
    Rule(
        "LONG_LINE",
        "a line is at most 128 MiB",
        "A longer line is a file without line ends, and would not fit in memory.",
        "put every row on a line of its own",
    ),
    Rule(
        "FILE_SIZE",
        "the service takes files of at most 512 MB",
        "OpenAI and Azure OpenAI refuse larger files, Azure OpenAI also more than 1 GB of files in all.",
        "train on fewer rows, or use the local or azureml backend",
    ),
    Rule("NO_ROWS", "a file holds rows", "An empty file, or one of blank lines, trains nothing.", "check the path"),
    Rule(
        "TOO_FEW_ROWS",
        f"a training set holds at least {ROWS_NEEDED} rows",
        "The services refuse fewer; elsewhere the model memorises them.",
        "add rows",
        local="warning",
    ),
    _warning(
        "FEW_ROWS",
        f"a training set should hold at least {ROWS_ADVISED} rows",
        "The services advise 50 to 100 well-chosen rows before a change can be seen.",
        "add rows",
    ),
)

_ROW_RULES = (
    Rule(
        "ROW",
        "a row is an object with messages",
        "The object holds messages and optionally tools, parallel_tool_calls or the older functions.",
        'write {"messages": [...]}',
    ),
    Rule("UNKNOWN_KEY", "only known keys", "A mistyped key would be ignored without a word.", "rename or remove it"),
    _warning(
        "METADATA",
        "metadata is ignored",
        "Neither the local backends nor the services train on it. Told once per file.",
        "nothing needs to be done",
    ),
    Rule("MESSAGES", "messages is a non-empty list", "A row is a conversation.", 'write {"messages": [...]}'),
    Rule("PARALLEL_TOOL_CALLS", "parallel_tool_calls is true or false", "It is passed on as written.", "remove it"),
)

_MESSAGE_RULES = (
    Rule(
        "ROLE",
        "a message has a known role",
        "system, developer, user, assistant, tool, and the older function.",
        "rename it",
    ),
    Rule(
        "KEY_FOR_ROLE",
        "a key stands in messages of its role only",
        "tool_calls, function_call and refusal belong to the assistant, tool_call_id to tool messages.",
        "remove it or correct the role",
    ),
    Rule(
        "CONTENT",
        "content is text",
        "A string or a list of parts {type: text, text}; null or absent only beside tool_calls or function_call.",
        "write the text",
    ),
    Rule(
        "EMPTY_ANSWER",
        "an answer is not empty",
        "The model would learn to say nothing.",
        "write the answer or remove the row",
    ),
    _warning("EMPTY_QUESTION", "a question is not empty", "Probably a gap in the source of the data.", "write it"),
    Rule(
        "IMAGE",
        "no images locally",
        "Vision models are not supported on the local and azureml backends. The services take images in user messages.",
        "remove the image or use the openai backend",
    ),
    Rule(
        "IMAGE_LIMIT",
        "images keep to the service's limits",
        "At most 64 images a row and 10 MB an image, as JPEG, PNG or WEBP, by http(s) URL or data URL.",
        "shrink, convert or remove the image",
    ),
    Rule("NAME", "name is a non-empty string", "Of a function message it is the function's name.", "write the name"),
    Rule("REFUSAL", "refusal is a string or null", "As the services return it.", "remove it"),
    Rule(
        "WEIGHT",
        "weight is 0 or 1, on assistant messages",
        "0 keeps a message out of training. Nothing else is understood by the services.",
        "write 0, 1 or nothing",
    ),
    Rule(
        "NOTHING_TRAINED",
        "at least one answer of a row is trained",
        "A row whose assistant messages all have weight 0 costs time and teaches nothing.",
        "give one answer weight 1 or remove the row",
    ),
    Rule(
        "LAST_MESSAGE",
        "a conversation ends with an answer",
        "What follows the last answer cannot be learned from.",
        "add the answer or remove what follows the last one",
    ),
    Rule(
        "ASSISTANT_TWICE",
        "two answers do not follow each other",
        "Unless the first one calls tools and is answered, no chat template renders them as two turns.",
        "join the two messages",
    ),
    _warning(
        "SYSTEM_POSITION",
        "a system message stands first",
        "Many chat templates refuse or drop it elsewhere.",
        "move it to the start",
    ),
)

_TOOL_RULES = (
    Rule(
        "TOOLS",
        "tools is a list of functions",
        "Each {type: function, function: {name, description, parameters}}, with a name of its own.",
        "write tools as the chat API takes them",
    ),
    Rule(
        "TOOL_NAME",
        "a tool has a name of its own",
        "1 to 64 of the characters A-Z a-z 0-9 _ -, as the services demand.",
        "rename it",
    ),
    Rule(
        "SCHEMA",
        "parameters is a valid JSON Schema",
        "Draft 2020-12, checked without fetching anything.",
        "correct the schema",
    ),
    Rule(
        "TOOL_CALLS",
        "a call is well-formed",
        "Each {id, type: function, function: {name, arguments}}, or the older function_call {name, arguments}.",
        "write calls as the chat API returns them",
    ),
    Rule(
        "CALL_NAME",
        "a called function is one of the row's tools",
        "The model would learn to call what it is not offered.",
        "add it to tools or rename the call",
    ),
    Rule(
        "ARGUMENTS",
        "arguments is a string that holds a JSON object",
        "The chat API passes arguments as text.",
        "write them with json.dumps",
    ),
    Rule(
        "TOOL_ANSWER",
        "a tool message answers a call",
        "By the call's id, after the call and once.",
        "correct the id or the name, or remove the message",
    ),
    Rule(
        "UNANSWERED_CALL",
        "every call is answered before the conversation goes on",
        "Only calls of the last message may stay without an answer.",
        "add the tool message that answers it",
    ),
)

_ACROSS_RULES = (
    _warning(
        "DUPLICATE",
        "a row stands once",
        "Equal rows are trained more often than the rest; a weight for a file says so openly.",
        "remove one",
    ),
    _warning("NEAR_DUPLICATE", "rows differ in more than white space", "As good as equal rows.", "remove one"),
    _warning(
        "SAME_PROMPT",
        "a prompt has one answer",
        "Different answers to the same prompt pull the model in different directions.",
        "keep the better answer unless variety is wanted",
    ),
    Rule(
        "LEAK",
        "no validation row is also trained",
        "The validation loss would measure memory and not skill. allow_leak makes it a warning.",
        "remove it from one of the two files",
    ),
    _warning(
        "SYSTEM_PROMPTS",
        "rows share one system prompt, or do not",
        "When nearly all rows have the same system prompt, the few others are mostly slips.",
        "use the usual prompt unless the difference is meant",
    ),
    _warning(
        "DEBRIS",
        "answers are free of markup and labels at their ends",
        "Left over from the tool that made the data; the model learns to write them.",
        "cut it off",
    ),
    _warning(
        "SECRET",
        "no keys, tokens or private keys",
        "A model can repeat what it was trained on. Only the first four characters are shown.",
        "remove it and revoke it",
    ),
    _warning(
        "PERSONAL_DATA",
        "no obvious personal data",
        "E-mail addresses, phone, card, account and social security numbers can be repeated by the model.",
        "remove it or replace it by an invented one",
    ),
)

RULES: dict[str, Rule] = {
    rule.code: rule for rule in (*_FILE_RULES, *_ROW_RULES, *_MESSAGE_RULES, *_TOOL_RULES, *_ACROSS_RULES)
}
