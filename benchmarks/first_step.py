"""From the command to the end of the first optimizer step, against TRL: `make bench-first-step`.

`train` runs as a user runs it, with an empty cache and again with the one that it has filled; beside it a plain script
of TRL's SFTTrainer, with its own tokenization and its own caches, in the same two states. Both get the same file,
base folder, LoRA and 16 rows a step; nothing is truncated, all else is left at its defaults. The template of the base
has no {% generation %} tags, so TRL trains on every token, which spares it the work of a mask.

The clock starts before the process. "ready" is when the model has its adapter and every row its tokens; "step" when
the first step is recorded, or for TRL has ended. CPU seconds are those of the process and its workers.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results") / "first-step.json"
ROWS_A_STEP, RANK, ALPHA = 16, 16, 32
POLL_SECONDS = 0.02
ARMS = {"ours": "this trainer", "trl": "TRL, plain script"}


def permuted_rows(num_rows: int) -> Iterator[dict[str, Any]]:
    """The conversations of data/support_train.jsonl, each with its words drawn anew: no two are alike."""
    chance = random.Random(0)
    lines = (ROOT / "data" / "support_train.jsonl").read_text(encoding="utf-8").splitlines()
    conversations = [json.loads(line)["messages"] for line in lines]
    words = [word for system, *rest in conversations for message in rest for word in message["content"].split()]
    for _ in range(num_rows):
        system, *rest = chance.choice(conversations)
        lengths = [len(message["content"].split()) for message in rest]
        texts = [" ".join(chance.choices(words, k=length)).capitalize() for length in lengths]
        yield {"messages": [system, *({"role": m["role"], "content": t} for m, t in zip(rest, texts, strict=True))]}


def make_base(folder: Path, layers: int) -> None:
    """A Llama of the 135M shape with random weights in bfloat16, and the tokenizer and template of builtin:tiny."""
    import torch
    from models import config_of
    from shapes import MODELS
    from transformers import AutoTokenizer, LlamaForCausalLM

    from trainer.model.tiny import tiny_base

    tokenizer = AutoTokenizer.from_pretrained(tiny_base(), trust_remote_code=False)
    config = config_of(replace(MODELS["135M"], layers=layers))
    config.update(
        {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def trl_script(base: str, rows: str, folder: str) -> None:
    """What TRL's documentation shows, with this benchmark's LoRA and rows a step."""
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Marks(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            Path(folder, "step").touch()

    trainer = SFTTrainer(
        base,
        args=SFTConfig(
            output_dir=folder,
            max_length=None,
            per_device_train_batch_size=8,  # its default
            gradient_accumulation_steps=ROWS_A_STEP // 8,
            report_to=[],
            use_cpu=True,
        ),
        train_dataset=load_dataset("json", data_files=rows, split="train"),
        peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[Marks()],
    )
    Path(folder, "ready").touch()
    trainer.train()


def measure(arm: str, base: Path, rows: Path, cache: Path, until: str) -> dict[str, dict[str, float]]:
    """Start an arm, and say what it has taken when it is `ready` and, if it is let go on, after its `step`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command, marks = (_ours if arm == "ours" else _trl)(base, rows, folder)
        caches = {"TRAINER_CACHE": str(cache / "ours"), "HF_HOME": str(cache / "trl")}
        environment = os.environ | caches | {"OMP_NUM_THREADS": "1"}
        start = time.time()
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
        found: dict[str, dict[str, float]] = {}
        try:
            for mark in ("ready", "step") if until == "step" else ("ready",):
                while not marks[mark]():
                    if process.poll() is not None:
                        raise SystemExit(f"the arm {arm!r} ended with {process.returncode}")
                    time.sleep(POLL_SECONDS)
                found[mark] = {"wall_seconds": round(time.time() - start, 2)} | _used(process.pid)
        finally:
            process.kill()
            process.wait()
    return found


def _ours(base: Path, rows: Path, folder: Path) -> tuple[list[str], dict[str, Callable[[], bool]]]:
    """`train`; the event that names the adapter's weights stands behind everything but the first step."""
    config = folder / "run.yaml"
    config.write_text(
        f"model: {{base: {base}}}\ndata: {{train: {rows}}}\nlora: {{r: {RANK}, lora_alpha: {ALPHA}}}\n"
        f"training: {{batch_size: {ROWS_A_STEP}, logging_steps: 1}}\nrun: {{root: {folder}, name: run}}\n"
    )
    run = folder / "run"

    def told(file: str, text: str) -> Callable[[], bool]:
        return lambda: (run / file).is_file() and text in (run / file).read_text(encoding="utf-8")

    marks = {"ready": told("events.jsonl", "adapter weights for"), "step": told("metrics.jsonl", '"step": 1')}
    return [sys.executable, "-m", "trainer", "train", "--config", str(config)], marks


def _trl(base: Path, rows: Path, folder: Path) -> tuple[list[str], dict[str, Callable[[], bool]]]:
    command = [sys.executable, __file__, "--trl", str(base), str(rows), str(folder)]
    return command, {name: (folder / name).exists for name in ("ready", "step")}


def _used(pid: int) -> dict[str, float]:
    """CPU seconds of a process and of its children that have ended, and the most memory that it has held."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = sum(int(field) for field in fields[11:15])
    status = Path(f"/proc/{pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]
    return {"cpu_seconds": round(ticks / os.sysconf("SC_CLK_TCK"), 2), "peak_memory_bytes": int(peak) * 1024}


def compare(num_rows: int, base: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Each arm with empty caches and with its own, in turns; the step, which is the same, only once."""
    rows = folder / f"{num_rows}.jsonl"
    with rows.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in permuted_rows(num_rows))
    found: dict[str, list[dict[str, Any]]] = {}
    for number in range(options.repeats):
        cache = folder / f"cache-{num_rows}-{number}"
        for state in ("cold", "warm"):
            for arm in options.arms:
                first = number == 0 and state == "cold" and num_rows in options.steps
                until = "step" if first else "ready"
                taken = measure(arm, base, rows, cache, until)
                found.setdefault(f"{arm}, {state}", []).append(taken)
                print(f"{num_rows:,} rows, {ARMS[arm]}, {state}: {json.dumps(taken)}", flush=True)
    return {"file_bytes": rows.stat().st_size, "arms": found}


def table(results: dict[str, Any]) -> str:
    """The least of each, as CPU and wall seconds."""
    lines = [
        "| rows | arm | ready: CPU s, wall s | first step: CPU s, wall s | peak GB when ready |",
        "|---|---|---|---|---|",
    ]
    for num_rows, result in results.items():
        for arm, rounds in result["arms"].items():
            ready = min((row["ready"] for row in rounds), key=lambda mark: mark["cpu_seconds"])
            steps = [
                f"{row['step']['cpu_seconds']:.0f}, {row['step']['wall_seconds']:.0f}"
                for row in rounds
                if "step" in row
            ]
            lines.append(
                f"| {int(num_rows):,} | {arm} | {ready['cpu_seconds']:.1f}, {ready['wall_seconds']:.1f} "
                f"| {min(steps, default='')} | {ready['peak_memory_bytes'] / 1e9:.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[2000, 20_000, 100_000])
    parser.add_argument("--steps", type=int, nargs="*", default=[2000], help="numbers of rows at which a step is taken")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--layers", type=int, default=30, help="30 is the 135M shape; fewer for a quick look")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--trl", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.trl:
        trl_script(*options.trl)
        return
    from ceiling import machine

    load, results = os.getloadavg()[0], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_base(folder / "base", options.layers)
        for num_rows in options.rows:
            results[str(num_rows)] = compare(num_rows, folder / "base", folder, options)
    settings = {"layers": options.layers, "cores": len(os.sched_getaffinity(0)), "load_average": load}
    found = {"machine": machine("cpu"), "settings": settings, "rows": results}
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
