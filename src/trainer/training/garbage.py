"""Python's search for garbage, put off while a run gets ready."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def all_stays() -> Iterator[None]:
    """For a block that makes many objects which stay: what is there at its end is never searched for garbage.

    Libraries are imported and files read in thousands of steps, each of which would look through all that is there.
    Earlier objects count too, so it is for the beginning of a process: a model in a cycle would never be freed.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
