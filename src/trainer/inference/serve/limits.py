"""Limits of one request, and of all of them together."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from trainer.inference.serve.refusals import Refusal, overloaded


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest requests and longest waits that a server accepts."""

    max_requests: int = 16  # answered at a time; one more is refused at once
    max_tokens: int = 1024  # the longest answer, and the default where a request names none
    max_seconds: float = 120.0  # for an answer
    max_body_bytes: int = 1024 * 1024
    max_body_seconds: float = 10.0  # for sending it
    max_header_seconds: float = 10.0  # for sending what stands before it
    max_connections: int = 512  # open at a time, idle ones too
    max_bytes_a_token: int = 64  # of a prompt: longer ones cannot fit into what the model reads


class Slots:
    """Requests that are being answered."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.taken = 0

    def check(self) -> None:
        """Raises: Refusal, at once, when all are taken."""
        if self.taken >= self.limits.max_requests:
            raise overloaded(self.limits.max_requests)

    @contextmanager
    def one(self) -> Iterator[None]:
        """A place for one request. Raises: Refusal, at once, when all are taken."""
        self.check()
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


async def read_body(chunks: AsyncIterator[bytes], announced_bytes: str | None, limits: Limits) -> bytes:
    """The whole body. Raises: Refusal, when it is too large or comes too slowly."""
    too_large = Refusal(
        413, f"the body is too large, expected at most {limits.max_body_bytes:,} bytes", "request_too_large"
    )
    digits = (announced_bytes or "").lstrip("0")
    most = str(limits.max_body_bytes)
    if digits.isdecimal() and (len(digits), digits) > (len(most), most):
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.max_body_seconds):
            async for chunk in chunks:
                body += chunk
                if len(body) > limits.max_body_bytes:
                    raise too_large
    except TimeoutError:
        raise Refusal(408, f"the body did not come within {limits.max_body_seconds:g} seconds", "timeout") from None
    return bytes(body)
