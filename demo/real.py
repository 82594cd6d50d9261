"""A real model of 135 million parameters learns the glossary, in minutes on two cores.

The commands are the ones that a user types. Run: python -m demo.real; with `--base` on another base, a folder or a name
on the hub.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from demo.base_model import Base, CannotFetch, base_model

ROOT = Path(__file__).parents[1]
CONFIG, RUN = "configs/smollm.yaml", "runs/demo-real"
# General items, four of each of the seven kinds: about a minute more on two cores.
SUITE = ("evaluation.suite=true", "evaluation.suite_items=28")
DATA = ("data/glossary_train.jsonl", "--validation", "data/glossary_validation.jsonl")


def main(base: Base, cwd: Path = ROOT) -> int:
    """The journey in a folder that has the configs and data; the exit code of the command that failed, or 0."""
    begun = time.monotonic()
    print(f"base: {base.origin}", flush=True)
    settings = [f"model.base={base.name}", f"run.name={Path(RUN).name}", *SUITE]
    steps = [
        ("Is the data right?", ["trainer", "data", "check", *DATA]),
        ("Train, then compare base and tuned model", ["train", "--config", CONFIG, *settings]),
        ("Ask both", ["trainer", "chat", RUN, "--compare", "--questions", "data/questions.txt"]),
    ]
    if (cwd / RUN).exists():
        steps.insert(0, ("Remove the run of the last time", ["trainer", "delete", RUN, "--yes"]))
    for title, words in steps:
        print(f"\n--- {title}\n$ {' '.join(words)}", flush=True)
        program = words if words[0] == "train" else words[1:]
        if code := subprocess.run([sys.executable, "-m", "trainer", *program], cwd=cwd, check=False).returncode:
            return code
    report = json.loads((cwd / RUN / "report" / "report.json").read_text(encoding="utf-8"))
    print(f"\nbase and tuned: {base.origin}")
    print(f"beside the glossary it {report['suite']['sentence']}")
    print(f"from the check to the answers: {time.monotonic() - begun:.0f} s")
    print(f"did it get better? open {RUN}/report/report.html in a browser")
    return 0


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="train a real model on the sample glossary, and ask it")
    arguments.add_argument("--base", help="a folder or a name on the model hub, instead of fetching one")
    chosen = arguments.parse_args().base
    try:
        sys.exit(main(Base(chosen, chosen) if chosen else base_model()))
    except CannotFetch as error:
        sys.exit(f"error: {error}")
