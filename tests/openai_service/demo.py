"""The whole journey on Azure OpenAI's side of the tool, without an account. Run: python -m tests.openai_service.demo

The commands are the real ones, in a terminal of their own, and speak to real host names; a proxy on 127.0.0.1 leads
these to the service of this folder. Nothing leaves the machine, nothing is trained, nothing costs anything.
"""

import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect

from tests.openai_service.arm import ACCOUNT, GROUP, SUBSCRIPTION
from tests.openai_service.service import Service
from tests.openai_service.state import Deployment
from tests.openai_service.world import World, world

ROOT = Path(__file__).parents[2]
CONFIG, RUN, BASE = "configs/azure-openai.yaml", "runs/demo-openai", "base-model"
NARROW = (48, 110)  # rows and columns of the terminal
SPEED, TICK_SECONDS = 4.0, 0.1  # seconds of the service's clock in one of ours
MODEL = "gpt-4.1-mini-2025-04-14"
SETTINGS = (
    f"openai.subscription={SUBSCRIPTION}", f"openai.resource_group={GROUP}", f"openai.base_deployment={BASE}",
    "training.batch_size=8", "run.name=demo-openai",
)  # fmt: skip
BANNER = f"""\
This is a demonstration WITHOUT an Azure account. The commands are the real ones; what answers them as
{ACCOUNT}.openai.azure.com, management.azure.com and login.microsoftonline.com is a program on 127.0.0.1.
It trains nothing: its losses follow a formula and its tuned model has learned the rows by heart. So the
comparison below proves the path, not a model. Nothing leaves this machine and nothing is charged."""


def main(python: str | Path = sys.executable, cwd: Path = ROOT) -> int:
    """The journey with the programs of an interpreter, in a folder that has the configs and data."""
    with tempfile.TemporaryDirectory() as folder, world(Path(folder), "azure") as made, _in_time(made.service):
        _deploy_base(made.service)
        shutil.rmtree(cwd / RUN, ignore_errors=True)
        print(BANNER)
        steps: tuple[tuple[str, list[str]], ...] = (
            ("What can be tuned here?", ["trainer", "models", "--config", CONFIG]),
            ("Everything verified, nothing created", ["train", "--config", CONFIG, *SETTINGS, "--check"]),
            ("The quote, a question, the job", ["train", "--config", CONFIG, *SETTINGS]),
            ("What came of it", ["trainer", "show", RUN]),
            ("A deployment: from here on it bills", ["trainer", "deploy", RUN, "--name", "demo-tuned"]),
            ("Base and tuned model", ["trainer", "chat", RUN, "--compare", "--questions", "data/questions.txt"]),
            ("What bills now?", ["trainer", "endpoints", RUN]),
            ("Remove all of it", ["trainer", "teardown", RUN, "--everything"]),
            ("And now?", ["trainer", "endpoints", RUN]),
        )  # fmt: skip
        for number, (title, words) in enumerate(steps, 1):
            print(f"\n--- {number}. {title}\n$ {' '.join(words)}", flush=True)
            if code := _run(made, words, str(python), cwd):
                print(f"the demonstration ends here: exit code {code}")
                return code
        left = [kept for kept in made.inventory() if kept != ("deployment", BASE)]
    print(f"\nleft at the service: {left or 'nothing'}; the run's files: {RUN}, its report: {RUN}/report/report.html")
    print("Again: all of this happened on 127.0.0.1. With an account the same commands go to Azure.")
    return int(bool(left))


def _run(made: World, words: list[str], python: str, cwd: Path) -> int:
    """Run a command in a terminal of its own, say yes where it asks, and show all of it."""
    program = words if words[0] == "train" else words[1:]
    child = pexpect.spawn(
        python, ["-m", "trainer", *program], cwd=str(cwd), env=_environment(made), dimensions=NARROW,
        timeout=300, encoding="utf-8",
    )  # fmt: skip
    child.logfile_read = sys.stdout
    while child.expect([r"\[y/N\]: ", pexpect.EOF]) == 0:
        child.sendline("y")
    child.close()
    return int(child.exitstatus or 0) if child.signalstatus is None else 1


def _environment(made: World) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AZURE_", "OPENAI_"))}
    return own | {name: value for name, value in made.environment.items() if name != "HOME"} | {
        "TRAINER_TIMEOUT_SECONDS": "30",
        "TERM": os.environ.get("TERM", "dumb") if sys.stdout.isatty() else "dumb",  # no colors in a file
    }  # fmt: skip


def _deploy_base(service: Service) -> None:
    """The deployment of the base model that every account has which chats already."""
    body = {"sku": {"name": "Standard", "capacity": 10}, "properties": {"model": {"name": MODEL, "format": "OpenAI"}}}
    now = service.state.clock.now
    service.state.deployments[BASE] = Deployment(BASE, body, now, now, "Succeeded")


@contextmanager
def _in_time(service: Service) -> Iterator[None]:
    """Let the service's clock run, faster than ours."""
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(TICK_SECONDS):
            service.advance(TICK_SECONDS * SPEED)

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    begun = time.monotonic()
    code = main()
    print(f"{time.monotonic() - begun:.0f} s")
    sys.exit(code)
