"""Refusals in the form of OpenAI's API, which its clients turn into their exceptions."""

import re
from typing import Any

from starlette.responses import JSONResponse

from trainer.web.problems import Problem

CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large", 421: "unknown_host"}
FOLDERS = re.compile(r"(?<![\w:/.~-])/(?:[^\s/'\"<>|]+/)+")  # above a file of this machine; not those of an address


class ApiError(Problem):
    """Refused request. `param` names the field that is wrong; `code` is for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        type: str = "invalid_request_error",  # noqa: A002  # the name in the document that clients know
    ) -> None:
        super().__init__(status, message)
        self.code, self.param, self.type = code, param, type


def not_found(what: str, id: str) -> ApiError:  # noqa: A002  # the same
    """An object that is not there, or belongs to another key: nobody learns which."""
    return ApiError(404, f"No such {what}: {id[:200]!r}", "resource_not_found", "id")


def invalid(param: str, message: str, code: str | None = "invalid_value") -> ApiError:
    """A field of the request that is wrong; the message says what was found and what is expected."""
    return ApiError(400, f"{param}: {message}", code, param)


def without_folders(words: str) -> str:
    """A sentence whose files have their names alone: where they lie on this machine is nobody's business."""
    return FOLDERS.sub("", words)


def answer_of(problem: Problem) -> JSONResponse:
    """The answer to a refused request, in OpenAI's form. An address that is not there is said as it was asked for."""
    is_address = problem.status in (404, 405) and not isinstance(problem, ApiError)
    words = problem.sentence if is_address else without_folders(problem.sentence)
    error: dict[str, Any] = {"message": words, "type": _type_of(problem), "param": None}
    error["code"] = CODES.get(problem.status, "server_error" if problem.status >= 500 else None)
    if isinstance(problem, ApiError):
        error |= {"param": problem.param, "code": problem.code}
    headers = {"allow": ", ".join(problem.allow)} if problem.allow else None
    return JSONResponse({"error": error}, problem.status, headers)


def _type_of(problem: Problem) -> str:
    if isinstance(problem, ApiError):
        return problem.type
    return "server_error" if problem.status >= 500 else "invalid_request_error"
