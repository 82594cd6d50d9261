"""A process that renders rows for another one, for as long as that one holds its end of the connection.

Run as: python -m trainer.training.render_worker HANDLE
"""

import contextlib
import sys
from multiprocessing.connection import Connection


def main(handle: int) -> None:
    """Learn how, and answer one part after the other."""
    connection = Connection(handle)
    with contextlib.suppress(EOFError, OSError):  # the other end is gone
        rendering = connection.recv()
        while True:
            connection.send(rendering(connection.recv()))


if __name__ == "__main__":
    main(int(sys.argv[1]))
