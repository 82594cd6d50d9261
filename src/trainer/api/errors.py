"""Refusals in the form of OpenAI's API, which its clients turn into their exceptions."""

from typing import Any

from starlette.responses import JSONResponse

from trainer.web.problems import Problem

CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large", 421: "unknown_host"}


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


def answer_of(problem: Problem) -> JSONResponse:
    """The answer to a refused request, in OpenAI's form."""
    error: dict[str, Any] = {"message": problem.sentence, "type": _type_of(problem), "param": None}
    error["code"] = CODES.get(problem.status, "server_error" if problem.status >= 500 else None)
    if isinstance(problem, ApiError):
        error |= {"param": problem.param, "code": problem.code}
    headers = {"allow": ", ".join(problem.allow)} if problem.allow else None
    return JSONResponse({"error": error}, problem.status, headers)


def _type_of(problem: Problem) -> str:
    if isinstance(problem, ApiError):
        return problem.type
    return "server_error" if problem.status >= 500 else "invalid_request_error"
