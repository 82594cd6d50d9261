"""azureml/score.py under Azure ML's own inference server, in an environment of its own.

The server's pins conflict with ours (pydantic 2.12), so that it gets a virtual environment, made once in the cache
folder: its own packages from the package index, everything else from the environment that runs the tests.
"""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.environments import CannotInstall, scoring_python
from tests.integration.azure_twin.gpus import GPUs, equip
from tests.serving import wait_until
from trainer.errors import ConfigError
from trainer.inference.bundle import write_bundle
from trainer.inference.client import Sampling
from trainer.inference.export import export_run
from trainer.inference.local import TunedModel
from trainer.runs import Run

PINS = REPOSITORY / "azureml" / "serving" / "requirements.txt"
START = "from azureml_inference_server_http import amlserver_linux; amlserver_linux.run('127.0.0.1', {port}, 1)"
MESSAGES = [{"role": "system", "content": "You count."}, {"role": "user", "content": "What is number 5?"}]
READY_SECONDS = 180
HELD_BACK = {  # by the server's own requirements: pydantic ~=2.12, opentelemetry ==1.33
    "pydantic", "pydantic-core", "opentelemetry-api", "opentelemetry-sdk", "opentelemetry-semantic-conventions",
    "azure-monitor-opentelemetry-exporter", "wrapt",
}  # fmt: skip


def pins(path: Path) -> dict[str, str]:
    lines = (line.partition("==") for line in path.read_text().splitlines() if "==" in line)
    return {name.lower().replace("_", "-"): version for name, _, version in lines}


def test_the_serving_pins_are_those_that_the_tests_run_with_but_for_what_the_server_holds_back() -> None:
    ours, theirs = pins(REPOSITORY / "constraints.txt"), pins(PINS)
    differ = {name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]}
    assert differ == HELD_BACK
    assert {"transformers", "peft", "azureml-inference-server-http"} <= theirs.keys()


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of the environment; made once, and again when the pins change."""
    try:
        return scoring_python()
    except CannotInstall as error:
        pytest.skip(str(error))


class Answer:
    """The server's own type of an answer, as far as the script fills it."""

    def __init__(self, message: Any, status: int, headers: Any = None, json_str: bool = False) -> None:
        self.status, self.body = status, message if json_str else json.loads(message)


class Asked:
    """A request of flask's, as far as the script reads it."""

    def __init__(self, method: str, body: Any = None) -> None:
        self.method, self._body = method, json.dumps(body).encode()

    def get_data(self, cache: bool) -> bytes:
        return self._body


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as the server imports it; the server's package, which is not installed here, is stood in for."""
    api = "azureml_inference_server_http.api"
    server = {
        "azureml_inference_server_http": {},
        api: {},
        f"{api}.aml_request": {"rawhttp": lambda function: function},
        f"{api}.aml_response": {"AMLResponse": Answer},
    }
    for name, contents in server.items():
        module = ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    found = ModuleType("score")
    exec((REPOSITORY / "azureml" / "score.py").read_text(encoding="utf-8"), vars(found))
    return found


def test_the_script_answers_as_the_trained_model_within_its_limits(
    script: Any, tuned: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tuned, tmp_path / "model" / "1" / "adapter")
    for name, value in (("AZUREML_MODEL_DIR", str(tmp_path / "model")), ("TRAINER_MAX_TOKENS", "50")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TRAINER_EXPECTED_GPUS", "0")
    script.init()
    assert (script.run(Asked("GET")).status, script.run(Asked("GET")).body) == (200, {"status": "ready"})
    asked = {"model": "tuned", "messages": MESSAGES, "temperature": 0, "max_tokens": 40}
    answer = script.run(Asked("POST", asked))
    expected = TunedModel(tuned).tuned.answer(MESSAGES, Sampling(max_tokens=40))
    assert (answer.status, answer.body["choices"][0]["message"]["content"].strip()) == (200, expected)
    refused = script.run(Asked("POST", asked | {"max_tokens": 51}))
    assert (refused.status, refused.body["error"]["code"]) == (400, "max_tokens_exceeded")


def test_the_script_checks_the_gpus_before_it_reads_a_model(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = equip(tmp_path, GPUs(1, cuda="13.0", starts=False), os.environ["PATH"])
    for name, value in (gpus | {"TRAINER_EXPECTED_GPUS": "1", "AZUREML_MODEL_DIR": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="GPU: 0 can be used and the plan counts on 1; driver 535"):
        script.init()
    monkeypatch.setenv("TRAINER_EXPECTED_GPUS", "0")
    with pytest.raises(ConfigError, match="has 0 exports, expected one"):
        script.init()


class Scoring:
    """Azure ML's server with our script."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    def request(self, body: Any, method: str = "POST") -> tuple[int, dict[str, Any]]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, "/score", data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    def is_healthy(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        except OSError:
            return False


@contextmanager
def scoring(python: Path, model_dir: Path, log: Path, **more: str) -> Iterator[Scoring]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    environment = os.environ | {
        "AML_APP_ROOT": str(REPOSITORY / "azureml"),
        "AZUREML_ENTRY_SCRIPT": "score.py",
        "AZUREML_MODEL_DIR": str(model_dir),
        "PYTHONPATH": str(REPOSITORY / "src"),
        "TRAINER_MAX_TOKENS": "50",
    }
    environment |= more
    with log.open("wb") as file:
        process = subprocess.Popen(
            [python, "-c", START.format(port=port)], env=environment, stdout=file, stderr=file, cwd=log.parent
        )
    try:
        yield Scoring(process, port, log)
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="module", params=[True, False], ids=["merged", "adapter"])
def served(
    request: pytest.FixtureRequest, python: Path, tuned: Run, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scoring]:
    folder = tmp_path_factory.mktemp("azureml")
    (folder / "model" / "1").mkdir(parents=True)  # Azure ML mounts a model under its name and version
    export_run(tuned, folder / "model" / "1" / "exported", merge=request.param)
    with scoring(python, folder / "model", folder / "log") as running:
        wait_until(lambda: running.process.poll() is not None or running.is_healthy(), READY_SECONDS)
        assert running.process.poll() is None, running.log.read_text()[-3000:]
        yield running


@pytest.mark.long
def test_it_answers_as_the_trained_model(served: Scoring, tuned: Run) -> None:
    status, answer = served.request({"model": "tuned", "messages": MESSAGES, "temperature": 0, "max_tokens": 40})
    assert (status, answer["object"]) == (200, "chat.completion")
    expected = TunedModel(tuned).tuned.answer(MESSAGES, Sampling(max_tokens=40))
    assert answer["choices"][0]["message"]["content"].strip() == expected


@pytest.mark.long
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        ({"model": "tuned", "messages": []}, 400, "invalid_value"),
        ({"model": "other", "messages": MESSAGES}, 404, "model_not_found"),
        ({"model": "tuned", "messages": MESSAGES, "stream": True}, 400, "unsupported_parameter"),
        ({"model": "tuned", "messages": MESSAGES, "max_tokens": 51}, 400, "max_tokens_exceeded"),
        (b'"' + b"x" * 1024 * 1024 + b'"', 413, "request_too_large"),
    ],
)
def test_a_bad_request_gets_its_status_and_the_next_one_an_answer(
    served: Scoring, body: Any, status: int, code: str
) -> None:
    found, answer = served.request(body)
    assert (found, answer["error"]["code"]) == (status, code)
    assert served.request({"model": "tuned", "messages": MESSAGES, "max_tokens": 1})[0] == 200


@pytest.mark.long
def test_a_model_that_cannot_be_loaded_ends_the_server_with_the_reason(python: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with scoring(python, tmp_path / "model", tmp_path / "log") as running:
        wait_until(lambda: "User's init function failed" in running.log.read_text(), READY_SECONDS)
        wait_until(lambda: running.process.poll() is not None, READY_SECONDS)
        assert not running.is_healthy()
    assert re.search(r"ConfigError: .*model: has 0 exports, expected one", (tmp_path / "log").read_text())


@pytest.mark.long
def test_a_gpu_that_cannot_be_used_ends_the_server_before_a_model_is_read(python: Path, tmp_path: Path) -> None:
    """The processor would answer otherwise, and pass for the GPU that is paid for."""
    gpus = equip(tmp_path / "gpus", GPUs(1, cuda="13.0", starts=False), os.environ["PATH"])
    gpus["PYTHONPATH"] += f":{REPOSITORY / 'src'}"
    with scoring(python, tmp_path / "nowhere", tmp_path / "log", TRAINER_EXPECTED_GPUS="1", **gpus) as running:
        wait_until(lambda: running.process.poll() is not None, READY_SECONDS)
        text = running.log.read_text()
        assert "User's init function failed" in text
        assert "GPU: 0 can be used and the plan counts on 1; driver 535.274.02" in text
        assert "exports, expected one" not in text
