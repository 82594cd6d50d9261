"""Chat with the bases and tuned models of the fine-tuning API by OpenAI's own SDK; their process comes and goes."""

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.api_server import TINY, ApiServer, api_server
from tests.integration.test_serve_together import sibling
from tests.tiny_runs import ADD
from tests.waiting import until
from trainer.api.job import Job, JobFile
from trainer.api.model_process import ChatModels, chat_models_of
from trainer.api.settings import BaseOffer
from trainer.inference.client import Sampling
from trainer.inference.local import LocalClient, TunedModel
from trainer.runs import Run
from trainer.runs.queue import Queue

SYSTEM = {"role": "system", "content": "You count."}
QUESTIONS = [f"What is number {number}?" for number in (1, 12, 22)]


def as_job(run: Run, number: int, owner: str = "ann") -> str:
    """Make the finished job of an owner of a run; the name of its model."""
    id_ = f"ftjob-{number:024x}"
    run.path.rename(run.path.parent / id_)
    made, kept = Run(run.path.parent / id_), JobFile("file-1", "train.jsonl", "train.jsonl")
    job = Job(made, id_, owner, 1, TINY, TINY, kept, None, "supervised", {}, 42)
    job.write(made.path)
    return job.model_name


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chat") / "runs"


@pytest.fixture(scope="module")
def runs(tuned: Run, root: Path) -> dict[str, Run]:
    """Tuned models by their names: two of ann's on one base, one of bob's."""
    root.mkdir()
    first = as_job(Run(shutil.copytree(tuned.path, root / "first")), 1)
    second = as_job(sibling(tuned, root / "second", 3, r=7, target_modules=["q_proj", "up_proj"]), 2)
    others = as_job(Run(shutil.copytree(tuned.path, root / "others")), 3, "bob")
    return {name: Run(root / f"ftjob-{name.rpartition(':')[2]}") for name in (first, second, others)}


@pytest.fixture(scope="module")
def served(root: Path, runs: dict[str, Run]) -> Iterator[ApiServer]:
    bases = {TINY: BaseOffer(base=TINY), "again": BaseOffer(base=TINY), "gone": BaseOffer(base="no/such-base-anywhere")}
    with api_server(root, bases=bases) as server:
        yield server


@pytest.fixture
def models(served: ApiServer, root: Path) -> ChatModels:
    return chat_models_of(root)


def messages(question: str) -> Any:
    return [SYSTEM, {"role": "user", "content": question}]


def ask(served: ApiServer, model: str, question: str, name: str = "ann", **settings: Any) -> Any:
    """The SDK's answer."""
    given: dict[str, Any] = {"temperature": 0, "max_tokens": 24} | settings
    client = served.client(name, timeout=120)
    return client.chat.completions.create(model=model, messages=messages(question), **given)


def pid_of(models: ChatModels) -> int | None:
    return None if models._held is None else models._held.process.process.pid


def queue_a_run(root: Path) -> None:
    made = Run(root / "waits")
    made.path.mkdir()
    made.set_status("queued", backend="local")
    Queue(root).add("waits")


# Without a process


def test_a_model_that_is_not_there_or_is_anothers_is_refused_alike(
    served: ApiServer, runs: dict[str, Run], models: ChatModels
) -> None:
    *_, others = runs
    refusals = set()
    for name in (others, others[:-1] + "f", "gpt-4o"):
        with pytest.raises(openai.NotFoundError) as caught:
            ask(served, name, "x")
        assert caught.value.code == "model_not_found"
        refusals.add(str(caught.value).replace(name, "NAME"))
    assert len(refusals) == 1
    with pytest.raises(openai.BadRequestError, match="model: is missing, expected the name of a model"):
        ask(served, None, "x")  # type: ignore[arg-type]
    assert pid_of(models) is None


def test_a_run_that_waits_for_this_machine_comes_first(served: ApiServer, root: Path, models: ChatModels) -> None:
    queue_a_run(root)
    try:
        with Queue(root).working():
            answer = served.send("POST", "/v1/chat/completions", json.dumps({"model": TINY, "messages": []}))
        error = json.loads(answer.body)["error"]
        assert (answer.status, error["code"], answer.headers["retry-after"]) == (503, "model_not_ready", "5")
        assert error["message"] == "this machine is about to train 'waits'; ask again when it has ended"
        assert pid_of(models) is None
    finally:
        Queue(root).remove("waits")
        shutil.rmtree(root / "waits")


# With one


@pytest.mark.slow
def test_base_and_tuned_models_answer_at_a_time_as_each_does_alone(
    served: ApiServer, runs: dict[str, Run], models: ChatModels
) -> None:
    first, second, others = runs
    expected: dict[tuple[str, str], str] = {}

    def answers(client: LocalClient, name: str) -> None:
        for question in QUESTIONS:
            expected[name, question] = client.answer(messages(question), Sampling(max_tokens=24))

    for name in (first, second):
        loaded = TunedModel(runs[name])
        answers(loaded.tuned, name)
        answers(loaded.base, TINY)
    expected |= {(others, question): expected[first, question] for question in QUESTIONS}

    def served_answer(each: tuple[str, str]) -> str:
        answer = ask(served, *each, name="bob" if each[0] == others else "ann")
        assert answer.model == each[0]
        return str(answer.choices[0].message.content).strip()

    with ThreadPoolExecutor(len(expected)) as threads:
        found = dict(zip(expected, threads.map(served_answer, expected), strict=True))
    assert found == expected
    assert len(set(expected.values())) > len(QUESTIONS)
    pid = pid_of(models)
    whole = ask(served, first, QUESTIONS[1])
    chunks = list(ask(served, first, QUESTIONS[1], stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    tools = ask(served, second, QUESTIONS[1], tools=[ADD]).usage.prompt_tokens
    assert tools > ask(served, second, QUESTIONS[1]).usage.prompt_tokens
    with pytest.raises(openai.BadRequestError, match="n: Input should be 1"):
        ask(served, first, "x", n=2)
    azure = served.client(below="/openai/v1", timeout=60).chat.completions
    assert azure.create(model=TINY, messages=messages("x"), max_tokens=1).model == TINY
    assert pid_of(models) == pid, "one process has answered all of them"


@pytest.mark.slow
def test_a_client_that_leaves_stops_its_answer_and_a_dead_process_is_told_and_replaced(
    served: ApiServer, models: ChatModels
) -> None:
    def endless() -> Any:
        return iter(ask(served, TINY, "Count.", stream=True, temperature=2.0, seed=3, max_tokens=1500))

    stream = endless()
    next(stream)
    assert models._held is not None
    assert models._held.num_answering == 1
    stream.close()
    until(lambda: models._held is not None and models._held.num_answering == 0, "the end of the answer", 20)
    stream, pid = endless(), pid_of(models)
    next(stream)
    assert pid is not None
    os.killpg(pid, signal.SIGKILL)
    with pytest.raises(openai.APIError, match="the model's process has ended; ask again"):
        list(stream)
    assert ask(served, TINY, QUESTIONS[0]).choices
    assert pid_of(models) not in (pid, None)


@pytest.mark.slow
def test_another_base_waits_for_the_answers_before_it_and_a_broken_one_harms_nobody(
    served: ApiServer, models: ChatModels
) -> None:
    texts: list[str] = []

    def count() -> None:
        chunks = ask(served, TINY, "Count.", stream=True, temperature=2.0, seed=3, max_tokens=300)
        texts.append("".join(chunk.choices[0].delta.content or "" for chunk in chunks))

    thread = threading.Thread(target=count)
    thread.start()
    until(lambda: models._held is not None and models._held.num_answering == 1, "the beginning of the answer", 60)
    assert ask(served, "again", QUESTIONS[0]).model == "again"
    thread.join(1)
    assert not thread.is_alive()
    assert len(texts[0]) > 20
    with pytest.raises(openai.InternalServerError, match=r"the model cannot answer: .*no/such-base-anywhere"):
        ask(served, "gone", "x")
    assert ask(served, "again", QUESTIONS[0]).choices


@pytest.mark.slow
def test_a_model_whose_files_cannot_be_read_is_refused_and_the_others_answer(
    served: ApiServer, runs: dict[str, Run]
) -> None:
    broken, other, *_ = runs
    manifest = runs[broken].path / "manifest.json"
    content = manifest.read_bytes()
    assert ask(served, TINY, QUESTIONS[0]).choices
    manifest.unlink()
    manifest.mkdir()
    try:
        with pytest.raises(openai.InternalServerError):
            served.client(timeout=30).chat.completions.create(model=broken, messages=messages("x"))
        assert ask(served, other, QUESTIONS[0]).model == other
    finally:
        manifest.rmdir()
        manifest.write_bytes(content)


@pytest.mark.slow
def test_the_process_ends_when_training_wants_the_machine_or_nobody_asks(
    served: ApiServer, root: Path, models: ChatModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(served, TINY, QUESTIONS[0]).choices
    assert Queue(root).holds_model()
    queue_a_run(root)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, root / "waits")
        stack.callback(Queue(root).remove, "waits")
        with Queue(root).working():
            until(lambda: not Queue(root).holds_model(), "the end of the process", 30)
        assert pid_of(models) is None
    assert ask(served, TINY, QUESTIONS[0]).choices
    monkeypatch.setattr(models, "idle_seconds", 0.4)
    started = time.monotonic()
    until(lambda: pid_of(models) is None, "the end of an idle process", 30)
    assert time.monotonic() - started < 20
