"""A process that serves one run's model to the page's server, and ends with it: its standard input closes then.

It says on standard output, a JSON object a line: its port, the steps of loading, and that it is ready or has failed.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError
from trainer.inference.serve.guards import KEY_VARIABLE
from trainer.inference.serve.limits import Limits
from trainer.inference.serve.server import Program
from trainer.inference.serve.sources import TrainedRuns
from trainer.runs import Run

LIMITS = Limits(max_requests=4, max_tokens=4096, max_seconds=600.0)


def main(folder: str) -> int:
    """Serve the run of a folder with the key of the environment, until standard input ends."""
    tell = _teller()
    try:
        program = Program(
            TrainedRuns([Run(Path(folder))]), "127.0.0.1", 0, (), os.environ[KEY_VARIABLE], LIMITS, _saying(tell)
        )
        tell({"port": program.listener.getsockname()[1]})
        for work in (_end_with_parent, _tell_when_ready):
            threading.Thread(target=work, args=(program, tell), daemon=True).start()
        from trainer.training.prepare import be_quiet

        be_quiet()
        program.run()
    except TrainerError as error:
        tell({"problem": str(error)})
        return 1
    return 0


def _teller() -> Any:
    """Write lines where nothing that libraries print gets between them."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(line: dict[str, Any]) -> None:
        try:
            lines.write(json.dumps(line) + "\n")
            lines.flush()
        except (OSError, ValueError):  # nobody reads any more
            os._exit(1)

    return tell


def _saying(tell: Any) -> Any:
    return lambda message: tell({"says": message.partition("\n")[0]})


def _end_with_parent(program: Program, tell: Any) -> None:
    sys.stdin.buffer.read()
    if os.getpgid(0) == os.getpid():  # with the processes that render for it; there is nothing to save
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _tell_when_ready(program: Program, tell: Any) -> None:
    while program.server.models is None:
        if program.server.problem:
            return
        time.sleep(0.05)
    tell({"models": program.server.names})


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
