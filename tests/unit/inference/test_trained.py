"""What a run's result stands on."""

from pathlib import Path

import pytest

from tests.manifests import manifest, rewrite
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError
from trainer.inference.trained import copy_adapter, starting_adapter
from trainer.runs import Run, create_run
from trainer.runs.checkpoint import MANIFEST
from trainer.runs.files import sha256_of
from trainer.runs.manifest import DamagedManifest, ParentRun
from trainer.training.fingerprint import PARENT_ADAPTER


def test_all_of_an_adapter_is_copied_however_deep_it_lies(tmp_path: Path) -> None:
    adapter, target = tmp_path / "adapter", tmp_path / "new" / "copy"
    for name in ("adapter_config.json", "left.txt", MANIFEST, "templates/rag/first.jinja"):
        (adapter / name).parent.mkdir(parents=True, exist_ok=True)
        (adapter / name).write_text(name)
    copy_adapter(adapter, target, without=("left.txt",))
    found = sorted(file.relative_to(target).as_posix() for file in target.rglob("*") if file.is_file())
    assert found == ["adapter_config.json", "templates/rag/first.jinja"]
    assert (target / "templates" / "rag" / "first.jinja").read_text() == "templates/rag/first.jinja"


@pytest.fixture
def further(tmp_path: Path) -> Run:
    """A run that trained the adapter of another one further."""

    def make(name: str, base: str, parent: ParentRun | None) -> Run:
        values = {
            "model": {"base": base}, "data": {"train": "a.jsonl"}, "run": {"name": name, "root": str(tmp_path / "runs")}
        }  # fmt: skip
        run = create_run(RunConfig.model_validate(values))
        run.write_manifest(manifest(parent=parent))
        run.adapter.mkdir()
        (run.adapter / "adapter_config.json").write_text("{}")
        (run.adapter / "adapter_model.safetensors").write_text(name)
        return run

    first = make("first", "builtin:tiny", None)
    assert starting_adapter(first) is None
    run = make("further", str(first.path), ParentRun("first", None))
    rewrite(run, fingerprint={PARENT_ADAPTER: sha256_of(first.adapter / "adapter_model.safetensors")})
    return run


def test_the_adapter_that_training_began_with_is_held_against_its_digest(further: Run) -> None:
    adapter = starting_adapter(further)
    assert adapter is not None
    assert adapter.parent.name == "first"
    (adapter / "adapter_model.safetensors").write_text("another")
    with pytest.raises(ConfigError, match="is another one now, expected the adapter that training began with"):
        starting_adapter(further)


@pytest.mark.parametrize("fingerprint", [None, {}, {"lora.r": 4}])
def test_a_manifest_that_does_not_say_which_adapter_it_was_is_damaged(
    further: Run, fingerprint: dict[str, int] | None
) -> None:
    rewrite(further, fingerprint=fingerprint)
    with pytest.raises(DamagedManifest):
        starting_adapter(further)
