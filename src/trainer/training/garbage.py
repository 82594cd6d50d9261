"""Python's search for garbage, put off while a run gets ready."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def all_stays() -> Iterator[None]:
    """For a block that makes many objects which stay: they are not searched for garbage, then or ever.

    Libraries are imported and files read in thousands of steps, each of which would look through all that is there.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
