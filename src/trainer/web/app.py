"""The ASGI app: policy before every route and method, then the handler; refusals are pages of the same look."""

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import anyio.to_thread
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trainer import __version__
from trainer.errors import TrainerError, file_error
from trainer.web.door import Door
from trainer.web.mistakes import SHOWN
from trainer.web.policy import ALWAYS, CSRF_FIELD, CSRF_HEADER, SAFE_METHODS, Policy
from trainer.web.problems import Problem, problem_of
from trainer.web.routes import Access, Link, Route
from trainer.web.streaming import Streams
from trainer.web.templates import Templates
from trainer.web.words import whole_number

FOREVER = "public, max-age=31536000, immutable"
MAX_FIELDS = 2000
MAX_FIELD_BYTES = 1024 * 1024


@dataclass
class Studio:
    """State of one server: the folder of runs and the way to show it. Everything else is in files."""

    root: Path
    policy: Policy
    templates: Templates
    routes: Sequence[Route]
    navigation: Sequence[Link] = ()
    report: Callable[[Exception], None] = lambda error: None  # of a mistake of ours, or an answer that broke off
    streams: Streams = field(default_factory=Streams)
    file_roots: Sequence[Path] = ()  # folders whose files pages may list and read, beside that of the runs
    door: Door | None = None  # of programs; without one there are pages alone

    def __post_init__(self) -> None:
        self.streams.report = self.report

    @property
    def home(self) -> str:
        return self.navigation[0].path if self.navigation else "/"


def make_app(studio: Studio) -> ASGIApp:
    """The app of a studio's routes, its static files and its entrance."""
    own = (Route("/", _home, Access.PAGE), Route("/static/{name:path}", _static, Access.STATIC))
    return _App(studio, (*own, *studio.routes))


def studio_of(request: Request) -> Studio:
    """The studio that answers a request."""
    studio: Studio = request.scope["studio"]
    return studio


def body_of(request: Request) -> bytes:
    """The body of a program's request."""
    body: bytes = request.scope["body"]
    return body


def form_of(request: Request) -> FormData:
    """The fields and files of an action."""
    form: FormData = request.scope["form"]
    return form


def is_partial(request: Request) -> bool:
    """True of a request by htmx, which swaps parts of a page."""
    return request.headers.get("hx-request") == "true"


def render(request: Request, template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
    """A template as the answer, with what every page needs: navigation, the session's CSRF token, the place."""
    return HTMLResponse(render_text(request, template, **values), status)


def render_text(request: Request, template: str, /, **values: Any) -> str:
    """A template's text; for a stream, which sends it in an event."""
    studio, session = studio_of(request), request.scope.get("session")
    everywhere = {
        "csrf": "" if session is None else studio.policy.sessions.csrf(session),
        "signed_in": session is not None,
        "navigation": studio.navigation,
        "home": studio.home,
        "place": request.scope["path"],
        "runs_folder": str(studio.root),
        "version": __version__,
    }
    return studio.templates.render(template, **(everywhere | values))


def redirect(request: Request, path: str) -> Response:
    """Show another page after an action, whoever sent it."""
    if is_partial(request):
        return Response(status_code=200, headers={"hx-redirect": path})
    return RedirectResponse(path, 303)


def done(request: Request, path: str, lines: Sequence[str]) -> Response:
    """The end of an action that changes the page it was sent from: what it said, or that page anew without a script."""
    if is_partial(request):
        return render(request, "done.html.jinja", lines=lines)
    return RedirectResponse(path, 303)


class _App:
    def __init__(self, studio: Studio, routes: Sequence[Route]) -> None:
        self.studio = studio
        self.pages = [route for route in routes if not route.access.is_for_programs]
        self.programs = [route for route in routes if route.access.is_for_programs]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        scope["studio"] = self.studio
        request, is_static, door = Request(scope, receive), False, self._door(scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                cache = () if is_static else ((b"cache-control", b"no-store"),)
                own = door.headers(request) if door else ()
                message["headers"] = [*message["headers"], *ALWAYS, *cache, *own]
            await send(message)

        try:
            if door:
                answer = await self._answer_program(request, door)
            else:
                route, answer = await self._answer(request)
                is_static = route is not None and route.access is Access.STATIC
        except ClientDisconnect:
            return
        except Exception as error:
            problem = self._problem(error)
            answer = door.refusal(request, problem) if door else _refused(request, problem)
        try:
            await answer(scope, request.receive, send_guarded)
        except Exception as error:  # in the middle of an answer, which ends here
            self.studio.report(error)

    def _door(self, scope: Scope) -> Door | None:
        """The door of a program's request, whose path becomes that of its route; None of a browser's."""
        door = self.studio.door
        if door is None or (path := door.path_of(scope["path"])) is None:
            return None
        scope["path"] = path
        return door

    def _problem(self, error: Exception) -> Problem:
        """An error as it is told; a mistake of ours is reported, too."""
        match error:
            case Problem():
                return error
            case TrainerError():
                return problem_of(error)
            case OSError():
                return problem_of(file_error(error))
        self.studio.report(error)
        return Problem(500, f"{type(error).__name__}: a mistake of this program; {SHOWN}")

    async def _answer_program(self, request: Request, door: Door) -> ASGIApp:
        self.studio.policy.check_host(request)
        door.enter(request)
        if (route := self._find(request, self.programs)) is None:
            raise Problem(404, f"Invalid URL ({request.method} {request.scope['path'][:200]})")
        if request.method not in route.methods:
            words = f"Not allowed to {request.method} on {request.scope['path'][:200]}"
            raise Problem(405, f"{words}; expected {', '.join(route.methods)}", route.methods)
        _limit_body(request, route, "body")
        if route.access is Access.API:
            request.scope["body"] = await request.body()
        return await _handled(request, route)

    async def _answer(self, request: Request) -> tuple[Route | None, ASGIApp]:
        policy, route = self.studio.policy, self._find(request, self.pages)
        policy.check_source(request, route)
        if (entrance := self._enter(request)) is not None:
            return route, entrance
        if route is None or route.access is not Access.STATIC:
            request.scope["session"] = session = policy.session_of(request)
        if route is None:
            raise Problem(404, f"{request.scope['path'][:200]}: there is no such page; see the navigation above")
        if request.method not in route.methods:
            raise Problem(405, f"{request.method}: is not answered here; see the navigation above", route.methods)
        match route.access:
            case Access.ACTION:
                _limit_body(request, route, "form")
                request.scope["form"] = form = await _read_form(request, route)
                given = request.headers.get(CSRF_HEADER) or form.get(CSRF_FIELD)
                policy.check_csrf(session, given if isinstance(given, str) else None)
            case Access.UPLOAD:
                policy.check_csrf(session, request.headers.get(CSRF_HEADER))
                _limit_body(request, route, "form")
        return route, await _handled(request, route)

    def _find(self, request: Request, routes: Sequence[Route]) -> Route | None:
        """The first route of the path that answers the method, else the first of the path."""
        found = None
        for route in routes:
            if (parameters := route.match(request.scope["path"])) is None:
                continue
            if found is None or request.method in route.methods:
                found = route
                request.scope["path_params"] = dict(parameters)
            if request.method in route.methods:
                break
        return found

    def _enter(self, request: Request) -> Response | None:
        """The exchange of the printed link's token for a cookie; None of any other request.

        A browser withholds a Strict cookie from a redirect that another site began. There a page of ours goes on.
        """
        if request.scope["path"] != "/" or request.method not in SAFE_METHODS or "token" not in request.query_params:
            return None
        policy = self.studio.policy
        if not policy.sessions.is_token(request.query_params["token"]):
            raise Problem(401, "token: is not that of this server; open the link that trainer ui printed last")
        if request.headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
            answer: Response = RedirectResponse("/", 303)
        else:
            answer = render(request, "enter.html.jinja")
        is_tls = request.headers.get("x-forwarded-proto") == "https"
        answer.set_cookie(
            policy.cookie, policy.sessions.open(), httponly=True, samesite="strict", secure=is_tls, path="/"
        )
        return answer


async def _handled(request: Request, route: Route) -> ASGIApp:
    """The handler's answer: of a coroutine here, of a plain function in a thread."""
    if inspect.iscoroutinefunction(route.handler):
        answer: Any = await route.handler(request)
    else:
        answer = await anyio.to_thread.run_sync(route.handler, request)
    return answer  # type: ignore[no-any-return]  # an ASGI app by the type of handlers


def _limit_body(request: Request, route: Route, what: str) -> None:
    """Let no more of a body be read than the route takes. Raises: Problem, as soon as it is announced or has come."""
    announced = request.headers.get("content-length", "0")
    too_large = Problem(413, f"{what}: is too large, expected at most {route.max_bytes:,} bytes; nothing was done")
    if (size := whole_number(announced, route.max_bytes + 1)) is None or size > route.max_bytes:
        raise too_large
    receive, num_bytes = request.receive, 0

    async def limited() -> Message:
        nonlocal num_bytes
        message = await receive()
        num_bytes += len(message.get("body", b""))
        if num_bytes > route.max_bytes:
            raise too_large
        return message

    request._receive = limited


async def _read_form(request: Request, route: Route) -> FormData:
    """An action's form, whose files are streamed to disk. Raises: Problem, where it is none."""
    match request.headers.get("content-type", "").partition(";")[0].strip().lower():
        case "multipart/form-data" if route.max_files:
            try:
                return await request.form(
                    max_files=route.max_files, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
                )
            except MultiPartException as error:
                raise Problem(400, f"form: {error.message}; nothing was done") from None
        case "application/x-www-form-urlencoded":
            return _fields(await request.body())
        case "" if request.headers.get("content-length", "0") == "0":
            return FormData()
    raise Problem(415, "form: is of a content type that is not accepted here; nothing was done")


def _fields(body: bytes) -> FormData:
    try:
        fields = parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise Problem(400, "form: cannot be read, expected fields in UTF-8; nothing was done") from None
    return FormData([*fields])


def _refused(request: Request, problem: Problem) -> Response:
    """A page of the usual look; for htmx a notice, which leaves the page as it is."""
    template = "notice.html.jinja" if is_partial(request) else "problem.html.jinja"
    answer = render(request, template, problem.status, problem=problem, title=str(problem.status))
    if problem.allow:
        answer.headers["allow"] = ", ".join(problem.allow)
    return answer


async def _home(request: Request) -> Response:
    return RedirectResponse(studio_of(request).home, 303)


async def _static(request: Request) -> Response:
    file = studio_of(request).templates.static.get(request.path_params["name"])
    if file is None:
        raise Problem(404, "static: there is no such file; reload the page")
    is_current = request.query_params.get("v") == file.version
    return Response(
        file.content, media_type=file.content_type, headers={"cache-control": FOREVER if is_current else "no-cache"}
    )


def json_text(value: object) -> str:
    """JSON for an event of a stream."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
