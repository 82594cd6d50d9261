"""Line numbers of an uploaded file as places in the data files it was made from."""

from collections.abc import Sequence
from pathlib import Path

from trainer.data.read.data_files import numbered_lines, opened


def place_in_files(paths: Sequence[str], number: int) -> str:
    """`file:line` of the row that is line `number` of the upload, counted from 1; empty where there is none."""
    row = 0
    for path in paths:
        with opened(Path(path)) as source:
            for line in numbered_lines(source):
                row += not line.blank
                if row == number and not line.blank:
                    return f"{path}:{line.number}"
    return ""
