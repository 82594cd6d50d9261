"""A process that serves models to the server that started it, and ends with it: its standard input closes then.

It says on standard output, a JSON object a line: its port, the steps of loading, and that it is ready or has failed.
On standard input it takes models that are to be asked from now on, a JSON object a line.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.config.schema import ModelConfig
from trainer.errors import TrainerError
from trainer.inference.serve.guards import KEY_VARIABLE
from trainer.inference.serve.limits import Limits
from trainer.inference.serve.server import Program
from trainer.inference.serve.sources import ModelSource, SharedBase, TrainedRuns
from trainer.runs import Run

Tell = Callable[[dict[str, Any]], None]


def main(task: str) -> int:
    """Serve what the task names with the key of the environment, until standard input ends."""
    tell, told = _teller(), json.loads(task)
    try:
        limits = Limits(**told["limits"])
        program = Program(_source(told), "127.0.0.1", 0, (), os.environ[KEY_VARIABLE], limits, _saying(tell))
        tell({"port": program.listener.getsockname()[1]})
        for work in (_listen, _tell_when_ready):
            threading.Thread(target=work, args=(program, tell), daemon=True).start()
        from trainer.training.prepare import be_quiet

        be_quiet()
        program.run()
    except TrainerError as error:
        tell({"problem": str(error)})
        return 1
    return 0


def _source(told: dict[str, Any]) -> ModelSource:
    if "runs" in told:
        return TrainedRuns([Run(Path(folder)) for folder in told["runs"]])
    shared = ModelConfig.model_validate(told["model"])
    return SharedBase(told["name"], shared, Path(told["folder"]), told["num_engines"])


def _teller() -> Tell:
    """Write lines where nothing that libraries print gets between them."""
    lines, turn = os.fdopen(os.dup(1), "w", encoding="utf-8"), threading.Lock()
    os.dup2(2, 1)

    def tell(line: dict[str, Any]) -> None:
        try:
            with turn:
                lines.write(json.dumps(line) + "\n")
                lines.flush()
        except (OSError, ValueError):  # nobody reads any more
            os._exit(1)

    return tell


def _saying(tell: Tell) -> Callable[[str], None]:
    return lambda message: tell({"says": message.partition("\n")[0]})


def _listen(program: Program, tell: Tell) -> None:
    """Take models until the parent is gone, and end with it."""
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        loader = program.keeper.loader
        try:
            assert loader is not None, "models are added once the base is there"
            loader.offer_run(Run(Path(asked["run"])), asked["name"], Path(asked["adapter"]))
            tell({"added": asked["name"]})
        except Exception as error:  # also a mistake of ours: who waits for a word gets one, and others are served
            why = str(error) if isinstance(error, TrainerError) else f"{type(error).__name__}: {error}"
            tell({"refused": asked["name"], "why": why})
    if os.getpgid(0) == os.getpid():  # with the processes that render for it; there is nothing to save
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _tell_when_ready(program: Program, tell: Tell) -> None:
    while program.server.models is None:
        if program.server.problem:
            return
        time.sleep(0.05)
    tell({"models": program.server.names})


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
