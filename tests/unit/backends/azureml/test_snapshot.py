"""What a job gets of this machine: what it needs, and nothing else, whatever lies beside it."""

from pathlib import Path
from typing import Any

import pytest

import trainer
from trainer.backends.azureml.snapshot import content_hash, data_names, list_files, stage
from trainer.config import RunConfig, load_config
from trainer.data.read.origins import record_of
from trainer.errors import ConfigError
from trainer.model.tiny import digest, tiny_base

CANARY = "canary-4f1c"
ROW = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
SECRET_FILES = (
    ".env", "id_rsa", "server.pem", ".git/config", ".azure/token.json", "data/.env", "data/key.pem", "notes.txt",
    "data/other.jsonl", "base/.env", "base/id_rsa", "base/credentials.json", "base/notes.txt", "base/plans.md",
    "base/data/users.json", "base/original/tokenizer.model", "base/pytorch_model.bin", "base/.cache/x.json",
    "config.yaml",
)  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    for name in SECRET_FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(CANARY, encoding="utf-8")
    (folder / "data" / "train.jsonl").write_text(ROW, encoding="utf-8")
    (folder / "data" / "more").mkdir()
    (folder / "data" / "more" / "train.jsonl").write_text(ROW * 2, encoding="utf-8")
    (folder / "base" / "config.json").write_text("{}", encoding="utf-8")
    (folder / "base" / "model.safetensors").write_bytes(b"weights")
    monkeypatch.chdir(folder)
    return folder


def config(**model: str) -> RunConfig:
    values: dict[str, Any] = {
        "model": {"base": "builtin:tiny", **model},
        "data": {"train": ["data/train.jsonl", {"path": "data/more/train.jsonl", "weight": 2}]},
        "backend": {"kind": "azureml"},
        "run": {"name": "one", "root": "elsewhere"},
    }
    return RunConfig.model_validate(values)


def test_nothing_that_lies_beside_the_named_files_is_taken_along(project: Path, tmp_path: Path) -> None:
    stage(config(base="base"), tmp_path / "staged")
    names = [name for name, _ in list_files(tmp_path / "staged")]
    assert [name for name in names if CANARY.encode() in (tmp_path / "staged" / name).read_bytes()] == []
    others = {name for name in names if not name.startswith("code/trainer/")}
    assert others == {
        "base/config.json", "base/model.safetensors", "code/config.yaml", "data/1-train.jsonl", "data/train.jsonl",
    }  # fmt: skip


def test_the_origin_of_a_fetched_file_goes_with_it(project: Path, tmp_path: Path) -> None:
    record = record_of(Path(config().data.train_sources[0].path))
    record.write_text("{}")
    job = stage(config(), tmp_path / "job")
    assert (job.data / record.name).read_text() == "{}"


def test_every_source_of_the_package_is_taken_along(project: Path, tmp_path: Path) -> None:
    stage(config(), tmp_path / "staged")
    source = Path(trainer.__file__).parent
    own = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    assert own == {path.relative_to(tmp_path / "staged/code/trainer").as_posix()
                   for path in (tmp_path / "staged/code/trainer").rglob("*.py")}  # fmt: skip
    assert list((tmp_path / "staged/code/trainer").rglob("__pycache__")) == []
    staged_tiny = tmp_path / "staged/code/trainer/model/tiny_base"
    assert digest(staged_tiny) == digest(tiny_base())


def test_the_config_reads_what_the_job_sees(project: Path, tmp_path: Path) -> None:
    snapshot = stage(config(), tmp_path / "staged")
    there = load_config(snapshot.code / "config.yaml")
    assert [(source.path, source.weight) for source in there.data.train_sources] == [
        ("data/train.jsonl", 1.0),
        ("data/1-train.jsonl", 2.0),
    ]
    assert (there.backend.kind, there.run.root, there.run.name) == ("local", "runs", "one")
    assert {name: (tmp_path / "staged" / name).read_text() for name in data_names(config()).values()} == {
        "data/train.jsonl": ROW,
        "data/1-train.jsonl": ROW * 2,
    }


def test_the_same_content_has_the_same_name_and_other_content_another(project: Path, tmp_path: Path) -> None:
    one, two = stage(config(), tmp_path / "one"), stage(config(), tmp_path / "two")
    assert (content_hash(one.code), content_hash(one.data)) == (content_hash(two.code), content_hash(two.data))
    (project / "data" / "train.jsonl").write_text(ROW * 3, encoding="utf-8")
    assert content_hash(stage(config(), tmp_path / "three").data) != content_hash(one.data)


def test_a_model_of_the_workspace_is_found_where_the_job_puts_it(project: Path, tmp_path: Path) -> None:
    snapshot = stage(config(base="azureml:llama:3"), tmp_path / "staged")
    assert snapshot.base is None
    assert load_config(snapshot.code / "config.yaml").model.base == "base"


def test_a_file_that_is_not_there_is_named(project: Path, tmp_path: Path) -> None:
    (project / "data" / "train.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"data/train\.jsonl: cannot be copied for the job: No such file"):
        stage(config(), tmp_path / "staged")


@pytest.mark.parametrize("name", ["tokenizer.json", "model-2.safetensors", "additional_chat_templates/rag.jinja"])
def test_a_link_out_of_a_base_is_refused(project: Path, tmp_path: Path, name: str) -> None:
    link = project / "base" / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(project / ".env")
    with pytest.raises(ConfigError, match=rf"'base/{name}' is a link to '.*/project/\.env', expected files"):
        stage(config(base="base"), tmp_path / "staged")


def test_a_folder_that_is_a_link_leads_out_of_a_base_too(project: Path, tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "a.jinja").write_text(CANARY)
    (project / "base" / "additional_chat_templates").symlink_to(tmp_path / "away")
    with pytest.raises(ConfigError, match="is a link to"):
        stage(config(base="base"), tmp_path / "staged")


def test_links_that_stay_are_followed(project: Path, tmp_path: Path) -> None:
    (project / "base" / "vocab.json").symlink_to("config.json")
    (project / "linked").symlink_to("base")
    stage(config(base="linked"), tmp_path / "staged")
    assert (tmp_path / "staged" / "base" / "vocab.json").read_text() == "{}"
    assert not (tmp_path / "staged" / "base" / "vocab.json").is_symlink()


def test_a_snapshot_of_the_hubs_cache_is_a_base(project: Path, tmp_path: Path) -> None:
    cached = tmp_path / "hub" / "models--me--model"
    snapshot = cached / "snapshots" / "0123abcd"
    for folder in (snapshot, cached / "blobs"):
        folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (cached / "blobs" / f"hash-of-{name}").write_text(name)
        (snapshot / name).symlink_to(f"../../blobs/hash-of-{name}")
    stage(config(base=str(snapshot)), tmp_path / "staged")
    assert [name for name, _ in list_files(tmp_path / "staged" / "base")] == ["config.json", "model.safetensors"]
