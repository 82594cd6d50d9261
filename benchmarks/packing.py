"""CPU time of cutting rows into packs, at 1, 10 and 100 times as many rows: `make bench-packing`.

Each row stands behind one prompt of 1,000 tokens, or shares nothing; a row's own part has 20 tokens of a question and
10 of an answer.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from random import Random
from typing import Any

RESULTS = Path(__file__).with_name("results") / "packing.json"
BUDGETS = (4_096, 32_768)  # tokens at a time, as the plans of a CPU and of a GPU have them


def packed(num_rows: int, prompt_tokens: int, token_budget: int) -> dict[str, Any]:
    """Cut `num_rows` rows once."""
    from trainer.data.pack.packing import make_packs
    from trainer.data.render.rendering import IGNORE_INDEX, Example

    chance = Random(0)
    prompt = tuple(chance.choices(range(50_000), k=prompt_tokens))
    rows = []
    for _ in range(num_rows):
        question, answer = (tuple(chance.choices(range(50_000), k=count)) for count in (20, 10))
        rows.append(Example(prompt + question + answer, (IGNORE_INDEX,) * (prompt_tokens + 20) + answer))
    start = time.process_time()
    packs = make_packs(rows, token_budget)
    return {"rows": num_rows, "packs": len(packs), "cpu_seconds": round(time.process_time() - start, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200, help="rows of the smallest set")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are written as JSON")
    arguments = parser.parse_args()
    packed(10, 10, 100)  # loads what it needs
    results = {
        f"{prompt} tokens of prompt, {budget} at a time": [
            packed(arguments.rows * times, prompt, budget) for times in (1, 10, 100)
        ]
        for prompt in (1_000, 0)
        for budget in BUDGETS
    } | {"python": platform.python_version()}
    text = json.dumps(results, indent=2)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
