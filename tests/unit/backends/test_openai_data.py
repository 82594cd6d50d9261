"""The rows that are uploaded, and those that would be cut off."""

import json
from pathlib import Path

import pytest

from trainer.backends.openai.data import (
    check_service_data,
    longest_row,
    notes_on_length,
    notes_on_model,
    place_in_files,
    prepared,
)
from trainer.config.load import load_config
from trainer.config.schema import RunConfig
from trainer.errors import DataError


def load(folder: Path, *overrides: str) -> RunConfig:
    (folder / "config.yaml").write_text(
        f"model: {{base: m}}\ndata: {{train: ['{folder}/a.jsonl', '{folder}/b.jsonl']}}\nbackend: {{kind: openai}}\n"
    )
    return load_config(folder / "config.yaml", overrides)


def row(number: int, words: int = 3) -> str:
    said = [("user", f"question {number}"), ("assistant", f"answer {number} " + "word " * words)]
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in said]})


def write(folder: Path, count: int = 6, words: int = 3) -> None:
    (folder / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(row(n) for n in range(count)).encode())
    (folder / "b.jsonl").write_text("\n" + "\n\n".join(row(n + 100, words) for n in range(count)) + "\n\n")


def test_files_become_one_without_marks_blank_lines_and_carriage_returns(tmp_path: Path) -> None:
    write(tmp_path)
    with prepared(load(tmp_path), "train") as file:
        lines = file.read().decode().splitlines()
    assert lines == [row(n) for n in (*range(6), *range(100, 106))]


def test_a_line_of_the_upload_has_its_place(tmp_path: Path) -> None:
    write(tmp_path)
    paths = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    assert place_in_files(paths, 1) == f"{paths[0]}:1"
    assert place_in_files(paths, 8) == f"{paths[1]}:4"
    assert place_in_files(paths, 13) == ""


def test_fewer_than_ten_rows_are_refused(tmp_path: Path) -> None:
    write(tmp_path, count=4)
    with pytest.raises(DataError, match="TOO_FEW_ROWS"):
        check_service_data(load(tmp_path), "gpt-4.1")


def test_a_row_that_would_be_cut_off_is_refused_where_it_can_be_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, words=30)
    config = load(tmp_path, "data.max_length=100")
    assert len(notes_on_length(check_service_data(config, "gpt-4.1"))) == 6  # bounds prove nothing
    monkeypatch.setattr("trainer.backends.openai.prices.encoding_for", lambda family: ("o200k_base", len))
    with pytest.raises(DataError, match=r"b\.jsonl:2: LENGTH: has \d+ tokens, expected at most 100") as refused:
        check_service_data(config, "gpt-4.1")
    assert len(refused.value.problems) == 6


def test_long_rows_are_told_with_the_rows_that_break_a_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, words=30)
    with (tmp_path / "b.jsonl").open("a") as file:
        file.write('{"messages": []}\n')
    monkeypatch.setattr("trainer.backends.openai.prices.encoding_for", lambda family: ("o200k_base", len))
    with pytest.raises(DataError) as refused:
        check_service_data(load(tmp_path, "data.max_length=100"), "gpt-4.1")
    assert sum(": LENGTH: " in problem for problem in refused.value.problems) == 6
    assert any("b.jsonl:14:" in problem for problem in refused.value.problems)


def test_nano_reads_half_as_much(tmp_path: Path) -> None:
    write(tmp_path)
    limits = {family: check_service_data(load(tmp_path), family).max_length for family in ("gpt-4.1", "gpt-4.1-nano")}
    assert limits == {"gpt-4.1": 65_536, "gpt-4.1-nano": 32_768}


@pytest.mark.parametrize(
    ("family", "tokens"),
    [
        ("gpt-4.1", 65_536),
        ("gpt-4.1-nano", 32_768),
        ("Qwen3-32B", 8_192),
        ("gpt-oss-20b", 65_536),
        ("gpt-3.5-turbo", 16_385),
        ("gpt-9", 65_536),
    ],
)
def test_each_model_cuts_examples_off_at_its_own_length(family: str, tokens: int) -> None:
    assert longest_row(family) == tokens


def test_what_an_open_model_may_not_honor_is_said_before_an_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.backends.openai.prices.encoding_for", lambda family: ("o200k_base", len))
    write(tmp_path, words=2000)
    unweighted = json.loads(row(7))
    unweighted["messages"] += [{"role": "user", "content": "and?"}, {"role": "assistant", "content": "no"}]
    unweighted["messages"][1]["weight"] = 0
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write("\n" + json.dumps(unweighted) + "\n")
    checked = check_service_data(load(tmp_path), "gpt-oss-20b")
    weight, length = notes_on_model(checked, "gpt-oss-20b")
    assert weight.startswith("weight 0 stands in 1 of 13 rows, and no document says that gpt-oss-20b honors it")
    assert "the longest row has 10,034 tokens, and 8,192 are sure" in length
    assert notes_on_model(checked, "gpt-4.1") == []


def test_another_model_s_encoding_only_estimates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.backends.openai.prices.encoding_for", lambda family: ("o200k_base", len))
    write(tmp_path, words=2000)
    checked = check_service_data(load(tmp_path), "Qwen3-32B")
    assert checked.train.how == "estimated with o200k_base"
    assert len(notes_on_length(checked)) == 6
    assert "LENGTH: has about 10,0" in notes_on_length(checked)[0]
