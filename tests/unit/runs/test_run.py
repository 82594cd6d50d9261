"""The run directory: made whole, never overwritten, readable at any instant, honest about a process that is gone."""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.manifests import LAUNCH, manifest
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError
from trainer.runs import Run, create_run, find_run, list_runs
from trainer.runs.checkpoint import write
from trainer.runs.files import append_line, read_lines, write_json, write_whole
from trainer.runs.lifecycle import further
from trainer.runs.ownership import MARKER
from trainer.runs.process import this_process
from trainer.runs.results import COLUMNS

ROW = {
    "step": 1,
    "train_loss": 2.5,
    "train_mean_token_accuracy": 0.25,
    "valid_loss": 3.0,
    "valid_mean_token_accuracy": 0.125,
    "full_valid_loss": 3.5,
    "full_valid_mean_token_accuracy": 0.0,
}
TORN = ["{", '{"step": 2, "lo', '{"step": 2}', '"é'.encode()[:-1]]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def config(base: str = "builtin:tiny", **run: str) -> RunConfig:
    return RunConfig.model_validate({"model": {"base": base}, "data": {"train": "a.jsonl"}, "run": run})


@pytest.fixture
def run() -> Run:
    return create_run(config(name="one"))


def refusal(*arguments, of=create_run) -> str:
    with pytest.raises(ConfigError) as caught:
        of(*arguments)
    return str(caught.value)


def append_raw(path: Path, content: str | bytes) -> None:
    with path.open("ab") as file:
        file.write(content.encode() if isinstance(content, str) else content)


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# Creating a run


def test_a_run_is_created_under_its_name():
    run = create_run(config(name="one"))
    assert (run.path, run.name) == (Path("runs/one"), "one")
    assert sorted(path.name for path in run.path.iterdir()) == [MARKER, "checkpoints", "config.yaml", "status.json"]


def test_a_created_run_keeps_its_config(run):
    assert run.config() == config(name="one")
    assert Run(run.path).config() == config(name="one")


def test_a_created_run_validates_files_in_this_process(run):
    status = run.status()
    assert status["state"] == run.state == "validating_files"
    assert {key: status[key] for key in this_process()} == this_process()
    assert status["created_at"] <= status["updated_at"]


@pytest.mark.parametrize(
    ("base", "suffix", "ending"),
    [
        ("builtin:tiny", None, "builtin-tiny"),
        ("builtin:tiny", "glossary", "builtin-tiny-glossary"),
        ("meta-llama/Llama-3.1-8B-Instruct", None, "Llama-3.1-8B-Instruct"),
        ("models/mine/", "x", "mine-x"),
        ("runs/earlier@12", None, "earlier-12"),
    ],
)
def test_a_run_without_a_name_is_called_by_time_base_and_suffix(base, suffix, ending):
    run = create_run(config(base, **({"suffix": suffix} if suffix else {})))
    assert re.fullmatch(rf"\d{{8}}-\d{{6}}-{re.escape(ending)}", run.name)
    assert run.path.parent == Path("runs")


def test_runs_started_in_the_same_second_get_folders_of_their_own():
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: create_run(config()), range(24)))
    assert len({run.path for run in runs}) == 24
    numbered = [run.name for run in runs if re.search(r"tiny-\d+$", run.name)]
    assert numbered, "24 runs in less than 24 seconds share at least one second"
    assert all(run.config() == config() for run in runs)


def test_an_existing_run_is_never_overwritten(run):
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert refusal(config(name="one")) == (
        "run.name: 'one' exists in 'runs', expected a new name; choose another, or wait for it: trainer logs "
        "runs/one --follow"
    )
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("state", "advice"),
    [
        ("paused", "resume with: train --resume runs/one"),
        ("failed", "resume with: train --resume runs/one"),
        ("running", "wait for it: trainer logs runs/one --follow"),
        ("cancelled", "to train on from its last checkpoint start a new run with model.base=runs/one@8"),
        ("succeeded", "to train on from its last checkpoint start a new run with model.base=runs/one@8"),
    ],
)
def test_advice_is_what_the_next_command_takes(run, state, advice):
    for step in (4, 8):
        write(run.checkpoints, step, {"adapter_model.safetensors": b"x"}, {})
    run.set_status(state)
    assert further(run) == advice
    assert refusal(config(name="one")).endswith(f"choose another, or {advice}")


def test_without_a_checkpoint_a_cancelled_run_is_no_base(run):
    run.set_status("cancelled")
    assert further(run) == "it holds no checkpoint to resume from; start a new run"
    assert refusal(config(name="one")).endswith("choose another, or remove that run with: trainer delete runs/one")


def test_a_run_is_its_owner_s_where_the_root_is_no_group_s(run):
    assert run.path.stat().st_mode & 0o777 == 0o700
    Path("shared").mkdir()
    Path("shared").chmod(0o775)
    assert create_run(config(name="one", root="shared")).path.stat().st_mode & 0o050 == 0o050


def test_a_folder_that_is_no_run_is_not_overwritten_either():
    Path("runs/one").mkdir(parents=True)
    assert refusal(config(name="one")).startswith("run.name: 'one' exists in 'runs', expected a new name;")


def test_a_root_that_is_a_file_cannot_be_written():
    Path("taken").touch()
    expected = "run.root: 'taken' is a file, expected a folder; choose another"
    assert refusal(config(root="taken")) == expected


def test_a_root_below_a_file_cannot_be_written():
    Path("taken").touch()
    expected = "run.root: 'taken/runs' cannot be written: Not a directory; choose another folder"
    assert refusal(config(root="taken/runs")) == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_root_without_permission_cannot_be_written():
    Path("closed").mkdir(mode=0o555)
    expected = "run.root: 'closed' cannot be written: Permission denied; choose another folder"
    assert refusal(config(root="closed")) == expected


def test_a_run_that_cannot_be_written_leaves_no_folder_behind(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full_disk)
        message = refusal(config(name="one"))
    assert message == "run.root: 'runs' cannot be written: No space left on device; choose another folder"
    assert list(Path("runs").iterdir()) == []
    assert create_run(config(name="one")).name == "one"


# Status


def test_a_running_run_whose_process_lives_is_running(run):
    run.set_status("running")
    assert run.state == "running"


@pytest.mark.apart
def test_a_queued_run_waits_for_the_process_that_was_launched_for_it(run):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run.launched(child.pid)
    run.set_status("queued", pid=2**22 + 1)
    assert (run.state, run.is_launched) == ("queued", True)
    child.communicate()
    assert (run.state, run.is_launched) == ("paused", False)


@pytest.mark.parametrize("pid", ["1", None, -1, 0, 2**70, True, [], "x"])
def test_a_pid_that_is_no_number_is_no_process(run, pid):
    run.set_status("running")
    status = json.loads((run.path / "status.json").read_text())
    (run.path / "status.json").write_text(json.dumps(status | {"pid": pid}))
    assert run.state == "paused"


@pytest.mark.apart
@pytest.mark.parametrize("state", ["queued", "running", "validating_files"])
def test_a_run_whose_process_is_gone_is_paused(run, state):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    run.set_status(state, pid=gone.pid)
    assert run.state == run.status()["state"] == "paused"


@pytest.mark.apart
def test_a_run_whose_process_id_is_used_by_another_process_is_paused(run):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run.set_status("running", pid=other.pid)
    try:
        assert run.state == "paused"
    finally:
        other.communicate()


@pytest.mark.apart
def test_a_run_of_another_process_that_lives_is_running(run):
    code = (
        "import sys\nfrom pathlib import Path\nfrom trainer.runs import Run\n"
        "Run(Path('runs/one')).set_status('running')\nprint('set', flush=True)\ninput()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "set\n"
    assert (run.state, run.status()["pid"]) == ("running", other.pid)
    other.kill()
    other.communicate()
    assert run.state == "paused"


def test_a_process_of_another_container_is_not_asked_for_by_its_pid(run):
    run.set_status("running", pid=2**22 + 1, pid_namespace="pid:[1]")
    assert run.state == "running"


def test_a_process_from_before_this_host_was_booted_is_gone(run):
    run.set_status("running", boot_id="0")
    assert run.state == "paused"


def test_a_run_on_another_host_is_taken_at_its_word(run):
    run.set_status("running", host=f"not-{socket.gethostname()}", pid=1, pid_started="0")
    assert run.state == "running"


@pytest.mark.parametrize("state", ["paused", "succeeded", "failed", "cancelled"])
def test_a_state_without_a_process_stays_when_the_process_is_gone(run, state):
    run.set_status(state, pid=2**22 + 1)
    assert run.state == state


def test_reading_a_status_does_not_change_it(run):
    run.set_status("running", pid=2**22 + 1)
    before = (run.path / "status.json").read_bytes()
    assert run.state == "paused"
    assert (run.path / "status.json").read_bytes() == before


def test_a_new_status_keeps_earlier_details(run):
    created_at = run.status()["created_at"]
    run.set_status("running", step=3, total_steps=9)
    run.set_status("paused", step=4)
    status = run.status()
    found = {key: status[key] for key in ("state", "step", "total_steps", "created_at")}
    assert found == {"state": "paused", "step": 4, "total_steps": 9, "created_at": created_at}


def test_a_detail_of_none_is_removed(run):
    run.set_status("failed", error="broken", step=3)
    run.set_status("running", error=None)
    assert "error" not in run.status()
    assert run.status()["step"] == 3


def test_a_folder_without_a_status_is_queued(run):
    (run.path / "status.json").unlink()
    assert run.status() == {"state": "queued"}


def test_a_manifest_is_read_as_it_was_written(run):
    assert run.find_manifest() is None
    with pytest.raises(ConfigError, match=r"manifest\.json: does not say what the run was made from"):
        run.manifest()
    for made_from in (manifest(), manifest(launch=LAUNCH), manifest(fingerprint={"é": None}, system_prompt="é")):
        run.write_manifest(made_from)
        assert run.manifest() == made_from


# Logs


def test_events_are_read_back_in_order(run):
    run.event("first")
    run.event("zweite\nZeile", level="warning", kind="metrics", step=3)
    first, second = run.events()
    assert {**first, "created_at": ""} == {
        "created_at": "",
        "level": "info",
        "type": "message",
        "message": "first",
        "data": {},
    }
    found = {key: second[key] for key in ("level", "type", "message", "data")}
    assert found == {"level": "warning", "type": "metrics", "message": "zweite\nZeile", "data": {"step": 3}}
    assert first["created_at"] <= second["created_at"]


def test_a_run_without_logs_has_none(run):
    assert (list(run.events()), list(run.metrics()), run.results()) == ([], [], [])


@pytest.mark.parametrize("torn", TORN)
def test_a_line_that_a_crash_cut_short_is_left_out(run, torn):
    run.append_metrics({"step": 1})
    append_raw(run.path / "metrics.jsonl", torn)
    assert list(run.metrics()) == [{"step": 1}]
    run.event("kept")
    append_raw(run.path / "events.jsonl", torn)
    assert [event["message"] for event in run.events()] == ["kept"]


@pytest.mark.parametrize("torn", TORN)
def test_a_line_after_one_that_was_cut_short_is_kept(run, torn):
    run.event("before")
    append_raw(run.path / "events.jsonl", torn)
    run.event("after")
    messages = [event["message"] for event in run.events() if "message" in event]
    assert messages == ["before", "after"]


def test_a_damaged_line_hides_no_other():
    path = Path("log.jsonl")
    path.write_text('{"a": 1}\nnot json\n[1]\n\n{"a": 2}\n')
    assert list(read_lines(path)) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_have_is_not_written(run, number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.append_metrics({"loss": number})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(run.path / "x.json", {"loss": number})
    assert list(run.metrics()) == []
    assert not (run.path / "x.json").exists()


def test_lines_of_several_threads_do_not_mix():
    path = Path("log.jsonl")
    entries = [{"number": number, "text": "x" * 3000} for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda entry: append_line(path, entry), entries))
    assert sorted(read_lines(path), key=lambda entry: entry["number"]) == entries


# Results


def test_results_are_read_back_equal(run):
    rows = [ROW, {**ROW, "step": 2, "train_loss": 1.25}]
    for row in rows:
        run.append_result(row)
    assert run.results() == rows


def test_the_columns_of_results_are_those_of_the_fine_tuning_service(run):
    run.append_result(ROW)
    header, line = (run.path / "results.csv").read_text().splitlines()
    assert header == (
        "step,train_loss,train_mean_token_accuracy,valid_loss,valid_mean_token_accuracy,"
        "full_valid_loss,full_valid_mean_token_accuracy"
    )
    assert line == "1,2.5,0.25,3,0.125,3.5,0"
    assert tuple(ROW) == COLUMNS


def test_what_was_not_measured_is_absent(run):
    run.append_result({"step": 1, "train_loss": 0.0})
    assert run.results() == [{"step": 1, "train_loss": 0.0}]


@pytest.mark.parametrize("torn", ["3", "3,", "3,1.5,0.2", "3,1.5,0.25,1,1,1,1"])
def test_a_result_that_a_crash_cut_short_is_left_out(run, torn):
    run.append_result(ROW)
    append_raw(run.path / "results.csv", torn)
    assert run.results() == [ROW]


def test_results_of_which_only_half_a_header_was_written_are_empty(run):
    append_raw(run.path / "results.csv", "step,train_l")
    assert run.results() == []


# Finding runs


def test_a_run_is_found_by_its_name_and_by_its_folder(run):
    assert find_run("one", Path("runs")).path == run.path
    assert find_run("runs/one", Path("elsewhere")).path == run.path
    assert find_run(str(run.path.resolve()), Path("elsewhere")).name == "one"


@pytest.mark.parametrize("asked", ["on", "onne", "runs/onw"])
def test_a_run_that_is_not_there_is_told_with_the_one_that_was_meant(run, asked):
    assert refusal(asked, Path("runs"), of=find_run) == (
        f"run {asked!r}: not found in 'runs', did you mean one?; list the runs with: trainer runs"
    )


def test_a_run_unlike_any_other_is_told(run):
    expected = "run 'zzz': not found in 'runs'; list the runs with: trainer runs"
    assert refusal("zzz", Path("runs"), of=find_run) == expected


def test_a_folder_that_is_no_run_is_not_found():
    Path("runs/empty").mkdir(parents=True)
    expected = "run 'empty': not found in 'runs'; list the runs with: trainer runs"
    assert refusal("empty", Path("runs"), of=find_run) == expected


def test_runs_are_listed_oldest_first():
    for name, created_at in [("b", "2026-01-02"), ("c", "2026-01-01"), ("a", "2026-01-03"), ("d", "2026-01-03")]:
        create_run(config(name=name)).set_status("paused", created_at=created_at)
    Path("runs/no-run").mkdir()
    Path("runs/file").touch()
    assert [run.name for run in list_runs(Path("runs"))] == ["c", "b", "a", "d"]


def test_without_a_root_there_are_no_runs():
    assert list_runs(Path("runs")) == []


def test_a_deleted_run_is_gone_with_everything_in_it(run):
    (run.checkpoints / "step-1").mkdir()
    create_run(config(name="two"))
    run.delete()
    assert [path.name for path in Path("runs").iterdir()] == ["two"]


# Whole files


@pytest.mark.parametrize("content", ["new é\n", b"\x00\xff", ""])
def test_a_file_is_replaced_whole(content):
    path = Path("file")
    path.write_text("old")
    write_whole(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(Path().iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(call, monkeypatch):
    path = Path("file")
    path.write_text("old")
    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), full_disk)
    with pytest.raises(OSError, match="No space left on device"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(Path().iterdir()) == [path]


def test_the_content_is_on_disk_before_it_takes_the_name(monkeypatch):
    path, seen = Path("file"), []
    path.write_text("old")
    fsync = os.fsync

    def spy(handle: int) -> None:
        seen.append(path.read_text())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", spy)
    write_whole(path, "new")
    assert seen == ["old", "new"], "the file is flushed under its temporary name, the folder after the renaming"


WRITER = """
import itertools
from pathlib import Path
from trainer.runs import Run

run = Run(Path("runs/one"))
for step in itertools.count():
    run.set_status("running", step=step, padding="x" * 20_000)
    if step == 0:
        print("writing", flush=True)
"""


@pytest.mark.apart
def test_a_status_is_whole_however_often_its_writer_is_killed(run):
    steps = []
    for round_number in range(20):
        writer = subprocess.Popen([sys.executable, "-c", WRITER], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        time.sleep(0.002 * round_number)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert writer.returncode == -signal.SIGKILL
        status = json.loads((run.path / "status.json").read_bytes())
        assert (len(status["padding"]), status["pid"]) == (20_000, writer.pid)
        steps.append(status["step"])
    assert any(step > 0 for step in steps), "a writer was killed while it rewrote the file"
    assert run.state == "paused"
