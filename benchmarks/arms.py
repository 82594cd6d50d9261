"""The arms of the benchmark: each makes the same model and takes the same optimizer step in its own way."""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

START = time.time()

# The clock starts before what is slow to import: the first step has to wait for it.
import torch  # noqa: E402
from shapes import HEAD, HEADS, HIDDEN, KEY_HEADS, MLP, RANK, VOCAB, step_of  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

from trainer.data.rendering import Example  # noqa: E402

Backward = Callable[[], float]  # adds the step's gradient and returns its loss
LEARNING_RATE = 2e-4
MOST_MEMORY = 12 * 2**30  # an arm that wants more ends, and not the machine it shares with others


def adapted_model(layers: int, dtype: torch.dtype) -> Any:
    """Random weights, the same in each arm; B is not zero, or A would get no gradient. The adapter is float32."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=MLP,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        head_dim=HEAD,
        tie_word_embeddings=True,
        max_position_embeddings=8192,
        pad_token_id=0,
    )
    lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(LlamaForCausalLM(config), lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    adapter = {name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad}
    model.to(dtype)
    for name, parameter in model.named_parameters():
        if name in adapter:
            parameter.data = adapter[name]
    return model


def reference(model: Any, examples: list[Example]) -> Backward:
    """One conversation at a time, the model's own logits."""

    def backward() -> float:
        total, loss = _num_supervised(examples), 0.0
        for example in examples:
            logits = model(input_ids=torch.tensor([example.input_ids])).logits[0, :-1]
            nll = torch.nn.functional.cross_entropy(logits, torch.tensor(example.labels[1:]), reduction="sum") / total
            nll.backward()
            loss += nll.item()
        return loss

    return backward


def ours(model: Any, examples: list[Example]) -> Backward:
    from trainer.training.engine import Engine
    from trainer.training.memory import MAX_BUDGET

    engine = Engine(model, torch.device("cpu"))

    def backward() -> float:
        packs = engine.packs(examples, MAX_BUDGET["cpu"])
        total, loss = sum(pack.num_supervised for pack in packs), torch.zeros(())
        for pack in packs:
            nll = engine.sums(pack).nll / total
            nll.backward()
            loss += nll.detach()
        return loss.item()

    return backward


class TrlSteps(TrainerCallback):
    """TRL's real loop, told when to step: between two steps it waits for the next question."""

    def __init__(self, answer: "Answers") -> None:
        self.answers = answer

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.answers.wait():
            os._exit(0)
        self.answers.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.answers.stop()


class TrlGradient(TrainerCallback):
    """Keeps the gradient that the optimizer would get."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        _store_gradient(model, self.path)


def trl_trainer(model: Any, examples: list[Example], settings: dict[str, Any], callback: TrainerCallback) -> Any:
    """An optimizer step takes all rows: as many micro-batches as TRL makes of them."""
    trainer = _trl_trainer(model, examples, settings)
    count = len(trainer.get_train_dataloader())
    trainer = _trl_trainer(model, examples, settings | {"gradient_accumulation_steps": count})
    trainer.add_callback(callback)
    return trainer


def _trl_trainer(model: Any, examples: list[Example], settings: dict[str, Any]) -> Any:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from trainer.model.tiny import tiny_base

    columns = {"input_ids": [list(e.input_ids) for e in examples], "labels": [list(e.labels) for e in examples]}
    arguments = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        max_length=max(len(example.input_ids) for example in examples),
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        **settings,  # 8 rows a micro-batch by default
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_base())
    dataset = Dataset.from_dict(columns)
    return SFTTrainer(model, args=arguments, train_dataset=dataset, processing_class=tokenizer)


# What makes TRL fast on a CPU: weights in bfloat16, nothing computed twice, small micro-batches with little padding.
BEST: dict[str, Any] = {"gradient_checkpointing": False, "per_device_train_batch_size": 2}
TRL_ARMS: dict[str, dict[str, Any]] = {"trl": {}, "trl-packed": BEST | {"packing": True}, "trl-padded": BEST}
ARMS = ("reference", "ours", *TRL_ARMS)


class Answers:
    """Reads questions, and prints what a step took."""

    def __init__(self, make_ready: Callable[[], Any]) -> None:
        self.made = make_ready()
        self.ready = {"ready_cpu_seconds": time.process_time(), "ready_wall_seconds": time.time() - START}

    def wait(self) -> str:
        return sys.stdin.readline().strip()

    def start(self) -> None:
        self.wall, self.cpu = time.time(), time.process_time()

    def stop(self) -> None:
        took = {"cpu_seconds": time.process_time() - self.cpu, "wall_seconds": time.time() - self.wall}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(took | self.ready | {"peak_memory_bytes": peak}), flush=True)


def work(arm: str, shape: str, rows: int, layers: int, gate_rows: int, folder: Path) -> None:
    """Answer `gate` with loss and gradient of the first rows, then each `step` with what an optimizer step took."""
    torch.set_num_threads(1)
    # Read at the first tensor; importing this trainer sets it, and the rows come through it in all arms.
    os.environ["THP_MEM_ALLOC_ENABLE"] = str(int(arm == "ours"))
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    examples = step_of(shape, rows).examples
    gradient = folder / f"{arm}.safetensors"
    if arm in TRL_ARMS:
        model = adapted_model(layers, torch.float32 if arm == "trl" else torch.bfloat16)
        _work_trl(model, examples, gate_rows, TRL_ARMS[arm], gradient)
    else:
        model = adapted_model(layers, torch.float32 if arm == "reference" else torch.bfloat16)
        _work_plain(model, examples, gate_rows, reference if arm == "reference" else ours, gradient)


def _work_plain(
    model: Any, examples: list[Example], gate_rows: int, make: Callable[[Any, list[Example]], Backward], gradient: Path
) -> None:
    answers = Answers(lambda: make(model, examples))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, fused=True)
    while question := answers.wait():
        if question == "gate":
            loss = make(model, examples[:gate_rows])()
            _store_gradient(model, gradient)
            print(json.dumps({"loss": loss}), flush=True)
        else:
            answers.start()
            answers.made()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            answers.stop()
        optimizer.zero_grad()


def _work_trl(model: Any, examples: list[Example], gate_rows: int, settings: dict[str, Any], gradient: Path) -> None:
    answers = Answers(lambda: _trl_trainer(model, examples, settings))
    answers.wait()  # the gate: a step that changes nothing
    still = settings | {"max_steps": 1, "learning_rate": 0.0, "max_grad_norm": 0.0, "logging_steps": 1}
    trainer = trl_trainer(model, examples[:gate_rows], still, TrlGradient(gradient))
    trainer.train()
    print(json.dumps({"loss": next(row["loss"] for row in trainer.state.log_history if "loss" in row)}), flush=True)
    forever = settings | {"max_steps": 1000, "learning_rate": LEARNING_RATE, "logging_strategy": "no"}
    trl_trainer(model, examples, forever, TrlSteps(answers)).train()


def _store_gradient(model: Any, path: Path) -> None:
    from safetensors.torch import save_file

    names = {name: p.grad.float().contiguous() for name, p in model.named_parameters() if p.grad is not None}
    save_file({name.replace("module.", ""): gradient for name, gradient in names.items()}, path)


def _num_supervised(examples: list[Example]) -> int:
    return sum(label >= 0 for example in examples for label in example.labels[1:])
