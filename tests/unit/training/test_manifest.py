"""What a manifest says of the rows it was made from, in time that grows as the rows do."""

import time

import pytest

from tests.conftest import talk
from trainer.data.conversations import Conversation
from trainer.training.manifest import usual_prompt, usual_tools

TOOLS = ({"type": "function", "function": {"name": "add"}},)


def rows(*prompts):
    return [talk(*([("system", prompt)] if prompt else []), ("user", "?"), ("assistant", "!")) for prompt in prompts]


@pytest.mark.parametrize(
    ("prompts", "usual"),
    [
        (["a", "a", "b"], "a"),
        (["a", "b", "b"], "b"),
        (["a", None, None], None),
        (["a", None], None),
        ([None, None], None),
    ],
)
def test_the_prompt_of_most_rows_is_the_usual_one(prompts, usual):
    assert usual_prompt(rows(*prompts)) == usual


def test_the_tools_of_most_rows_are_the_usual_ones():
    with_tools = [Conversation(row.messages, TOOLS, row.file, row.line) for row in rows("a", "b")]
    assert usual_tools([*with_tools, *rows("c")]) == TOOLS
    assert usual_tools([*with_tools, *rows("c", "d")]) == ()


def seconds(count):
    made = rows(*map(str, range(count)))  # no two prompts are the same
    started = time.process_time()
    for _ in range(5):
        usual_prompt(made)
        usual_tools(made)
    return time.process_time() - started


def test_ten_times_the_rows_take_about_ten_times_as_long():
    assert min(seconds(10_000) for _ in range(3)) < 40 * min(seconds(1_000) for _ in range(3))
