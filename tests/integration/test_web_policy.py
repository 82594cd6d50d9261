"""The policy of the studio, over every route that there is: a page without one cannot be added."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from tests.studio import FORM, Studio, make_run, studio
from trainer import dashboard
from trainer.web.app import form_of
from trainer.web.routes import Access, Route

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
FOREIGN = {
    "another name": {"Host": "evil.example:{port}"},
    "our name as a part": {"Host": "127.0.0.1:{port}.evil.example"},
    "another port": {"Host": "127.0.0.1:1"},
    "no port": {"Host": "127.0.0.1"},
    "another origin": {"Origin": "http://evil.example"},
    "the null origin": {"Origin": "null"},
    "an origin that begins as ours": {"Origin": "http://127.0.0.1:{port}.evil.example"},
    "our origin with another scheme": {"Origin": "https://127.0.0.1:{port}"},
    "another port's page": {"Sec-Fetch-Site": "same-site"},
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "another site's frame": {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "iframe",
    },
    "a word that no browser sends": {"Sec-Fetch-Site": "same-origin, cross-site"},
}


def upload(request: Request) -> Response:
    """An action with files, so that the table has one wherever the dashboard has none."""
    files = [value for value in form_of(request).values() if not isinstance(value, str)]
    return PlainTextResponse(str(sum(file.size or 0 for file in files)))


async def kept(request: Request) -> Response:
    return PlainTextResponse("kept")


async def swallow(request: Request) -> Response:
    return PlainTextResponse(str(sum([len(chunk) async for chunk in request.stream()])))


OWN = (
    Route("/-upload", upload, Access.ACTION, max_bytes=200_000, max_files=2),
    Route("/-act/{name}", kept, Access.ACTION),
    Route("/-stream", swallow, Access.UPLOAD, max_bytes=200_000),
    Route("/-both", kept, Access.PAGE),
    Route("/-both", kept, Access.ACTION),
    Route("/-file/{name}", kept, Access.DOWNLOAD),
)
ROUTES = (*dashboard.ROUTES, *OWN)
PATHS = [(re.sub(r"\{\w+(:\w+)?\}", "one", route.path), route) for route in ROUTES]
ids = [f"{route.access.value} {path}" for path, route in PATHS]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    root = tmp_path_factory.mktemp("runs")
    make_run(root, "one")
    with studio(root, ROUTES) as server:
        yield server


def as_ours(served: Studio, route: Route) -> dict[str, str]:
    """The headers with which this route is reached."""
    return served.acting | {"Content-Type": FORM} if route.access in CHANGES else served.signed_in


def method_of(route: Route) -> str:
    return route.access.methods[0]


@pytest.mark.parametrize(("path", "route"), PATHS, ids=ids)
class TestEveryRoute:
    def test_answers_its_own_pages(self, path, route, served):
        if not (served.server.studio.root / "one").exists():  # an action has deleted it
            make_run(served.server.studio.root, "one")
        found = served.send(method_of(route), path, as_ours(served, route), b"" if method_of(route) == "POST" else None)
        assert found.status not in (401, 403, 405, 421, 500), found.text

    @pytest.mark.parametrize("what", FOREIGN)
    def test_refuses_what_others_send_by_any_method(self, what, path, route, served):
        wrong = {name: value.format(port=served.port) for name, value in FOREIGN[what].items()}
        for method in METHODS:
            found = served.send(method, path, as_ours(served, route) | wrong)
            assert found.status in (403, 421), (method, found.text)
            assert "set-cookie" not in found.headers

    def test_needs_a_session(self, path, route, served):
        ours = as_ours(served, route)
        cookie = served.cookie
        for wrong in ("", "x", cookie[:-1], f"{cookie}0", cookie.replace("=", "-other="), cookie.partition(".")[0]):
            found = served.send(method_of(route), path, ours | {"Cookie": wrong})
            assert found.status == 401, (wrong, found.text)

    def test_answers_no_other_method(self, path, route, served):
        others = {method for _, other in PATHS if other.path == route.path for method in other.methods}
        for method in set(METHODS) - others:
            found = served.send(method, path, served.acting)
            assert found.status == 405, method
            assert set(found.headers["allow"].split(", ")) <= others

    def test_sends_the_headers_that_keep_pages_apart(self, path, route, served):
        found = served.send(method_of(route), path, as_ours(served, route))
        assert "'unsafe" not in found.headers["content-security-policy"]
        assert found.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in found.headers


CHANGES = (Access.ACTION, Access.UPLOAD)
ACTIONS = [(path, route) for path, route in PATHS if route.access in CHANGES]


@pytest.mark.parametrize(("path", "route"), ACTIONS, ids=[path for path, _ in ACTIONS])
class TestEveryAction:
    def test_needs_the_csrf_token_of_its_own_session(self, path, route, served):
        sessions = served.server.studio.policy.sessions
        another = sessions.csrf(sessions.read(sessions.open()) or "")
        for wrong in ("", "x", another, served.csrf[:-1], sessions.token):
            found = served.send("POST", path, as_ours(served, route) | {"X-CSRF-Token": wrong}, b"")
            assert found.status == 403, wrong
            assert "csrf:" in found.text

    def test_needs_an_origin(self, path, route, served):
        without = {name: value for name, value in as_ours(served, route).items() if name != "Origin"}
        assert served.send("POST", path, without, b"").status == 403

    def test_refuses_a_larger_body_than_it_takes(self, path, route, served):
        announced = as_ours(served, route) | {"Content-Length": str(route.max_bytes + 1)}
        assert served.send("POST", path, announced).status == 413
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as raw:
            headers = as_ours(served, route) | {"Transfer-Encoding": "chunked"}
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            raw.sendall(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n{lines}\r\n".encode())
            chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
            sent = 0
            try:
                while sent <= route.max_bytes + 0x10000:
                    raw.sendall(chunk)
                    sent += 0x10000
                answer = raw.recv(64)
            except (BrokenPipeError, ConnectionResetError):
                answer = raw.recv(64)
            assert answer.startswith(b"HTTP/1.1 4"), answer

    def test_reads_forms_alone(self, path, route, served):
        if route.access is Access.UPLOAD:
            return
        found = served.send("POST", path, as_ours(served, route) | {"Content-Type": "application/json"}, b"{}")
        assert found.status == 415


def test_a_route_needs_a_policy():
    with pytest.raises(TypeError):
        Route("/open", kept)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="expected one of Access"):
        Route("/open", kept, "page")  # type: ignore[arg-type]


def test_no_part_of_an_answer_waits_for_the_client_to_acknowledge_another(served):
    assert served.server.listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_an_address_is_matched_as_it_was_decoded(served):
    for odd in ("/runs%3fq=x", "/runs%23x", "//runs", "/runs/", "/RUNS"):
        assert served.get(odd).status == 404, odd


def test_csrf_stands_in_a_field_of_the_form_too(served):
    without = {name: value for name, value in served.acting.items() if name != "X-CSRF-Token"}
    assert served.send("POST", "/-act/one", without | {"Content-Type": FORM}, f"csrf={served.csrf}").status == 200
    assert served.send("POST", "/-act/one", without | {"Content-Type": FORM}, "csrf=x").status == 403


def multipart(*parts: tuple[str, str, bytes]) -> tuple[str, bytes]:
    """Content type and body of a form; of parts with a file name, files."""
    body = b""
    for name, file, content in parts:
        named = f'; filename="{file}"' if file else ""
        body += f'--b\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + content + b"\r\n"
    return "multipart/form-data; boundary=b", body + b"--b--\r\n"


def test_uploads_are_limited_in_size_and_number(served):
    kind, body = multipart(("a", "a.jsonl", b"x" * 150_000))
    ours = served.acting | {"Content-Type": kind}
    assert served.send("POST", "/-upload", ours, body).text == "150000"
    assert served.send("POST", "/-upload", ours, multipart(("a", "a", b"x" * 200_000))[1]).status == 413
    assert served.send("POST", "/-upload", ours, multipart(*[("a", "a", b"x")] * 3)[1]).status == 400
    assert served.send("POST", "/-act/one", ours, body).status == 415
    without = {name: value for name, value in ours.items() if name != "X-CSRF-Token"}
    assert served.send("POST", "/-upload", without, body).status == 403
    assert served.send("POST", "/-upload", without, multipart(("csrf", "", served.csrf.encode()))[1]).status == 200


def test_an_upload_is_streamed_and_needs_its_token_before_a_byte(served):
    assert served.send("POST", "/-stream", served.acting, b"x" * 150_000).text == "150000"
    without = {name: value for name, value in served.acting.items() if name != "X-CSRF-Token"}
    assert served.send("POST", "/-stream", without | {"Content-Type": FORM}, f"csrf={served.csrf}").status == 403


def test_the_link_signs_in_and_hides_its_token(served):
    path = served.server.link.removeprefix(served.server.address)
    found = served.send("GET", path)
    assert (found.status, found.headers["location"]) == (303, "/")
    assert "HttpOnly" in found.headers["set-cookie"]
    assert "SameSite=strict" in found.headers["set-cookie"]
    cookie = found.headers["set-cookie"].partition(";")[0]
    assert served.server.sessions.token not in cookie
    assert served.send("GET", "/", {"Cookie": cookie}).headers["location"] == "/runs"
    assert served.send("GET", "/?token=x", {"Cookie": cookie}).status == 401
    opened = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    from_elsewhere = served.send("GET", path, opened)  # a browser sends no strict cookie along this site's redirect
    assert from_elsewhere.status == 200
    assert 'http-equiv="refresh"' in from_elsewhere.text
    assert served.send("POST", path, served.acting).status == 405


def test_a_link_of_another_site_opens_a_page_and_downloads_nothing(served):
    opened = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert served.get("/runs", **opened).status == 200
    assert served.get("/-file/one", **opened).status == 403
    assert served.send("POST", "/-act/one", served.acting | {"Content-Type": FORM} | opened, b"").status == 403


def test_a_second_server_on_the_same_runs_knows_the_sessions_of_the_first(tmp_path):
    with studio(tmp_path) as before:
        secret = tmp_path / ".ui" / "secret"
        assert secret.stat().st_mode & 0o777 == 0o600
        assert secret.parent.stat().st_mode & 0o777 == 0o700
        token = before.server.sessions.token
    with studio(tmp_path) as after:
        assert after.server.sessions.token == token
        name = after.cookie.partition("=")[0]
        assert after.get("/runs", Cookie=f"{name}={before.cookie.partition('=')[2]}").status == 200


@pytest.mark.parametrize("spoil", ["mode", "length", "link"])
def test_a_secret_that_others_may_know_is_refused(spoil, tmp_path):
    from trainer.errors import ConfigError
    from trainer.web.sessions import find_secret

    find_secret(tmp_path)
    path: Path = tmp_path / ".ui" / "secret"
    match spoil:
        case "mode":
            path.chmod(0o640)
        case "length":
            path.write_bytes(b"short")
        case "link":
            path.rename(tmp_path / "elsewhere")
            path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="a new one is made"):
        find_secret(tmp_path)


def test_static_files_are_those_of_the_packages_and_no_others(served):
    named = served.server.studio.templates.static
    assert {"app.css", "app.js", "vendor/htmx/htmx.min.js"} <= named.keys()
    found = served.send("GET", f"/static/app.js?v={named['app.js'].version}")
    assert "immutable" in found.headers["cache-control"]
    assert found.headers["content-type"].startswith("text/javascript")
    for wrong in ("../app.py", "..%2fapp.py", "%2e%2e/app.py", "/etc/passwd", "app.js/", "vendor", ""):
        assert served.send("GET", f"/static/{wrong}").status == 404, wrong


def test_a_mistake_of_ours_is_a_page_without_a_traceback(tmp_path):
    def broken(request: Request) -> Response:
        raise KeyError("secret detail")

    with studio(tmp_path, [Route("/broken", broken, Access.PAGE)]) as served:
        found = served.get("/broken")
        assert found.status == 500
        assert "KeyError" in found.text
        assert "secret detail" not in found.text
        assert "Traceback" not in found.text
        assert [type(error) for error in served.mistakes] == [KeyError]
        served.mistakes.clear()


def test_a_refusal_is_a_notice_for_htmx_and_leaves_the_page(served):
    found = served.send("POST", "/-act/one", served.acting | {"X-CSRF-Token": "", "HX-Request": "true"}, b"")
    assert found.status == 403
    assert found.text.startswith('<hx-partial hx-target="#notices"')
    assert "<html" not in found.text
