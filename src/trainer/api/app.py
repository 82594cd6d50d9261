"""The API's routes, and its door in the web app: every spelling of an address, keys, and refusals as JSON."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from trainer.api import chat, files, jobs, models, uploads
from trainer.api.errors import answer_of
from trainer.api.keys import find_caller
from trainer.api.settings import ApiSettings
from trainer.web.problems import Problem
from trainer.web.routes import Route

ROUTES: Sequence[Route] = (*files.ROUTES, *uploads.ROUTES, *jobs.ROUTES, *models.ROUTES, *chat.ROUTES)
BELOW = "/v1"
AZURE_BELOW = "/openai/v1"


@dataclass(frozen=True)
class ApiDoor:
    """Lets programs in. `alone`: there are no pages, and every address is the API's."""

    settings: ApiSettings
    alone: bool = False

    def path_of(self, path: str) -> str | None:
        if path == AZURE_BELOW or path.startswith(f"{AZURE_BELOW}/"):
            return path.removeprefix("/openai")
        return path if self.alone or path == BELOW or path.startswith(f"{BELOW}/") else None

    def enter(self, request: Request) -> None:
        request.scope["caller"] = find_caller(self.settings.keys, request)
        request.scope["api"] = self.settings

    def refusal(self, request: Request, problem: Problem) -> Response:
        return answer_of(problem)

    def headers(self, request: Request) -> list[tuple[bytes, bytes]]:
        return [(b"x-request-id", f"req_{secrets.token_hex(16)}".encode())]
