"""`/v1/models`, by the methods of OpenAI's own SDK: bases for all, tuned models for their owners alone."""

from collections.abc import Callable
from pathlib import Path

import openai
import pytest

from tests.api_server import TINY, ApiServer, api_server
from tests.studio import make_run
from trainer.api.folders import home_of
from trainer.api.job import Job, JobFile, new_id
from trainer.api.settings import BaseOffer
from trainer.runs import Run, checkpoint
from trainer.runs.ledger import Ledger, Thing

HUB = "meta-llama/Llama-3.1-8B-Instruct"
Make = Callable[..., Job]


@pytest.fixture
def served(tmp_path: Path):
    with api_server(tmp_path, bases={TINY: BaseOffer(base=TINY), HUB: BaseOffer(base=HUB)}) as server:
        yield server


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A job of an owner whose run is in a state, with an adapter and a checkpoint's folder."""

    def job(owner: str = "ann", state: str = "succeeded", model: str = TINY) -> Job:
        name = new_id()
        rows = JobFile("file-1", "a.jsonl", "a.jsonl")
        made = Job(
            Run(tmp_path / name), name, owner, 1_795_000_000, model, TINY, rows, None, "supervised", {}, 1, "words"
        )
        folder = make_run(tmp_path, name, state)
        (folder / "adapter").mkdir()
        (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
        (folder / "report").mkdir()
        (folder / "report" / "report.json").write_text("{}")
        home_of(tmp_path, owner).mkdir(parents=True, exist_ok=True)
        made.write(folder)
        return made

    return job


def listed(served: ApiServer, name: str = "ann") -> list[str]:
    return [model.id for model in served.client(name).models.list()]


def test_bases_are_everybody_s_and_tuned_models_their_owner_s(served: ApiServer, make: Make) -> None:
    first, second, of_bob, _ = make(), make(), make("bob"), make(state="running")
    assert listed(served) == [TINY, HUB, second.model_name, first.model_name]
    assert listed(served, "bob") == [TINY, HUB, of_bob.model_name]

    ann, bob = served.client("ann").models, served.client("bob").models
    found = ann.retrieve(first.model_name)
    assert (found.id, found.created, found.owned_by) == (first.model_name, first.created_at, "ann")
    assert ann.retrieve(HUB).owned_by == "system"
    for call in (bob.retrieve, bob.delete):
        with pytest.raises(openai.NotFoundError):
            call(first.model_name)


def test_a_deleted_model_is_gone_and_its_run_is_not(served: ApiServer, make: Make) -> None:
    job, models = make(), served.client().models
    assert models.delete(job.model_name).deleted

    assert job.model_name not in listed(served)
    for call in (models.retrieve, models.delete):
        with pytest.raises(openai.NotFoundError):
            call(job.model_name)
    assert not job.run.adapter.exists()
    assert (job.run.path / "report" / "report.json").is_file()
    assert job.run.state == "succeeded"


def test_a_run_that_another_way_made_is_no_model_of_the_api(served: ApiServer, tmp_path: Path) -> None:
    folder = make_run(tmp_path, "by-hand")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    for name in ("by-hand", f"ft:{TINY}:ann::by-hand", f"ft:{TINY}:ann:../by-hand", f"ft:{TINY}:ann::\0"):
        with pytest.raises(openai.NotFoundError):
            served.client().models.delete(name)
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()


def test_what_is_needed_is_not_deleted(served: ApiServer, make: Make) -> None:
    models, job = served.client().models, make()
    further = make(state="running", model=job.model_name)
    with pytest.raises(openai.ConflictError, match=f"is what {further.id} begins with"):
        models.delete(job.model_name)

    deployed = make()
    Ledger(deployed.run.path).write(Thing("azureml", "deployment", "blue", "here"), "exists")
    with pytest.raises(openai.ConflictError, match=f"trainer teardown {deployed.id}"):
        models.delete(deployed.model_name)
    checkpoint.write(job.run.checkpoints, 4, {"adapter_model.safetensors": b"weights"}, {})
    name = job.checkpoint_name(4)
    assert models.retrieve(name).id == name
    with pytest.raises(openai.BadRequestError, match="is a checkpoint"):
        models.delete(name)
    with pytest.raises(openai.PermissionDeniedError, match="is a base of this server"):
        models.delete(HUB)
    assert {job.model_name, deployed.model_name, HUB} <= set(listed(served))
