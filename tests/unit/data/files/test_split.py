"""Each row of a file is in one of two files, with its bytes, and no question stands in both."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.files.split import Share, choose, split_file
from trainer.data.read.checks import check_files
from trainer.data.read.rows import read_conversations
from trainer.errors import ConfigError, DataError

TRAIN, VALIDATION = Path("train.jsonl"), Path("validation.jsonl")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def row(question, answer="Yes.", system=None, *more):
    messages = [{"role": "system", "content": system}] if system else []
    turns = [question, answer, *more]
    messages += [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
    return {"messages": messages}


def write(*rows):
    Path("rows.jsonl").write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    return Path("rows.jsonl")


def left():
    return sorted(path.name for path in Path().iterdir())


def questions_of(path):
    return [row.messages[-2].content for row in read_conversations(path).conversations]


QUESTIONS = [row(f"Question {number}?") for number in range(50)]
SEED_42 = [1, 7, 15, 17, 40]


def test_each_row_is_in_one_of_the_files_in_its_order_and_none_leaks():
    source = write(*QUESTIONS)
    made = split_file(source, TRAIN, VALIDATION, share=0.2)
    train, held_out = (path.read_bytes().splitlines(keepends=True) for path in (TRAIN, VALIDATION))
    assert (len(train), len(held_out)) == (made.num_train, made.num_validation) == (40, 10)
    in_order = source.read_bytes().splitlines(keepends=True)
    assert [line for line in in_order if line in set(train)] == train
    assert [line for line in in_order if line in set(held_out)] == held_out
    assert sorted(train + held_out) == sorted(in_order)
    assert check_files([TRAIN], [VALIDATION]).errors == []


def test_rows_keep_their_bytes_and_blank_lines_are_counted():
    lines = [json.dumps(row(f"{n} \u00e9"), ensure_ascii=n % 2 == 0, indent=None).encode() for n in range(10)]
    Path("rows.jsonl").write_bytes(b"\xef\xbb\xbf" + b" \r\n\n".join(lines))
    made = split_file(Path("rows.jsonl"), TRAIN, VALIDATION, num_rows=3)
    assert made.num_blank == 9
    written = TRAIN.read_bytes() + VALIDATION.read_bytes()
    assert sorted(written.splitlines(keepends=True)) == sorted(
        [line + b" \r\n" for line in lines[:-1]] + [lines[-1] + b"\n"]
    )


def test_the_same_seed_holds_out_the_same_rows_and_another_one_others():
    held_out = {}
    for seed in (1, 1, 2):
        split_file(write(*QUESTIONS), TRAIN, VALIDATION, seed=seed, force=True)
        assert held_out.setdefault(seed, VALIDATION.read_bytes()) == VALIDATION.read_bytes()
    assert held_out[1] != held_out[2]


def test_the_rows_of_a_seed_stay_those_of_every_release():
    split_file(write(*QUESTIONS), TRAIN, VALIDATION)
    assert questions_of(VALIDATION) == [f"Question {number}?" for number in SEED_42]


def test_rows_of_each_system_prompt_are_held_out_in_proportion():
    rows = [row(f"{n}?", "Yes.", system) for system, count in (("A", 60), ("B", 30), (None, 10)) for n in range(count)]
    made = split_file(write(*rows), TRAIN, VALIDATION)
    assert made.shares == (Share("A", 54, 6), Share("B", 27, 3), Share(None, 9, 1))


def test_a_system_prompt_is_not_held_out_only():
    rows = [*QUESTIONS, row("x", "Yes.", "Rare.")]
    for seed in range(5):
        made = split_file(write(*rows), TRAIN, VALIDATION, num_rows=25, seed=seed, force=True)
        assert made.shares == (Share(None, 25, 25), Share("Rare.", 1, 0))


def test_rows_that_all_have_a_system_prompt_of_their_own_are_split_too():
    made = split_file(write(*(row(f"{n}?", "Yes.", f"Answer from: {n}") for n in range(30))), TRAIN, VALIDATION)
    assert (made.num_train, made.num_validation) == (27, 3)
    assert questions_of(VALIDATION) != ["0?", "1?", "2?"]


def test_rows_that_stay_together_are_never_split_even_where_fewer_are_held_out():
    made = split_file(
        write(*(row(f"{n}?", answer) for n in range(10) for answer in "abc")), TRAIN, VALIDATION, num_rows=5
    )
    assert (made.num_validation, made.num_wanted, made.num_together) == (3, 5, 30)


@given(
    sizes=st.lists(st.integers(1, 4), min_size=2, max_size=30),
    kinds=st.lists(st.integers(0, 3), min_size=30, max_size=30),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 9),
)
def test_whole_groups_are_chosen_and_never_too_many(sizes, kinds, share, seed):
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    members = [list(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)]
    prompts = [str(kinds[group]) for group, size in enumerate(sizes) for _ in range(size)]
    wanted = min(max(1, round(share * sum(sizes))), sum(sizes) - 1)
    chosen = choose(members, prompts, wanted, seed)
    assert all(chosen.issuperset(group) or chosen.isdisjoint(group) for group in members)
    assert len(chosen) <= wanted
    fitting = [group for group in members if chosen.isdisjoint(group) and len(group) <= wanted - len(chosen)]
    assert fitting == []


REFUSED = {
    "nothing to hold out": ({"num_rows": 0}, "--rows: 0 of 50 rows to hold out, expected from 1 to 49; change it"),
    "nothing to train on": ({"num_rows": 50}, "--rows: 50 of 50 rows to hold out, expected from 1 to 49; change it"),
    "below zero": ({"num_rows": -1}, "--rows: -1 of 50 rows to hold out, expected from 1 to 49; change it"),
}


@pytest.mark.parametrize(("options", "problem"), REFUSED.values(), ids=REFUSED)
def test_a_number_that_cannot_be_held_out_is_told(options, problem):
    with pytest.raises(ConfigError) as raised:
        split_file(write(*QUESTIONS), TRAIN, VALIDATION, **options)
    assert raised.value.problems == (problem,)
    assert left() == ["rows.jsonl"]


def test_rows_that_cannot_be_parted_are_told():
    with pytest.raises(DataError, match=r"^rows\.jsonl: all 3 rows belong together, as they ask the same"):
        split_file(write(row("a", "1"), row("a", "2"), row("a", "3")), TRAIN, VALIDATION)
    pairs = [row(f"{n}?", answer) for n in range(10) for answer in "ab"]
    with pytest.raises(ConfigError, match="--rows: 1 cannot be held out, expected at least 2, since rows that ask"):
        split_file(write(*pairs), TRAIN, VALIDATION, num_rows=1)
    with pytest.raises(ConfigError, match="--rows: 1 of 1 rows to hold out, expected a file of two rows or more"):
        split_file(write(row("a")), TRAIN, VALIDATION)
    assert left() == ["rows.jsonl"]


def test_a_file_with_an_error_is_refused_with_every_error():
    with pytest.raises(DataError) as raised:
        split_file(write(*QUESTIONS, {"messages": []}), TRAIN, VALIDATION)
    first, second = raised.value.problems
    assert first == "rows.jsonl: has an error, expected none; look at all rules with: trainer data check rows.jsonl"
    assert second.startswith("rows.jsonl:51: MESSAGES: ")
    assert left() == ["rows.jsonl"]


@pytest.mark.parametrize("existing", [TRAIN, VALIDATION])
def test_neither_file_is_written_when_one_exists(existing):
    existing.write_text("mine")
    with pytest.raises(DataError, match=f"^{existing}: exists already"):
        split_file(write(*QUESTIONS), TRAIN, VALIDATION)
    assert (existing.read_text(), len(left())) == ("mine", 2)
    split_file(write(*QUESTIONS), TRAIN, VALIDATION, force=True)
    assert len(left()) == 3
