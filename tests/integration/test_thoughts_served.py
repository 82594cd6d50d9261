"""Models that think, with the published templates of their families: what they generate is served apart and counted."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, LlamaConfig

from tests.commands import performed
from tests.conftest import QUESTIONS
from tests.families import FAMILIES as PUBLISHED
from tests.families import family_tokenizer
from tests.serving import serving
from tests.tiny_runs import train
from trainer.config.schema import ModelConfig
from trainer.data.render.rendering import Renderer, RenderingError
from trainer.inference.call_forms import generated_text
from trainer.inference.evaluation.local_model import evaluate
from trainer.inference.replies import ReplyReader
from trainer.inference.report.run_report import write_report
from trainer.inference.serve.engine import ServingEngine
from trainer.inference.serve.limits import Limits, Slots
from trainer.inference.serve.rendering import PromptRenderer
from trainer.inference.serve.requests import parse_request
from trainer.inference.serve.service import Service
from trainer.inference.serve.trained_prompt import TrainedPrompt
from trainer.model.base import find_base
from trainer.model.loading import load_model
from trainer.runs import Run

THOUGHT, ANSWER = "Rain is wet.\n\nSo bring one.", "Bring an umbrella."
QUESTION = {"role": "user", "content": "Weather?"}
FAMILIES = ["qwen-3", "gpt-oss", "qwen-3.5", "deepseek-r1-distill", "gemma-4", "nemotron-3"]
STEPS = 60
THINKS = {"reasoning_content": "Let me count."}


def generation(reader: ReplyReader) -> str:
    """What the model writes after the prompt, with the token that ends it."""
    template = reader.template
    said = template.adapt({"role": "assistant", "content": ANSWER, "reasoning_content": THOUGHT})
    try:
        text = generated_text(template, [QUESTION, said], None)
    except RenderingError:  # DeepSeek-R1's template leaves every thought out
        text = f"{THOUGHT}\n</think>\n\n{ANSWER}"
    return text + template.spelled(template.end_marker(said))


def model_that_says(prompt: list[int], answer: list[int], vocab: int, folder: Path) -> Any:
    """A small model that has learned one conversation by heart."""
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "head_dim": 16,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=vocab, max_position_embeddings=512, **sizes))
        ids = torch.tensor([[*prompt, *answer]])
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(STEPS):
            logits = model(ids[:, :-1]).logits[0, len(prompt) - 1 :]
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(answer))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert loss.item() < 0.05, "it has not learned it"
    model.save_pretrained(folder)
    settings = ModelConfig(base=str(folder))
    return load_model(find_base(settings), settings, torch.device("cpu"), torch.float32).eval()


@asynccontextmanager
async def service_of(name: str, folder: Path) -> AsyncIterator[tuple[Service, list[int]]]:
    """A service of the family's model, and the ids that it generates."""
    tokenizer = family_tokenizer(name)
    tokenizer.save_pretrained(folder)
    reader = ReplyReader(Renderer(tokenizer))
    prompt = reader.renderer.prompt([QUESTION])
    answer = list(tokenizer(generation(reader), add_special_tokens=False)["input_ids"])
    model = model_that_says(prompt.ids, answer, len(tokenizer), folder)
    renderer, limits = PromptRenderer(folder), Limits(max_requests=2)
    await renderer.start()
    engine = ServingEngine(model, renderer.stops, 512, limits)
    engine.start()
    try:
        yield Service("m", "fp", engine, renderer, tokenizer, Slots(limits), TrainedPrompt(None)), answer
    finally:
        engine.stop()
        await renderer.stop()


def asked(**fields: Any) -> Any:
    body = {"model": "m", "messages": [QUESTION], "temperature": 0, "max_tokens": 120} | fields
    return parse_request(json.dumps(body).encode())


async def streamed(service: Service, **fields: Any) -> tuple[dict[str, str], str, dict[str, Any]]:
    """The deltas joined by their keys, why it ended, and the usage."""
    said, reason, usage = {"reasoning_content": "", "content": ""}, "", dict[str, Any]()
    request = asked(stream=True, stream_options={"include_usage": True}, **fields)
    async for line in service.events(request):
        if line.strip() == b"data: [DONE]":
            continue
        event = json.loads(line.removeprefix(b"data: "))
        usage = event["usage"] or usage
        for choice in event["choices"]:
            assert not ("content" in choice["delta"] and "reasoning_content" in choice["delta"])
            for key in said.keys() & choice["delta"].keys():
                said[key] += choice["delta"][key]
            reason = choice["finish_reason"] or reason
    return said, reason, usage


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in FAMILIES[2:] else name for name in FAMILIES]
)
def test_a_thought_that_is_really_generated_is_served_apart(name: str, tmp_path: Path) -> None:
    async def check() -> None:
        async with service_of(name, tmp_path) as (service, ids):
            whole = await service.answer(asked())
            (choice,), usage = whole["choices"], whole["usage"]
            expected = {"role": "assistant", "content": ANSWER, "reasoning_content": THOUGHT, "refusal": None}
            assert (choice["message"], choice["finish_reason"]) == (expected, "stop")
            thought = usage["completion_tokens_details"]["reasoning_tokens"]
            assert (usage["completion_tokens"], 0 < thought < len(ids)) == (len(ids), True)
            said, reason, counted = await streamed(service)
            assert said == {"reasoning_content": THOUGHT, "content": ANSWER}
            assert (reason, counted) == ("stop", usage)

            stopped, _, _ = await streamed(service, stop=["Rain", " umbrella"])
            assert stopped == {"reasoning_content": THOUGHT, "content": "Bring an"}
            cut = await service.answer(asked(max_tokens=thought - 2))
            assert (cut["choices"][0]["finish_reason"], cut["choices"][0]["message"]["content"]) == ("length", "")
            assert THOUGHT.startswith(cut["choices"][0]["message"]["reasoning_content"][:20])
            assert cut["usage"]["completion_tokens_details"]["reasoning_tokens"] == thought - 2
            history = [QUESTION, choice["message"], QUESTION]
            assert (await service.answer(asked(messages=history, max_tokens=1)))["usage"]["completion_tokens"] == 1

    asyncio.run(check())


# A run that learned to think


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run, compared with its base, whose rows all think the same."""
    root = tmp_path_factory.mktemp("thinking")
    (root / "qwen3.jinja").write_text(PUBLISHED["qwen-3"].source)
    rows = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer} | THINKS]}
        for question, answer in QUESTIONS
    ]
    for file, some in (("thinks.jsonl", rows[:20]), ("held_out.jsonl", rows[20:])):
        (root / file).write_text("".join(json.dumps(row) + "\n" for row in some))
    data = {"data__train": str(root / "thinks.jsonl"), "data__validation": str(root / "held_out.jsonl")}
    run = train(root, "thinking", model__chat_template=str(root / "qwen3.jinja"), training__n_epochs=8, **data)
    write_report(run, evaluate(run, Console(file=io.StringIO())))
    return run


@pytest.mark.long
def test_the_comparison_looks_at_answers_alone_and_keeps_the_thoughts(thinking: Run) -> None:
    report = thinking.path / "report"
    result = json.loads((report / "report.json").read_text())
    answers = [answer for row in result["rows"] for answer in row["answers"]]
    assert [answer["tuned"]["reasoning_content"] for answer in answers] == [THINKS["reasoning_content"]] * 4
    assert not any("think" in answer["tuned"]["text"] or "Let me" in answer["tuned"]["text"] for answer in answers)
    assert all(answer["reference"].startswith("Number") for answer in answers)
    page = (report / "report.html").read_text()
    shown = '<details class="quiet thought"><summary>Thought</summary><div class="said">Let me count.</div></details>'
    assert page.count(shown) >= 8, "of each tuned answer and of each reference"


@pytest.mark.long
def test_the_terminal_shows_thoughts_apart(thinking: Run) -> None:
    words = ("chat", str(thinking.path), QUESTIONS[4][0])
    plain = performed(words, lambda: 0.0)
    assert plain.out.startswith("Number")
    assert ("Let me count." in plain.err, "Let me" in plain.out, "<think>" in plain.out + plain.err) == (
        True,
        False,
        False,
    )
    (found,) = json.loads(performed((*words, "--format", "json"), lambda: 0.0).out)["answers"]
    assert (found["tuned"], found["tuned_thought"]) == (plain.out.strip(), "Let me count.")
    assert (found["base"], found["base_thought"]) == (None, None)


@pytest.mark.long
def test_the_official_client_gets_thoughts_apart_and_sends_them_back(thinking: Run) -> None:
    with serving(thinking) as server:
        question: Any = {"role": "user", "content": QUESTIONS[4][0]}
        asked_for: Any = {"model": server.name, "temperature": 0, "max_tokens": 60}
        create = server.client.chat.completions.create
        whole = create(messages=[question], **asked_for)
        message, details = whole.choices[0].message, whole.usage.completion_tokens_details
        assert message.reasoning_content == "Let me count."
        assert message.content.startswith("Number")
        assert 0 < details.reasoning_tokens < whole.usage.completion_tokens
        deltas = [chunk.choices[0].delta for chunk in create(messages=[question], stream=True, **asked_for)]
        assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "Let me count."
        assert "".join(delta.content or "" for delta in deltas) == message.content
        again = create(messages=[question, message.model_dump(), question], **asked_for)
        without = create(messages=[question, {"role": "assistant", "content": message.content}, question], **asked_for)
        assert again.usage.prompt_tokens == without.usage.prompt_tokens, "its template shows no earlier thoughts"
        with pytest.raises(openai.BadRequestError, match="reasoning_content stands on a user message"):
            create(messages=[question | {"reasoning_content": "x"}], **asked_for)
