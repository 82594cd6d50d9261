"""Properties of cleaning, on rows put together of sound and damaged pieces."""

import json
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.read.rows import read_conversations
from trainer.workshop.clean.clean import examine, write_copy
from trainer.workshop.clean.kinds import KINDS, choose

pytestmark = pytest.mark.apart

ADVICE = "Loosen the bolt, turn the barrel until the pads sit close to the rim, and tighten the bolt again"
PIECES = [
    "A hub.", "The rim is round.", f"{ADVICE}.", f"{ADVICE}!", f"{ADVICE} now.", f"{ADVICE} with 2 turns.", "**", "** ", " **", "---", "\n", "\n\n",
    "**Answer:** ", "A: ", "Q: ", "\nQ: What?", "**Q:** Why?", "### Response:\n", "```", "```\n", "\n```", "```json\n", '{"a": 1}',
    "&amp;", "&amp;lt;", "&#39;", "&#8203;", "CafÃ©", "â€œyesâ€\x9d", "Ã\x83Â©", "\ufffd", "\x1b[1m", "\x07", "\u200b", "\ufeff", "\u200e",
    "<|im_end|>", "</s>", "...", "NaN", "I'm sorry, but I can't help with that.", "jo@contoso-bikes.com", "##", " ###", "*", "👍",
]  # fmt: skip
SYSTEMS = [None, "You are Spokewise.", "you are Spokewise", "You are  Spokewise.", "You are Otherwise."]

texts = st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join).filter(lambda text: text.strip())
asked = (
    st.sampled_from(["What is it?", "what is it", "Q: What is it?", "And why do the pads of my brake rub on the rim?"])
    | texts
)


@st.composite
def chats(draw):
    system = draw(st.sampled_from(SYSTEMS))
    messages = [{"role": "system", "content": system}] if system else []
    for turn in range(draw(st.integers(1, 2))):
        said = {"role": "assistant", "content": draw(texts)}
        if turn == 0 and draw(st.booleans()):
            said["weight"] = draw(st.sampled_from([0, 1]))
        messages += [{"role": "user", "content": draw(asked)}, said]
    messages[-1].pop("weight", None)
    return {"messages": messages}


@st.composite
def pairs(draw):
    preferred, other = draw(st.tuples(texts, texts).filter(lambda two: two[0] != two[1]))
    outputs = {"preferred_output": preferred, "non_preferred_output": other}
    row = {name: [{"role": "assistant", "content": text}] for name, text in outputs.items()}
    return {"input": {"messages": [{"role": "user", "content": draw(asked)}]}} | row


files = st.lists(chats(), min_size=1, max_size=12) | st.lists(pairs(), min_size=1, max_size=8)
choices = st.builds(
    lambda skip, remove: choose(skip=sorted(skip), remove=sorted(remove - skip)),
    st.sets(st.sampled_from(sorted(KINDS)), max_size=5),
    st.sets(st.sampled_from(sorted(code for code, kind in KINDS.items() if kind.remedy == "leave")), max_size=3),
)


def write(folder, rows, name="rows.jsonl"):
    path = Path(folder) / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@settings(deadline=None, max_examples=60)
@given(rows=files, held_out=st.lists(chats(), max_size=3), choice=choices)
def test_cleaning_what_is_clean_changes_nothing_and_every_row_stays_valid(rows, held_out, choice):
    with tempfile.TemporaryDirectory() as folder:
        source = write(folder, rows)
        held = [write(folder, held_out, "held.jsonl")] if held_out and "messages" in rows[0] else []
        first = examine(source, held, choice)
        if first.num_left == 0:
            return
        once, twice = Path(folder) / "once.jsonl", Path(folder) / "twice.jsonl"
        write_copy(first, once, held, choice=choice, force=False)
        assert read_conversations(once).errors == []
        assert len(once.read_bytes().splitlines()) == first.num_left
        second = examine(once, held, choice)
        assert (second.num_removed, second.num_edited) == (0, 0)
        log = write_copy(second, twice, held, choice=choice, force=False)
        assert (twice.read_bytes(), log.read_bytes()) == (once.read_bytes(), b"")


@settings(deadline=None, max_examples=40)
@given(rows=files, seed=st.integers(0, 1000))
def test_the_order_of_rows_decides_only_which_of_equal_rows_stays(rows, seed):
    order = random.Random(seed).sample(range(len(rows)), len(rows))
    with tempfile.TemporaryDirectory() as folder:
        one = examine(write(folder, rows), [], choose())
        other = examine(write(folder, [rows[at] for at in order]), [], choose())
        for kind in KINDS.keys() - {"NEAR_DUPLICATE", "CONFLICT"}:
            found, moved = one.faults.lines(kind), other.faults.lines(kind)
            if kind == "DUPLICATE":
                assert len(found) == len(moved)
            else:
                assert sorted(line - 1 for line in found) == sorted(order[line - 1] for line in moved)
        assert one.systems == other.systems


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000))
def test_similar_rows_in_any_order_form_the_same_groups(seed):
    words = ["half", "three", "ten", "many", "two", "more"]
    variants = [
        f"{ADVICE} {word} times, and then ride {place}." for place in ("home", "away", "uphill") for word in words[:3]
    ]
    rows = [{"messages": [{"role": "user", "content": f"Why does the brake rub {number // 3}?"}, {"role": "assistant", "content": text}]}
            for number, text in enumerate(variants)]  # fmt: skip
    background = [
        {"messages": [{"role": "user", "content": f"{n} " * 9}, {"role": "assistant", "content": f"{n}! " * 9}]}
        for n in range(90)
    ]
    mixed = random.Random(seed).sample([*rows, *background], len(rows) + len(background))
    with tempfile.TemporaryDirectory() as folder:
        cleaning = examine(write(folder, mixed), [], choose(only=["near-duplicate"]))
    left = [row for line, row in enumerate(mixed, 1) if line not in cleaning.removed]
    kept = sorted(row["messages"][0]["content"] for row in left if row["messages"][0]["content"].startswith("Why"))
    assert kept == [f"Why does the brake rub {number}?" for number in range(3)]
    assert len(left) == len(background) + 3


@settings(deadline=None, max_examples=200)
@given(text=texts)
def test_a_mended_text_is_left_alone(text):
    from trainer.workshop.clean.row_edits import edit_row

    row = {"messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": text}]}
    edit_row(row, "sft", choose())
    assert edit_row(row, "sft", choose()) == []
