"""Keep a run's adapter as a model of the workspace, once."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.backends.azureml.deploy.names import model_name, model_version
from trainer.backends.azureml.deploy.service import ensure, found
from trainer.backends.azureml.workspace import Place, connect, find_place, quietly
from trainer.backends.http import Say
from trainer.config.schema import RunConfig
from trainer.inference.bundle import Bundle, write_bundle
from trainer.runs import Run
from trainer.runs.ledger import Ledger, Thing
from trainer.runs.lock import locked

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Model

FOLDER = "adapter"  # the name of the folder that Azure ML mounts below AZUREML_MODEL_DIR
LONGEST_VALUE = 250  # characters of a tag or property


@dataclass(frozen=True, slots=True)
class Registered:
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
    with tempfile.TemporaryDirectory(prefix="trainer-model-") as folder, locked(run.path, say):
        say("putting the adapter together with what serving needs")
        bundle = write_bundle(run, Path(folder) / FOLDER, with_base=settings.azureml.deployment.include_base)
        return str(register_bundle(connect(place), place, run, bundle, chosen, say))


def register_bundle(ml: "MLClient", place: Place, run: Run, bundle: Bundle, name: str, say: Say) -> Registered:
    """The bundle as a model; a version of the same content is the model. Raises: BackendError."""
    made = Registered(name, model_version(bundle.sha256))
    thing = Thing(
        "azureml",
        "model",
        str(made),
        place.arm_id,
        delete_with=f"trainer teardown {run.path} --everything",
    )

    def look_up() -> str | None:
        model = found(lambda: ml.models.get(made.name, made.version), f"the model {made}", say)
        return None if model is None else str(model.id)

    def create() -> str:
        say(f"uploading the model {made}")
        with quietly():
            return str(ml.models.create_or_update(_entity(run, bundle, made)).id)

    ensure(Ledger(run.path), thing, look_up, create, {"sha256": bundle.sha256}, say)
    run.event(f"registered as the model {made} in {place}", kind="register", model=str(made))
    return made


def _entity(run: Run, bundle: Bundle, made: Registered) -> "Model":
    from azure.ai.ml.constants import AssetTypes
    from azure.ai.ml.entities import Model

    properties = {key: value[:LONGEST_VALUE] for key, value in _properties(run, bundle)}
    tags = {"made_by": "azure-llm-trainer", "run": run.name[:LONGEST_VALUE], "base": properties["base"]}
    verdict = run.comparison().get("verdict", {}).get("sentence", "")
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
    """What the model is made of, how it was measured; all of it text, as the service takes nothing else."""
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
    if verdict := run.comparison().get("verdict", {}).get("sentence"):
        yield "verdict", str(verdict)
