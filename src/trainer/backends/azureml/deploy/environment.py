"""The image and the code of a deployment: `azureml/serving`, and for the scoring script this package's own files."""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.backends.azureml.deploy.service import ensure, found
from trainer.backends.azureml.files import own_files
from trainer.backends.azureml.record import BACKEND
from trainer.backends.azureml.snapshot import content_hash, copy_package
from trainer.backends.azureml.workspace import Place, quietly
from trainer.backends.http import Say
from trainer.runs.ledger import Ledger, Thing

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

CONTEXTS = {"score": ("Dockerfile", "requirements.txt"), "vllm": ("vllm/Dockerfile", "vllm/start.py")}
PORT = {"score": 5001, "vllm": 8000}
ALIVE = {"score": "/", "vllm": "/health"}
SCORING = {"score": "/score", "vllm": "/"}  # vLLM has many routes: all that stands below is passed on to it
SCRIPT = "score.py"


def stage_context(mode: str, folder: Path) -> None:
    """The Docker context of a mode: the files that its Dockerfile copies, and nothing else."""
    folder.mkdir(parents=True)
    for name in CONTEXTS[mode]:
        shutil.copyfile(own_files() / "serving" / name, folder / Path(name).name)


def stage_code(folder: Path) -> None:
    """The scoring script and the package that it imports."""
    folder.mkdir(parents=True)
    shutil.copyfile(own_files() / SCRIPT, folder / SCRIPT)
    copy_package(folder / "trainer")


def environment_version(mode: str) -> str:
    """The content's address, so that an image is built once."""
    with tempfile.TemporaryDirectory() as folder:
        stage_context(mode, Path(folder) / mode)
        return content_hash(Path(folder) / mode)[:12]


def code_version() -> str:
    """The address of the scoring script and of this package."""
    with tempfile.TemporaryDirectory() as folder:
        stage_code(Path(folder) / "code")
        return content_hash(Path(folder) / "code")[:12]


def register_environment(ml: "MLClient", place: Place, mode: str, ledger: Ledger, say: Say) -> str:
    """The environment's reference; Azure ML builds its image when it is first used. Raises: BackendError."""
    from azure.ai.ml.entities import BuildContext, Environment

    name, version = f"azure-llm-trainer-{mode}", environment_version(mode)
    remove = f"az ml environment archive -n {name} -v {version} {place.options}"
    thing = Thing(BACKEND, "environment", f"{name}:{version}", place.arm_id, "", remove)

    def look_up() -> str | None:
        known = found(lambda: ml.environments.get(name, version), f"the environment {name}:{version}", say)
        return None if known is None else str(known.id)

    def create() -> str:
        with tempfile.TemporaryDirectory(prefix="trainer-image-") as folder:
            stage_context(mode, Path(folder) / mode)
            context = BuildContext(path=str(Path(folder) / mode), dockerfile_path="Dockerfile")
            made = Environment(name=name, version=version, build=context, inference_config=routes(mode))
            with quietly():
                return str(ml.environments.create_or_update(made).id)

    ensure(ledger, thing, look_up, create, {}, say)
    return f"azureml:{name}:{version}"


def routes(mode: str) -> dict[str, Any]:
    """Where the container says that it lives, that it is ready, and where it answers."""
    alive = {"path": ALIVE[mode], "port": PORT[mode]}
    return {
        "liveness_route": alive,
        "readiness_route": alive,
        "scoring_route": {"path": SCORING[mode], "port": PORT[mode]},
    }
