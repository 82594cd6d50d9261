"""Bodies of requests: a JSON object, held to a pydantic model, with every mistake named."""

import json
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from trainer.api.errors import ApiError
from trainer.errors import quoted
from trainer.web.app import body_of

Body = TypeVar("Body", bound=BaseModel)


def object_of(request: Request) -> dict[str, Any]:
    """The JSON object of a request's body. Raises: ApiError."""
    try:
        value = json.loads(body_of(request), parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate is no text, and no file could hold it
    except (ValueError, RecursionError):
        raise ApiError(400, "body: is not valid JSON, expected an object in UTF-8", "invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, f"body: is {quoted(value)}, expected a JSON object", "invalid_json")
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def read(request: Request, model: type[Body]) -> Body:
    """The body as a model. Raises: ApiError, which names every mistake; `param` is the first one's field."""
    try:
        return model.model_validate(object_of(request))
    except ValidationError as error:
        found = [(".".join(map(str, detail["loc"])), detail["msg"]) for detail in error.errors()]
        words = "; ".join(f"{place or 'body'}: {message}" for place, message in found[:20])
        raise ApiError(400, words, "invalid_value", found[0][0] or None) from None
