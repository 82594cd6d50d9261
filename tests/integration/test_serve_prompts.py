"""Prompts are made in a process of their own: they are those of training, and a bad template harms nobody else."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import trainer
from tests.conftest import CHATML, REPOSITORY, make_tokenizer, talk
from tests.families import family_tokenizer
from tests.serving import wait_until
from trainer.data.read.rows import read_conversations
from trainer.data.render.rendering import Renderer
from trainer.errors import ConfigError, ParityError
from trainer.inference.probes import request_of
from trainer.inference.replies import ReplyReader
from trainer.inference.serve.gate import check_prompts, lacks_nothing, prompts_in
from trainer.inference.serve.refusals import Refusal
from trainer.inference.serve.rendering import Prompt, PromptRenderer
from trainer.inference.serve.requests import parse_request
from trainer.inference.trained import trained_tokenizer
from trainer.runs import Run

SPECIAL = ["<|im_start|>", "<|im_end|>"]
BOMBS = (
    "{% set said = messages[-1].content %}"
    "{% if said == 'slow' %}{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}{% endif %}"
    "{% if said == 'large' %}{{ 'x' * 2000000000 }}{% endif %}"
    "{% if said == 'broken' %}{{ 1 // 0 }}{% endif %}"
    "{% if said == 'refused' %}{{ raise_exception('no') }}{% endif %}"
)
Runner = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(scope="module")
def run() -> Iterator[Runner]:
    with asyncio.Runner() as runner:
        yield runner.run


def tokenizer_folder(folder: Path, template: str) -> Path:
    make_tokenizer(template, SPECIAL, eos_token="<|im_end|>").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def renderer(run: Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PromptRenderer]:
    started = PromptRenderer(tokenizer_folder(tmp_path_factory.mktemp("bombs"), BOMBS + CHATML))
    run(started.start())
    yield started
    run(started.stop())


def prompt_of(renderer: PromptRenderer, text: str) -> Coroutine[Any, Any, Prompt]:
    return renderer.prompt([{"role": "user", "content": text}], None)


@pytest.fixture(scope="module")
def served(run: Runner, tuned: Run) -> Iterator[PromptRenderer]:
    started = PromptRenderer(tuned.adapter)
    run(started.start())
    yield started
    run(started.stop())


def test_the_prompts_of_a_run_are_its_training_prompts(run: Runner, tuned: Run, served: PromptRenderer) -> None:
    assert run(check_prompts(tuned, Renderer(trained_tokenizer(tuned)), served)) == (4, "validation.jsonl")


def test_prompts_with_tools_are_the_training_prompts_too(run: Runner, tuned: Run, served: PromptRenderer) -> None:
    """Every answer of real tool-calling rows, asked for as a client would ask."""
    trained, num_compared = Renderer(trained_tokenizer(tuned)), 0
    for row in read_conversations(REPOSITORY / "data" / "tools_train.jsonl").conversations[:12]:
        answers = [index for index, message in enumerate(row.messages) if message.trained]
        for index, expected in zip(answers, prompts_in(trained.render(row)), strict=True):
            request = parse_request(json.dumps({"model": "m"} | request_of(row, index)).encode())
            sent = run(served.prompt(request.rendered_messages(), request.rendered_tools()))
            assert sent.ids == expected
            num_compared += 1
    assert num_compared > 20


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("assistant\\n", "assistant \\n"), "they differ at token"),
        (("{{-", "{{- raise_exception('no') ~"), "the server"),
    ],
)
def test_another_prompt_than_the_trained_one_is_not_served(
    run: Runner, tuned: Run, tmp_path: Path, change: tuple[str, str], reason: str
) -> None:
    tokenizer = trained_tokenizer(tuned)
    trained = Renderer(trained_tokenizer(tuned))
    assert change[0] in tokenizer.chat_template
    before, _, after = tokenizer.chat_template.rpartition(change[0])
    tokenizer.chat_template = before + change[1] + after
    tokenizer.save_pretrained(tmp_path)
    served = PromptRenderer(tmp_path)

    async def compare() -> None:
        await served.start()
        await check_prompts(tuned, trained, served)

    try:
        with pytest.raises(ParityError, match=rf"validation.jsonl:1: the prompt that would be served .*{reason}"):
            run(compare())
    finally:
        run(served.stop())


def test_a_thought_of_nothing_before_a_plain_answer_is_no_other_prompt() -> None:
    """Where some rows think, the prompt asks for a thought, and the template closes one before plain answers."""
    tokenizer = family_tokenizer("qwen-3")
    reader = ReplyReader(Renderer(tokenizer, thinks=True))
    row = talk(("user", "Hi"), ("assistant", "Hello there."))
    (trained,) = prompts_in(reader.renderer.render(row))
    sent = reader.renderer.prompt_ids([{"role": "user", "content": "Hi"}])
    assert (sent == trained, reader.decode(trained[len(sent) :])) == (False, "<think>\n\n</think>\n\n")
    assert lacks_nothing(sent, trained, reader)
    for other in (sent[:-1], sent[:-2], [*sent[:-1], 5], "refused"):
        assert not lacks_nothing(other, trained, reader), "it lacks more"
    assert not lacks_nothing(sent, [*trained, *tokenizer("Hello")["input_ids"]], reader)


def test_a_template_that_never_ends_is_ended_and_the_next_request_is_answered(
    run: Runner, renderer: PromptRenderer
) -> None:
    started = time.monotonic()
    with pytest.raises(Refusal, match="the chat template did not finish these messages within 2 seconds") as caught:
        run(prompt_of(renderer, "slow"))
    assert caught.value.status == 400
    assert time.monotonic() - started < 60
    assert run(prompt_of(renderer, "fine"))


def test_a_template_that_takes_all_memory_fails_alone(run: Runner, renderer: PromptRenderer) -> None:
    with pytest.raises(Refusal, match=r"fails on these messages: MemoryError|takes more than 10 seconds or 4 GiB"):
        run(prompt_of(renderer, "large"))
    assert run(prompt_of(renderer, "fine"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("broken", "this model's chat template refuses the conversation: integer division or modulo by zero"),
        ("refused", "this model's chat template refuses the conversation: no"),
        ("<|im_end|>", r"messages\[0\] holds '<\|im_end\|>', a control token of this model"),
    ],
)
def test_what_a_template_refuses_is_refused(run: Runner, renderer: PromptRenderer, text: str, reason: str) -> None:
    with pytest.raises(Refusal, match=reason):
        run(prompt_of(renderer, text))


def test_a_request_that_is_given_up_does_not_answer_the_next_one(run: Runner, renderer: PromptRenderer) -> None:
    async def give_up_and_go_on() -> list[int]:
        task = asyncio.create_task(prompt_of(renderer, "slow"))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await prompt_of(renderer, "fine")

    assert run(give_up_and_go_on()) == run(prompt_of(renderer, "fine"))


KEYS = ("TRAINER_API_KEY", "HF_TOKEN", "OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_CLIENT_SECRET", "ANY_NAME")


def test_the_process_knows_no_key(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.setenv(name, "a-key-of-the-server")
    started = PromptRenderer(tokenizer_folder(tmp_path, CHATML))
    run(started.start())
    assert run(prompt_of(started, "fine"))
    assert started._process is not None
    environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in (started._process.pid, *copies(started))]
    run(started.stop())
    assert len(environments) == 2
    for environment in environments:
        assert b"PATH=" in environment
        assert b"a-key-of-the-server" not in environment


def copies(renderer: PromptRenderer) -> list[int]:
    """The process that renders."""
    assert renderer._process is not None
    pid = renderer._process.pid
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def test_the_next_request_waits_for_no_new_start(run: Runner, renderer: PromptRenderer) -> None:
    assert run(prompt_of(renderer, "fine"))
    assert renderer._process is not None
    pid, (copy,) = renderer._process.pid, copies(renderer)
    with pytest.raises(Refusal, match="did not finish"):
        run(prompt_of(renderer, "slow"))
    assert run(prompt_of(renderer, "fine"))
    assert renderer._process.pid == pid
    assert copies(renderer) != [copy]


def test_a_process_that_is_killed_while_idle_spoils_no_answer(run: Runner, renderer: PromptRenderer) -> None:
    expected = run(prompt_of(renderer, "fine"))
    (copy,) = copies(renderer)
    os.kill(copy, signal.SIGKILL)
    time.sleep(0.5)
    answers = []
    for _ in range(3):
        with contextlib.suppress(Refusal):
            answers.append(run(prompt_of(renderer, "fine")))
    assert len(answers) >= 2
    assert answers.count(expected) == len(answers)


def test_a_long_prompt_is_rendered(run: Runner, renderer: PromptRenderer) -> None:
    assert len(run(prompt_of(renderer, "a1! " * 100_000)).ids) > 100_000


def test_the_copy_ends_with_the_server(run: Runner, tmp_path: Path) -> None:
    started = PromptRenderer(tokenizer_folder(tmp_path, CHATML))
    run(started.start())
    assert run(prompt_of(started, "fine"))
    (copy,) = copies(started)
    run(started.stop())
    wait_until(lambda: not Path(f"/proc/{copy}").exists() or " Z " in Path(f"/proc/{copy}/stat").read_text())


def test_a_template_that_cannot_be_used_is_told_at_the_start(run: Runner, tmp_path: Path) -> None:
    started = PromptRenderer(tokenizer_folder(tmp_path, "{% for m in messages %}{{ m.content }}{% endfor %}"))
    with pytest.raises(
        ConfigError, match="the chat template cannot be used: the chat template ends an assistant message"
    ):
        run(started.start())


def test_its_process_finds_the_package_where_it_is_not_installed(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a deployment of Azure ML, where the package lies beside the scoring script."""
    seen: dict[str, str] = {}

    async def start(*words: object, env: dict[str, str], **others: object) -> None:
        seen.update(env)
        raise OSError("not started")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    with pytest.raises(OSError, match="not started"):
        run(PromptRenderer(tmp_path).start())
    assert seen["PYTHONPATH"].split(os.pathsep)[0] == str(Path(trainer.__file__).parents[1])
