"""`trainer serve` as a user runs it: the key, the port, the signals, and vLLM in its place."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.conftest import REPOSITORY
from tests.serving import wait_until
from trainer.runs import Run

PYTHON = (sys.executable, "-m", "trainer")
KEY = "key-of-the-tests"
READY_SECONDS = 120


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("TRAINER_API_KEY", "TRAINER_RUNS")}
    return kept | {"NO_COLOR": "1"} | more


def refusal(*words: str, **more: str) -> str:
    """What the command says on standard error before it ends with exit code 2."""
    done = subprocess.run(
        [*PYTHON, "serve", *words], cwd=REPOSITORY, env=environment(**more), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


class Program:
    """The command, ready to answer."""

    def __init__(self, process: "subprocess.Popen[str]", lines: list[str]) -> None:
        self.process, self.lines = process, lines
        (self.url,) = re.findall(r"serving \S+ on (http://127\.0\.0\.1:\d+/v1)", lines[-1])

    def client(self, key: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=60)


@contextmanager
def started(run: Run, *words: str, **more: str) -> Iterator[Program]:
    process = subprocess.Popen(
        [*PYTHON, "serve", str(run.path), "--port", "0", *words],
        cwd=REPOSITORY,
        env=environment(**more),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines: list[str] = []
    try:
        for line in process.stderr:
            lines.append(line)
            if line.startswith("serving "):
                break
        assert process.poll() is None, "".join(lines)
        yield Program(process, lines)
    finally:
        process.kill()
        process.wait(timeout=30)
        process.stderr.close()


def stream_of(client: openai.OpenAI, model: str) -> Any:
    messages: Any = [{"role": "user", "content": "Count."}]
    return client.chat.completions.create(
        model=model, messages=messages, stream=True, temperature=2.0, seed=3, max_tokens=300
    )


@pytest.mark.slow
def test_sigterm_lets_answers_in_progress_end_and_exits_with_0(tuned: Run) -> None:
    with started(tuned, TRAINER_API_KEY=KEY) as program:
        assert KEY not in "".join(program.lines)
        port = int(program.url.rsplit(":", 1)[1].removesuffix("/v1"))
        taken = refusal(str(tuned.path), "--port", str(port), TRAINER_API_KEY=KEY)
        assert taken == (
            f"error: --port: 127.0.0.1:{port} cannot be listened on: Address already in use; "
            "choose another --port, or end what uses it\n"
        )
        stream = stream_of(program.client(KEY), tuned.name)
        next(stream)
        program.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not can_connect(port))
        *_, last = stream
        assert last.choices[0].finish_reason in ("stop", "length")
        assert program.process.wait(timeout=30) == 0
        assert "Traceback" not in (program.process.stderr.read() if program.process.stderr else "")


def can_connect(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.long
def test_a_key_is_made_and_shown_once_and_ctrl_c_exits_with_130(tuned: Run) -> None:
    with started(tuned) as program:
        (key,) = re.findall(r"^key: (\S+) \(shown once", "".join(program.lines), flags=re.MULTILINE)
        assert program.client(key).models.list().data[0].id == tuned.name
        with pytest.raises(openai.AuthenticationError):
            program.client("another-key").models.list()
        program.process.send_signal(signal.SIGINT)
        assert program.process.wait(timeout=30) == 130
        assert (program.process.stderr.read() if program.process.stderr else "") == "interrupted\n"


@pytest.mark.long
def test_a_base_that_is_gone_ends_the_server_with_2(tuned: Run, tmp_path: Path) -> None:
    copy = Run(tmp_path / "copy")
    copy.path.mkdir()
    for name in ("config.yaml", "manifest.json", "status.json", "adapter"):
        (copy.path / name).symlink_to(tuned.path / name)
    (copy.path / "manifest.json").unlink()
    made_from = tuned.manifest()
    copy.write_manifest(replace(made_from, base=replace(made_from.base, revision="tiny-another")))
    said = refusal(str(copy.path), "--port", "0", TRAINER_API_KEY=KEY)
    assert "error: run 'copy': its base 'builtin:tiny' has changed since training" in said


MISTAKES = {
    "no such run": (["nowhere"], {}, r"error: run 'nowhere': not found in 'runs'"),
    "no name for every address": (["{run}", "--host", "0.0.0.0"], {}, r"error: --host: '0\.0\.0\.0' is every address"),
    "an unfit key": (["{run}"], {"TRAINER_API_KEY": "short"}, r"error: TRAINER_API_KEY: is unfit as a key"),
    "no vllm": (
        ["{run}", "--engine", "vllm"],
        {"PATH": ""},
        r"error: --engine: vllm is not installed; run: pip install",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_before_anything_is_loaded(tuned: Run, name: str) -> None:
    words, more, reason = MISTAKES[name]
    said = refusal(*(word.format(run=tuned.path) for word in words), **({"TRAINER_API_KEY": KEY} | more))
    assert re.search(reason, said)
    assert "loading" not in said


@pytest.mark.slow
def test_vllm_gets_the_base_the_adapter_and_the_trained_template(tuned: Run, tmp_path: Path) -> None:
    """A stand-in for vLLM's command shows what it was called with."""
    program = tmp_path / "vllm"
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\nprint(json.dumps([sys.argv[1:], os.environ['VLLM_API_KEY']]))\n"
    )
    program.chmod(0o755)
    done = subprocess.run(
        [*PYTHON, "serve", str(tuned.path), "--engine", "vllm", "--port", "8123"],
        cwd=REPOSITORY,
        env=environment(TRAINER_API_KEY=KEY, PATH=f"{tmp_path}:{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    words, key = json.loads(done.stdout)
    assert key == KEY
    assert KEY not in words
    options = pairs(words)
    assert words[0] == "serve"
    assert options["--lora-modules"] == f"{tuned.name}={tuned.adapter}"
    assert (options["--tokenizer"], options["--port"], options["--host"]) == (str(tuned.adapter), "8123", "127.0.0.1")
    assert (options["--max-lora-rank"], options["--dtype"]) == ("8", "float32")
    generation = json.loads((Path(options["--generation-config"]) / "generation_config.json").read_text())
    assert generation == {"eos_token_id": [2]}


def pairs(words: list[str]) -> dict[str, str]:
    """Options with their values; --enable-lora has none."""
    rest = [word for word in words[2:] if word != "--enable-lora"]
    return dict(zip(rest[::2], rest[1::2], strict=True))
