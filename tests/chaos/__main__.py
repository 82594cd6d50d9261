"""`python -m tests.chaos`: the harness, with its library compiled and preloaded."""

import argparse
import json
import sys
from pathlib import Path

from tests.chaos.harness import run_harness

parser = argparse.ArgumentParser(add_help=False)
parser.add_argument("--output", type=Path, required=True)
own, others = parser.parse_known_args(sys.argv[1:])
summary = run_harness(*others, timeout=24 * 3600)
own.output.write_text(json.dumps(summary, indent=2) + "\n")
