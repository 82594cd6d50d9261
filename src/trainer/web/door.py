"""The entrance of programs: which paths are theirs, who sends a request, and how a refusal reads to them."""

from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from trainer.web.problems import Problem


class Door(Protocol):
    """Implemented by the API, which stands above this package."""

    def path_of(self, path: str) -> str | None:
        """The path of the route that is meant, one for all of its spellings; None of a page's path."""

    def enter(self, request: Request) -> None:
        """Note in the request's scope who sends it. Raises: Problem, without a key of this server."""

    def refusal(self, request: Request, problem: Problem) -> Response:
        """The answer to a request that is not answered."""

    def headers(self, request: Request) -> list[tuple[bytes, bytes]]:
        """Headers of every answer."""
