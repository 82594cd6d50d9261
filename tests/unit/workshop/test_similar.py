"""Comparison of rows: signatures as datasketch makes them, and what counts as the same."""

import random

import numpy as np
import pytest
from datasketch import MinHash

from trainer.data.conversations import Conversation, Message
from trainer.workshop.clean.said import SEPARATOR, SaidRows, folded
from trainer.workshop.clean.signatures import NUM_HASHES, Template, runs_of, sign, signatures
from trainer.workshop.clean.similar import Comparison

ADVICE = (
    "Loosen the bolt of the brake, turn the barrel until the pads sit close to the rim, and tighten the bolt again. "
    "Then spin the wheel by hand and listen: a pad that rubs wants half a turn back."
)
ASKED = "My front brake feels soft and the lever comes close to the bar before it bites; what can I do about that?"


def row(asked, answer, line=1, system="You are Spokewise."):
    said = (Message("system", system), Message("user", asked), Message("assistant", answer))
    return Conversation(said, (), "rows.jsonl", line)


TABLES = []


@pytest.fixture(autouse=True)
def _tables_are_closed():
    yield
    while TABLES:
        TABLES.pop().close()


def compared(*rows, threshold=0.8, background=30):
    """A comparison of rows among others of no likeness."""
    table = SaidRows()
    TABLES.append(table)
    for one in rows:
        table.add(one)
    for number in range(background):
        words = [f"{word}{number * 7 % 997}" for word in ("wheel", "chain", "frame", "saddle", "pedal", "light")]
        table.add(row(" ".join(words), " ".join(reversed(words)), 100 + number))
    comparison = Comparison(table, threshold)
    comparison.learn_template(np.arange(len(table)), np.zeros(0, np.int64))
    return comparison


def test_signatures_are_those_of_datasketch():
    texts = [f"{ASKED}\0{ADVICE}".encode(), b"short\0x", "größe 輪軸\0ответ".encode(), b"\0"]
    runs, counts = runs_of(texts)
    counts = counts.reshape(-1, 2).sum(1)
    made = signatures(runs, counts)
    for each, made_of_one in zip(np.split(runs, np.cumsum(counts)[:-1]), made, strict=True):
        # datasketch applies the finalizer itself: it is undone here by giving what it makes the runs of.
        known = MinHash(num_perm=NUM_HASHES, scheme="affine32", hashfunc=unmixed)
        known.update_batch([int(run) for run in each])
        assert np.array_equal(known.digest(), made_of_one)


def unmixed(mixed):
    """The hash whose MurmurHash3 finalizer is `mixed`; multiplications are undone by the inverse modulo 2^32."""
    value = mixed
    value ^= value >> 16
    value = value * pow(0xC2B2AE35, -1, 1 << 32) % (1 << 32)
    value ^= value >> 13 ^ value >> 26
    value = value * pow(0x85EBCA6B, -1, 1 << 32) % (1 << 32)
    return value ^ value >> 16


def test_each_part_has_its_runs_of_six_bytes_and_those_of_an_answer_are_others():
    runs, counts = runs_of([b"abcdefgh\0abcdefgh", b"abc\0"])
    assert counts.tolist() == [3, 3, 1, 1]
    assert len(set(runs.tolist())) == 8


def test_equal_texts_share_every_band_and_different_ones_none():
    template = Template([])
    one, same, other = sign([b"a brake\0" + ADVICE.encode()] * 2 + [b"a chain\0oil it"], template)
    assert (one == same).all()
    assert not (one == other).any()


@pytest.mark.parametrize(("asked", "answer"), [
    (ASKED, ADVICE.replace("half", "a quarter of a")),
    (ASKED.upper(), ADVICE),
    (f"Please tell me: {ASKED}", ADVICE),
    (ASKED, ADVICE.replace("listen", "lisetn")),
    (ASKED, f"**{ADVICE}**"),
    (ASKED, ADVICE + " Good luck!"),
])  # fmt: skip
def test_rows_of_nearly_the_same_words_are_alike(asked, answer):
    comparison = compared(row(ASKED, ADVICE), row(asked, answer))
    [found] = comparison.repeats(np.arange(len(comparison.rows)))
    assert (found.row, found.other) == (1, 0)
    assert 0.8 <= found.similarity <= 1
    assert found.similarity == comparison.similarity(0, 1) == comparison.similarity(1, 0)


@pytest.mark.parametrize(("asked", "answer", "system"), [
    ("How do I set the brake of my other bike?", ADVICE, "You are Spokewise."),
    (ASKED, "Bring it to a workshop, as a soft lever may mean a leak in the line.", "You are Spokewise."),
    (ASKED, ADVICE.replace("Then spin", "Then do not spin"), "You are Spokewise."),
    (ASKED, ADVICE.replace("half a turn", "1/2 turn"), "You are Spokewise."),
    (ASKED, ADVICE, "You are a pirate."),
])  # fmt: skip
def test_another_prompt_answer_number_negation_or_system_prompt_is_another_row(asked, answer, system):
    comparison = compared(row(ASKED, ADVICE), row(asked, answer, 2, system))
    assert comparison.repeats(np.arange(len(comparison.rows))) == []


@pytest.mark.parametrize("answer", [ADVICE.replace("Then spin", "Then do not spin"), ADVICE + " It takes 5 minutes."])
def test_rows_that_differ_in_a_number_or_a_negation_have_nothing_in_common(answer):
    comparison = compared(row(ASKED, ADVICE), row(ASKED, answer))
    assert comparison.similarity(0, 1) == 0


def test_a_template_that_most_rows_share_makes_none_of_them_alike():
    form = "Classify the mood of this message from a customer as good or bad, and answer with one word only: {}"
    words = [
        "late",
        "lovely",
        "broken",
        "cheap",
        "quick",
        "noisy",
        "smooth",
        "ugly",
        "solid",
        "loose",
        "shiny",
        "rusty",
    ]
    said = [f"The {word} {part} surprised me." for word in words for part in ("saddle", "basket", "mirror")]
    rows = [row(form.format(text), "good" if len(text) % 2 else "bad", line) for line, text in enumerate(said)]
    again = row(form.format("The late saddle, it surprised me!"), rows[0].messages[-1].content, 99)
    comparison = compared(*rows, again, background=0)
    found = comparison.repeats(np.arange(len(comparison.rows)))
    assert found == []
    same = row(form.format("The late saddle surprised me!"), rows[0].messages[-1].content, 99)
    comparison = compared(*rows, same, background=0)
    [found] = comparison.repeats(np.arange(len(comparison.rows)))
    assert (found.row, found.other) == (36, 0)


def test_alike_rows_of_a_template_are_found_among_hundreds_of_others():
    chance = random.Random(0)
    form = " ".join("".join(chance.choices("uvwxyz", k=6)) for _ in range(1500)) + " {}"
    notes = [" ".join("".join(chance.choices("abcdefghijklmnoprst", k=7)) for _ in range(12)) for _ in range(300)]
    rows = [row(form.format(note), "workshop", line) for line, note in enumerate(notes)]
    again = [row(form.format(f"Well, {notes[at]}"), "workshop", 1000 + at) for at in range(0, 300, 30)]
    comparison = compared(*rows, *again, background=0)
    found = comparison.repeats(np.arange(len(comparison.rows)))
    assert [(one.row, one.other) for one in found] == [(300 + number, 30 * number) for number in range(10)]


def test_a_held_out_row_that_is_nearly_trained_is_a_leak_whatever_its_system_prompt():
    held_out = row(ASKED, ADVICE + " Bye!", 3, "Hi.")
    comparison = compared(row(ASKED, ADVICE), row("What is a hub?", "The center."), held_out)
    [found] = comparison.leaks(np.array([0, 1]), np.array([2]))
    assert (found.row, found.other) == (0, 2)


def test_of_a_crowd_the_first_stays():
    words = ["half", "one", "two", "six"] * 20
    rows = [row(ASKED, ADVICE.replace("half", word), line) for line, word in enumerate(words)]
    comparison = compared(*rows, background=400)
    numbers, gone = np.arange(len(comparison.rows)), set()
    while found := comparison.repeats(np.setdiff1d(numbers, list(gone))):
        gone |= {one.row for one in found}
    assert gone == set(range(1, 80))


def test_folding_keeps_operators_and_drops_markup():
    assert folded("**3 + 4**, or: 3 - 4? E-mail_us `now`!") == "3 + 4 or 3 - 4 e mail us now"
    assert folded("ＧＲＯẞＥ – “ja”, 3*4") == folded("ｇｒｏssｅ ja 3*4")


def test_ascii_is_folded_as_all_other_text_is():
    text = "".join(map(chr, range(1, 128))) * 2
    assert folded(text) == folded(text + " é")[:-2]


def test_texts_are_read_as_they_were_added():
    TABLES.append(table := SaidRows())
    for number in range(5):
        table.add(row(f"Question {number}?", "An answer." * number, number))
    assert [table.folded(number) for number in range(5)] == [
        f"u question {number}".encode() + SEPARATOR + " ".join(["an answer"] * number).encode() for number in range(5)
    ]
