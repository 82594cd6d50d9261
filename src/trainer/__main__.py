"""Entry points of `train` and `trainer`; `python -m trainer` is `trainer`.

The commands load here, where Ctrl-C ends them like any later moment does: without a traceback.
"""

import sys

INTERRUPTED = 130


def train() -> None:
    """Entry point of `train`."""
    _start("train")


def trainer() -> None:
    """Entry point of `trainer`."""
    _start("trainer")


def _start(program: str) -> None:
    try:
        from trainer.cli import main

        main.train() if program == "train" else main.trainer()
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    trainer()
