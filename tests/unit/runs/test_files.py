"""Folders for new files: made where they are missing, gone again only where the files could not be made."""

from pathlib import Path

import pytest

from trainer.runs.files import folders_above


def test_folders_above_new_files_stay_once_the_files_are_made(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "b" / "one", tmp_path / "a" / "c" / "two"
    with folders_above(first, second):
        first.touch()  # and of the second nothing is left, as another process has taken it
    assert first.is_file()
    assert second.parent.is_dir()


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_folders_above_new_files_are_removed_where_making_them_fails(
    tmp_path: Path, error: type[BaseException]
) -> None:
    (tmp_path / "there").mkdir()
    path = tmp_path / "there" / "a" / "b" / "one"
    with pytest.raises(error), folders_above(path):
        raise error
    assert list((tmp_path / "there").iterdir()) == []


def test_what_others_put_into_a_folder_keeps_it(tmp_path: Path) -> None:
    theirs, path = tmp_path / "a" / "theirs", tmp_path / "a" / "b" / "one"
    with pytest.raises(FileNotFoundError), folders_above(path):
        _write_and_fail(theirs)
    assert list((tmp_path / "a").iterdir()) == [theirs]


def _write_and_fail(file: Path) -> None:
    file.touch()
    raise FileNotFoundError
