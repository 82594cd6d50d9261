"""The rules that only preference rows have; see `preferences.py`, which looks for what breaks them."""

from trainer.data.rules.rule import Rule, warning

PREFERENCE_RULES = (
    Rule(
        "PAIR_NEEDED",
        "training.method dpo needs preference rows",
        "A row holds a prompt as input, and two answers to it as preferred_output and non_preferred_output. A file has "
        "rows of one kind: that of its first row. Rows with chosen and rejected can be converted.",
        "write two answers, or train with training.method=sft",
        "rows.jsonl:2: PAIR_NEEDED: the row has the chat format, expected rows with input, preferred_output and "
        "non_preferred_output; write two answers, or train with training.method=sft",
    ),
    Rule(
        "PAIR",
        "a prompt and both answers are lists of messages",
        "input is an object with messages and, where there are any, tools and parallel_tool_calls. Prompt and answer "
        "together keep to all rules for messages, tools and calls.",
        'write [{"role": "assistant", "content": "..."}]',
        "rows.jsonl:1: PAIR: non_preferred_output is absent, expected a non-empty list of messages; write "
        '[{"role": "assistant", "content": "..."}]',
    ),
    Rule(
        "PAIR_ROLE",
        "an answer holds messages of the assistant and of tools",
        "All that leads to the answer belongs into input.messages.",
        "move the message into input.messages",
        "rows.jsonl:1: PAIR_ROLE: preferred_output[0].role is 'user', expected assistant or tool; move the message "
        "into input.messages",
    ),
    Rule(
        "PAIR_EQUAL",
        "the two answers differ",
        "A row with the same answer twice costs time and teaches nothing.",
        "write another answer or remove the row",
        "rows.jsonl:1: PAIR_EQUAL: non_preferred_output is the same as preferred_output, expected another answer; "
        "write another answer or remove the row",
    ),
    Rule(
        "PAIR_WEIGHT",
        "an answer has no weight",
        "Which answer is learned stands in its name, and the services know no weight there.",
        "remove it",
        "rows.jsonl:1: PAIR_WEIGHT: preferred_output[0] has weight, expected none, as the row says which answer is "
        "preferred; remove it",
    ),
    Rule(
        "PAIR_IMAGE",
        "preference rows hold text only",
        "The services train on images with training.method sft only.",
        "remove the image",
        "rows.jsonl:1: PAIR_IMAGE: input.messages[0].content[0] is an image, expected text; remove the image",
    ),
    warning(
        "PAIR_TURNS",
        "an answer is one message",
        "Azure OpenAI also takes calls of tools with their results before the answer, api.openai.com one message only.",
        "move what leads to the answer into input.messages",
        "rows.jsonl:1: PAIR_TURNS: preferred_output holds 3 messages, expected one, which is all that api.openai.com "
        "takes; move what leads to the answer into input.messages",
    ),
)
