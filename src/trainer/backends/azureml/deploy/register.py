"""Keep what a deployment is made of in the workspace, once: the run's adapter as a model, and the image's environment.

Both are named by their content: what is there already is neither uploaded nor built again.
"""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.backends.azureml.deploy.base import facts_of, takes_base
from trainer.backends.azureml.deploy.deployment import DIGEST_CHARS, MADE_BY, SCRIPT
from trainer.backends.azureml.image import stage_context
from trainer.backends.azureml.job import BACKEND
from trainer.backends.azureml.snapshot import content_hash, copy_package, own_files
from trainer.backends.azureml.workspace import Place, connect, find_place, quietly
from trainer.backends.http import Say, found, patiently
from trainer.backends.idempotent import create_once
from trainer.config.azureml import DeploymentConfig
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError
from trainer.inference.bundle import Bundle, write_bundle
from trainer.runs import Run
from trainer.runs.ledger import Ledger, Thing
from trainer.runs.lock import locked

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Model

FOLDER = "adapter"  # the name of the folder that Azure ML mounts below AZUREML_MODEL_DIR
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
LONGEST_VALUE = 250  # characters of a tag or property
PORT = {"score": 5001, "vllm": 8000}
ALIVE = {"score": "/", "vllm": "/health"}
SCORING = {"score": "/score", "vllm": "/"}  # vLLM has many routes: all that stands below is passed on to it


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A version of a model in a workspace."""

    name: str
    version: str

    @property
    def reference(self) -> str:
        """As the SDK and `az` name it."""
        return f"azureml:{self.name}:{self.version}"

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


def register(run: Run, settings: RunConfig, name: str | None, say: Say) -> str:
    """Name and version of the run's model. Raises: ConfigError, BackendError."""
    place, chosen = find_place(settings.azureml), model_name(run, name)
    deployment = settings.azureml.deployment
    with_base = takes_base(facts_of(run, settings, deployment), deployment.include_base)
    with tempfile.TemporaryDirectory(prefix="trainer-model-") as folder, locked(run.path, say):
        say("putting the adapter together with what serving needs")
        bundle = write_bundle(run, Path(folder) / FOLDER, with_base=with_base)
        return str(register_bundle(connect(place), place, run, bundle, chosen, say))


def register_bundle(ml: "MLClient", place: Place, run: Run, bundle: Bundle, name: str, say: Say) -> RegisteredModel:
    """The bundle as a model; a version of the same content is the model. Raises: BackendError."""
    made = RegisteredModel(name, model_version(bundle.sha256))
    thing = Thing(BACKEND, "model", str(made), place.arm_id, "", f"trainer teardown {run.path} --everything")

    def look_up() -> str | None:
        model = found(lambda: ml.models.get(made.name, made.version), f"looking for the model {made}", say)
        return None if model is None else str(model.id)

    def create() -> str:
        say(f"uploading the model {made}")
        with quietly():
            return str(ml.models.create_or_update(_entity(run, bundle, made)).id)

    ensure(Ledger(run.path), thing, look_up, create, {"sha256": bundle.sha256}, say)
    run.event(f"registered as the model {made} in {place}", kind="register", model=str(made))
    return made


def _entity(run: Run, bundle: Bundle, made: RegisteredModel) -> "Model":
    from azure.ai.ml.constants import AssetTypes
    from azure.ai.ml.entities import Model

    properties = {key: value[:LONGEST_VALUE] for key, value in _properties(run, bundle)}
    tags = {"made_by": MADE_BY, "run": run.name[:LONGEST_VALUE], "base": properties["base"]}
    verdict = run.verdict_sentence()
    return Model(
        name=made.name,
        version=made.version,
        type=AssetTypes.CUSTOM_MODEL,
        path=str(bundle.folder),
        description=f"LoRA adapter of the run {run.name}. {verdict}".strip(),
        tags=tags,
        properties=properties,
    )


def _properties(run: Run, bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Origin and measures of the model; all of it text, as the service takes nothing else."""
    manifest, settings = run.manifest(), run.config()
    yield "run", run.name
    yield "base", str(bundle.base.name)
    yield "base_revision", str(bundle.base.revision or "")
    yield "base_weights_sha256", str(bundle.base.weights_sha256 or "")
    yield "quantization", settings.model.quantization
    yield "content_sha256", bundle.sha256
    yield "adapter_sha256", bundle.digests["adapter_model.safetensors"]
    yield "template_sha256", str(manifest.template_sha256)
    yield "trainer_version", manifest.trainer_version
    for file in manifest.data:
        yield f"{file.role}_data_sha256", file.sha256
    if bundle.step is not None:
        yield "step", str(bundle.step)
    for row in run.results():
        for key in ("valid_loss", "full_valid_loss", "valid_mean_token_accuracy"):
            if key in row:
                yield key, f"{row[key]:.6g}"
    if verdict := run.verdict_sentence():
        yield "verdict", verdict


def model_name(run: Run, name: str | None) -> str:
    """The model's name. Raises: ConfigError, for one that Azure ML does not take."""
    if name is None:
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", run.name).strip("-_.")[:200] or "model"
    if not MODEL_NAME.fullmatch(name):
        raise ConfigError(
            f"--name: is {name!r}, expected letters, digits, '-', '_' and '.' for a model; choose another"
        )
    return name


def model_version(sha256: str) -> str:
    """The content's address: the same adapter is never a second version."""
    return sha256[:DIGEST_CHARS]


def stage_code(folder: Path) -> None:
    """The scoring script and the package that it imports."""
    folder.mkdir(parents=True)
    shutil.copyfile(own_files() / SCRIPT, folder / SCRIPT)
    copy_package(folder / "trainer")


def environment_version(settings: DeploymentConfig) -> str:
    """The content's address, so that an image is built once."""
    with tempfile.TemporaryDirectory() as folder:
        stage_context(settings.mode, Path(folder) / settings.mode, settings.vllm_image)
        return content_hash(Path(folder) / settings.mode)[:DIGEST_CHARS]


def code_version() -> str:
    """The address of the scoring script and of this package."""
    with tempfile.TemporaryDirectory() as folder:
        stage_code(Path(folder) / "code")
        return content_hash(Path(folder) / "code")[:DIGEST_CHARS]


def register_environment(ml: "MLClient", place: Place, settings: DeploymentConfig, ledger: Ledger, say: Say) -> str:
    """The environment's reference; Azure ML builds its image when it is first used. Raises: BackendError."""
    from azure.ai.ml.entities import BuildContext, Environment

    mode = settings.mode
    name, version = f"azure-llm-trainer-{mode}", environment_version(settings)
    remove = f"az ml environment archive -n {name} -v {version} {place.options}"
    thing = Thing(BACKEND, "environment", f"{name}:{version}", place.arm_id, "", remove)

    def look_up() -> str | None:
        known = found(lambda: ml.environments.get(name, version), f"looking for the environment {name}:{version}", say)
        return None if known is None else str(known.id)

    def create() -> str:
        with tempfile.TemporaryDirectory(prefix="trainer-image-") as folder:
            stage_context(mode, Path(folder) / mode, settings.vllm_image)
            context = BuildContext(path=str(Path(folder) / mode), dockerfile_path="Dockerfile")
            made = Environment(name=name, version=version, build=context, inference_config=routes(mode))
            with quietly():
                return str(ml.environments.create_or_update(made).id)

    ensure(ledger, thing, look_up, create, {}, say)
    return f"azureml:{name}:{version}"


def routes(mode: str) -> dict[str, Any]:
    """Routes of the container: liveness, readiness and scoring."""
    alive = {"path": ALIVE[mode], "port": PORT[mode]}
    return {
        "liveness_route": alive,
        "readiness_route": alive,
        "scoring_route": {"path": SCORING[mode], "port": PORT[mode]},
    }


def ensure(
    ledger: Ledger,
    thing: Thing,
    look_up: Callable[[], str | None],
    create: Callable[[], str],
    facts: Mapping[str, Any],
    say: Say,
) -> str:
    """The id of the thing, which this command, an earlier one, or another machine has made.

    Raises: BackendError.
    """

    def known(identity: str) -> dict[str, Any]:
        return {"id": identity, **facts}

    entry = ledger.find(*thing.identity)
    existing = patiently(look_up, f"looking for the {thing.kind} {thing.key!r}", say)
    if existing is None:
        return create_once(ledger, thing, look_up, create, known, say)
    if entry is None or entry.step != "exists":
        ledger.write(thing, "exists", **known(existing))
    return existing
