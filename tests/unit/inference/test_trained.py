"""What a run's result stands on."""

from pathlib import Path

from trainer.inference.trained import copy_adapter
from trainer.runs.checkpoint import MANIFEST


def test_all_of_an_adapter_is_copied_however_deep_it_lies(tmp_path: Path) -> None:
    adapter, target = tmp_path / "adapter", tmp_path / "new" / "copy"
    for name in ("adapter_config.json", "left.txt", MANIFEST, "templates/rag/first.jinja"):
        (adapter / name).parent.mkdir(parents=True, exist_ok=True)
        (adapter / name).write_text(name)
    copy_adapter(adapter, target, without=("left.txt",))
    found = sorted(file.relative_to(target).as_posix() for file in target.rglob("*") if file.is_file())
    assert found == ["adapter_config.json", "templates/rag/first.jinja"]
    assert (target / "templates" / "rag" / "first.jinja").read_text() == "templates/rag/first.jinja"
