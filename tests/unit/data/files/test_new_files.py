"""New files appear whole and together, or not at all."""

import errno
import os
from pathlib import Path

import pytest

from trainer.data.files.new_files import new_files
from trainer.errors import DataError
from trainer.runs.files import write_whole
from trainer.runs.lock import locked


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("source").write_text("s")
    Path("old").write_text("o")
    return tmp_path


def left():
    return sorted(path.name for path in Path().rglob("*"))


def test_files_appear_together():
    with new_files([Path("a"), Path("b")], [Path("source")], force=False) as (first, second):
        first.write(b"1")
        second.write(b"2")
        first.flush()
        assert not Path("a").exists()
    assert (Path("a").read_bytes(), Path("b").read_bytes()) == (b"1", b"2")
    assert left() == ["a", "b", "old", "source"]


def test_folders_that_are_missing_are_made():
    paths = [Path("new/er/a"), Path("new/b"), Path("other/c")]
    with new_files(paths, [], force=False):
        pass
    assert all(path.is_file() for path in paths)


def test_folders_that_were_made_for_nothing_go_again():
    Path("there").mkdir()
    with pytest.raises(ValueError, match="stop"), new_files([Path("there/er/a"), Path("new/b")], [], force=False):
        raise ValueError("stop")
    assert left() == ["old", "source", "there"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_when_writing_is_interrupted(error):
    def write():
        with new_files([Path("a"), Path("old")], [], force=True) as files:
            files[1].write(b"new")
            raise error

    with pytest.raises(error):
        write()
    assert left() == ["old", "source"]
    assert Path("old").read_text() == "o"


def test_a_second_file_that_is_refused_takes_the_first_one_back(monkeypatch):
    replace = Path.replace

    def refuse(self, target):
        if target.name == "b":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    expected = r"^\.: cannot be written: No space left on device; free space, then run the same command again$"
    with pytest.raises(DataError, match=expected), new_files([Path("a"), Path("b")], [], force=False):
        pass
    assert left() == ["old", "source"]


REFUSED = {
    "source": "source: is the file that is read, expected another one; choose another name",
    "old": "old: exists already, expected a new file; choose another name or add --force",
    ".": ".: is no regular file, expected the name of a new file; choose another name",
    "old/none/a": "old/none/a: old is no folder, expected one; choose another name",
}


@pytest.mark.parametrize(("name", "problem"), REFUSED.items())
def test_what_cannot_be_a_new_file_is_told_before_anything_is_written(name, problem):
    with pytest.raises(DataError) as raised, new_files([Path("a"), Path(name)], [Path("source")], force=False):
        raise AssertionError
    assert raised.value.problems == (problem,)
    assert left() == ["old", "source"]


def test_two_files_of_one_name_are_told():
    with pytest.raises(DataError) as raised, new_files([Path("a"), Path("./a")], [], force=True):
        raise AssertionError
    problem = "a: is to be two of the new files, expected a name of its own for each; rename one"
    assert raised.value.problems == (problem, problem)


def test_force_replaces_a_file_but_never_the_source():
    with new_files([Path("old")], [Path("source")], force=True) as (file,):
        file.write(b"new")
    assert Path("old").read_text() == "new"
    with (
        pytest.raises(DataError, match="is the file that is read"),
        new_files([Path("source")], [Path("source")], force=True),
    ):
        raise AssertionError


@pytest.fixture
def read_only(monkeypatch):
    """A file system that refuses to make, to rename and to remove."""

    def refuse(self, *others, **more):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    for name in ("open", "replace", "unlink"):
        monkeypatch.setattr(Path, name, refuse)


def test_what_cannot_be_removed_hides_no_error(read_only):
    expected = r"^\.: cannot be written: Read-only file system; choose another place, then run the same command again$"
    with pytest.raises(DataError, match=expected), new_files([Path("a"), Path("b")], [], force=False):
        pass


def test_a_file_that_cannot_be_replaced_tells_why_and_not_that_it_cannot_clean_up(read_only):
    with pytest.raises(OSError, match="Read-only") as caught:
        write_whole(Path("a"), "text")
    assert caught.value.__context__ is None


def test_a_lock_that_cannot_be_removed_hides_no_error(monkeypatch, tmp_path):
    def refuse(self, missing_ok=False):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    def fail_while_locked():
        with locked(tmp_path, print):
            monkeypatch.setattr(Path, "unlink", refuse)
            raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        fail_while_locked()
