"""Preference training by this trainer and by TRL's DPOTrainer on the same pairs, on a CPU: see --help.

Each arm is a process of its own and steps when told to, so that arms are interleaved on a noisy machine and each has
its own peak memory. Before anything is timed, loss and gradient of each arm are held against two plain models, one
answer at a time in float32. Times are CPU times with one thread. What the reference takes is counted where it is
computed: TRL's defaults read it in every step, the others once for all epochs, so that a step carries its share.
"""

import argparse
import json
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from ceiling import machine
from gate import NORM, agreement
from shapes import LEARNING_RATE, MODELS, RANK, _length, _row, _tokens
from worker import Worker

from trainer.data.pack.pairs import pair_size
from trainer.data.render.rendering import IGNORE_INDEX, Example

RESULTS = Path(__file__).parent / "results" / "dpo.json"
SAMPLE = "dpo/gpt4o_generated_qa_dpo_train_200_samples.jsonl"
SHAPES = ("real pairs", "UltraFeedback", "long prompts")
BETA, EPOCHS, GATE_PAIRS = 0.1, 3, 2
# A 16-bit arm must come this near to the reference. What both answers have in common cancels in their difference, and
# what was rounded away in each of them does not: TRL, which reads the prompt twice, comes to 0.979 here.
PAIR_COSINE, PAIR_LOSS = 0.95, 0.01
# TRL's fastest on a CPU: weights in bfloat16, nothing computed twice, the reference once, little padding. Its
# padding-free batches are switched off in this version, and its head reads the answers' hidden states in chunks anyway.
BEST: dict[str, Any] = {
    "gradient_checkpointing": False, "per_device_train_batch_size": 2, "precompute_ref_log_probs": True,
}  # fmt: skip
TRL_ARMS: dict[str, dict[str, Any]] = {"trl": {}, "trl-best": BEST}
ARMS = ("ours", "sft", *TRL_ARMS)
NAMES = {
    "ours": "this trainer",
    "sft": "this trainer, both answers as chats",
    "trl": "TRL, defaults",
    "trl-best": "TRL, bf16, reference precomputed, no checkpointing",
}
Answers = tuple[tuple[Example], tuple[Example]]


@dataclass(frozen=True)
class Job:
    """The work of one process."""

    shape: str
    pairs: int
    layers: int
    folder: str = ""
    arm: str = ""

    @property
    def model(self) -> Any:
        return replace(MODELS["135M"], layers=self.layers)

    def rows(self) -> list[Answers]:
        """The pairs of one step."""
        if self.shape == "real pairs":
            return _real(self.pairs)
        source, vocab = random.Random(0), self.model.vocab
        system = _tokens(source, 500, vocab) if self.shape == "long prompts" else []
        # Mean tokens of UltraFeedback's binarized pairs, rounded: about 180 of prompts and 300 of answers.
        asked, said = (40, 60) if system else (180, 300)
        prompts = [system + _tokens(source, _length(source, asked), vocab) for _ in range(self.pairs)]

        def answer(prompt: list[int]) -> tuple[Example]:
            return (_row(prompt, _tokens(source, _length(source, said), vocab)),)

        return [(answer(prompt), answer(prompt)) for prompt in prompts]


def _real(count: int) -> list[Answers]:
    from transformers import AutoTokenizer

    from trainer.data.read.rows import read_conversations
    from trainer.data.render.rendering import Renderer
    from trainer.model.tiny import tiny_base

    renderer = Renderer(AutoTokenizer.from_pretrained(tiny_base()))
    rows = read_conversations(Path(os.environ["TRAINER_SAMPLE_DATA"]) / SAMPLE).conversations[:count]
    return [((preferred,), (other,)) for preferred, other in map(renderer.render, rows)]


class Arm:
    """An arm in its process: gate, then steps, each told by a line of standard input."""

    def __init__(self, job: Job) -> None:
        self.job, self.rows = job, job.rows()

    def work(self) -> None:
        getattr(self, f"_{self.job.arm.partition('-')[0]}")()

    def answer(self, what: dict[str, Any]) -> None:
        print(json.dumps(what), flush=True)

    def _model(self, wide: bool) -> Any:
        import torch
        from models import adapted_model

        return adapted_model(self.job.model, torch.float32 if wide else torch.bfloat16, torch.device("cpu"))

    def _reference(self) -> None:
        """Two plain models, one answer at a time."""
        import torch

        model, loss = self._model(wide=True), torch.zeros(())
        sys.stdin.readline()
        for pair in self.rows[:GATE_PAIRS]:
            with torch.no_grad(), model.disable_adapter():
                before = [_plain(model, row) for (row,) in pair]
            preferred, other = (_plain(model, row) - was for (row,), was in zip(pair, before, strict=True))
            part = -torch.nn.functional.logsigmoid(BETA * (preferred - other)) / GATE_PAIRS
            part.backward()
            loss += part.detach()
        self._gate(float(loss), model)

    def _gate(self, loss: float, model: Any) -> None:
        from arms import save_gradients

        save_gradients(model, Path(self.job.folder) / f"{self.job.arm}.safetensors")
        self.answer({"loss": loss})
        model.zero_grad()

    def _ours(self) -> None:
        import torch
        from our_step import Updates

        from trainer.config import RunConfig
        from trainer.training.memory import MAX_BUDGET
        from trainer.training.pairs import Pair, PairExecutor
        from trainer.training.preference import PreferenceLoss
        from trainer.training.ranks import Ranks

        model = self._model(wide=False)
        settings: dict[str, Any] = {"model": {"base": "random"}, "data": {"train": "rows.jsonl"}, "lora": {"r": RANK}}
        config = RunConfig.model_validate(settings | {"memory": {"shard_base": False}})
        plan: Any = SimpleNamespace(token_budget=MAX_BUDGET["cpu"], recompute_layers=0)
        executor = PairExecutor(
            model, torch.device("cpu"), config, plan, Ranks(), torch.Tensor.backward, lambda *_, **__: None
        )
        loss, pairs = PreferenceLoss(BETA, "sigmoid", 0.0, 0.0), [Pair(*row) for row in self.rows]
        assert executor.engine  # made and tried out before the clock runs
        begin = time.process_time()
        with model.disable_adapter():
            logps, _ = executor.logps(pairs, 0)
        reference = time.process_time() - begin
        pairs = [replace(pair, reference=tuple(of_pair)) for pair, of_pair in zip(pairs, logps.tolist(), strict=True)]
        sys.stdin.readline()
        self._gate(float(executor.add_pair_gradients(pairs[:GATE_PAIRS], loss, 1).loss), model)
        self._steps(lambda: executor.add_pair_gradients(pairs, loss, 1), Updates(model), reference)

    def _sft(self) -> None:
        """The same tokens as chats: what memory supervised training of them takes."""
        import torch
        from our_step import OurStep, Updates

        from trainer.training.memory import MAX_BUDGET

        model = self._model(wide=False)
        step = OurStep(model, torch.device("cpu"), MAX_BUDGET["cpu"])
        examples = [row for pair in self.rows for (row,) in pair]
        sys.stdin.readline()
        self.answer({"loss": 0.0})
        self._steps(lambda: step.add_gradients(examples), Updates(model), 0.0)

    def _steps(self, compute: Any, update: Any, reference: float) -> None:
        from arms import Answers as Asked

        asked = Asked(lambda: None)
        asked.ready = {"reference_cpu_seconds": reference}
        while asked.wait():
            asked.start()
            compute()
            update()
            asked.stop()

    def _trl(self) -> None:
        from arms import Answers as Asked
        from arms import TrlGradient, TrlSteps

        settings = TRL_ARMS[self.job.arm] | {"use_cpu": True}
        sys.stdin.readline()
        still = {"max_steps": 1, "learning_rate": 0.0, "max_grad_norm": 0.0, "logging_steps": 1}
        trainer, _ = self._trainer(self.rows[:GATE_PAIRS], settings | still)
        trainer.add_callback(TrlGradient(Path(self.job.folder) / f"{self.job.arm}.safetensors"))
        trainer.train()
        self.answer({"loss": next(row["loss"] for row in trainer.state.log_history if "loss" in row)})
        del trainer
        forever = {"max_steps": 1000, "learning_rate": LEARNING_RATE, "logging_strategy": "no"}
        trainer, reference = self._trainer(self.rows, settings | forever)
        asked = Asked(lambda: None)
        asked.ready = {"reference_cpu_seconds": reference}
        trainer.add_callback(TrlSteps(asked))
        trainer.train()

    def _trainer(self, rows: Sequence[Answers], settings: dict[str, Any]) -> tuple[Any, float]:
        """TRL's trainer, which takes all rows in a step, and the CPU seconds of the reference before it."""
        import torch
        from datasets import Dataset
        from models import fill_adapter, random_base
        from peft import LoraConfig
        from transformers import AutoTokenizer
        from trl import DPOConfig, DPOTrainer

        from trainer.model.tiny import tiny_base

        took = [0.0]

        class TokenTrainer(DPOTrainer):  # type: ignore[misc]  # TRL is not typed
            def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
                return dataset  # of token ids already

            def _precompute_ref_logps(self, *arguments: Any) -> Any:
                begin = time.process_time()
                found = super()._precompute_ref_logps(*arguments)
                took[0] = time.process_time() - begin
                return found

        size = settings.get("per_device_train_batch_size", 8)
        own = {"output_dir": tempfile.mkdtemp(), "report_to": [], "save_strategy": "no", "disable_tqdm": True}
        own |= {"max_length": None, "beta": BETA, "gradient_accumulation_steps": -(-len(rows) // size)}
        dtype = torch.float32 if self.job.arm == "trl" else torch.bfloat16
        lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
        trainer = TokenTrainer(
            random_base(self.job.model, dtype, torch.device("cpu")),
            args=DPOConfig(**own | settings),
            train_dataset=Dataset.from_list([_split(pair) for pair in rows]),
            processing_class=AutoTokenizer.from_pretrained(tiny_base()),
            peft_config=lora,
        )
        fill_adapter(trainer.model)
        return trainer, took[0]


def _split(pair: Answers) -> dict[str, list[int]]:
    (preferred,), (other,) = pair
    prompt = len(preferred.input_ids) - preferred.num_supervised
    return {
        "prompt_ids": list(preferred.input_ids[:prompt]),
        "chosen_ids": list(preferred.input_ids[prompt:]),
        "rejected_ids": list(other.input_ids[prompt:]),
    }


def _plain(model: Any, example: Example) -> Any:
    import torch

    labels = torch.tensor(example.labels[1:])
    scored = (labels != IGNORE_INDEX).nonzero().squeeze(1)
    logits = model(input_ids=torch.tensor([example.input_ids]), use_cache=False).logits[0, :-1][scored]
    return torch.log_softmax(logits, -1).gather(1, labels[scored, None]).sum()


def compare(job: Job, repeats: int) -> dict[str, Any]:
    """Gate and first step of each arm, then `repeats` rounds: one step of each in turn."""
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder:
        job = replace(job, folder=folder)
        plain = Worker(__file__, replace(job, arm="reference"))
        expected = plain.ask("gate")["loss"]
        plain.close()
        workers = [Worker(__file__, replace(job, arm=arm), is_ours=arm in ("ours", "sft")) for arm in ARMS]
        parity: dict[str, Any] = {"sft": {}}
        rounds: dict[str, list[dict[str, Any]]] = {}
        for worker in workers:
            loss, arm = worker.ask("gate")["loss"], worker.job.arm
            if arm != "sft":
                mine, theirs = (_named(load_file(f"{folder}/{name}.safetensors")) for name in (arm, "reference"))
                parity[arm], problem = agreement(loss, mine, expected, theirs)
                if problem is not None and not _is_near(parity[arm]):
                    raise SystemExit(f"{arm}: fails the gate, {problem}")
            rounds[arm] = [worker.ask("step")]
        for _ in range(repeats):
            for worker in workers:
                rounds[worker.job.arm].append(worker.ask("step"))
        for worker in workers:
            worker.close()
    rows = job.rows()
    counts = {
        "pairs": len(rows),
        "tokens": sum(len(row.input_ids) for pair in rows for (row,) in pair),
        "unique": sum(map(pair_size, rows)),
        "supervised": sum(row.num_supervised for pair in rows for (row,) in pair),
    }
    return {"step": counts, "arms": {arm: _measured(steps, counts) | parity[arm] for arm, steps in rounds.items()}}


def _is_near(found: dict[str, float]) -> bool:
    near = found["gradient_norm_off"] <= NORM and found["loss_off"] <= PAIR_LOSS
    return near and found["gradient_cosine"] >= PAIR_COSINE


def _named(gradients: dict[str, Any]) -> dict[str, Any]:
    return {name: gradient for name, gradient in gradients.items() if "lora_" in name}


def _measured(steps: list[dict[str, Any]], counts: dict[str, int]) -> dict[str, Any]:
    rounds = steps[1:] or steps
    step = statistics.median(row["cpu_seconds"] for row in rounds)
    reference = steps[0]["reference_cpu_seconds"]
    return {
        "step_cpu_seconds": step,
        "reference_cpu_seconds": reference,
        "tokens_per_cpu_second": counts["tokens"] / (step + reference / EPOCHS),
        "tokens_per_cpu_second_without_reference": counts["tokens"] / step,
        "peak_memory_bytes": rounds[-1]["peak_memory_bytes"],
    }


def table(results: dict[str, Any]) -> str:
    lines = ["| Pairs of a step | Trainer | Tokens / CPU s | This trainer is | Peak memory |", "|---|---|---|---|---|"]
    for shape, result in results.items():
        ours = result["arms"]["ours"]["tokens_per_cpu_second"]
        for arm, row in result["arms"].items():
            ratio = f"{ours / row['tokens_per_cpu_second']:.1f}x faster" if arm in TRL_ARMS else ""
            name = f"{result['step']['pairs']}: {shape}" if arm == "ours" else ""
            speed, memory = row["tokens_per_cpu_second"], row["peak_memory_bytes"] / 1e9
            lines.append(f"| {name} | {NAMES[arm]} | {speed:,.0f} | {ratio} | {memory:.2f} GB |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--pairs", type=int, default=8, help="of an optimizer step")
    parser.add_argument("--layers", type=int, default=6, help="of the shape of a 135M Llama with random weights")
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds; 0 takes the first step")
    parser.add_argument("--output", type=Path, default=RESULTS, help="other shapes in it stay")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        import torch

        torch.set_num_threads(1)
        resource.setrlimit(resource.RLIMIT_DATA, (12 * 2**30, 12 * 2**30))
        Arm(Job(**json.loads(options.worker))).work()
        return
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    results = json.loads(options.output.read_text())["shapes"] if options.output.exists() else {}
    for shape in options.shapes:
        settings = {"layers": options.layers, "repeats": options.repeats, "load_average": os.getloadavg()[0]}
        results[shape] = {"settings": settings} | compare(Job(shape, options.pairs, options.layers), options.repeats)
        print(table({shape: results[shape]}), flush=True)
        content = {"machine": machine("cpu"), "epochs": EPOCHS, "shapes": results}
        options.output.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
