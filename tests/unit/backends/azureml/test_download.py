"""What comes home: records as they grow, the result as the node wrote it, and nothing that is not the run's."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.manifests import data_file, manifest
from trainer.backends.azureml.datastore import Blob
from trainer.backends.azureml.download import Mirror, bring_home
from trainer.config import RunConfig
from trainer.config.load import dump_config
from trainer.errors import BackendError
from trainer.runs import Run, create_run


class Store:
    """A container in memory; `served` counts what was fetched."""

    prefix = "trainer/one/"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.served: list[str] = []
        self.damage: dict[str, int] = {}  # how often a file arrives with a wrong byte

    def list(self) -> list[Blob]:
        return [Blob(name, len(data), hashlib.md5(data).hexdigest()) for name, data in self.files.items()]

    def read(self, name: str) -> bytes | None:
        self.served.append(name)
        return self.files.get(name)

    def chunks(self, name: str) -> Iterator[bytes]:
        self.served.append(name)
        data = self.files[name]
        if self.damage.get(name, 0):
            self.damage[name] -= 1
            data = b"?" + data[1:]
        yield data[:2]
        yield data[2:]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    values: dict[str, Any] = {
        "model": {"base": "builtin:tiny"},
        "data": {"train": "my/rows.jsonl", "validation": "my/other.jsonl"},
        "backend": {"kind": "azureml"},
        "run": {"name": "one", "root": str(tmp_path / "runs")},
    }
    return create_run(RunConfig.model_validate(values))


@pytest.fixture
def store() -> Store:
    return Store()


def finished(store: Store, **files: bytes) -> None:
    """What a node leaves, with its list."""
    content = {name.replace("__", "/").replace("_json", ".json"): data for name, data in files.items()}
    store.files |= {f"one/{name}": data for name, data in content.items()}
    listed = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in content.items()}
    store.files["files.json"] = json.dumps({"files": listed}).encode()


def home(run: Run, store: Store, checkpoints: bool = True) -> None:
    bring_home(run, store, checkpoints, lambda message: None)  # type: ignore[arg-type]


def test_every_listed_file_comes_home_equal(run: Run, store: Store) -> None:
    finished(store, adapter__weights=b"abc", report__report_json=b"{}", checkpoints__x=b"old")
    home(run, store)
    assert (run.adapter / "weights").read_bytes() == b"abc"
    assert (run.report / "report.json").read_bytes() == b"{}"
    assert (run.checkpoints / "x").read_bytes() == b"old"
    assert list(run.path.rglob("*.part")) == []


def test_what_is_here_is_not_fetched_again(run: Run, store: Store) -> None:
    finished(store, adapter__weights=b"abc", adapter__more=b"def")
    home(run, store)
    (run.adapter / "more").write_bytes(b"DEF")
    store.served.clear()
    home(run, store)
    assert store.served == ["files.json", "one/adapter/more"]
    assert (run.adapter / "more").read_bytes() == b"def"


def test_checkpoints_stay_where_the_config_says_so(run: Run, store: Store) -> None:
    finished(store, adapter__weights=b"abc", checkpoints__x=b"old")
    home(run, store, checkpoints=False)
    assert not (run.checkpoints / "x").exists()


def test_a_damaged_transfer_is_repeated_and_damage_at_the_source_is_refused(run: Run, store: Store) -> None:
    finished(store, adapter__weights=b"abc")
    store.damage["one/adapter/weights"] = 1
    home(run, store)
    assert (run.adapter / "weights").read_bytes() == b"abc"
    (run.adapter / "weights").unlink()
    store.files["one/adapter/weights"] = b"xyz"
    with pytest.raises(BackendError, match="one/adapter/weights: has sha256"):
        home(run, store)
    assert list(run.adapter.iterdir()) == []


def test_a_job_without_its_list_is_not_a_success(run: Run, store: Store) -> None:
    with pytest.raises(BackendError, match=r"without files\.json"):
        home(run, store)


@pytest.mark.parametrize(
    "name", ["../outside", "/tmp/outside", "adapter/../../../outside", "..\\outside", "ledger.jsonl", ".git/x"]
)
def test_no_name_in_the_list_leads_out_of_the_folder(run: Run, store: Store, name: str) -> None:
    store.files["files.json"] = json.dumps({"files": {name: {"size": 1, "sha256": ""}}}).encode()
    with pytest.raises(BackendError, match="tampered"):
        home(run, store)
    assert store.served == ["files.json"]


def test_records_follow_the_nodes_and_keep_what_only_is_true_here(run: Run, store: Store) -> None:
    run.event("job one is submitted")
    event = {"created_at": "t", "level": "info", "type": "message", "message": "there", "data": {}}
    there = manifest(data=(data_file("data/rows.jsonl", "train"), data_file("data/other.jsonl")))
    node_config = run.config().model_copy(
        update={
            "memory": run.config().memory.model_copy(update={"token_budget": 4096}),
            "backend": run.config().backend.model_copy(update={"kind": "local"}),
            "data": run.config().data.model_copy(update={"train": "data/rows.jsonl", "max_length": 77}),
        }
    )
    store.files |= {
        "one/status.json": b'{"state": "running", "step": 3, "total_steps": 9}',
        "one/events.jsonl": (json.dumps(event) + "\n" + '{"half').encode(),
        "one/results.csv": b"step,train_loss\n1,2.0\n2,1",
        "one/manifest.json": json.dumps(there.as_json()).encode(),
        "one/config.yaml": dump_config(node_config).encode(),
    }
    mirror = Mirror(run, store)  # type: ignore[arg-type]
    mirror.update()
    assert mirror.node["step"] == 3
    assert (run.path / "results.csv").read_bytes() == b"step,train_loss\n1,2.0\n"
    assert [file.path for file in run.manifest().data] == ["my/rows.jsonl", "my/other.jsonl"]
    here = run.config()
    assert (here.memory.token_budget, here.data.max_length, here.data.train) == (4096, 77, "my/rows.jsonl")
    assert here.backend.kind == "azureml"
    assert [one["message"] for one in run.events()] == ["job one is submitted", "there"]


def test_records_are_fetched_when_they_have_changed_and_events_are_told_once(run: Run, store: Store) -> None:
    line = json.dumps({"created_at": "t", "level": "info", "type": "m", "message": "x", "data": {}}) + "\n"
    store.files["one/events.jsonl"] = line.encode()
    mirror = Mirror(run, store)  # type: ignore[arg-type]
    mirror.update()
    mirror.update()
    assert store.served == ["one/events.jsonl"]
    Mirror(run, store).update()  # type: ignore[arg-type]  # another process: it knows of no version
    store.files["one/events.jsonl"] = (line + line.replace('"x"', '"y"')).encode()
    mirror.update()
    assert [one["message"] for one in run.events()] == ["x", "y"]


def test_a_record_that_a_mount_shows_half_written_is_left_as_it_was(run: Run, store: Store) -> None:
    before = run.config()
    store.files |= {"one/config.yaml": b"model: {base: bui", "one/status.json": b'{"state": '}
    Mirror(run, store).update()  # type: ignore[arg-type]
    assert run.config() == before
    assert list(run.path.glob(".node*")) == []
