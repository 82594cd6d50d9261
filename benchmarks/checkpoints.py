"""How long training waits for a checkpoint: ours, written beside it, and transformers' own, in one process.

    python benchmarks/checkpoints.py --output benchmarks/results/checkpoints.json

A LoRA adapter (r 16, all linear layers) on a random model in the shape of SmolLM2 135M, with AdamW's state.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from trainer.model.adapter import adapter_config, adapter_tensors, trainable
from trainer.training.writer import CheckpointWriter, Snapshot, optimizer_tensors, rng_state


def make_model() -> PeftModel:
    shape = LlamaConfig(
        vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    model = get_peft_model(LlamaForCausalLM(shape), LoraConfig(r=16, target_modules="all-linear"))
    assert isinstance(model, PeftModel)
    return model


def step(model: PeftModel, optimizer: torch.optim.Optimizer) -> None:
    """One optimizer step on 2 rows of 64 tokens."""
    ids = torch.randint(0, 49_152, (2, 64))
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def milliseconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1000


def save_as_transformers_does(model: PeftModel, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """What Trainer._save_checkpoint does, in the training thread: adapter, optimizer, random state."""
    model.save_pretrained(folder)
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    torch.save(rng_state(), folder / "rng_state.pth")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--saves", type=int, default=8)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    model = make_model()
    parameters = trainable(model)
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-4, fused=True)
    names = {id(parameter): name for name, parameter in parameters.items()}
    times: dict[str, list[float]] = {"step": [], "ours": [], "ours, until on disk": [], "transformers": []}
    with tempfile.TemporaryDirectory() as folder:
        writer = CheckpointWriter(Path(folder) / "ours", lambda snapshot: None)
        for number in range(options.saves):
            times["step"].append(milliseconds(lambda: step(model, optimizer)))
            tensors = {
                "adapter_model.safetensors": adapter_tensors(model),
                "optimizer.safetensors": optimizer_tensors(optimizer, names),
            }
            snapshot = Snapshot(
                number, tensors, {"adapter_config.json": adapter_config(model)}, {}, {"rng": rng_state()}
            )
            stall = milliseconds(lambda snapshot=snapshot: writer.submit(snapshot))
            times["ours"].append(stall)
            times["ours, until on disk"].append(stall + milliseconds(writer.wait))
            theirs = Path(folder) / f"theirs-{number}"
            times["transformers"].append(
                milliseconds(lambda folder=theirs: save_as_transformers_does(model, optimizer, folder))
            )
        size = sum(file.stat().st_size for file in (Path(folder) / "ours" / "step-00000000").iterdir())
    # The first save allocates the host memory that all later ones use again.
    result = {
        "checkpoint_megabytes": round(size / 1e6, 1),
        "milliseconds": {
            name: {"median": round(statistics.median(values[1:]), 1), "first": round(values[0], 1)}
            for name, values in times.items()
        },
        "saves": options.saves,
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
        "packages": {name: metadata.version(name) for name in ("torch", "transformers", "peft")},
    }
    print(json.dumps(result, indent=2))
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
