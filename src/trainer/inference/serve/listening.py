"""An address of this machine: listen on it, and answer until a signal to stop."""

import errno
import os
import signal
import socket
from collections.abc import Callable

from trainer.errors import ConfigError

NO_ADDRESS = (errno.EADDRNOTAVAIL, socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_AGAIN)


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. Raises: ConfigError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno in NO_ADDRESS:
            raise ConfigError(
                f"--host: {host!r} is no address of this machine, expected one of its names or addresses; choose "
                "another --host, or leave it out for 127.0.0.1"
            ) from None
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise ConfigError(
            f"--port: {host}:{port} cannot be listened on: {reason}; choose another --port, or end what uses it"
        ) from None
    # asyncio does that only for sockets that name their protocol; connections inherit it. Without it the second part of
    # an answer waits for the client to acknowledge the first one: 40 milliseconds.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def run_until_signal(run: Callable[[], None]) -> None:
    """Run uvicorn until SIGTERM or Ctrl-C. Raises: KeyboardInterrupt, after Ctrl-C, and what `run` raises."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # uvicorn raises it once more when it has ended
    try:
        run()
    finally:
        signal.signal(signal.SIGTERM, before)
