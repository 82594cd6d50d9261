"""`/v1/models`: the bases that this server offers, and the caller's tuned models."""

from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from trainer.api.errors import ApiError, not_found
from trainer.api.job_list import all_jobs, is_open
from trainer.api.keys import api_settings_of, caller_of
from trainer.api.tuned import TUNED, JobModel, delete_model, find_model, tuned_models
from trainer.runs.ledger import Ledger
from trainer.web.routes import Access, Route

BASE_CREATED = 0  # bases come from elsewhere, and nobody here knows when they were made


def list_models(request: Request) -> Response:
    """The bases first, then the tuned models, the newest first."""
    settings, caller = api_settings_of(request), caller_of(request)
    bases = [_shown_base(name) for name in settings.bases]
    tuned = [_shown(model) for model in tuned_models(settings.root, caller.name)]
    return JSONResponse({"object": "list", "data": [*bases, *tuned]})


def retrieve_model(request: Request) -> Response:
    """A model by its name, which may hold slashes and colons."""
    name: str = request.path_params["model"]
    if name in api_settings_of(request).bases:
        return JSONResponse(_shown_base(name))
    return JSONResponse(_shown(_asked(request, name)))


def delete_route(request: Request) -> Response:
    """Remove a tuned model. What it was made of, and what was measured of it, stays with its run."""
    name: str = request.path_params["model"]
    if name in api_settings_of(request).bases:
        raise ApiError(403, f"{name!r} is a base of this server, expected a tuned model", "invalid_value", "model")
    model = _asked(request, name)
    _refuse_what_is_needed(api_settings_of(request).root, model)
    delete_model(model)
    return JSONResponse({"id": name, "object": "model", "deleted": True})


def _refuse_what_is_needed(root: Path, model: JobModel) -> None:
    """Raises: ApiError, for a checkpoint, and for a model that is deployed or trained further."""
    if model.step is not None:
        words = f"{model.id!r} is a checkpoint, expected {model.job.model_name!r}, whose checkpoints go with it"
        raise ApiError(400, words, "invalid_value", "model")
    if any(entry.thing.kind == "deployment" for entry in Ledger(model.run.path).open()):
        words = f"{model.id!r} is deployed; first run: trainer teardown {model.job.id}"
        raise ApiError(409, words, "model_in_use", "model")
    needing = [job.id for job in all_jobs(root) if job.model.startswith(model.id) and is_open(job)]
    if needing:
        raise ApiError(409, f"{model.id!r} is what {needing[0]} begins with; cancel it first", "model_in_use", "model")


def _asked(request: Request, name: str) -> JobModel:
    if not name.startswith(TUNED):
        raise not_found("model", name)
    return find_model(api_settings_of(request).root, caller_of(request).name, name)


def _shown_base(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": BASE_CREATED, "owned_by": "system"}


def _shown(model: JobModel) -> dict[str, Any]:
    return {"id": model.id, "object": "model", "created": model.job.created_at, "owned_by": model.job.owner}


ROUTES = (
    Route("/v1/models", list_models, Access.API, methods=("GET",)),
    Route("/v1/models/{model:path}", retrieve_model, Access.API, methods=("GET",)),
    Route("/v1/models/{model:path}", delete_route, Access.API, methods=("DELETE",)),
)
