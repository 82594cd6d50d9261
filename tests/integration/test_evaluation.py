"""Base and tuned model on held-out rows, with real runs on the tiny model."""

import io
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from tests.commands import performed
from tests.conftest import QUESTIONS
from tests.counting import HELD_OUT, chat_row, counting_config, launch, quiet, write
from tests.documents import document_of
from tests.manifests import rewrite
from trainer.backends.choose import choose
from trainer.backends.contract import Plan
from trainer.backends.local import execute
from trainer.backends.local.resumable import lacks_result
from trainer.backends.quote import Quote
from trainer.cli.documents.verdicts import Verdict
from trainer.config import RunConfig
from trainer.data.render.rendering import IGNORE_INDEX
from trainer.errors import ConfigError, DataError, ExitCode, TrainingError
from trainer.inference.client import Sampling
from trainer.inference.evaluation import local_model
from trainer.inference.evaluation.held_out import find_held_out
from trainer.inference.evaluation.local_model import render_held_out, row_losses
from trainer.inference.local import TunedModel
from trainer.inference.report.standings import Gate, judge
from trainer.inference.tool_calls import Call
from trainer.runs import Run
from trainer.runs.files import sha256_of
from trainer.runs.lifecycle import pending_note
from trainer.runs.ownership import foreign


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def config(folder: Path) -> RunConfig:
    return counting_config(folder)


@pytest.fixture(scope="module")
def run(config: RunConfig) -> Run:
    return launch(config)[0]


@pytest.fixture(scope="module")
def model(run: Run) -> TunedModel:
    return TunedModel(run)


# The comparison


def test_a_run_ends_with_its_comparison(run: Run, config: RunConfig) -> None:
    assert run.state == "succeeded"
    found = run.comparison()
    assert (found["num_rows"], found["num_held_out"], found["notes"]) == (7, 7, [])
    assert found["verdict"]["better"] + found["verdict"]["same"] + found["verdict"]["worse"] == 7
    assert [event["message"] for event in run.events() if event["type"] == "evaluation"] == [
        found["verdict"]["sentence"]
    ]
    assert {path.name for path in run.report.iterdir()} == {
        "report.html", "report.json", "loss.svg", "token_accuracy.svg", "changes.svg",
    }  # fmt: skip


def test_the_tuned_loss_is_that_of_training(run: Run) -> None:
    """The same masks, the same weights, the same rows: the step whose adapter was stored."""
    step = run.status()["adapter_step"]
    (row,) = [row for row in run.results() if row["step"] == step]
    tuned = {measure["key"]: measure["tuned"] for measure in run.comparison()["measures"]}
    assert tuned["loss"] == pytest.approx(row["full_valid_loss"], rel=1e-5)
    assert tuned["token_accuracy"] == pytest.approx(row["full_valid_mean_token_accuracy"])


def test_the_base_loss_is_that_of_the_model_alone(run: Run, model: TunedModel) -> None:
    config = run.config()
    found = find_held_out(run, config)
    _, rows = render_held_out(found, config, config.evaluation, model.renderer, model.max_length)
    losses = row_losses(model, rows, adapter=False)
    from trainer.model.base import find_base
    from trainer.model.loading import load_model

    base = load_model(find_base(config.model), config.model, torch.device("cpu"), torch.float32)
    for row, found in zip(rows, losses, strict=True):
        (example,) = row.examples
        labels = torch.tensor([example.labels])
        with torch.no_grad():
            mean = base(input_ids=torch.tensor([example.input_ids]), labels=labels).loss
        count = int((labels[:, 1:] != IGNORE_INDEX).sum())
        assert found["loss"] == pytest.approx((float(mean) * count, count), rel=1e-4)


def test_every_trained_answer_is_asked_with_the_rows_own_history(run: Run) -> None:
    row = run.comparison()["rows"][-1]
    assert [(answer["message"], answer["reference"]) for answer in row["answers"]] == [(4, "Four."), (6, "Six.")]
    scores = [answer["tuned"]["measures"]["score"] for answer in row["answers"]]
    assert row["score"]["tuned"] == pytest.approx(sum(scores) / 2)
    assert row["sums"]["tuned"]["exact"][1] == 2


def test_a_run_is_told_before_its_comparison_and_ends_with_the_verdict(short: Callable[..., RunConfig]) -> None:
    console = quiet()
    run, outcome = launch(short(), console)
    assert outcome.summary == run.comparison()["verdict"]["sentence"]
    assert said(console).index(run.status()["summary"]) < said(console).index("comparing base and tuned model")


def test_a_comparison_can_be_repeated_and_is_the_same(run: Run) -> None:
    before = run.comparison()
    execute.evaluate(run, quiet())
    times = {"created_at": None, "seconds": None}
    assert run.comparison() | times == before | times


def test_fewer_rows_are_drawn_with_the_runs_seed_and_it_is_said(run: Run) -> None:
    console = quiet()
    first = execute.evaluate(run, console, max_rows=3)
    assert "comparing base and tuned model on 3 of 7 held-out rows, drawn at random with seed 42" in said(console)
    assert first["rows"] == execute.evaluate(run, quiet(), max_rows=3)["rows"]
    assert (first["num_rows"], first["num_held_out"]) == (3, 7)
    assert first["verdict"]["sentence"].startswith("too few different rows to tell: ")
    assert "3 of 7 held-out rows were compared" in Path(first["page"]).read_text()


def test_a_comparison_is_told_to_machines_and_its_gate_ends_the_command(run: Run) -> None:
    words = ("evaluate", str(run.path), "--max-rows", "3", "--gate", "better", "--format", "json")
    done = performed(words, lambda: 0.0)
    found = document_of(done, code=3)
    stored = json.loads(Path(found["page"]).with_suffix(".json").read_text())
    assert found["verdict"]["sentence"] == stored["verdict"]["sentence"]
    assert found["verdict"]["right"] == {"start": None} | stored["verdict"]["right"]
    assert [one["tuned"] for one in found["measures"]] == [one["tuned"] for one in stored["measures"]]
    assert (found["num_rows"], found["num_held_out"], found["is_the_runs_report"]) == (3, 7, False)
    assert found["gate"] == {
        "gate": "better", "holds": False, "against": [{"name": "its base", "kind": "unclear", "holds": False}]
    }  # fmt: skip
    assert "comparing base and tuned model" in done.err


@pytest.mark.slow
def test_a_fuller_report_is_never_replaced_unasked(run: Run, folder: Path) -> None:
    own, before = run.report / "report.json", run.comparison()
    assert before["num_rows"] == 7
    text = own.read_bytes()
    fewer = execute.evaluate(run, quiet(), max_rows=3)
    others = execute.evaluate(run, quiet(), Path(write(folder / "own.jsonl", HELD_OUT[:2])))
    shorter = execute.evaluate(run, quiet(), max_new_tokens=2)
    pages = [Path(found["page"]) for found in (fewer, others, shorter)]
    assert len({run.report / "report.html", *pages}) == 4
    assert all(page.is_file() and page.with_suffix(".json").is_file() for page in pages)
    assert own.read_bytes() == text
    assert foreign(run.path) == []
    assert execute.evaluate(run, quiet(), max_rows=3, replace_report=True)["page"] == str(run.report / "report.html")
    assert run.comparison()["num_rows"] == 3
    execute.evaluate(run, quiet())
    assert run.comparison()["rows"] == before["rows"]


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_rows_of_a_file_are_compared_instead(run: Run, folder: Path) -> None:
    own = Path(write(folder / "own.jsonl", HELD_OUT[:2]))
    found = execute.evaluate(run, quiet(), own)
    assert (found["files"], found["num_rows"]) == ([str(own)], 2)
    assert f"--rows {own}" in Path(found["page"]).read_text()


def test_rows_that_were_trained_on_are_told(run: Run, folder: Path) -> None:
    trained = chat_row(*QUESTIONS[0])
    found = execute.evaluate(run, quiet(), Path(write(folder / "leaked.jsonl", [*HELD_OUT[:2], trained])))
    assert found["notes"] == ["1 of these rows was also trained on: the result looks better than it is"]
    whole = execute.evaluate(run, quiet(), folder / "train.jsonl", max_rows=1)
    assert whole["notes"] == ["18 of these rows were also trained on: the result looks better than it is"]


@pytest.mark.slow
def test_a_changed_validation_file_is_told(config: RunConfig, folder: Path) -> None:
    other = config.model_copy(update={
        "run": config.run.model_copy(update={"name": "changed"}),
        "training": config.training.model_copy(update={"n_epochs": 1}),
        "data": config.data.model_copy(update={"validation": write(folder / "changing.jsonl", HELD_OUT)}),
    })  # fmt: skip
    changed, _ = launch(other)
    assert changed.comparison()["notes"] == []
    train = folder / "train.jsonl"
    write(folder / "changing.jsonl", [*HELD_OUT[:3], json.loads(train.read_text().splitlines()[0])])
    has_changed = f"{folder / 'changing.jsonl'} has changed since the run was trained"
    leaked = "1 of these rows was also trained on: the result looks better than it is"
    assert execute.evaluate(changed, quiet())["notes"] == [leaked, has_changed]
    rows = train.read_bytes()
    train.unlink()
    unknown = f"not checked whether a row was trained on: {train} is gone or has changed"
    assert execute.evaluate(changed, quiet())["notes"] == [has_changed, unknown]
    train.write_bytes(rows)


TOOL = {"type": "function", "function": {"name": "next", "parameters": {
    "type": "object", "properties": {"after": {"type": "integer"}}, "required": ["after"]}}}  # fmt: skip


def call_row(number: int) -> dict[str, Any]:
    function = {"name": "next", "arguments": json.dumps({"after": number})}
    call = {"id": "c", "type": "function", "function": function}
    turns = [
        {"role": "user", "content": f"After {number}?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": str(number + 1)},
        {"role": "assistant", "content": f"It is {number + 1}."},
    ]
    return {"messages": turns, "tools": [TOOL]}


def test_tool_calls_are_compared_and_the_tools_are_kept_for_the_chat(
    short: Callable[..., RunConfig], tmp_path: Path
) -> None:
    rows = [call_row(number) for number in range(17)]
    data = {"train": write(tmp_path / "t.jsonl", rows[:10]), "validation": write(tmp_path / "v.jsonl", rows[10:])}
    run, _ = launch(short(data=data, evaluation={"max_new_tokens": 8}))
    found = run.comparison()
    assert run.manifest().tools == (TOOL,)
    assert (found["notes"], found["settings"]["max_new_tokens"]) == ([], 8)
    counted = {measure["key"]: measure["num_rows"] for measure in found["measures"]}
    assert [counted[key] for key in ("calls", "call_names", "call_choice", "chrf")] == [7, 7, 7, 7]
    call, said = found["rows"][0]["answers"]
    assert (call["message"], call["reference"], said["message"], said["reference"]) == (1, "", 3, "It is 11.")
    assert "after=10" in (run.report / "report.html").read_text()


def test_a_chat_with_tools_takes_the_calls_out_of_the_text(model: TunedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[str] = []

    def say(streamer: Any, input_ids: torch.Tensor, **_: object) -> None:
        prompts.append(model.tokenizer.decode(input_ids[0]))
        streamer.put(input_ids)
        text = 'Wait. <tool_call>{"name": "next", "arguments": {"after": 18}}</tool_call><|im_end|>'
        for token in model.tokenizer(text)["input_ids"]:
            streamer.put(torch.tensor([token]))
        streamer.end()

    monkeypatch.setattr(model.model, "generate", say)
    pieces = list(model.tuned.stream(call_row(18)["messages"][:1], Sampling(), [TOOL]))
    assert pieces[-1] == Call("next", {"after": 18})
    assert "".join(map(str, pieces[:-1])) == "Wait. "
    assert json.dumps(TOOL) in prompts[0]


# A run that trained another one's adapter further


@pytest.fixture(scope="module")
def continued(config: RunConfig, run: Run) -> Run:
    changes = {"model": {"base": str(run.path)}, "training": {"n_epochs": 1}, "run": {"name": "second"}}
    return launch(config.model_copy(
        update={name: getattr(config, name).model_copy(update=values) for name, values in changes.items()}
    ))[0]  # fmt: skip


def test_a_continued_run_is_compared_with_the_one_that_it_came_from(continued: Run, run: Run) -> None:
    first, found = run.comparison(), continued.comparison()
    assert found["models"] == {"base": "base", "start": "counting", "tuned": "tuned"}
    assert (found["verdict"]["against"], set(found["verdict"]["right"])) == ("start", {"base", "start", "tuned"})
    for before, after in zip(first["rows"], found["rows"], strict=True):
        assert [answer["start"] for answer in after["answers"]] == [answer["tuned"] for answer in before["answers"]]
        assert [answer["base"] for answer in after["answers"]] == [answer["base"] for answer in before["answers"]]
        assert after["sums"]["start"]["loss"] == pytest.approx(before["sums"]["tuned"]["loss"])
    loss, from_base = (
        next(measure for measure in found[key] if measure["key"] == "loss")
        for key in ("measures", "measures_from_base")
    )
    assert loss["base"] == pytest.approx(next(m["tuned"] for m in first["measures"] if m["key"] == "loss"))
    assert (from_base["base"], from_base["tuned"]) == (
        pytest.approx(next(m["base"] for m in first["measures"] if m["key"] == "loss")),
        loss["tuned"],
    )
    (row,) = [row for row in continued.results() if row["step"] == continued.status()["adapter_step"]]
    assert loss["tuned"] == pytest.approx(row["full_valid_loss"], rel=1e-5)  # its own adapter is back on
    page = (continued.report / "report.html").read_text()
    for head in ("Base", "counting", "Tuned"):
        assert f'<th class="number">{head}</th>' in page


def test_documents_and_gates_know_what_a_continued_run_is_held_against(continued: Run, run: Run) -> None:
    verdicts = [Verdict.of(each.comparison()) for each in (run, continued)]
    assert [verdict and verdict.against for verdict in verdicts] == ["base", "start"]
    counts = [verdict.right.model_dump() for verdict in verdicts if verdict and verdict.right]
    assert counts[0]["start"] is None
    assert counts[1]["start"] == counts[0]["tuned"]
    gates = [judge(Gate.not_worse, each.comparison()).against[0].name for each in (run, continued)]
    assert gates == ["its base", "counting, which it came from"]


def test_what_the_earlier_run_was_trained_on_was_seen_too(continued: Run, run: Run, folder: Path) -> None:
    """Its training rows are the later one's held-out rows."""
    other = Path(write(folder / "other.jsonl", [chat_row("Why?", f"Because {number}.") for number in range(10)]))
    (file,) = continued.manifest().files("train")
    changed = replace(file, path=str(other), sha256=sha256_of(other))
    before = rewrite(continued, data=(changed, *continued.manifest().files("validation")))
    try:
        found = execute.evaluate(continued, quiet(), folder / "train.jsonl", max_rows=2)
    finally:
        continued.write_manifest(before)
    assert found["notes"] == ["18 of these rows were also trained on: the result looks better than it is"]
    assert found["verdict"]["distinct"]["seen"] == 2


def test_a_continued_run_whose_start_is_gone_is_compared_with_the_base_and_it_is_said(continued: Run, run: Run) -> None:
    weights = run.adapter / "adapter_model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        found = execute.evaluate(continued, quiet())
    finally:
        weights.write_bytes(before)
    assert (found["verdict"]["against"], set(found["models"])) == ("base", {"base", "tuned"})
    assert [note for note in found["notes"] if note.startswith("compared with the base alone, and not with the run")]


# What can go wrong


@pytest.fixture
def short(config: RunConfig, tmp_path: Path) -> Callable[..., RunConfig]:
    """The config of a run of one epoch, with other settings in some sections."""

    def make(**changes: dict[str, Any]) -> RunConfig:
        changes = {"run": {"root": str(tmp_path)}, "training": {"n_epochs": 1}} | changes
        return config.model_copy(
            update={name: getattr(config, name).model_copy(update=values) for name, values in changes.items()}
        )

    return make


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TrainingError("out of memory"), "failed: out of memory; repeat"),
        (RuntimeError("a bug"), "failed: a bug; repeat"),
    ],
)
def test_a_failed_comparison_does_not_fail_the_run(
    short: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, error: BaseException, words: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(local_model, "evaluate", fail)
    run, outcome = launch(short())
    assert (outcome.exit_code, run.state, run.comparison()) == (ExitCode.DONE, "succeeded", {})
    (warning,) = [event["message"] for event in run.events() if event["level"] == "warning"]
    assert words in warning
    assert warning.endswith(f"with: trainer evaluate {run.path}")
    assert warning == outcome.summary


def test_a_comparison_that_was_stopped_is_made_by_a_resume_and_nothing_else_is(
    short: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    with monkeypatch.context() as patched:
        patched.setattr(local_model, "evaluate", stop)
        run, outcome = launch(short())
    assert (outcome.exit_code, run.state, run.comparison()) == (ExitCode.RESUMABLE, "succeeded", {})
    assert outcome.summary == (
        f"the run is trained; its comparison with the base was interrupted; make it with: trainer resume {run.path}"
    )
    note = f"trained; its comparison with the base is missing; make it with: trainer resume {run.path}"
    for words in (("show", str(run.path)), ("logs", str(run.path)), ("logs", "--follow", str(run.path))):
        done = performed(words, lambda: 0.0)
        assert (done.code, note in done.out + done.err) == (0, True), words
    kept = {
        path: path.stat().st_mtime_ns for path in (*run.adapter.iterdir(), *run.measured, *run.checkpoints.rglob("*"))
    }
    with pytest.raises(ConfigError, match="lacks only its comparison, expected no overrides"):
        execute.resume(run, quiet(), print, ["training.n_epochs=9"])
    with monkeypatch.context() as patched:
        patched.setattr(execute, "_prepare", None)  # neither data nor a model to train is asked for
        outcome = execute.resume(run, quiet(), print)
    assert (outcome.exit_code, outcome.summary) == (ExitCode.DONE, run.comparison()["verdict"]["sentence"])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert pending_note(run) is None
    with pytest.raises(ConfigError, match="is succeeded, expected an unfinished run"):
        execute.resume(run, quiet(), print)


def test_a_job_that_is_started_again_makes_the_comparison(
    short: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise SystemExit  # as little is written as by a kill

    with monkeypatch.context() as patched:
        patched.setattr(local_model, "evaluate", killed)
        with pytest.raises(SystemExit):
            launch(short())
    prepared = execute.check(short(), print, may_exist=True).details
    run = choose("local").create(Plan(prepared.config, Quote((), ""), (), prepared), may_exist=True)
    assert (run.state, run.comparison()) == ("succeeded", {})
    outcome = execute.train(prepared, run, quiet())
    assert (outcome.exit_code, outcome.summary) == (ExitCode.DONE, run.comparison()["verdict"]["sentence"])
    assert execute.train(prepared, run, quiet()).summary == f"run {run.name!r} has finished already"


def test_a_report_that_mlflow_lacks_is_stored_by_a_resume(
    short: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = launch(short())
    assert not lacks_result(run)
    before = (run.report / "report.json").read_bytes()
    run.event("logged to MLflow", kind="mlflow", run_id="1")
    assert lacks_result(run)
    execute.resume(run, quiet(), print)
    assert (run.report / "report.json").read_bytes() == before


def test_without_held_out_rows_it_is_said_and_a_file_is_asked_for(short: Callable[..., RunConfig]) -> None:
    run, outcome = launch(short(data={"validation": None}))
    assert (outcome.exit_code, run.state, run.report.exists()) == (ExitCode.DONE, "succeeded", False)
    advice = f"hold some out: trainer evaluate {run.path} --rows FILE"
    assert outcome.summary == f"no rows were held out, so nothing shows whether it got better; {advice}"
    with pytest.raises(ConfigError, match="has no held-out rows") as caught:
        execute.evaluate(run, quiet())
    assert str(caught.value) == (
        f"run 'counting': has no held-out rows (data.validation is not set), expected a file of them; "
        f"run: trainer evaluate {run.path} --rows FILE"
    )


def test_a_switched_off_comparison_says_nothing(short: Callable[..., RunConfig]) -> None:
    console = quiet()
    run, outcome = launch(short(evaluation={"enabled": False}), console)
    assert (run.report.exists(), outcome.summary) == (False, run.status()["summary"])
    assert "comparing" not in said(console)


def test_the_report_is_an_artifact_in_mlflow(
    short: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    run, _ = launch(short(tracking={"report_to": ["mlflow"]}))
    (logged,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    stored = {file.path for file in mlflow.MlflowClient().list_artifacts(logged.info.run_id, "report")}
    assert stored == {f"report/{path.name}" for path in run.report.iterdir()}
    execute.evaluate(run, quiet(), max_rows=3)
    stored = {file.path for file in mlflow.MlflowClient().list_artifacts(logged.info.run_id, "report")}
    assert stored == {f"report/{path.name}" for path in run.report.iterdir()}
    page = mlflow.artifacts.load_text(f"runs:/{logged.info.run_id}/report/report.html")
    assert page == (run.report / "report.html").read_text()


def test_a_tracker_that_fails_does_not_undo_the_report(
    short: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    run, _ = launch(short(tracking={"report_to": ["mlflow"]}))
    run.event("logged to MLflow", kind="mlflow", run_id="0" * 32)
    console = quiet()
    assert execute.evaluate(run, console, max_rows=3)["num_rows"] == 3
    assert "the report was not stored in MLflow: " in said(console)


@pytest.fixture
def untouched(run: Run) -> Iterator[None]:
    """A refused comparison leaves the earlier report as it was."""
    before = {path: path.read_bytes() for path in run.report.iterdir()}
    yield
    assert {path: path.read_bytes() for path in run.report.iterdir()} == before


@pytest.mark.usefixtures("untouched")
def test_rows_with_errors_are_refused_all_at_once(run: Run, tmp_path: Path) -> None:
    rows = [{"messages": []}, HELD_OUT[0], {"messages": [{"role": "human", "content": "Hi"}]}]
    with pytest.raises(DataError) as caught:
        execute.evaluate(run, quiet(), Path(write(tmp_path / "bad.jsonl", rows)))
    assert {problem.partition(": ")[0].rpartition(":")[2] for problem in caught.value.problems} >= {"1", "3"}


@pytest.mark.usefixtures("untouched")
def test_rows_that_are_too_long_are_refused(run: Run, tmp_path: Path) -> None:
    long = {"messages": [{"role": "user", "content": "word " * 3000}, {"role": "assistant", "content": "No."}]}
    with pytest.raises(DataError) as caught:
        execute.evaluate(run, quiet(), Path(write(tmp_path / "long.jsonl", [HELD_OUT[0], long])))
    summary, place = caught.value.problems
    assert summary.startswith("data.max_length: 1 row exceeds 2048 tokens")
    assert place.startswith(f"{tmp_path / 'long.jsonl'}:2: LENGTH: has ")


@pytest.mark.usefixtures("untouched")
def test_a_file_that_is_not_there_is_told(run: Run, folder: Path) -> None:
    with pytest.raises(DataError, match=r"the file does not exist, .*did you mean .*held\.jsonl\?"):
        execute.evaluate(run, quiet(), folder / "hold.jsonl")


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("base", "words"),
    [
        ({"revision": "another"}, "run 'counting': its base 'builtin:tiny' has changed since training: was "),
        ({"name": "gone", "weights_sha256": "1" * 64}, "model.base: 'gone' was not found as a folder here nor on the"),
    ],
)
def test_a_base_that_is_gone_or_another_is_told(run: Run, base: dict[str, str], words: str) -> None:
    before = rewrite(run, base=replace(run.manifest().base, **base))
    try:
        with pytest.raises(ConfigError) as caught:
            execute.evaluate(run, quiet())
    finally:
        run.write_manifest(before)
    assert str(caught.value).startswith(words)


@pytest.mark.usefixtures("untouched")
def test_a_full_disk_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.inference.report.run_report.files.write_whole", full)
    with pytest.raises(TrainingError, match="cannot be written: No space left on device"):
        execute.evaluate(run, quiet(), max_rows=1)
