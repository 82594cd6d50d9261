"""Runs of the openai backend against a small service on 127.0.0.1, through the real SDK."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.loopback import Loopback, Request
from tests.tuning import MODEL, Tuning
from trainer.backends.openai.backend import OpenAIService
from trainer.config.load import load_config
from trainer.config.schema import RunConfig
from trainer.runs import Run, create_run

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
    monkeypatch.setattr("trainer.backends.idempotent.FIRST_WAIT_SECONDS", 0.01)
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
