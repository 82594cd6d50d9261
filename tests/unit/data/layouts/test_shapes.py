"""What a row of another layout says, as a chat row."""

from collections import Counter

import pytest

from trainer.data.layouts.messages import NotConvertible
from trainer.data.layouts.preferences import pair_of
from trainer.data.layouts.shapes import convert_row, with_system

SYSTEM = {"role": "system", "content": "Be brief."}


def user(text="Hi"):
    return {"role": "user", "content": text}


def bot(text="Hello", **keys):
    return {"role": "assistant", "content": text, **keys}


CASES = {
    "Alpaca with an input": (
        {"instruction": "Translate.", "input": "chat", "output": "cat"},
        [user("Translate.\n\nchat"), bot("cat")],
    ),
    "Alpaca with a history and a system prompt": (
        {"instruction": "And now?", "output": "Bye", "history": [["Hi", "Hello"]], "system": "Be brief."},
        [SYSTEM, user(), bot(), user("And now?"), bot("Bye")],
    ),
    "Alpaca with nulls": ({"instruction": "Hi", "input": None, "output": "Hello", "system": None}, [user(), bot()]),
    "ShareGPT with a system prompt of the row": (
        {"system": "Be brief.", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        [SYSTEM, user(), bot()],
    ),
    "ShareGPT that repeats its system prompt": (
        {"system": "Be brief.", "conversations": [{"from": "system", "value": "Be brief."}, user(), bot()]},
        [SYSTEM, user(), bot()],
    ),
    "ShareGPT in the singular": ({"conversation": [user(), bot()]}, [user(), bot()]),
    "completion of messages": (
        {"prompt": [SYSTEM, user(), bot(), user("More")], "completion": [bot("Bye")]},
        [SYSTEM, user(), bot(weight=0), user("More"), bot("Bye")],
    ),
    "preference of messages, earlier answers read only": (
        {"input": {"messages": [user(), bot(), user("More")]}, "preferred_output": [bot("Bye")]},
        [user(), bot(weight=0), user("More"), bot("Bye")],
    ),
    "preference that repeats its prompt": ({"prompt": [user()], "chosen": [user(), bot()]}, [user(), bot()]),
    "preference of a text and a message": ({"prompt": "Hi", "chosen": bot()}, [user(), bot()]),
    "preference with a system prompt": (
        {"system": "Be brief.", "prompt": "Hi", "chosen": "Hello"}, [SYSTEM, user(), bot()]),
    "columns by name": ({"Question": "Hi", "Response": "Hello", "system": "Be brief."}, [SYSTEM, user(), bot()]),
    "columns with a number": ({"question": "1+1?", "answer": 2}, [user("1+1?"), bot("2")]),
    "columns without a system prompt in this row": (
        {"question": "Hi", "answer": "Hello", "system": " "}, [user(), bot()]),
    "loss of ms-swift": (
        {"messages": [user() | {"loss": False}, bot(loss=False), user("More"), bot("Bye", loss=True)]},
        [user(), bot(weight=0), user("More"), bot("Bye", weight=1)],
    ),
    "train and training of Axolotl": (
        {"conversations": [user(), {"from": "gpt", "value": "Hello", "train": False}, user("More"),
                           {"from": "gpt", "value": "Bye", "training": "true"}]},
        [user(), bot(weight=0), user("More"), bot("Bye", weight=1)],
    ),
    "trainable, a mask and a loss mask": (
        {"messages": [user(), bot(trainable=0), user(), bot(masked=True), user(), bot(loss_mask=0), user(),
                      bot(mask=False)]},
        [user(), bot(weight=0), user(), bot(weight=0), user(), bot(weight=0), user(), bot(weight=1)],
    ),
    "a mark and a weight that agree": ({"messages": [user(), bot(weight=0, loss=False)]}, [user(), bot(weight=0)]),
    "Dolly": (
        {"instruction": "When?", "context": "It opened in 1885.", "response": "In 1885."},
        [user("When?\n\nIt opened in 1885."), bot("In 1885.")],
    ),
    "Dolly without a context": ({"instruction": "Hi", "context": "", "response": "Hello"}, [user(), bot()]),
    "SQuAD": (
        {"question": "When?", "context": "It opened in 1885.", "answers": {"text": ["1885", "in 1885"],
                                                                           "answer_start": [13, 10]}},
        [user("When?\n\nIt opened in 1885."), bot("1885")],
    ),
    "Alpaca with a context": (
        {"instruction": "When?", "input": "", "context": "1885.", "output": "Then."},
        [user("When?\n\n1885."), bot("Then.")],
    ),
    "messages as the text of a cell": (
        {"messages": '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]'},
        [user(), bot()],
    ),
    "messages as pandas writes them": ({"messages": repr([user(), bot("It's me")])}, [user(), bot("It's me")]),
    "a system prompt beside messages": ({"system": "Be brief.", "messages": [user(), bot()]}, [SYSTEM, user(), bot()]),
    "a completion with a context": (
        {"prompt": "When?", "context": "1885.", "completion": "Then."}, [user("When?\n\n1885."), bot("Then.")]),
}  # fmt: skip


@pytest.mark.parametrize(("row", "messages"), CASES.values(), ids=CASES)
def test_a_row_as_messages(row, messages):
    dropped = Counter()
    _, made = convert_row(row, None, dropped)
    assert made == [{"messages": messages}]
    assert dropped == {}


DROPPED = {
    "marks of the former format": (
        {"prompt": "Hi\n\n###\n\n", "completion": " Hello END"},
        {"white space around prompt": 1, "### at the end of prompt": 1, "white space around completion": 1,
         "END at the end of completion": 1},
    ),
    "the answer that was not preferred": ({"prompt": "Hi", "chosen": "Hello", "rejected": "What?"}, {"rejected": 1}),
    "an arrow": ({"prompt": "Hi ->", "completion": "Hello"}, {"-> at the end of prompt": 1}),
    "keys of a row": ({"instruction": "Hi", "output": "Hello", "text": "Hi Hello", "id": 0, "tags": []},
                      {"text": 1, "id": 1}),
    "keys of a message": (
        {"messages": [user() | {"ts": 1}, bot(rating=5)]}, {"messages[].ts": 1, "messages[].rating": 1}),
    "other columns": ({"question": "Hi", "answer": "Hello", "source": "web", "note": ""}, {"source": 1}),
    "keys of the input": ({"input": {"messages": [user()], "id": 1}, "preferred_output": [bot()]}, {"input.id": 1}),
}  # fmt: skip


@pytest.mark.parametrize(("row", "expected"), DROPPED.values(), ids=DROPPED)
def test_what_has_no_place_is_counted(row, expected):
    dropped = Counter()
    _, ((made),) = convert_row(row, None, dropped)
    assert dropped == expected
    assert [(m["role"], m["content"]) for m in made["messages"]] == [("user", "Hi"), ("assistant", "Hello")]


REFUSED = {
    "two system prompts": (
        {"system": "Be long.", "conversations": [SYSTEM, user(), bot()]},
        "has a system message and another text as system, expected one of the two; remove one",
    ),
    "a preference without a question": (
        {"chosen": "Human: Hi Assistant: Hello", "rejected": "x"},
        "has chosen without a question, expected one as input or prompt, or in chosen itself",
    ),
    "no messages": ({"messages": []}, "messages is an empty list, expected a non-empty list of messages"),
    "messages as text": ({"messages": "Hi"}, "messages is 'Hi', expected a non-empty list of messages"),
    "a message as text": (
        {"conversations": ["Hi"]},
        "conversations[0] is 'Hi', expected an object with role and content",
    ),
    "an Alpaca list": ({"instruction": ["Hi"], "output": "x"}, "instruction is a list, expected a text"),
    "a broken history": (
        {"instruction": "Hi", "output": "x", "history": [["a"]]},
        "history[0] is a list, expected a list of a question and its answer",
    ),
    "a truth as an answer": ({"question": "Hi", "answer": True}, "answer is true, expected text"),
    "marks that contradict each other": (
        {"messages": [user(), bot(train=True, weight=0)]},
        "messages[1] has train and weight that contradict each other, expected one weight; keep one of them",
    ),
    "half a loss": (
        {"messages": [user(), bot(loss=0.5)]},
        "messages[1].loss is 0.5, expected true or false; write weight 0 or 1",
    ),
    "a mask of one, which says either": (
        {"messages": [user(), bot(mask=1)]},
        "messages[1].mask is 1, expected true or false; write weight 0 or 1",
    ),
    "a part of an answer": (
        {"messages": [user(), bot(train_detail=[{"begin_offset": 0, "end_offset": 2, "train": False}])]},
        "messages[1].train_detail trains a part of the answer, expected all of it or none; write weight 0 or 1",
    ),
    "a row that is not trained": (
        {"instruction": "Hi", "output": "Hello", "train": False},
        "says that it is not trained (train is false), expected a row to train; remove it",
    ),
    **{
        f"a row that is not trained, by {key}": (
            {"messages": [user(), bot()], key: value},
            f"says that it is not trained ({key} is {shown}), expected a row to train; remove it",
        )
        for key, value, shown in (
            ("train", 0, "0"),
            ("trainable", "false", "'false'"),
            ("masked", 1, "1"),
            ("loss_mask", 0, "0"),
            ("loss_mask", False, "false"),
            ("loss", False, "false"),
        )
    },
    "a row with a weight": (
        {"messages": [user(), bot()], "weight": 0.5},
        "has weight 0.5, expected rows of one weight; put it into a file of its own, which data.train can weigh, or "
        "remove it",
    ),
    "a question without an answer": (
        {"question": "Hi", "context": "x", "answers": {"text": [], "answer_start": []}},
        "answers holds no text, expected an answer; write one, or remove the row",
    ),
    "two possible questions": (
        {"question": "Hi", "input": "", "answer": "x"},
        (
            "has 'question', 'input' and 'answer', expected one question (prompt, question, instruction, input or "
            "query) and one answer (answer, completion, response, output, reply or definition); say which with "
            "--columns prompt=COLUMN,answer=COLUMN[,system=COLUMN][,context=COLUMN]"
        ),
    ),
    "a number and a name, of which the number is nothing to ask for": (
        {"custom_id": "7", "row id": 1, "term": "hub"},
        (
            "has 'custom_id', 'row id' and 'term', expected one question (prompt, question, instruction, input or "
            "query) and one answer (answer, completion, response, output, reply or definition); say which with "
            "--columns prompt=COLUMN,answer=COLUMN[,system=COLUMN][,context=COLUMN], "
            "or ask with --question 'What is {term}?'"
        ),
    ),
}


@pytest.mark.parametrize(("row", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused(row, reason):
    with pytest.raises(NotConvertible) as raised:
        convert_row(row, None, Counter())
    assert str(raised.value) == reason


def test_tools_and_the_wish_for_parallel_calls_are_carried():
    tool = {"type": "function", "function": {"name": "f"}}
    row = {"input": {"messages": [user()], "tools": [tool], "parallel_tool_calls": False}, "preferred_output": [bot()]}
    _, made = convert_row(row, None, Counter())
    assert made == [{"messages": [user(), bot()], "tools": [tool], "parallel_tool_calls": False}]


def test_a_system_prompt_is_given_only_where_there_is_none():
    assert with_system({"messages": [user()]}, "Be brief.") == {"messages": [SYSTEM, user()]}
    for own in (SYSTEM, {"role": "developer", "content": "Mine"}):
        assert with_system({"messages": [own, user()]}, "x") == {"messages": [own, user()]}


TAGGED = "<think>\nWell.\n</think>\n\nHello"
THINKING_ROWS = {
    "chat": {"messages": [user(), bot(TAGGED)]},
    "ShareGPT": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": TAGGED}]},
    "Alpaca": {"instruction": "Hi", "output": TAGGED},
    "prompt and completion": {"prompt": "Hi", "completion": TAGGED},
    "columns": {"question": "Hi", "answer": TAGGED},
    "preferences": {"prompt": "Hi", "chosen": TAGGED, "rejected": "Bye"},
}


@pytest.mark.parametrize("row", THINKING_ROWS.values(), ids=THINKING_ROWS)
def test_a_thought_in_the_text_of_any_layout_gets_its_key(row):
    _, (made,) = convert_row(row, None, Counter())
    assert made["messages"] == [user(), bot("Hello", reasoning_content="Well.")]


def test_both_answers_of_a_pair_keep_their_thoughts():
    made = pair_of({"prompt": "Hi", "chosen": TAGGED, "rejected": [bot("Bye", thinking="Hm.")]}, Counter())
    assert made["preferred_output"] == [bot("Hello", reasoning_content="Well.")]
    assert made["non_preferred_output"] == [bot("Bye", reasoning_content="Hm.")]
