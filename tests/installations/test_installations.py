"""The wheel with one extra alone, outside a checkout: each walks its own journey."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.environments import REPOSITORY, CannotInstall
from tests.installations.environments import build_wheel, installation
from tests.openai_service import demo
from tests.smoke.test_base_installation import NEED, settings
from trainer.runs import create_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    try:
        return build_wheel(tmp_path_factory.mktemp("wheel"))
    except CannotInstall as error:
        pytest.skip(str(error))


class User:
    """Somebody with an installation, in a folder with a copy of the configs and data and two runs."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        for name in ("configs", "data"):
            shutil.copytree(REPOSITORY / name, folder / name)
        for name, state in (("done", "succeeded"), ("begun", "paused")):
            create_run(settings(folder / "runs", name)).set_status(state)
        (folder / "runs" / "done" / "adapter").mkdir()
        (folder / "runs" / "done" / "adapter" / "adapter_model.safetensors").touch()

    def call(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        unwanted = ("PYTHONPATH", "TRAINER_RUNS", "VIRTUAL_ENV", "AZURE_", "OPENAI_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
        done = subprocess.run(
            [self.programs / program, *arguments], cwd=self.folder, env=kept | {"NO_COLOR": "1", "HF_HUB_OFFLINE": "1"},
            capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done


@pytest.fixture
def user(wheel, tmp_path):
    def make(extra: str) -> User:
        try:
            return User(installation(extra, wheel), tmp_path)
        except CannotInstall as error:
            pytest.skip(str(error))

    return make


def test_the_openai_extra_walks_from_the_quote_to_the_teardown(user, capsys):
    someone = user("openai")
    assert demo.main(someone.programs / "python", someone.folder) == 0
    shown = capsys.readouterr().out
    assert "left at the service: nothing" in shown
    assert (someone.folder / demo.RUN / "report" / "report.html").is_file()
    assert "not installed" not in shown


def test_the_azure_extra_reads_the_data_and_gets_to_the_sign_in(user):
    command, _ = NEED["train on Azure ML"]
    done = user("azure").call(*command)
    assert done.returncode == 2
    assert "pip install" not in done.stderr
    assert "sign in, for example with: az login" in done.stderr
