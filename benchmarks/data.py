"""Measure the time and memory of checking and rendering data: `make bench-data`.

Checking runs as `trainer data check` does it, over a generated file, in one process. Rendering takes the sample files
of data/, repeated, with the tokenizer of builtin:tiny.
"""

import argparse
import json
import platform
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results") / "data.json"
PACKAGES = ("transformers", "tokenizers", "jinja2")
# fmt: off
WORDS = [
    "wheel", "brake", "chain", "gear", "frame", "rider", "road", "tire", "spoke", "hub", "fork", "saddle",
    "pedal", "crank", "cable", "light", "bell", "rain", "hill", "turn", "stop", "slow", "fast", "clean",
    "oil", "check", "adjust", "loosen", "tighten", "replace", "press", "listen", "look", "hold", "carry", "store",
    "repair",
]
# fmt: on
TOOL = {
    "type": "function",
    "function": {
        "name": "find_part",
        "description": "Find a part in the catalog",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}, "size": {"type": "integer"}}},
    },
}


def generated_rows(num_rows: int) -> Iterator[dict[str, Any]]:
    """Chat rows that are all different: a fifth of two turns, a tenth with a tool call."""
    chance = random.Random(0)

    def says(role: str, least: int, most: int) -> dict[str, str]:
        return {"role": role, "content": " ".join(chance.choices(WORDS, k=chance.randint(least, most))).capitalize()}

    for number in range(num_rows):
        messages: list[dict[str, Any]] = [{"role": "system", "content": "You are Spokewise, who answers briefly."}]
        for _ in range(2 if number % 5 == 0 else 1):
            messages += [says("user", 6, 20), says("assistant", 20, 60)]
        row: dict[str, Any] = {"messages": messages}
        if number % 10 == 3:
            arguments = json.dumps({"name": chance.choice(WORDS), "size": chance.randint(1, 99)})
            function = {"name": "find_part", "arguments": arguments}
            call = {"id": f"call_{number}", "type": "function", "function": function}
            calling = {"role": "assistant", "tool_calls": [call]}
            messages[-1:-1] = [calling, says("tool", 3, 6) | {"tool_call_id": call["id"]}]
            row["tools"] = [TOOL]
        yield row


def checked(num_rows: int, folder: Path) -> dict[str, Any]:
    """Check a generated file of `num_rows` rows as `trainer data check` does."""
    from trainer.data.read.checks import check_files
    from trainer.model.device import peak_process_bytes

    path = folder / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in generated_rows(num_rows))
    before = peak_process_bytes()
    wall, cpu = time.perf_counter(), time.process_time()
    report = check_files([path], keep_rows=False, max_findings=20)
    wall_seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    assert (report.rows, report.severities["error"]) == (num_rows, 0)
    return {
        "rows": num_rows,
        "file_bytes": path.stat().st_size,
        "wall_seconds": round(wall_seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "rows_per_cpu_second": round(num_rows / cpu_seconds),
        "peak_memory_bytes": peak_process_bytes(),
        "peak_memory_bytes_before": before,
    }


def rendered(num_rows: int) -> dict[str, Any]:
    """Render `num_rows` rows of each sample file."""
    from transformers import AutoTokenizer
    from transformers.utils import logging

    from trainer.data.read.rows import read_conversations
    from trainer.data.render.rendering import Renderer
    from trainer.model.tiny import tiny_base

    logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(tiny_base(), trust_remote_code=False)
    results: dict[str, Any] = {"rows": num_rows}
    for name in ("glossary_train", "support_train", "tools_train"):
        sample = read_conversations(ROOT / "data" / f"{name}.jsonl").conversations
        renderer = Renderer(tokenizer)
        start = time.process_time()
        num_tokens = 0
        for number in range(num_rows):
            num_tokens += sum(len(e.input_ids) for e in renderer.render(sample[number % len(sample)]))
        seconds = time.process_time() - start
        results[name] = {
            "rows_per_cpu_second": round(num_rows / seconds),
            "tokens_per_cpu_second": round(num_tokens / seconds),
            "tokens_per_row": round(num_tokens / num_rows),
        }
    return results


def many_turns(counts: Sequence[int]) -> dict[str, Any]:
    """Render one row of so many questions and answers, for each of `counts`."""
    from transformers import AutoTokenizer

    from trainer.data.conversations import Conversation, Message
    from trainer.data.render.rendering import Renderer
    from trainer.model.tiny import tiny_base

    renderer = Renderer(AutoTokenizer.from_pretrained(tiny_base(), trust_remote_code=False))
    results: dict[str, Any] = {}
    for count in counts:
        turns = [(Message("user", f"What is {n}?"), Message("assistant", f"It is {n}.")) for n in range(count)]
        row = Conversation(tuple(message for turn in turns for message in turn), (), "rows.jsonl", 1)
        start = time.process_time()
        num_tokens = sum(len(example.input_ids) for example in renderer.render(row))
        results[str(count)] = {"cpu_seconds": round(time.process_time() - start, 2), "tokens": num_tokens}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the file that is checked")
    parser.add_argument("--rendered", type=int, default=10_000, help="rows of each sample file that are rendered")
    parser.add_argument("--turns", type=int, default=100, help="of one row, which then has 10 and 100 times as many")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are written as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        check = checked(arguments.rows, Path(folder))
    results = {
        "check": check,
        "render": rendered(arguments.rendered),
        "turns_of_one_row": many_turns([arguments.turns * factor for factor in (1, 10, 100)]),
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES},
    }
    text = json.dumps(results, indent=2)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
