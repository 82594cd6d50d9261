"""The openai backend against a small service on 127.0.0.1, through the real SDK."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.loopback import FAULTS, Fault, Kill, Loopback, Request, Response, status
from tests.tuning import MODEL, Tuning
from trainer.backends.openai.backend import OpenAIService
from trainer.config.load import dump_config, load_config
from trainer.config.schema import RunConfig
from trainer.errors import BackendError, ConfigError, DataError
from trainer.inference.client import Sampling
from trainer.inference.tool_calls import Call
from trainer.runs import Run, create_run
from trainer.runs.checkpoint import list_checkpoints
from trainer.runs.ledger import Ledger

CREATING = ("/files", "/fine_tuning/jobs")
JOB = 4  # counted from 0: the job's creation comes after two files and a look at each
SHARP = ("timeout after", "reset after", "truncated body", "429 Retry-After 1e9", "500 after", "an HTML page with 200")
Settings = Callable[..., RunConfig]


def quiet(message: str) -> None:
    return


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "OPENAI_API_KEY": "test-key", "AZURE_OPENAI_API_KEY": "test-key", "TRAINER_PATIENCE_SECONDS": "3",
        "TRAINER_TIMEOUT_SECONDS": "2",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    for name in ("OPENAI_BASE_URL", "AZURE_OPENAI_ENDPOINT", "AZURE_SUBSCRIPTION_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("trainer.backends.http.FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr("trainer.backends.once.FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr("trainer.backends.http.MOST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr("trainer.backends.openai.backend.FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr("trainer.backends.openai.upload.FIRST_WAIT_SECONDS", 0.01)


@pytest.fixture
def tuning() -> Tuning:
    return Tuning()


@pytest.fixture
def loopback(tuning: Tuning) -> Iterator[Loopback]:
    with Loopback(tuning) as service:
        service.hang_seconds = 2.5
        yield service


@pytest.fixture
def settings(tmp_path: Path, loopback: Loopback) -> Settings:
    rows(tmp_path / "train.jsonl", 12)
    rows(tmp_path / "validation.jsonl", 8, "held out")

    def load(*overrides: str, service: str = "openai") -> RunConfig:
        file = tmp_path / "config.yaml"
        url = f"{loopback.url}/v1" if service == "openai" else loopback.url
        file.write_text(
            f"model: {{base: {MODEL}}}\n"
            f"data: {{train: {tmp_path}/train.jsonl, validation: {tmp_path}/validation.jsonl}}\n"
            "backend: {kind: openai}\n"
            f"openai: {{service: {service}, base_url: '{url}'}}\n"
            f"run: {{root: {tmp_path}/runs, name: one}}\n"
            "evaluation: {enabled: false}\n"
        )
        return load_config(file, overrides)

    return load


def rows(path: Path, count: int, word: str = "trained") -> None:
    lines = [
        {
            "messages": [
                {"role": "system", "content": "You explain."},
                {"role": "user", "content": f"what is {word} {number}?"},
                {"role": "assistant", "content": f"tuned answer, {word} {number}"},
            ]
        }
        for number in range(count)
    ]
    path.write_text("\n\n".join(map(json.dumps, lines)) + "\n")  # blank lines are no rows


def run_to_end(config: RunConfig) -> Run:
    backend = OpenAIService()
    plan = backend.check(config, quiet)
    run = create_run(plan.config)
    backend.launch(plan, run, quiet)
    backend.follow(run, quiet)
    return run


def is_post(path: str) -> Callable[[Request], bool]:
    return lambda request: request.method == "POST" and request.path.endswith(path)


def snapshot(run: Run) -> dict[str, bytes]:
    return {str(file.relative_to(run.path)): file.read_bytes() for file in run.path.rglob("*") if file.is_file()}


def test_a_run_ends_with_the_files_of_every_run(settings: Settings, tuning: Tuning) -> None:
    run = run_to_end(settings())
    assert run.state == "succeeded"
    assert run.status()["fine_tuned_model"] == f"ft:{MODEL}:org::ftjob-1"
    assert run.results() == [
        {"step": 1, "train_loss": 2.0, "train_mean_token_accuracy": 0.5},
        {"step": 2, "train_loss": 1.5, "train_mean_token_accuracy": 0.6, "valid_loss": 1.75,
         "valid_mean_token_accuracy": 0.55, "full_valid_loss": 1.8},
    ]  # fmt: skip
    training = run.config().training
    resolved = (training.n_epochs, training.batch_size, training.learning_rate_multiplier, training.seed)
    assert resolved == (3, 4, 0.5, 7)
    messages = [event["message"] for event in run.events() if event["message"].startswith("look")]
    assert messages == ["look 0", "look 1", "look 2", "look 3"]
    [checkpoint] = list_checkpoints(run.checkpoints)
    assert checkpoint.problem() is None
    assert checkpoint.state()["model"] == f"ft:{MODEL}:org::ftjob-1:ckpt-step-2"
    assert {entry.thing.kind: entry.step for entry in Ledger(run.path).entries()} == {
        "file": "exists", "job": "exists", "model": "exists",
    }  # fmt: skip
    assert Ledger(run.path).billing() == []


FOREIGN = {"lora", "memory", "tracking", "azureml"}


@pytest.mark.parametrize("service", ["openai", "azure"])
@pytest.mark.parametrize("compared", ["true", "false"])
def test_the_run_s_config_holds_what_means_something_to_the_service_and_no_auto(
    service: str, compared: str, settings: Settings, tuning: Tuning
) -> None:
    tuning.azure = service == "azure"
    run = run_to_end(settings(f"evaluation.enabled={compared}", service=service))
    text = (run.path / "config.yaml").read_text()
    assert "auto" not in text
    written = yaml.safe_load(text)
    assert set(written) == set(RunConfig.model_fields) - FOREIGN
    assert set(written["model"]) == {"base"}
    assert set(written["training"]) == {"method", "n_epochs", "batch_size", "learning_rate_multiplier", "seed"}
    assert ("subscription" in written["openai"]) == (service == "azure")
    assert written["data"]["max_length"] == 65_536


def test_a_run_that_wrote_every_setting_down_is_read_and_brought_up_to_date(settings: Settings) -> None:
    run = run_to_end(settings())
    before, file = snapshot(run), run.path / "config.yaml"
    everything = yaml.safe_dump(run.config().model_dump(mode="json"), sort_keys=False)
    assert "lora:" in everything
    file.write_text(everything)
    OpenAIService().refresh(run, quiet)
    assert snapshot(run) | {"config.yaml": b""} == before | {"config.yaml": b""}
    assert dump_config(run.config()).encode() == before["config.yaml"]


def test_a_second_refresh_changes_nothing(settings: Settings) -> None:
    run = run_to_end(settings())
    before = snapshot(run)
    OpenAIService().refresh(run, quiet)
    assert snapshot(run) == before


def test_rows_are_uploaded_as_they_are_without_blank_lines(settings: Settings, tuning: Tuning, tmp_path: Path) -> None:
    run_to_end(settings())
    expected = b"".join(line for line in (tmp_path / "train.jsonl").read_bytes().splitlines(True) if line.strip())
    assert tuning.contents["file-1"] == expected


def test_a_byte_order_mark_is_written_where_it_is_asked_for(settings: Settings, tuning: Tuning) -> None:
    run_to_end(settings("openai.file_bom=true"))
    assert tuning.contents["file-1"].startswith(b"\xef\xbb\xbf{")


def test_openai_gets_auto_and_our_token(settings: Settings, tuning: Tuning) -> None:
    run = run_to_end(settings())
    [body] = tuning.bodies
    assert body["method"]["supervised"]["hyperparameters"] == {
        "n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto",
    }  # fmt: skip
    assert body["metadata"] == {"trainer_run": "one", "trainer_token": run.manifest()["token"]}
    assert "trainingType" not in body
    assert "seed" not in body


def test_azure_always_gets_a_training_type(settings: Settings, tuning: Tuning) -> None:
    tuning.azure, tuning.script = True, ["pending", "running", "running", "succeeded"]
    run = run_to_end(settings(service="azure"))
    assert tuning.bodies[0]["trainingType"] == "Standard"
    assert run.config().openai.training_type == "Standard"
    assert run.status()["model_until"] == "2031-10-17"
    assert run.state == "succeeded"


def test_a_dated_api_gets_numbers_only(settings: Settings, tuning: Tuning, loopback: Loopback) -> None:
    tuning.azure = True
    run_to_end(settings("openai.api_version=2024-10-21", "training.n_epochs=2", service="azure"))
    [body] = tuning.bodies
    assert body["hyperparameters"] == {"n_epochs": 2}
    assert "method" not in body
    assert "metadata" not in body
    created = next(request for request in loopback.requests if request.body and request.path.endswith("/jobs"))
    assert created.path == "/openai/fine_tuning/jobs"
    assert created.query == {"api-version": "2024-10-21"}


def test_a_401_is_asked_again_once(settings: Settings, tuning: Tuning, loopback: Loopback) -> None:
    loopback.faults = [Fault("401", match=is_post("/jobs"), answer=status(401))]
    assert run_to_end(settings()).state == "succeeded"
    assert len(tuning.jobs) == 1


@pytest.mark.parametrize("path", CREATING)
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.name in SHARP], ids=lambda fault: fault.name)
def test_a_fault_never_makes_two(
    fault: Fault, path: str, settings: Settings, tuning: Tuning, loopback: Loopback
) -> None:
    backend = OpenAIService()
    plan = backend.check(settings(), quiet)
    run = create_run(plan.config)
    loopback.faults = [fault.fresh(is_post(path))]
    try:
        backend.launch(plan, run, quiet)
    except BackendError:
        backend.resume(run, quiet)
    assert (len(tuning.files), len(tuning.jobs)) == (2, 1)
    made = {entry.facts["id"] for entry in Ledger(run.path).open()}
    assert made == {*tuning.files, *tuning.jobs}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", [pytest.param(n, marks=() if n == JOB else pytest.mark.long) for n in range(7)])
def test_a_killed_launch_goes_on_to_one_job(
    number: int, after: bool, settings: Settings, tuning: Tuning, loopback: Loopback, tmp_path: Path
) -> None:
    settings()
    words = [sys.executable, "-m", "trainer", "train"]
    start = [*words, "--config", str(tmp_path / "config.yaml"), "--yes"]
    process: list[int] = []
    counted: list[Request] = []

    def nth(request: Request) -> bool:
        counted.append(request)
        return len(counted) == number + 3  # two lists come first, before there is a run

    loopback.kills = [Kill(nth, after, lambda: process[0])]
    started = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process.append(started.pid)
    assert started.wait(60) == -signal.SIGKILL
    again = subprocess.run([*words, "--resume", str(tmp_path / "runs" / "one")], capture_output=True, timeout=60)
    assert again.returncode == 0, again.stderr.decode()
    assert (len(tuning.files), len(tuning.jobs)) == (2, 1)
    assert Run(tmp_path / "runs" / "one").state == "succeeded"


def test_a_file_that_is_refused_names_the_row(settings: Settings, tuning: Tuning, tmp_path: Path) -> None:
    tuning.file_states = ["pending", "error"]
    with pytest.raises(BackendError, match=r"invalid schema at line 2 \(.*train\.jsonl:3\); correct the rows"):
        run_to_end(settings())
    assert Run(tmp_path / "runs" / "one").state == "failed"
    assert tuning.jobs == {}


def test_a_failed_job_tells_why(settings: Settings, tuning: Tuning) -> None:
    tuning.script = ["running", "failed"]
    run = run_to_end(settings())
    assert run.state == "failed"
    assert run.status()["error"] == "invalid: training_file: the rows are unsafe"


def test_changed_rows_are_not_uploaded(settings: Settings, loopback: Loopback, tmp_path: Path) -> None:
    backend = OpenAIService()
    plan = backend.check(settings(), quiet)
    run = create_run(plan.config)
    rows(tmp_path / "train.jsonl", 13)
    with pytest.raises(DataError, match="has changed since the run was checked"):
        backend.launch(plan, run, quiet)


def test_pause_and_resume(settings: Settings, tuning: Tuning) -> None:
    tuning.script = ["running"]
    backend = OpenAIService()
    plan = backend.check(settings(), quiet)
    run = create_run(plan.config)
    backend.launch(plan, run, quiet)
    backend.refresh(run, quiet)
    backend.pause(run, quiet)
    outcome = backend.follow(run, quiet)
    assert (run.state, outcome.exit_code) == ("paused", 75)
    backend.resume(run, quiet)
    assert backend.follow(run, quiet).exit_code == 0


def test_cancel_ends_what_bills(settings: Settings, tuning: Tuning) -> None:
    tuning.script = ["running"]
    backend = OpenAIService()
    plan = backend.check(settings(), quiet)
    run = create_run(plan.config)
    backend.launch(plan, run, quiet)
    assert len(Ledger(run.path).billing()) == 1
    backend.cancel(run, quiet)
    assert run.state == "cancelled"
    assert Ledger(run.path).billing() == []
    said: list[str] = []
    backend.cancel(run, said.append)
    assert said == ["one: is cancelled already"]
    with pytest.raises(ConfigError, match="is cancelled, expected one that has not ended"):
        backend.pause(run, quiet)


def test_teardown_removes_everything_in_order(settings: Settings, tuning: Tuning, loopback: Loopback) -> None:
    tuning.azure = True
    run = run_to_end(settings(service="azure"))
    OpenAIService().teardown(run, True, quiet)
    deleted = [request.path.split("/")[3] for request in loopback.requests if request.method == "DELETE"]
    assert deleted == ["models", "fine_tuning", "files", "files"]
    assert (tuning.files, tuning.jobs) == ({}, {})
    assert Ledger(run.path).open() == []


def test_a_url_is_fetched_checked_and_imported_and_never_shown(
    settings: Settings, tuning: Tuning, loopback: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning.azure = True
    content = (tmp_path / "train.jsonl").read_bytes()
    (tmp_path / "train.jsonl").unlink()
    monkeypatch.setenv("ROWS", f"{loopback.url}/blob/train.jsonl?sig=canary-secret")
    own = tuning.__call__

    def with_blob(request: Request) -> Any:
        if request.path == "/blob/train.jsonl":
            return Response(200, content)
        if request.path.endswith("/files/import"):
            made = own(request)
            tuning.files[made.body["id"]]["bytes"] = len(content)
            return made
        return own(request)

    loopback.handler = with_blob
    said: list[str] = []
    backend = OpenAIService()
    plan = backend.check(settings("openai.train_url_variable=ROWS", service="azure"), said.append)
    assert (tmp_path / "train.jsonl").read_bytes() == content
    run = create_run(plan.config)
    refusing = status(400, {"error": {"code": "BadUrl", "message": f"cannot read {os.environ['ROWS']}"}})
    loopback.faults = [Fault("echo", match=is_post("/files/import"), answer=refusing)]
    with pytest.raises(BackendError, match=r"cannot read \(the URL\)") as refused:
        backend.launch(plan, run, said.append)
    backend.resume(run, said.append)
    assert len(tuning.jobs) == 1
    told = [str(refused.value), *said, *(text.decode(errors="replace") for text in snapshot(run).values())]
    assert not [text for text in told if "canary-secret" in text]


def test_base_and_tuned_model_are_compared_when_that_was_quoted(settings: Settings, tuning: Tuning) -> None:
    run = run_to_end(settings("evaluation.enabled=true"))
    comparison = run.comparison()
    assert comparison["num_rows"] == 8
    assert comparison["verdict"]["kind"] == "better"
    assert {measure["key"] for measure in comparison["measures"]} >= {"score", "chrf", "rouge_l", "exact"}
    assert "loss" not in {measure["key"] for measure in comparison["measures"]}
    assert [message["role"] for message in tuning.answers[0]["messages"]] == ["system", "user"]
    assert len(tuning.answers) == 16
    assert (run.report / "report.html").is_file()


def test_nothing_is_asked_that_was_not_quoted(settings: Settings, tuning: Tuning) -> None:
    run = run_to_end(settings())
    assert tuning.answers == []
    assert run.comparison() == {}


def test_chat_streams_tuned_base_and_checkpoint(settings: Settings, tuning: Tuning) -> None:
    run = run_to_end(settings())
    question = [{"role": "user", "content": "hello"}]
    answers = {}
    for name, endpoint, base in (("tuned", None, False), ("base", None, True), ("checkpoint", "ftckpt-1", False)):
        client = OpenAIService().client(run, endpoint, base)
        answers[client.name] = list(client.stream(question, Sampling()))
        assert name
    assert answers == {
        f"ft:{MODEL}:org::ftjob-1": ["tuned", " answer"], MODEL: ["base ", "answer"],
        f"ft:{MODEL}:org::ftjob-1:ckpt-step-2": ["tuned", " answer"],
    }  # fmt: skip


def test_an_earlier_run_is_tuned_further(settings: Settings, tuning: Tuning, tmp_path: Path) -> None:
    first = run_to_end(settings())
    for name, base in (("two", str(first.path)), ("three", f"{first.path}@2")):
        run_to_end(settings(f"model.base={base}", f"run.name={name}"))
    made = f"ft:{MODEL}:org::ftjob-1"
    assert [body["model"] for body in tuning.bodies] == [MODEL, made, f"{made}:ckpt-step-2"]


def test_a_model_that_cannot_be_tuned_is_refused_before_anything_is_made(settings: Settings, tuning: Tuning) -> None:
    tuning.azure = True
    with pytest.raises(ConfigError, match="cannot be fine-tuned here, expected one of"):
        OpenAIService().check(settings("model.base=text-embedding-3", service="azure"), quiet)
    with pytest.raises(ConfigError, match=f"did you mean {re.escape(MODEL)}"):
        OpenAIService().check(settings("model.base=gpt-4.1-mini-2025-04-41"), quiet)
    assert tuning.files == {}


def test_epochs_chosen_above_the_cap_end_the_job(settings: Settings, tuning: Tuning) -> None:
    backend = OpenAIService()
    tuning.script = [*["running"] * 20, "succeeded"]
    config = settings("backend.spend_cap=5.0", "openai.training_price=500")
    plan = backend.check(config, quiet)
    run = create_run(plan.config)
    backend.launch(plan, run, quiet)
    tuning.numbers = {"n_epochs": 40}
    said: list[str] = []
    backend.follow(run, said.append)
    assert run.state == "cancelled"
    [reason] = [line for line in said if "backend.spend_cap is 5.00: the job is cancelled" in line]
    assert reason.startswith("the service has chosen 40 epochs")


def test_a_pause_that_is_refused_is_told(settings: Settings, tuning: Tuning, loopback: Loopback) -> None:
    tuning.script = ["running"]
    backend = OpenAIService()
    plan = backend.check(settings(), quiet)
    run = create_run(plan.config)
    backend.launch(plan, run, quiet)
    loopback.faults = [Fault("too early", match=is_post("/pause"), answer=status(400))]
    with pytest.raises(BackendError, match="does not pause its job now: the service answered 400"):
        backend.pause(run, quiet)
    assert run.state == "running"


def test_the_weights_of_such_a_run_are_not_here(settings: Settings) -> None:
    from trainer.inference.trained import trained_adapter

    with pytest.raises(ConfigError, match="its model is kept by the service"):
        trained_adapter(run_to_end(settings()))


def test_a_service_without_fine_tuning_is_found_out_before(settings: Settings, loopback: Loopback) -> None:
    loopback.faults = [Fault("403", match=lambda request: request.path.endswith("/jobs"), answer=status(403))]
    with pytest.raises(BackendError, match="reading the list of fine-tuning jobs: the service answered 403"):
        OpenAIService().check(settings(), quiet)


def test_a_large_file_goes_in_parts_and_a_lost_part_is_sent_again(
    settings: Settings, tuning: Tuning, loopback: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.backends.openai.upload.LARGE_BYTES", 100)
    monkeypatch.setattr("trainer.backends.openai.upload.PART_BYTES", 512)
    loopback.faults = [Fault("lost", match=is_post("/parts"), commits=True, broken="reset")]
    run = run_to_end(settings())
    expected = b"".join(line for line in (tmp_path / "train.jsonl").read_bytes().splitlines(True) if line.strip())
    assert tuning.contents["file-1"] == expected
    assert len(expected) > 1024
    assert run.state == "succeeded"
    assert len(tuning.files) == 2


@pytest.mark.parametrize("broken", ["reset", "truncated"])
def test_a_lost_completion_makes_no_second_file(
    broken: Any, settings: Settings, tuning: Tuning, loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.backends.openai.upload.LARGE_BYTES", 100)
    loopback.faults = [Fault("lost", match=is_post("/complete"), commits=True, broken=broken)]
    run_to_end(settings())
    assert len(tuning.files) == 2


def test_a_stream_of_text_and_tool_calls_comes_through_the_sdk(settings: Settings, loopback: Loopback) -> None:
    client = OpenAIService().client(run_to_end(settings()), None, False)
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city"'}}
    deltas = [{"content": "Let me see."}, {"tool_calls": [call]},
              {"tool_calls": [{"index": 0, "function": {"arguments": ': "Bern"}'}}]}]  # fmt: skip
    chunks = [{"choices": []}, *({"choices": [{"index": 0, "delta": delta}]} for delta in deltas)]
    stream = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"
    answer = Response(200, stream, {"Content-Type": "text/event-stream"})
    loopback.faults = [Fault("calls", match=is_post("/chat/completions"), answer=lambda own: answer)]
    assert list(client.stream([], Sampling())) == ["Let me see.", Call("weather", {"city": "Bern"})]


def test_an_answer_that_is_no_stream_is_told(settings: Settings, loopback: Loopback) -> None:
    client = OpenAIService().client(run_to_end(settings()), None, False)
    page = Response(200, b"<html></html>", {"Content-Type": "text/html"})
    loopback.faults = [Fault("page", match=is_post("/chat/completions"), answer=lambda own: page)]
    with pytest.raises(BackendError, match=r"the answer is no stream of pieces; check openai\.base_url"):
        list(client.stream([], Sampling()))
