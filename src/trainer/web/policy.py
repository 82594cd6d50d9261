"""Policy of every request, before any handler: its host, its origin, the site that sent it, its session.

A page on the web can point a name of its own to this machine, post forms here and embed our addresses. It can choose
neither the Host header nor Origin nor Sec-Fetch-Site, and has neither our cookie nor our tokens.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.requests import Request

from trainer.errors import ConfigError
from trainer.inference.serve.guards import ANY_ADDRESS, LOOPBACK
from trainer.web.problems import Problem
from trainer.web.routes import Access, Route
from trainer.web.sessions import Sessions

SAFE_METHODS = ("GET", "HEAD")
CSRF_HEADER = "x-csrf-token"
CSRF_FIELD = "csrf"
OWN_SITE = ("same-origin", "none")  # none: typed, or a link of another program

CONTENT_SECURITY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
ALWAYS = (
    (b"content-security-policy", CONTENT_SECURITY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # Not no-referrer, under which browsers send the forms of our own pages with Origin: null.
    (b"referrer-policy", b"same-origin"),
)


@dataclass(frozen=True)
class Policy:
    """Names that this server answers to, the origins of its own pages, and its sessions."""

    hosts: frozenset[str]
    origins: frozenset[str]
    sessions: Sessions
    cookie: str  # its name: cookies of one host are shared by all ports

    def check_host(self, request: Request) -> None:
        """Raises: Problem, when the request was meant for another server."""
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            raise Problem(421, "host: this server does not answer to that name; use the address that it printed")

    def check_source(self, request: Request, route: Route | None) -> None:
        """Raises: Problem, unless a page of ours may have sent it, or a person did."""
        self.check_host(request)
        origins = request.headers.getlist("origin")
        if any(origin not in self.origins for origin in origins) or len(origins) > 1:
            raise Problem(403, "origin: another site sent this, expected a page of this server; nothing was done")
        if request.method not in SAFE_METHODS and not origins:
            raise Problem(403, "origin: is missing, expected that of a page of this server; nothing was done")
        site = request.headers.get("sec-fetch-site", "none")
        if site not in OWN_SITE and not _is_opened_link(request, route):
            raise Problem(403, "sec-fetch-site: another site sent this, expected a page of this server")

    def session_of(self, request: Request) -> str:
        """The request's session. Raises: Problem, without one."""
        if (session := self.sessions.read(request.cookies.get(self.cookie, ""))) is None:
            raise Problem(401, "session: this browser is not signed in; open the link that trainer ui printed")
        return session

    def check_csrf(self, session: str, given: str | None) -> None:
        """Raises: Problem, unless a change carries its session's token."""
        if given is None or not self.sessions.is_csrf(session, given):
            raise Problem(403, "csrf: the token of this form is missing or old; reload the page and send it again")


def _is_opened_link(request: Request, route: Route | None) -> bool:
    """True of a top-level navigation, which shows a page to a person and lets no script of the other site read it."""
    headers = request.headers
    is_navigation = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return request.method == "GET" and is_navigation and (route is None or route.access is Access.PAGE)


def make_policy(host: str, port: int, names: Iterable[str], sessions: Sessions) -> Policy:
    """The exact hosts and origins of a server. Raises: ConfigError, when the address is any and no name is given."""
    names = tuple(name.lower() for name in names)
    if host in ANY_ADDRESS and not names:
        raise ConfigError(
            f"--host: {host!r} is every address of this machine, expected --allowed-host with the name that browsers "
            "use; put a proxy with TLS in front"
        )
    own = LOOPBACK if host in (*LOOPBACK, "::1") else () if host in ANY_ADDRESS else (host,)
    hosts = {f"{name}:{port}" for name in (*own, *names)} | set(names)
    if port == 80:
        hosts |= set(own)
    origins = {f"http://{name}" for name in hosts} | {f"https://{name}" for name in names}
    return Policy(frozenset(hosts), frozenset(origins), sessions, f"trainer-ui-{port}")
