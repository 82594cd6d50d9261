"""Rows of a Parquet file, the form in which most public data sets are kept."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.data.quoting import printable
from trainer.errors import DataError
from trainer.extras import need

MAGIC = b"PAR1"
_BATCH_ROWS = 1024


def read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row with its number, from 1.

    Raises: DataError, when the file is damaged; MissingDependency, without pyarrow.
    """
    need("reading Parquet", "pyarrow", extra="local")
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        found = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{printable(str(path))}: cannot be read as Parquet ({found}), expected a whole file"
        ) from error
