"""The job: what is shown is what is sent, and the same run is the same job."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from azure.ai.ml import load_job
from azure.ai.ml.entities._job.to_rest_functions import to_rest_job_object

from trainer.backends.azureml.job import RECORD, JobPlan, JobRequest, job_name, job_yaml, recall, stem_of
from trainer.backends.azureml.snapshot import own_files
from trainer.backends.azureml.workspace import Place
from trainer.config import RunConfig
from trainer.runs import Run

PLAN = JobPlan("one-1234", "Standard_NC24ads_A100_v4", 2, 7200)
INPUTS = {"data": "azureml:trainer-data-abc:1"}


def config(**azureml: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"base": "builtin:tiny"},
            "data": {"train": "x.jsonl"},
            "run": {"name": "one"},
            "azureml": azureml or {"instance_type": "Standard_NC24ads_A100_v4"},
        }
    )


def sent(text: str, folder: Path) -> dict[str, Any]:
    """The body that the SDK makes of the YAML, without the code's upload."""
    (folder / "code").mkdir()
    (folder / "code" / "x.py").write_text("", encoding="utf-8")
    (folder / "job.yml").write_text(text, encoding="utf-8")
    body = to_rest_job_object(load_job(folder / "job.yml"))
    found: dict[str, Any] = body.as_dict()["properties"]
    return found | {"name": body.name}


def test_what_is_sent_is_what_the_yaml_says(tmp_path: Path) -> None:
    text = job_yaml(config(), PLAN, 1, "azureml:env:1", "code", INPUTS)
    body = sent(text, tmp_path)
    assert body["name"] == "one-1234"
    assert body["command"] == yaml.safe_load(text)["command"]
    assert body["outputs"]["run"]["uri"] == "azureml://datastores/workspaceblobstore/paths/trainer/one-1234/"
    assert body["outputs"]["run"]["mode"] == "ReadWriteMount"
    assert body["inputs"]["data"]["uri"] == "trainer-data-abc:1"  # the service completes it
    assert body["limits"]["timeout"] == "PT2H"
    assert body["distribution"] == {"distributionType": "PyTorch", "processCountPerInstance": 2}
    assert (body["resources"]["instanceCount"], body["resources"]["shmSize"]) == (1, "16g")
    assert body["resources"]["instanceType"] == "Standard_NC24ads_A100_v4"
    assert body["queueSettings"]["jobTier"] == "Standard"
    assert "computeId" not in {key for key, value in body.items() if value}


def test_another_attempt_is_another_job_in_the_same_place() -> None:
    first, second = (yaml.safe_load(job_yaml(config(), PLAN, number, "e", "code", INPUTS)) for number in (1, 2))
    assert (first.pop("name"), second.pop("name")) == ("one-1234", "one-1234-2")
    assert (first["tags"].pop("attempt"), second["tags"].pop("attempt")) == ("1", "2")
    assert first == second


@pytest.mark.parametrize(
    ("settings", "key", "expected"),
    [
        ({"instance_type": "x", "tier": "low_priority"}, "queue_settings", {"job_tier": "spot"}),
        ({"compute": "gpu"}, "compute", "azureml:gpu"),
        ({"compute": "gpu", "identity": "managed"}, "identity", {"type": "managed"}),
        ({"compute": "gpu", "identity": "user"}, "identity", {"type": "user_identity"}),
        ({"compute": "gpu"}, "queue_settings", None),
        ({"compute": "gpu"}, "identity", None),
    ],
)
def test_settings_reach_the_job(settings: dict[str, Any], key: str, expected: object) -> None:
    assert yaml.safe_load(job_yaml(config(**settings), PLAN, 1, "e", "code", INPUTS)).get(key) == expected


def test_a_secret_is_named_and_never_in_the_job() -> None:
    settings = {"compute": "gpu", "key_vault": "https://kv.vault.azure.net/", "hub_token_secret": "hub"}
    variables = yaml.safe_load(job_yaml(config(**settings), PLAN, 1, "e", "code", INPUTS))["environment_variables"]
    assert variables["TRAINER_KEY_VAULT"] == "https://kv.vault.azure.net"
    assert variables["TRAINER_HUB_TOKEN_SECRET"] == "hub"
    assert "HF_TOKEN" not in variables


def test_a_base_is_copied_to_the_nodes_disk_and_data_is_read_where_it_lies() -> None:
    for base, kind in (("azureml:trainer-base-x:1", "uri_folder"), ("azureml:llama:3", "custom_model")):
        job = yaml.safe_load(job_yaml(config(), PLAN, 1, "e", "code", INPUTS | {"base": base}))
        assert job["inputs"]["base"] == {"type": kind, "path": base, "mode": "download"}
        assert job["inputs"]["data"]["mode"] == "ro_mount"
        assert job["command"].endswith("--base ${{inputs.base}}")


@pytest.mark.parametrize(
    ("num_gpus", "processes", "end"), [(2, 2, " --gpus 2"), (0, 1, " --gpus 0"), (None, 1, "${{outputs.run}}")]
)
def test_the_node_is_told_how_many_gpus_the_plan_counts_on(num_gpus: int | None, processes: int, end: str) -> None:
    request = JobRequest(Place("s", "group", "space"), "Standard_NC24ads_A100_v4", num_gpus, 7200)
    job = yaml.safe_load(job_yaml(config(), request.plan("one-1234"), 1, "e", "code", INPUTS))
    assert job["command"].endswith(end)
    assert job["distribution"]["process_count_per_instance"] == processes


def test_a_plan_of_version_0_1_0_is_read(tmp_path: Path) -> None:
    """Its num_gpus was the number of processes: the node then goes by what the driver lists."""
    place, plan = {"subscription": "s", "resource_group": "group", "workspace": "space"}, {
        "stem": "one-1234", "instance_type": "Standard_NC24ads_A100_v4", "num_gpus": 2, "timeout_seconds": 7200
    }  # fmt: skip
    (tmp_path / RECORD).write_text(json.dumps({"place": place, "plan": plan}))
    found = recall(Run(tmp_path))
    assert found == (Place("s", "group", "space"), JobPlan("one-1234", "Standard_NC24ads_A100_v4", 2, 7200, None))


def test_names_are_safe_and_belong_to_one_run() -> None:
    assert stem_of("a b/c.d", "then").startswith("a-b-c-d-")
    assert stem_of("one", "then") == stem_of("one", "then") != stem_of("one", "later")
    assert len(job_name(stem_of("x" * 300, ""), 999)) <= 255


def test_the_repositorys_own_job_is_complete_by_hand() -> None:
    job = load_job(own_files() / "job.yml")
    assert job.compute == "gpu-cluster"  # type: ignore[attr-defined]
    assert (own_files() / str(job.code)).resolve() == own_files().parent / "src"  # type: ignore[attr-defined]
    template = yaml.safe_load((own_files() / "job.yml").read_text(encoding="utf-8"))
    for given in template["inputs"].values():
        assert (own_files() / given["path"]).exists()
