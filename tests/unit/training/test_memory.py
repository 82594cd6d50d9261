"""The memory that is planned is the memory that a step takes, and the plan is the one that computes least."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from trainer.config import RunConfig
from trainer.config.schema import MemoryConfig
from trainer.data.pack.packing import Sharing, make_packs
from trainer.data.render.rendering import Example
from trainer.errors import ConfigError
from trainer.model.adapter import add_adapter, keep_float32, trainable
from trainer.model.base import Base, find_base
from trainer.model.checkpointing import recomputable
from trainer.model.loading import load_model
from trainer.model.tiny import tiny_base
from trainer.training.engine import Engine
from trainer.training.footprint import Footprint, footprint
from trainer.training.memory import MemoryPlan, Work, fit_memory, plan_memory
from trainer.training.prepare import prepare

pytestmark = pytest.mark.apart

CPU = torch.device("cpu")
LOWEST, HIGHEST = 0.7, 1.05  # measured / estimated; below 0.84 only where a tiny model is recomputed as a whole


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random model of 13 million parameters, with the vocabulary of no small one."""
    folder = tmp_path_factory.mktemp("larger")
    shape = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4}
    config = LlamaConfig(vocab_size=32_000, intermediate_size=688, tie_word_embeddings=True, **shape)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_base()).save_pretrained(folder)
    return str(folder)


def allocated(work: Callable[[], Any]) -> int:
    """The most that torch held at once for `work`, beyond what it held before, in bytes."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    return highest


def measured_and_estimated(
    config: RunConfig, dtype: torch.dtype, length: int, num_supervised: int, share: float
) -> tuple[int, int]:
    """Of one step with one row, a `share` of the layers recomputed."""
    base = find_base(config.model)
    model = add_adapter(load_model(base, config.model, CPU, dtype), config.lora)
    keep_float32(model)
    engine = Engine(model, CPU)
    layers = int(share * engine.num_recomputable)
    engine.recompute(layers)
    row = Example(tuple(range(length)), (-100,) * (length - num_supervised) + tuple(range(num_supervised)))
    (pack,) = engine.packs([row], 10_000)
    model.train()
    optimizer = torch.optim.AdamW(trainable(model).values(), fused=True)

    def step() -> None:
        engine.sums(pack).nll.backward()
        optimizer.step()

    shape = footprint(config, base, dtype, CPU, length)
    adapter = sum(parameter.numel() for parameter in trainable(model).values())
    held = shape.weights + adapter * (4 + 12)  # weights, and what a checkpoint is written from
    return allocated(step) + held, shape.peak(len(pack.input_ids), num_supervised, layers)


SHAPES = [(700, 700, 0.0), (700, 60, 0.0), (700, 300, 0.5), (700, 300, 1.0), (200, 150, 0.0)]


@pytest.mark.parametrize(("length", "num_supervised", "share"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["tiny", pytest.param("larger", marks=pytest.mark.slow)])
def test_a_step_takes_what_is_estimated(
    settings: Callable[..., RunConfig], larger: str, name: str, dtype: torch.dtype, length: int, num_supervised: int,
    share: float,
) -> None:  # fmt: skip
    config = settings(model__base=larger) if name == "larger" else settings()
    measured, estimated = measured_and_estimated(config, dtype, length, num_supervised, share)
    assert LOWEST * estimated <= measured <= HIGHEST * estimated


@pytest.mark.parametrize(
    "changes", [{"lora__lora_dropout": 0.1}, {"lora__use_dora": True}, {"model__quantization": "nf4"}]
)
def test_other_kinds_of_layers_too(settings: Callable[..., RunConfig], larger: str, changes: dict[str, Any]) -> None:
    config = settings(model__base=larger, **changes)
    measured, estimated = measured_and_estimated(config, torch.float32, 700, 300, 0.0)
    assert LOWEST * estimated <= measured <= HIGHEST * estimated


MIB = 2**20
SHAPE = Footprint(
    num_layers=10, num_recomputable=10, weights=100 * MIB, adapter=MIB, kept=40_000, kept_per_pair=0, mask=0,
    between=1000, around=4000, passing=6000, head_row=100_000, head_rows=600, softmax_row=0, softmax_rows=0, scores=MIB,
)  # fmt: skip


def rows_behind_a_prompt(prompt: int, rest: int) -> list[Example]:
    """16 rows of a step: what they share, and what each has of its own."""
    rows = [[7] * prompt + [100 + number] * rest for number in range(16)]
    return [Example(tuple(row), (-100,) * (len(row) - 10) + tuple(row[-10:])) for row in rows]


def plan(rows: list[Example], free_mib: int, **settings: Any) -> Any:
    most = sum(len(row.input_ids) for row in rows)
    work = Work(max(len(row.input_ids) for row in rows), most, 160, [rows], Sharing())
    return plan_memory(SHAPE, MemoryConfig(**settings), "cpu", free_mib * MIB, work)


SHARED, APART = rows_behind_a_prompt(400, 30), rows_behind_a_prompt(0, 200)


def pairs_behind_prompts(count: int, prompt: int, rest: int) -> list[Example]:
    """Two answers each, one after the other, behind a prompt of the pair's own."""
    rows = [[number // 2] * prompt + [100 + number] * rest for number in range(2 * count)]
    return [Example(tuple(row), (-100,) * prompt + tuple(row[prompt:])) for row in rows]


def test_a_pair_costs_its_tree_and_one_that_is_cut_its_two_rows_and_half_of_them_to_read_them_first() -> None:
    prompt, rest, pack_cost = 100, 20, 7
    step = pairs_behind_prompts(4, prompt, rest)
    work = Work(prompt + rest, 4 * 2 * (prompt + rest), 160, [step], Sharing(), has_pairs=True)
    tree, row = prompt + 2 * (rest - 1), prompt + rest - 1  # the last token of an answer is only predicted
    assert work.num_computed(step, 4 * tree, pack_cost) == 4 * tree + pack_cost
    assert work.num_computed(step, tree, pack_cost) == 4 * (tree + pack_cost)
    assert work.num_computed(step, tree - 1, pack_cost) == 1.5 * 8 * (row + pack_cost)


def test_the_budget_holds_both_answers_of_a_pair_where_that_fits_and_cuts_none_for_a_layer_less() -> None:
    step = pairs_behind_prompts(4, 400, 30)
    work = Work(430, 8 * 430, 240, [step], Sharing(), has_pairs=True)
    found = plan_memory(SHAPE, MemoryConfig(), "cpu", 500 * MIB, work)
    assert found.token_budget >= 458
    assert found.recompute_layers > 0
    assert found.peak_bytes <= 250 * MIB


@pytest.mark.parametrize("rows", [SHARED, APART])
def test_nothing_is_computed_again_where_it_fits(rows: list[Example]) -> None:
    found = plan(rows, 8000)
    assert (found.token_budget, found.recompute_layers, found.problem(430)) == (4096, 0, None)


def test_rows_that_share_much_are_kept_together_by_computing_layers_again() -> None:
    assert len(make_packs(SHARED, 1000)) == 1, "the step as one pack needs 880 tokens"
    found = plan(SHARED, 500)
    assert found.recompute_layers > 0
    assert len(make_packs(SHARED, found.token_budget)) == 1
    fewer = SHAPE.peak(found.token_budget, 160, found.recompute_layers - 1)
    assert found.peak_bytes <= 250 * MIB < fewer


def test_rows_with_nothing_in_common_are_cut_finer_first() -> None:
    found = plan(APART, 700)
    assert found.recompute_layers == 0
    assert 200 <= found.token_budget < 4096
    assert found.peak_bytes <= 350 * MIB


@pytest.mark.parametrize("rows", [SHARED, APART])
def test_less_memory_never_computes_less_and_never_takes_more_than_is_usable(rows: list[Example]) -> None:
    plans = [plan(rows, free) for free in range(300, 3000, 100)]
    for found, free in zip(plans, range(300, 3000, 100), strict=True):
        if found.problem(430) is None and found.recompute_layers < 10:
            assert found.peak_bytes <= free / 2 * MIB
    costs = [
        sum(len(pack.input_ids) + 32 for pack in make_packs(rows, found.token_budget))
        * (1 + 0.35 * found.recompute_layers / 10)
        for found in plans
    ]
    assert costs == sorted(costs, reverse=True)


def test_a_limit_is_all_the_memory_there_is() -> None:
    limited = plan(SHARED, 64_000, limit_gb=250 / 1024)
    assert limited.free_bytes == 250 * MIB
    unlimited = plan(SHARED, 500)
    assert (limited.token_budget, limited.recompute_layers) == (unlimited.token_budget, unlimited.recompute_layers)
    assert plan(SHARED, 500, limit_gb=100.0) == unlimited


def test_what_is_set_stays() -> None:
    assert plan(SHARED, 500, token_budget=500).token_budget == 500
    assert plan(SHARED, 500, recompute_layers=10).recompute_layers == 10
    fixed = plan(SHARED, 90, token_budget=500, recompute_layers=3)
    assert (fixed.token_budget, fixed.recompute_layers) == (500, 3)


def test_what_does_not_fit_is_said_before_it_starts() -> None:
    assert "model.base: the weights need about 101 MiB, and 90 MiB are free" in str(plan(SHARED, 90).problem(430))
    found = plan(SHARED, 120)
    assert (found.token_budget, found.recompute_layers) == (430, 10)
    assert "data.max_length: the longest row (430 tokens) needs about" in str(found.problem(430))
    too_many = plan(SHARED, 8000, recompute_layers=11).problem(430)
    assert too_many == "memory.recompute_layers: is 11, expected at most 10 for this model"


def test_a_whole_run_plans_with_its_limit_and_stores_the_plan(settings: Callable[..., RunConfig]) -> None:
    from trainer.training.prepare import prepare

    roomy, tight = prepare(settings(), print), prepare(settings(memory__limit_gb=0.017), print)
    assert (roomy.plan.token_budget, roomy.plan.recompute_layers) == (4096, 0)
    stored = tight.config.memory
    assert (stored.token_budget, stored.recompute_layers) == (tight.plan.token_budget, tight.plan.recompute_layers)
    assert tight.plan.token_budget < 4096
    assert tight.memory.peak_bytes <= 0.017 * 2**30


def test_a_gpu_before_ampere_also_holds_a_mask_of_all_pairs(settings: Callable[..., RunConfig], larger: str) -> None:
    config = settings(model__base=larger)
    new, old = (
        footprint(config, find_base(config.model), torch.float16, torch.device("cuda"), 500, has_flex)
        for has_flex in (True, False)
    )
    assert old.peak(1000, 100) - new.peak(1000, 100) == 2 * 1000**2
    assert old.evaluating(1000) - new.evaluating(1000) == 2 * 1000**2


LAYERS, PROCESSES = 40, 4
DEEP = Base("deep", "deep", None, LlamaConfig(num_hidden_layers=LAYERS, hidden_size=256, intermediate_size=688), {})


def fit(config: RunConfig, free_bytes: float, num_processes: int = PROCESSES, base: Base = DEEP) -> MemoryPlan:
    data = prepare(config.model_copy(update={"memory": MemoryConfig()}), print).data
    return fit_memory(config, base, torch.float32, CPU, data, 6, int(free_bytes), num_processes)


def test_sharded_a_process_holds_its_share_of_the_layers_three_of_them_whole_and_the_rest(
    settings: Callable[..., RunConfig],
) -> None:
    layers = [sum(weight.numel() for weight in layer.parameters()) for layer in recomputable(DEEP.skeleton)]
    rest = sum(weight.numel() for weight in DEEP.skeleton.parameters()) - sum(layers)
    assert len(layers) == LAYERS
    found = fit(settings(memory__shard_base=True), 8000 * MIB)
    assert found.footprint.weights == 4 * (sum(layers) // PROCESSES + 3 * layers[0] + rest)


def test_a_base_is_sharded_only_where_it_does_not_fit_as_a_whole(settings: Callable[..., RunConfig]) -> None:
    whole = fit(settings(), 8000 * MIB)
    assert whole.num_shards == 1
    little = whole.footprint.fixed - 1
    assert fit(settings(), little).num_shards == PROCESSES
    assert fit(settings(), little).problem(40) is None
    assert "model.base: the weights need about" in str(fit(settings(memory__shard_base=False), little).problem(40))
    assert fit(settings(), little, num_processes=1).num_shards == 1
    assert fit(settings(model__quantization="nf4"), MIB).num_shards == 1
    assert "model.base: the weights, sharded over 4 processes, need about" in str(fit(settings(), MIB).problem(40))


@pytest.mark.parametrize(
    ("changes", "num_processes", "told"),
    [
        ({"model__quantization": "int8"}, 2, "and model.quantization is 'int8', expected an unquantized base; set it"),
        ({}, 1, "and one process trains, expected several: one for each GPU, or as many as TRAINER_PROCESSES says; "),
    ],
)
def test_what_cannot_be_sharded_is_refused(
    settings: Callable[..., RunConfig], changes: dict[str, Any], num_processes: int, told: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"memory.shard_base: is true, {told}")):
        fit(settings(memory__shard_base=True, **changes), 8000 * MIB, num_processes)


def test_a_torch_that_cannot_recover_from_a_failed_pass_shards_no_base(
    settings: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As 2.11, which is enough for all else."""
    little = fit(settings(), 8000 * MIB).footprint.fixed - 1
    monkeypatch.delattr("torch.distributed.fsdp.FSDPModule.reset_iter_state")
    told = (
        "memory.shard_base: is true, and this torch cannot recover from a pass that ran out of memory, expected torch"
    )
    with pytest.raises(ConfigError, match=re.escape(told)):
        fit(settings(memory__shard_base=True), 8000 * MIB)
    assert fit(settings(), little).num_shards == 1


def test_a_check_plans_for_the_processes_that_would_train(
    settings: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINER_PROCESSES", "2")
    prepared = prepare(settings(memory__shard_base=True), print)
    assert (prepared.memory.num_shards, prepared.config.memory.shard_base) == (2, True)
    monkeypatch.setenv("TRAINER_PROCESSES", "1")
    assert prepare(settings(), print).config.memory.shard_base is False
