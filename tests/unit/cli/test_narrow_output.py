"""Every command prints in every encoding, whatever its files hold."""

import io
import json
import sys
from pathlib import Path

import pytest

from trainer.cli.console import err, out
from trainer.cli.main import trainer
from trainer.config.schema import RunConfig
from trainer.runs import create_run

WIDE = "Grüße “你好” 😀 → …"
GOOD = {"messages": [{"role": "user", "content": WIDE}, {"role": "assistant", "content": f"é {WIDE}"}]}
BAD = {"messages": [{"role": "user", "content": WIDE}, {"role": f"asistant {WIDE}", "content": WIDE}]}
ENCODINGS = ("ascii", "cp1252", "gbk", "utf-8")


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good, bad = (json.dumps(row, ensure_ascii=False) for row in (GOOD, BAD))
    Path("good.jsonl").write_text(
        "".join(f"{good.replace('Grüße', f'Grüße {n}')}\n" for n in range(3)), encoding="utf-8"
    )
    Path("bad.jsonl").write_text(f"{good}\n{bad}\n", encoding="utf-8")
    Path("größe.csv").write_text(f"frage,antwort,你好\n{WIDE},{WIDE},x\n", encoding="utf-8")
    run = create_run(
        RunConfig.model_validate(
            {"model": {"base": f"{WIDE}/x"}, "data": {"train": "größe.jsonl"}, "run": {"name": "a", "root": "runs"}}
        )
    )
    run.set_status("failed", error=WIDE)
    run.event(WIDE)
    losses = "".join(f"{step},{2 / step},,,,,\n" for step in (1, 2, 3))
    header = "step,train_loss,train_mean_token_accuracy,valid_loss,valid_mean_token_accuracy"
    (run.path / "results.csv").write_text(f"{header},full_valid_loss,full_valid_mean_token_accuracy\n{losses}")


def printed(monkeypatch, encoding: str, words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command whose output has this encoding."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    monkeypatch.setattr(sys, "argv", ["trainer", *words.split()])
    with pytest.raises(SystemExit) as end:
        trainer()
    assert isinstance(end.value.code, int)
    texts = [stream.buffer.getvalue().decode(encoding) for stream in streams]  # type: ignore[attr-defined]
    return end.value.code, texts[0], texts[1]


COMMANDS = {
    "data check good.jsonl": 0,
    "data check bad.jsonl": 2,
    "data check 你好.jsonl": 2,
    "data stats good.jsonl": 0,
    "data split bad.jsonl --rows 1 --force": 2,
    "data split good.jsonl --rows 1 --force": 0,
    "data convert größe.csv --columns prompt=frage,answer=antwort --force": 0,
    "runs": 0,
    "show a": 0,
    "logs a": 0,
    "train --config größe.yaml": 2,
    "show 你好": 2,
    "show a\udcff": 2,
    "--help": 0,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.apart
def test_a_command_prints(monkeypatch, encoding, words):
    code, output, said = printed(monkeypatch, encoding, words)
    assert (code, "Unicode" in said) == (COMMANDS[words], False), said
    assert output or said


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("words", ["data check bad.jsonl --format json", "data stats good.jsonl --format json"])
def test_json_stays_json(monkeypatch, encoding, words):
    output = printed(monkeypatch, encoding, words)[1]
    assert json.loads(output)


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "\\u4f60"), ("cp1252", "\\u4f60"), ("utf-8", "你")])
def test_what_is_found_is_still_told(monkeypatch, encoding, shown):
    _, output, said = printed(monkeypatch, encoding, "data check bad.jsonl")
    assert "bad.jsonl:2: ROLE: " in output + said
    assert shown in output + said


def test_pictures_are_drawn_with_ascii(monkeypatch):
    assert "*" in printed(monkeypatch, "cp1252", "show a")[1]
    assert "##########" in printed(monkeypatch, "ascii", "data stats good.jsonl")[1]


def test_the_commands_print_where_python_prints():
    assert (out.file, err.file) == (sys.stdout, sys.stderr)
