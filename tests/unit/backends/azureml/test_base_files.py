"""A folder that is uploaded as a base is looked at before that, even where nothing that could load it is installed."""

from pathlib import Path

from trainer.backends.azureml.estimate import _file_problems


def test_files_that_are_no_weights_are_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    (problem,) = _file_problems(str(tmp_path))
    assert "is a git-lfs pointer and not the weights" in problem


def test_a_hub_id_and_a_run_are_not_looked_for_here(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: {}\n")
    assert _file_problems("org/model") == ()
    assert _file_problems(str(tmp_path)) == ()
