"""Deleting takes away a run that we made and nothing else, however the folder was named."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.commands import performed
from tests.manifests import manifest
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError
from trainer.runs import Run, create_run, find_or_adopt, find_run, list_runs
from trainer.runs import checkpoint as checkpoints
from trainer.runs.ownership import MARKER, beside, foreign

CONFIG = "model: {base: builtin:tiny}\ndata: {train: a.jsonl}\n"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's project, with a config of theirs at its top."""
    folder = tmp_path / "project"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "work.py").write_text("years of it")
    (folder / "config.yaml").write_text(CONFIG)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TRAINER_RUNS", raising=False)
    return folder


def config(name: str = "one", root: str = "runs") -> RunConfig:
    values = {"model": {"base": "builtin:tiny"}, "data": {"train": "a.jsonl"}, "run": {"name": name, "root": root}}
    return RunConfig.model_validate(values)


def full_run(name: str = "one", root: str = "runs") -> Run:
    """A run with everything that a run can hold."""
    run = create_run(config(name, root))
    for step in (1, 2):
        checkpoints.write(run.checkpoints, step, {"adapter_model.safetensors": b"x", "results.csv": b"step\n"}, {})
    for folder, name in (
        ("adapter", "tokenizer.json"),
        ("report", "report.html"),
        ("tensorboard", "events.out.tfevents.1"),
    ):
        (run.path / folder).mkdir()
        (run.path / folder / name).write_text("x")
    (run.adapter / "additional_chat_templates").mkdir()
    for name in ("output.log", "ledger.jsonl", "job.yml", "azureml.json", ".status.json.1234abcd.tmp"):
        (run.path / name).touch()
    run.event("made")
    run.append_result({"step": 1, "train_loss": 1.0})
    run.append_metrics({"step": 1})
    run.write_manifest(manifest(fingerprint={}))
    run.set_status("succeeded")
    return run


def delete(*words: str):
    return performed(("delete", *words, "--yes"), lambda: 0.0)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_with_everything_in_it_is_deleted() -> None:
    run = full_run()
    assert foreign(run.path) == []
    assert delete("one").code == 0
    assert list(Path("runs").iterdir()) == []


@pytest.mark.parametrize("make", ["marker", "status", "manifest"])
def test_a_run_of_an_earlier_version_is_deleted(make: str) -> None:
    run = full_run()
    if make != "marker":
        (run.path / MARKER).unlink()
    if make == "manifest":
        (run.path / "status.json").write_text("{")
    assert delete("one").code == 0
    assert not run.path.exists()


PLACES = ["..", ".", "../..", "../../project", "/", "~", "src", "project"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("inside", [".", "src"])
def test_no_folder_that_is_more_than_a_run_is_deleted(
    project: Path, place: str, inside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(project.parent))
    full_run()
    before = tree(project)
    monkeypatch.chdir(inside)
    done = delete(place.replace("~", str(project.parent)))
    assert (done.code, tree(project)) == (2, before)
    assert done.err.startswith("error: run ")
    assert "Traceback" not in done.err


@pytest.mark.parametrize("words", [(".",), (str(Path("..") / "one"),)])
def test_the_run_that_one_stands_in_is_not_deleted(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    run = full_run()
    monkeypatch.chdir(run.path)
    done = delete(*words)
    assert done.code == 2
    assert "is the folder you are in" in done.err
    assert Path("config.yaml").is_file()


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "src/a.py", ".git/HEAD", "checkpoints/notes.txt", "checkpoints/step-00000001/mine.py",
     "adapter/sub/a.json", "report/thesis.tex", "checkpoints/step-00000001/deep/x.json", "status.json.bak"],
)  # fmt: skip
def test_a_run_that_holds_foreign_files_stays_and_they_are_named(name: str) -> None:
    run = full_run()
    (run.path / name).parent.mkdir(parents=True, exist_ok=True)
    (run.path / name).write_text("mine")
    before = tree(run.path)
    done = delete("one")
    assert (done.code, tree(run.path)) == (2, before)
    first = name.split("/")[0]
    assert repr(first) in done.err or f"'{first}/" in done.err
    assert "move that elsewhere first; nothing was deleted" in done.err


def test_a_link_to_a_run_is_refused_in_words() -> None:
    run = full_run()
    Path("runs/link").symlink_to("one")
    done = delete("link")
    assert done.err == (
        "error: run 'runs/link': is a link to 'one', expected the folder itself; name that one, or remove the link "
        "with rm\n"
    )
    assert run.path.is_dir()


def test_nothing_is_followed_through_links(project: Path) -> None:
    run, treasure = full_run(), project / "treasure"
    checkpoints.write(treasure, 1, {"a": b"x"}, {})
    shutil.rmtree(run.checkpoints / "step-00000001")
    (run.checkpoints / "step-00000001").symlink_to(treasure / "step-00000001")
    before = tree(treasure)
    checkpoints.rotate(run.checkpoints, newest=2, keep=1, protected=())
    checkpoints.forget_after(run.checkpoints, 0)
    assert tree(treasure) == before
    done = delete("one")
    assert (done.code, tree(treasure)) == (2, before)
    assert "'checkpoints/step-00000001 (a link)'" in done.err


@pytest.mark.parametrize("words", [("pause",), ("cancel",), ("resume",), ("evaluate",), ("show",), ("logs",)])
def test_no_command_takes_a_folder_with_a_config_for_a_run(project: Path, words: tuple[str, ...]) -> None:
    before = tree(project)
    done = performed((*words, "."), lambda: 0.0)
    assert (done.code, tree(project)) == (2, before)
    assert "holds 'src' and no sign of being a run, expected a folder that train made" in done.err


def test_a_config_alone_is_no_run_and_is_not_adopted() -> None:
    Path("runs/one/src").mkdir(parents=True)
    Path("runs/one/config.yaml").write_text(CONFIG)
    assert list_runs(Path("runs")) == []
    with pytest.raises(ConfigError, match="holds something else than a run"):
        find_or_adopt(config())


def test_a_folder_of_hidden_files_is_not_adopted() -> None:
    Path("runs/one/.git").mkdir(parents=True)
    with pytest.raises(ConfigError, match="holds something else than a run"):
        find_or_adopt(config())


def test_a_run_is_found_from_inside_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    run = full_run()
    monkeypatch.chdir(run.path)
    assert find_run(".", Path("runs")).name == "one"


# Killed at any point


def test_what_a_kill_leaves_of_a_deletion_is_no_run_and_goes_with_the_next_one() -> None:
    full_run("two")
    run = full_run()
    aside = run.path.with_name(beside("one", "deleted"))
    run.path.rename(aside)
    (aside / "config.yaml").unlink()
    assert [found.name for found in list_runs(Path("runs"))] == ["two"]
    assert delete("two").code == 0
    assert list(Path("runs").iterdir()) == []


def test_what_a_kill_leaves_of_a_new_folder_goes_when_it_is_old() -> None:
    run = full_run()
    old, new = (run.path.with_name(beside("one", "new")) for _ in range(2))
    for path in (old, new):
        shutil.copytree(run.path, path)
    os.utime(old, (1, 1))
    create_run(config("two"))
    assert sorted(path.name for path in Path("runs").iterdir()) == sorted([new.name, "one", "two"])


@pytest.mark.parametrize("made", [[], ["status.json"], ["status.json", "checkpoints"], [MARKER]])
def test_commands_agree_about_a_run_that_never_began(made: list[str]) -> None:
    whole, part = create_run(config("whole")).path, Path("runs/one")
    Run(whole).set_status("validating_files", pid=2**22 + 1)
    part.mkdir()
    for name in made:
        (shutil.copytree if (whole / name).is_dir() else shutil.copy)(whole / name, part / name)
    with pytest.raises(ConfigError) as caught:
        create_run(config())
    assert str(caught.value) == (
        "run.name: 'one' exists in 'runs', expected a new name; choose another, or remove what is left of a run that "
        "never began with: trainer delete runs/one"
    )
    if made:
        with pytest.raises(ConfigError, match="start it again after: trainer delete runs/one"):
            find_run("one", Path("runs"))
    assert delete("one").code == 0
    assert create_run(config()).name == "one"


def test_a_run_appears_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    rename = Path.rename

    def spy(path: Path, target: Path) -> Path:
        seen.append(sorted(found.name for found in Path("runs").iterdir()))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", spy)
    run = create_run(config())
    assert [name.startswith(".one.") for name in seen[0]] == [True]
    assert json.loads((run.path / "status.json").read_text())["state"] == "validating_files"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_run_is_not_half_deleted() -> None:
    run = full_run()
    run.checkpoints.chmod(0o555)
    done = delete("one")
    run.checkpoints.chmod(0o755)
    assert done.code == 2
    assert "'runs/one/checkpoints' is read-only, expected write access; nothing was deleted" in done.err
    assert (run.path / "config.yaml").is_file()
