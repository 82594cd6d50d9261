"""`/v1/models`: the bases that this server offers, and the caller's tuned models."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from trainer.api.errors import not_found
from trainer.api.keys import api_settings_of
from trainer.web.routes import Access, Route

BASE_CREATED = 0  # bases come from elsewhere, and nobody here knows when they were made


def list_models(request: Request) -> Response:
    """The bases first."""
    bases = [_shown_base(name) for name in api_settings_of(request).bases]
    return JSONResponse({"object": "list", "data": bases})


def retrieve_model(request: Request) -> Response:
    """A model by its name, which may hold slashes and colons."""
    name: str = request.path_params["model"]
    if name not in api_settings_of(request).bases:
        raise not_found("model", name)
    return JSONResponse(_shown_base(name))


def _shown_base(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": BASE_CREATED, "owned_by": "system"}


ROUTES = (
    Route("/v1/models", list_models, Access.API, methods=("GET",)),
    Route("/v1/models/{model:path}", retrieve_model, Access.API, methods=("GET",)),
)
