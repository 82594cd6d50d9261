"""Every rule of chat and preference rows: its code, how serious it is on which backend, why it exists and what to do.

docs/data_rules.md is generated from this table; a test breaks each rule and compares the finding with `example`.
"""

from trainer.data.rules.preference_rules import PREFERENCE_RULES
from trainer.data.rules.rule import Rule, warning

ROWS_NEEDED = 10
ROWS_ADVISED = 50


_FILE_RULES = (
    Rule(
        "ENCODING",
        "the file is UTF-8 text",
        "With or without a byte order mark. UTF-16, NUL bytes, bytes that are not UTF-8 and halves of surrogate pairs "
        "are refused, since every reader repairs them differently.",
        "save the file as UTF-8",
        "rows.jsonl:3:47: ENCODING: the row holds the byte 0xe9 at byte offset 140, which is not UTF-8, "
        "expected UTF-8 text; save the file as UTF-8",
    ),
    Rule(
        "FORMAT",
        "the file is chat JSONL",
        "A JSON array, a pretty-printed file, CSV, Excel, Parquet, and the ShareGPT, Alpaca and prompt/completion "
        "layouts are recognized and can be converted. Compressed and other binary files are recognized.",
        "run: trainer data convert FILE",
        "rows.jsonl: FORMAT: the file holds rows of the ShareGPT layout, expected rows with messages; "
        "run: trainer data convert rows.jsonl",
    ),
    Rule(
        "PREFERENCE",
        "training.method sft needs chat rows",
        "Rows with input, preferred_output and non_preferred_output are for training.method dpo. A file has rows of "
        "one kind: that of its first row.",
        "train with training.method=dpo, or for the preferred answers alone run: trainer data convert FILE",
        "rows.jsonl:2: PREFERENCE: the row has the preference format, expected rows with messages; train with "
        "training.method=dpo, or for the preferred answers alone run: trainer data convert rows.jsonl",
    ),
    Rule(
        "JSON",
        "every line is one JSON object",
        "Cut off lines, trailing commas, single quotes, comments and a second object on the line are named with their "
        "column.",
        "write rows with a JSON library",
        "rows.jsonl:2:92: JSON: the row has a comma before ']', expected no comma after the last value; "
        "remove the comma",
    ),
    Rule(
        "DUPLICATE_KEY",
        "a key stands once in an object",
        "Of two equal keys most readers silently keep the last. Which one was meant cannot be known.",
        "keep one of the two",
        "rows.jsonl:1:32: DUPLICATE_KEY: the row has the key 'role' twice in one object, expected every "
        "key once; keep one of the two",
    ),
    Rule(
        "NUMBER",
        "numbers are finite and fit in 64 bits",
        "NaN and Infinity are not JSON, and larger numbers are changed by the services that read the file.",
        "write it as a string or remove it",
        "rows.jsonl:1:102: NUMBER: the row holds the number NaN, expected a finite number or null; write "
        "it as a string or remove it",
    ),
    Rule(
        "NESTING",
        "objects and lists are nested at most 64 deep",
        "Deeper nesting is never meant and makes some readers crash.",
        "flatten the value",
        "rows.jsonl:1:77: NESTING: the row is nested deeper than 64, expected at most 64 levels; flatten the value",
    ),
    Rule(
        "LONG_LINE",
        "a line is at most 128 MiB",
        "A longer line is a file without line ends, and would not fit in memory.",
        "put every row on a line of its own",
        "rows.jsonl:2: LONG_LINE: the row is longer than 128 MiB, expected at most 128 MiB; put every "
        "row on a line of its own",
    ),
    Rule(
        "FILE_SIZE",
        "the service takes files of at most 512 MB",
        "OpenAI and Azure OpenAI refuse larger files, Azure OpenAI also more than 1 GB of files in all.",
        "train on fewer rows, or use the local or azureml backend",
        "rows.jsonl: FILE_SIZE: the file holds 600000000 bytes, expected at most 512000000 on the openai "
        "backend; train on fewer rows, or use the local or azureml backend",
        only="openai",
    ),
    Rule(
        "NO_ROWS",
        "a file holds rows",
        "An empty file, or one of blank lines, trains nothing.",
        "check the path",
        "rows.jsonl: NO_ROWS: the file is empty, expected chat rows; check the path",
    ),
    Rule(
        "TOO_FEW_ROWS",
        f"a training set holds at least {ROWS_NEEDED} rows",
        "The services refuse fewer; elsewhere the model memorizes them.",
        "add rows",
        "rows.jsonl: TOO_FEW_ROWS: the training data has 4 rows, expected at least 10; add rows",
        local="warning",
    ),
    warning(
        "FEW_ROWS",
        f"a training set should hold at least {ROWS_ADVISED} rows",
        "The services advise 50 to 100 well-chosen rows before a change can be seen.",
        "add rows",
        "rows.jsonl: FEW_ROWS: the training data has 12 rows, expected 50 or more for a visible effect; add rows",
    ),
)

_ROW_RULES = (
    Rule(
        "ROW",
        "a row is an object with messages",
        "The object holds messages and optionally tools, parallel_tool_calls or the older functions.",
        'write {"messages": [...]}',
        "rows.jsonl:1: ROW: the row is 'Hello', expected an object with messages; write {\"messages\": [...]}",
    ),
    Rule(
        "UNKNOWN_KEY",
        "only known keys",
        "A mistyped key would be ignored without a word.",
        "rename or remove it",
        "rows.jsonl:1: UNKNOWN_KEY: the row has the unknown key 'mesages', expected messages, tools or "
        "parallel_tool_calls; did you mean 'messages'?",
    ),
    warning(
        "METADATA",
        "metadata is ignored",
        "Neither the local backends nor the services train on it. Told once per file.",
        "nothing needs to be done",
        "rows.jsonl:1: METADATA: the row has metadata, expected none, since it is ignored; nothing needs to be done",
    ),
    Rule(
        "MESSAGES",
        "messages is a non-empty list",
        "A row is a conversation.",
        'write {"messages": [...]}',
        "rows.jsonl:1: MESSAGES: messages is an empty list, expected a non-empty list of messages; write "
        '{"messages": [...]}',
    ),
    Rule(
        "PARALLEL_TOOL_CALLS",
        "parallel_tool_calls is true or false",
        "It is passed on as written.",
        "remove it",
        "rows.jsonl:1: PARALLEL_TOOL_CALLS: parallel_tool_calls is 'no', expected true or false; remove it",
    ),
)

_MESSAGE_RULES = (
    Rule(
        "ROLE",
        "a message has a known role",
        "system, developer, user, assistant, tool, and the older function. developer is rendered as system where the "
        "model's chat template has no such role, which a run says once.",
        "rename it",
        "rows.jsonl:1: ROLE: messages[0].role is 'human', expected system, developer, user, assistant or "
        "tool; rename it, or run: trainer data convert rows.jsonl",
    ),
    Rule(
        "KEY_FOR_ROLE",
        "a key stands in messages of its role only",
        "reasoning_content, tool_calls, function_call and refusal belong to the assistant, tool_call_id to tool "
        "messages.",
        "remove it or correct the role",
        "rows.jsonl:1: KEY_FOR_ROLE: messages[0] has tool_call_id in a user message, expected "
        "tool_call_id in tool messages only; remove it or correct the role",
    ),
    Rule(
        "CONTENT",
        "content is text",
        "A string or a list of parts {type: text, text}; null or absent only beside tool_calls or function_call.",
        "write the text",
        "rows.jsonl:1: CONTENT: messages[0].content is 7, expected a string or a list of text parts; write the text",
    ),
    Rule(
        "EMPTY_ANSWER",
        "an answer is not empty",
        "The model would learn to say nothing.",
        "write the answer or remove the row",
        "rows.jsonl:1: EMPTY_ANSWER: messages[1].content is only white space, expected the text of an "
        "answer; write the answer or remove the row",
    ),
    warning(
        "EMPTY_QUESTION",
        "a question is not empty",
        "Probably a gap in the source of the data.",
        "write it",
        "rows.jsonl:1: EMPTY_QUESTION: messages[0].content is empty, expected text; write it",
    ),
    Rule(
        "THOUGHT",
        "reasoning_content is the thought before an answer",
        "A string on an assistant message, without tags: the model's chat template writes those. An answer has one "
        "thought, so that it does not begin with <think> as well.",
        "write the thought or remove the key",
        "rows.jsonl:1: THOUGHT: messages[1].reasoning_content is 7, expected a non-empty string; write the thought "
        "or remove the key",
    ),
    Rule(
        "OPEN_THOUGHT",
        "a thought that begins with <think> ends with </think>",
        "A model that learns an answer without the end tag never comes to its answer: what reads replies waits for it.",
        "close the thought with </think>, or take <think> out",
        "rows.jsonl:1: OPEN_THOUGHT: messages[1].content has <think> without an end, expected </think> behind the "
        "thought; close the thought with </think>, or take <think> out",
        openai="warning",
    ),
    warning(
        "THOUGHT_IN_TEXT",
        "a thought stands in reasoning_content, not in the answer",
        "Each model's chat template writes a thought in its own way, and only one in reasoning_content can be told "
        "from the answer: data.train_reasoning decides on it, and replies are compared without it.",
        "move it with: trainer data convert FILE",
        "rows.jsonl:1: THOUGHT_IN_TEXT: messages[1].content begins with <think>, expected the thought as "
        "reasoning_content; move it with: trainer data convert FILE",
    ),
    Rule(
        "SERVICE_THOUGHT",
        "no thoughts for the services",
        "OpenAI and Azure OpenAI take rows without reasoning_content and refuse a file that has it: their models think "
        "in a way that no row can teach, and show no thought.",
        "leave it out with: trainer data convert FILE --no-thoughts, or use the local or azureml backend",
        "rows.jsonl:1: SERVICE_THOUGHT: messages[1] has reasoning_content, expected none on the openai backend; leave "
        "it out with: trainer data convert FILE --no-thoughts, or use the local or azureml backend",
        only="openai",
    ),
    Rule(
        "IMAGE",
        "no images locally",
        "Vision models are not supported on the local and azureml backends. The services take images in user messages.",
        "remove the image or use the openai backend",
        "rows.jsonl:1: IMAGE: messages[0].content[0] is an image, expected text; remove the image or use "
        "the openai backend",
        only="local",
    ),
    Rule(
        "IMAGE_LIMIT",
        "images keep to the service's limits",
        "At most 64 images a row and 10 MB an image, as JPEG, PNG or WEBP, by http(s) URL or data URL.",
        "shrink, convert or remove the image",
        "rows.jsonl:1: IMAGE_LIMIT: messages[0].content[0].image_url.url is 'ftp://a.example/b.png', "
        "expected an http(s) URL, or a data URL of a JPEG, PNG or WEBP image in base64; shrink, convert "
        "or remove the image",
        only="openai",
    ),
    Rule(
        "NAME",
        "name is a non-empty string",
        "Of a function message it is the function's name.",
        "write the name",
        "rows.jsonl:1: NAME: messages[0].name is '', expected a non-empty string; remove it",
    ),
    Rule(
        "REFUSAL",
        "refusal is a string or null",
        "As the services return it.",
        "remove it",
        "rows.jsonl:1: REFUSAL: messages[1].refusal is true, expected a string or null; remove it",
    ),
    Rule(
        "WEIGHT",
        "weight is 0 or 1, on assistant messages",
        "0 keeps a message out of training. Nothing else is understood by the services.",
        "write 0, 1 or nothing",
        "rows.jsonl:1: WEIGHT: messages[0] has weight in a user message, expected weight in assistant "
        "messages only; remove it",
    ),
    Rule(
        "NOTHING_TRAINED",
        "at least one answer of a row is trained",
        "A row whose assistant messages all have weight 0 costs time and teaches nothing.",
        "give one answer weight 1 or remove the row",
        "rows.jsonl:1: NOTHING_TRAINED: messages hold only assistant messages of weight 0, expected one "
        "of weight 1 or without weight; give one answer weight 1 or remove the row",
    ),
    Rule(
        "LAST_MESSAGE",
        "a conversation ends with an answer",
        "What follows the last answer cannot be learned from.",
        "add the answer or remove what follows the last one",
        "rows.jsonl:1: LAST_MESSAGE: messages[2] is a user message and the last one, expected an "
        "assistant message at the end; add the answer or remove what follows the last one",
    ),
    Rule(
        "ASSISTANT_TWICE",
        "two answers do not follow each other",
        "Unless the first one calls tools and is answered, no chat template renders them as two turns.",
        "join the two messages",
        "rows.jsonl:1: ASSISTANT_TWICE: messages[2] follows messages[1], expected another role between "
        "two assistant messages; join the two messages",
    ),
    warning(
        "SYSTEM_POSITION",
        "a system message stands first",
        "Many chat templates refuse or drop it elsewhere.",
        "move it to the start",
        "rows.jsonl:1: SYSTEM_POSITION: messages[1] is a system message, expected one at the start only; "
        "move it to the start",
    ),
)

_TOOL_RULES = (
    Rule(
        "TOOLS",
        "tools is a list of functions",
        "Each {type: function, function: {name, description, parameters}}, with a name of its own.",
        "write tools as the chat API takes them",
        "rows.jsonl:1: TOOLS: tools is an object, expected a list of functions; write a list or remove it",
    ),
    Rule(
        "TOOL_NAME",
        "a tool has a name of its own",
        "1 to 64 of the characters A-Z a-z 0-9 _ -, as the services demand.",
        "rename it",
        "rows.jsonl:1: TOOL_NAME: tools[0].function.name is 'find it', expected 1 to 64 of the "
        "characters A-Z a-z 0-9 _ -; rename it",
    ),
    Rule(
        "SCHEMA",
        "parameters is a valid JSON Schema",
        "Draft 2020-12, checked without fetching anything.",
        "correct the schema",
        "rows.jsonl:1: SCHEMA: tools[0].function.parameters.type is 'text', expected array, boolean, "
        "integer, null, number, object or string; correct the schema",
    ),
    Rule(
        "TOOL_CALLS",
        "a call is well-formed",
        "Each {id, type: function, function: {name, arguments}}, or the older function_call {name, arguments}.",
        "write calls as the chat API returns them",
        "rows.jsonl:1: TOOL_CALLS: messages[1].tool_calls[0].id is 1, expected a non-empty string; write "
        "calls as the chat API returns them",
    ),
    Rule(
        "CALL_NAME",
        "a called function is one of the row's tools",
        "The model would learn to call what it is not offered.",
        "add it to tools or rename the call",
        "rows.jsonl:1: CALL_NAME: messages[1].tool_calls[0].function.name is 'search', expected 'find'; "
        "add it to tools or rename the call",
    ),
    Rule(
        "ARGUMENTS",
        "arguments is a string that holds a JSON object",
        "The chat API passes arguments as text.",
        "write them with json.dumps",
        "rows.jsonl:1: ARGUMENTS: messages[1].tool_calls[0].function.arguments is an object, expected a "
        "string that holds a JSON object; write them with json.dumps, or run: trainer data convert rows.jsonl",
    ),
    Rule(
        "TOOL_ANSWER",
        "a tool message answers a call",
        "By the call's id, after the call and once.",
        "correct the id or the name, or remove the message",
        "rows.jsonl:1: TOOL_ANSWER: messages[2].tool_call_id is 'c2', expected 'c1'; correct the id or "
        "the name, or remove the message",
    ),
    Rule(
        "UNANSWERED_CALL",
        "every call is answered before the conversation continues",
        "Only calls of the last message may stay without an answer.",
        "add the tool message that answers it",
        "rows.jsonl:1: UNANSWERED_CALL: messages[1] calls 'c1', which has no answer before messages[2], "
        "expected one tool message for each call; add the tool message that answers it",
    ),
)

_ACROSS_RULES = (
    warning(
        "DUPLICATE",
        "a row stands once",
        "Equal rows are trained more often than the rest; a weight for a file says so openly.",
        "remove one",
        "rows.jsonl:3: DUPLICATE: the row is the same as line 1, expected every row once; remove one",
    ),
    warning(
        "NEAR_DUPLICATE",
        "rows differ in more than white space",
        "As good as equal rows.",
        "remove one",
        "rows.jsonl:2: NEAR_DUPLICATE: the row differs from line 1 in white space only, expected every "
        "row once; remove one",
    ),
    warning(
        "SAME_PROMPT",
        "a prompt has one answer",
        "Different answers to the same prompt pull the model in different directions.",
        "keep the better answer unless variety is wanted",
        "rows.jsonl:2: SAME_PROMPT: the row has the same prompt as line 1 and another answer, expected "
        "one answer to a prompt; keep the better answer unless variety is wanted",
    ),
    Rule(
        "LEAK",
        "no validation row is also trained",
        "The validation loss would measure memory and not skill. allow_leak makes it a warning.",
        "remove it from one of the two files",
        "validation.jsonl:2: LEAK: the row also stands in rows.jsonl:1, expected a row that is not "
        "trained; remove it from one of the two files",
    ),
    warning(
        "SYSTEM_PROMPTS",
        "rows share one system prompt, or do not",
        "When nearly all rows have the same system prompt, the few others are mostly slips.",
        "use the usual prompt unless the difference is meant",
        "rows.jsonl:13: SYSTEM_PROMPTS: the system prompt differs from that of 12 other rows, expected "
        "the same for all rows; use the usual prompt unless the difference is meant",
    ),
    warning(
        "DEBRIS",
        "answers are free of markup and labels at their ends",
        "Left over from the tool that made the data; the model learns to write them.",
        "cut it off",
        "rows.jsonl:1: DEBRIS: messages[1].content begins with 'A:', expected an answer without markup "
        "or labels at its ends; cut it off",
    ),
    warning(
        "SECRET",
        "no keys, tokens or private keys",
        "A model can repeat what it was trained on. Only the first four characters are shown.",
        "remove it and revoke it",
        "rows.jsonl:1: SECRET: messages[1].content holds what looks like a Hugging Face token ('hf_a…'), "
        "expected text without it; remove it and revoke it",
    ),
    warning(
        "PERSONAL_DATA",
        "no obvious personal data",
        "E-mail addresses, phone, card, account and social security numbers can be repeated by the model.",
        "remove it or replace it by an invented one",
        "rows.jsonl:1: PERSONAL_DATA: messages[1].content holds what looks like a phone number "
        "('425-…'), expected text without it; remove it or replace it by an invented one",
    ),
)

_TOKEN_RULES = (
    Rule(
        "TEMPLATE",
        "the model's chat template renders the row exactly",
        "What is trained must be what serving sends and what the model should answer, token for token. A message that "
        "the template drops or rewrites and text that spells a control token are refused, and a row of so many answers "
        "that a template which looks at the whole conversation would render it without end. Needs the model: found by "
        "train --check, and by data check --config, which can part such rows out.",
        "do what the message says",
        "rows.jsonl:1: TEMPLATE: messages[0].content holds '<|im_end|>', a control token of this model; "
        "remove or respell it",
        only="local",
    ),
    Rule(
        "LENGTH",
        "a row is no longer than data.max_length",
        "data.on_overlength may be set to drop such rows or to shorten them by whole turns from the oldest on, which "
        "is counted and listed. Needs the model: found by train --check, and by data check --config.",
        "raise data.max_length, or set data.on_overlength to drop or truncate",
        "rows.jsonl:1: LENGTH: has 2,526 tokens, expected at most 2048; raise data.max_length, or set "
        "data.on_overlength to drop or truncate",
        only="local",
    ),
    Rule(
        "THOUGHT_FORM",
        "thoughts stand where the model's template has a place for them",
        "gpt-oss writes thoughts into a channel of their own, so that <think> in the text would be trained as part of "
        "the final answer, which people see. Needs the model: found by train --check, and by data check --config.",
        "move it to reasoning_content with: trainer data convert FILE",
        "rows.jsonl:1: THOUGHT_FORM: messages[1].content holds <think>, which this model's template writes as part of "
        "the answer, expected no thought; move it to reasoning_content with: trainer data convert FILE",
        local="warning",
        only="local",
    ),
)

GROUPS: dict[str, tuple[Rule, ...]] = {
    "The file": _FILE_RULES,
    "A row": _ROW_RULES,
    "Messages": _MESSAGE_RULES,
    "Tools and calls": _TOOL_RULES,
    "Preference rows": PREFERENCE_RULES,
    "Across rows and files": _ACROSS_RULES,
    "Tokens": _TOKEN_RULES,
}
RULES: dict[str, Rule] = {rule.code: rule for rules in GROUPS.values() for rule in rules}
