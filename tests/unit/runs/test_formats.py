"""Files carry the number of their format; of one that a newer version wrote, one sentence says so."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.commands import performed
from tests.manifests import LAUNCH, data_file, manifest
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError
from trainer.inference.evaluation import result
from trainer.runs import Run, checkpoint, create_run, find_run
from trainer.runs import manifest as manifests
from trainer.runs.checkpoint import Checkpoint, newest_complete
from trainer.runs.ledger import Ledger, Thing
from trainer.runs.manifest import DamagedManifest, Upload

THING = Thing("openai", "job", "token", "https://example.test")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    values = {
        "model": {"base": "builtin:tiny"},
        "data": {"train": "a.jsonl"},
        "run": {"name": "one", "root": str(tmp_path)},
    }
    made = create_run(RunConfig.model_validate(values))
    made.write_manifest(manifest())
    return made


def renumber(path: Path, change: Callable[[int], int] = lambda known: known + 1) -> None:
    """Give a file, or each of its lines, the number of another format."""
    values = [json.loads(line) for line in path.read_text().splitlines()] if path.suffix == ".jsonl" else None
    found = values if values is not None else [json.loads(path.read_text())]
    for value in found:
        value["format"] = change(value["format"])
        if "sha256" in value:
            del value["sha256"]
            value["sha256"] = checkpoint._digest(value)
    path.write_text("\n".join(map(json.dumps, found)) + "\n" * (values is not None))


def sentence(path: Path, known: int) -> str:
    return (
        f"{path}: is of format {known + 1}, expected {known} or an earlier one; a newer version wrote it, so upgrade "
        "with: pip install --upgrade azure-llm-trainer"
    )


def test_each_file_carries_its_number(run: Run) -> None:
    Ledger(run.path).write(THING, "exists")
    made = checkpoint.write(run.checkpoints, 1, {"a": b"1"}, {})
    assert json.loads((run.path / "manifest.json").read_text())["format"] == manifests.FORMAT
    assert json.loads((run.path / "ledger.jsonl").read_text())["format"] == 1
    assert json.loads((made.path / checkpoint.MANIFEST).read_text())["format"] == 1


@pytest.mark.parametrize(
    "words", [("show",), ("checkpoints",), ("logs",), ("export", "-o", "out"), ("evaluate",), ("resume",)]
)
def test_no_command_works_on_a_run_of_a_newer_version(run: Run, words: tuple[str, ...]) -> None:
    renumber(run.path / "manifest.json")
    done = performed((*words, str(run.path)), lambda: 0.0)
    assert (done.code, done.out) == (2, "")
    assert done.err.replace("\n", " ").strip() == "error: " + sentence(run.path / "manifest.json", manifests.FORMAT)


def test_a_run_of_a_newer_version_is_listed_and_can_be_deleted(run: Run) -> None:
    run.set_status("failed")
    renumber(run.path / "manifest.json")
    listed = performed(("runs", "--root", str(run.path.parent)), lambda: 0.0)
    assert (listed.code, "one" in listed.out) == (0, True)
    assert performed(("delete", str(run.path), "--yes"), lambda: 0.0).code == 0
    assert not run.path.exists()


def test_a_manifest_of_a_newer_version_is_not_called_damaged(run: Run) -> None:
    renumber(run.path / "manifest.json")
    with pytest.raises(ConfigError) as caught:
        run.find_manifest()
    assert (str(caught.value), isinstance(caught.value, DamagedManifest)) == (
        sentence(run.path / "manifest.json", manifests.FORMAT),
        False,
    )
    with pytest.raises(ConfigError, match="a newer version wrote it"):
        find_run("one", run.path.parent)


def test_a_checkpoint_of_a_newer_version_is_refused_and_not_passed_over(run: Run) -> None:
    checkpoint.write(run.checkpoints, 1, {"a": b"1"}, {})
    made = checkpoint.write(run.checkpoints, 2, {"a": b"2"}, {})
    renumber(made.path / checkpoint.MANIFEST)
    for door in (made.problem, lambda: newest_complete(run.checkpoints)):
        with pytest.raises(ConfigError) as caught:
            door()
        assert str(caught.value) == sentence(made.path / checkpoint.MANIFEST, 1)


def test_a_line_of_a_newer_version_is_refused(run: Run) -> None:
    Ledger(run.path).write(THING, "exists")
    renumber(run.path / "ledger.jsonl")
    with pytest.raises(ConfigError) as caught:
        Ledger(run.path).entries()
    assert str(caught.value) == sentence(run.path / "ledger.jsonl", 1)


def test_a_report_of_a_newer_version_is_not_called_missing(run: Run) -> None:
    path = run.report / "report.json"
    with pytest.raises(ConfigError) as caught:
        result.readable({"format": result.FORMAT + 1, "verdict": {"sentence": "better"}}, path)
    assert str(caught.value) == sentence(path, result.FORMAT)


# Format 1: what version 0.1.0 wrote, without a number


def test_a_manifest_without_a_number_is_read(run: Run) -> None:
    made_from = manifest(data=(data_file("a.jsonl", "train"),), fingerprint={"lora.r": 4})
    value = made_from.as_json()
    del value["format"], value["launch"]
    (run.path / "manifest.json").write_text(json.dumps(value))
    assert run.manifest() == made_from


def test_the_keys_of_a_launch_that_stood_beside_the_others_are_read(run: Run) -> None:
    launch = replace(LAUNCH, uploads=(Upload("train", ("a.jsonl",), 3, "5" * 64),))
    value = manifest(launch=launch).as_json()
    flat = value | value["launch"]
    del flat["format"], flat["launch"]
    (run.path / "manifest.json").write_text(json.dumps(flat))
    assert run.manifest().launch == launch


def test_a_checkpoint_without_a_number_is_whole(run: Run) -> None:
    made = checkpoint.write(run.checkpoints, 1, {"a": b"1"}, {})
    value = json.loads((made.path / checkpoint.MANIFEST).read_text())
    del value["format"], value["sha256"]
    (made.path / checkpoint.MANIFEST).write_text(json.dumps(value | {"sha256": checkpoint._digest(value)}))
    assert Checkpoint(made.path).problem() is None
