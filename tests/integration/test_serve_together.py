"""Several runs of one base behind one server: each answers as it does alone, and what does not fit is refused."""

import asyncio
import hashlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
import torch

from tests.conftest import QUESTIONS
from tests.serving import Serving, serving
from tests.tiny_runs import ADD
from trainer.config.schema import LoraSettings
from trainer.errors import ConfigError
from trainer.inference.client import Sampling
from trainer.inference.local import TunedModel
from trainer.inference.serve import engine
from trainer.inference.serve.limits import Limits
from trainer.inference.serve.loading import load_base
from trainer.inference.serve.models import Models
from trainer.inference.serve.refusals import Refusal
from trainer.inference.serve.requests import ChatRequest
from trainer.inference.serve.sources import TrainedRuns
from trainer.inference.serve.weights import Weights
from trainer.inference.trained import trained_base
from trainer.model.adapter import ADAPTER, add_adapter, seal_adapter
from trainer.model.loading import load_model
from trainer.runs import Run
from trainer.runs.files import write_json

ASKED = [question for question, _ in QUESTIONS[:6]]
SHAPES: dict[str, dict[str, Any]] = {
    "tall": {"r": 12, "lora_alpha": 8},
    "narrow": {"r": 2, "target_modules": ["q_proj", "down_proj"]},
    "dora": {"r": 5, "use_dora": True},
}


def sibling(run: Run, folder: Path, seed: int, **shape: Any) -> Run:
    """A run beside another one, with a random adapter of that shape, as loud as a trained one."""
    shutil.copytree(run.path, folder)
    made, settings = Run(folder), run.config().model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        base = load_model(trained_base(run), settings, torch.device("cpu"), torch.float32)
        model = add_adapter(base, LoraSettings(**shape))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(made.adapter)
    seal_adapter(made.adapter, None)
    return made


@pytest.fixture(scope="module")
def runs(tuned: Run, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Runs of other ranks, targets and kinds, and one with a chat template of its own."""
    root = tmp_path_factory.mktemp("together")
    made = [sibling(tuned, root / name, seed, **shape) for seed, (name, shape) in enumerate(SHAPES.items())]
    worded = sibling(tuned, root / "worded", 9, r=3)
    template = worded.adapter / "chat_template.jinja"
    template.write_text("{{ '\n' }}" + template.read_text())
    digest = hashlib.sha256(template.read_bytes()).hexdigest()
    worded.write_manifest(replace(worded.manifest(), template_sha256=digest))
    return [tuned, *made, worded]


@pytest.fixture(scope="module")
def server(runs: list[Run]) -> Iterator[Serving]:
    with serving(runs[0], Limits(max_requests=64), runs[1:]) as running:
        yield running


def alone(run: Run) -> list[str]:
    """Greedy answers of the run's model with nothing beside it."""
    model = TunedModel(run).tuned
    return [model.answer([{"role": "user", "content": question}], Sampling(max_tokens=24)) for question in ASKED]


def test_mixed_requests_at_a_time_get_the_answers_that_each_run_gives_alone(server: Serving, runs: list[Run]) -> None:
    base = TunedModel(runs[0]).base
    expected = {run.name: alone(run) for run in runs} | {
        "builtin:tiny": [base.answer([{"role": "user", "content": one}], Sampling(max_tokens=24)) for one in ASKED]
    }
    asked = [(name, at) for at in range(len(ASKED)) for name in expected]

    def ask(each: tuple[str, int]) -> str:
        name, at = each
        body = {"model": name, "messages": [{"role": "user", "content": ASKED[at]}], "temperature": 0, "max_tokens": 24}
        answer = json.loads(server.request("POST", "/v1/chat/completions", body)[1])
        assert answer["model"] == name
        return str(answer["choices"][0]["message"]["content"]).strip()

    with ThreadPoolExecutor(len(asked)) as threads:
        answered = dict(zip(asked, threads.map(ask, asked), strict=True))
    assert answered == {(name, at): expected[name][at] for name, at in asked}
    assert len(set(map(tuple, expected.values()))) == len(expected), "no two of them answer alike"


def test_each_model_is_listed_and_an_unknown_one_is_refused_with_all_names(server: Serving, runs: list[Run]) -> None:
    names = [run.name for run in runs] + ["builtin:tiny"]
    assert [model.id for model in server.client.models.list().data] == names
    with pytest.raises(openai.NotFoundError, match=" or ".join(map(repr, names))):
        server.ask("x", model="tuned2")


def test_each_run_has_its_own_prompt_and_equal_ones_are_made_by_one_process(server: Serving, runs: list[Run]) -> None:
    def num_tokens(run: Run, **settings: Any) -> int:
        usage = server.ask("What is number 5?", model=run.name, max_tokens=1, **settings).usage
        return int(usage.prompt_tokens)

    first, *same, worded = runs
    assert {num_tokens(run) for run in same} == {num_tokens(first)} != {num_tokens(worded)}
    assert num_tokens(first, tools=[ADD]) > num_tokens(first)
    assert server.program.server.models is not None
    assert len({id(service.renderer) for service in server.program.server.models.services}) == 2


@pytest.fixture
def copies(runs: list[Run], tmp_path: Path) -> list[Run]:
    """A run under other names, which tests may change."""
    made = [Run(tmp_path / name) for name in ("one", "two")]
    for copy in made:
        shutil.copytree(runs[0].path, copy.path)
    return made


def test_runs_that_cannot_share_a_base_are_refused_with_both_names(copies: list[Run], tmp_path: Path) -> None:
    one, two = copies
    config = two.path / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("quantization: none", "quantization: nf4"))
    with pytest.raises(ConfigError, match=r"run 'two': model.quantization is 'nf4', expected 'none', .* of 'one' is"):
        TrainedRuns(copies)
    config.write_text(text)
    manifest = json.loads((two.path / "manifest.json").read_text())
    manifest["base"] |= {"name": "org/other", "weights_sha256": None, "revision": "b" * 40}
    write_json(two.path / "manifest.json", manifest)
    with pytest.raises(
        ConfigError, match=rf"its base is org/other, revision {'b' * 40}, expected builtin:tiny, weights"
    ):
        TrainedRuns(copies)
    with pytest.raises(ConfigError, match=rf"RUN: {one.path} and {tmp_path}/x/one have one name, expected names"):
        TrainedRuns([one, Run(shutil.copytree(one.path, tmp_path / "x" / "one"))])


def test_an_adapter_that_cannot_be_held_leaves_the_others_as_they_were(runs: list[Run], copies: list[Run]) -> None:
    """As the first of all, beside others, and where one is taken off and comes back."""
    weights, ids = Weights(trained_base(runs[0]), runs[0].config().model), torch.arange(3, 40)[None]

    @torch.inference_mode()
    def logits(name: str | None) -> torch.Tensor:
        found: torch.Tensor = weights.view(name)(input_ids=ids).logits
        return found

    bare = logits(None)
    broken, whole = copies
    file = broken.adapter / ADAPTER
    file.write_bytes(file.read_bytes()[:-8])
    for text in ('{"modules_to_save": ["lm_head"]}', "{"):
        with pytest.raises(ConfigError, match="adapter"):
            weights.add(broken.adapter)
        assert logits(None).equal(bare)
        first = weights.add(runs[1].adapter)
        expected = logits(first)
        (broken.adapter / "adapter_config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"adapter_config\.json cannot be read"):
        weights.add(broken.adapter)
    assert logits(first).equal(expected)
    second = weights.add(whole.adapter)
    beside = logits(second)
    assert not beside.equal(expected)
    weights.remove(first)
    assert logits(second).equal(beside)
    weights.remove(second)
    assert logits(weights.add(whole.adapter)).equal(beside)
    assert logits(None).equal(bare)


@pytest.mark.slow
def test_models_beyond_those_that_may_answer_at_a_time_take_turns(runs: list[Run], tmp_path: Path) -> None:
    """The one that was asked least recently makes room, and comes back as it was; none that is at work does."""

    async def answer(models: Models, name: str) -> str:
        request = ChatRequest.model_validate(
            {"model": name, "messages": [{"role": "user", "content": ASKED[0]}], "temperature": 0, "max_tokens": 24}
        )
        async with models.using(name) as service:
            return str((await service.answer(request))["choices"][0]["message"]["content"]).strip()

    async def ask_all() -> list[str]:
        loader = await load_base("bare", runs[0].config().model, tmp_path, 2, Limits(), lambda message: None)
        models, found = loader.models, []
        try:
            for run in runs[:2]:
                loader.offer_run(run, run.name)
            for name in ("tuned", "bare", "tall", "tuned", "tall"):
                found.append(await answer(models, name))
                assert len(models.services) <= 2
            async with models.using("tuned"), models.using("tall"):
                with pytest.raises(Refusal, match="2 models are answering, which is this server's limit"):
                    await answer(models, "bare")
            return found
        finally:
            await loader.stop()

    first, bare, second, *again = asyncio.run(ask_all())
    assert [first, second] == [*again] == [alone(run)[0] for run in runs[:2]]
    assert bare not in (first, second)


def test_the_memory_for_conversations_is_shared_and_not_taken_by_the_first(
    runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "free_memory_bytes", lambda device: 60_000_000)

    def pages(*others: Run) -> list[int]:
        with serving(runs[0], Limits(), others) as running:
            assert running.program.server.models is not None
            return [service.engine.num_pages for service in running.program.server.models.services]

    (whole,) = pages()
    assert pages(runs[1]) == [whole // 2, whole // 2]
