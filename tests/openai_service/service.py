"""The whole service: one handler for a Loopback. The data plane, and for Azure the control plane as well."""

from collections.abc import Callable

from tests.entra import claims_of
from tests.loopback import Request, Response
from tests.openai_service import retail
from tests.openai_service.arm import Arm
from tests.openai_service.chat import Chat
from tests.openai_service.copies import Copies
from tests.openai_service.files import Files
from tests.openai_service.jobs import Jobs
from tests.openai_service.models import Models
from tests.openai_service.retail import Retail
from tests.openai_service.state import TARGET, Clock, Flavour, Kept, State
from tests.openai_service.training import Training
from tests.openai_service.wire import Refused, Route, not_found

KEY = "a-key-for-tests"
OLD_VERSION = "2024-10-21"
PREFIXES = {"openai": ("/v1",), "azure": ("/openai/v1", "/openai")}
AUDIENCES = ("https://cognitiveservices.azure.com", "https://ai.azure.com")
Watch = Callable[[str, Request, Response], None]


class Service:
    """Jobs take as many seconds of `clock` as training.py says; `a_request` seconds go by with each request."""

    def __init__(self, flavour: Flavour, a_request: float = 0.0, watch: Watch | None = None) -> None:
        self.state = State(flavour, Clock(a_request=a_request))
        self.watch = watch
        self.files = Files(self.state)
        self.models = Models(self.state)
        self.training = Training(self.state, self.files)
        self.jobs = Jobs(self.state, self.files, self.models, self.training)
        self.arm = Arm(self.state, self.models)
        self.chat = Chat(self.state, self.models)
        self.retail = Retail(self.state)
        self.copies = Copies(self.state, self.jobs, self.arm)
        self.accepts_keys = True
        parts = (self.files, self.models, self.jobs, self.chat)
        self.routes = [route for part in parts for route in part.routes()]
        self.arm_routes = self.arm.routes() if flavour == "azure" else []

    def __call__(self, request: Request) -> Response:
        self.advance(self.state.clock.a_request)
        if request.host == retail.HOST:
            return self.retail(request)
        try:
            if request.path.startswith("/subscriptions/") and self.arm_routes:
                self._check_token(request, ("https://management.azure.com", "https://management.core.windows.net"))
                return self._routed(request, request.path, self.arm_routes)
            path = self._data_path(request)
            if request.host.startswith(f"{TARGET}.") and path == "/fine_tuning/jobs":
                return self.copies.list_there()
            if path.endswith("/copy") and self.state.is_azure:  # the document has no such path
                return self._routed(request, path, self.copies.routes())
            response = self._routed(request, path, self.routes)
        except Refused as refused:
            return refused.response(self.state.is_azure)
        if self.watch:
            self.watch(path, request, response)
        return response

    def advance(self, seconds: float) -> None:
        """Let time go by."""
        self.state.clock.advance(seconds)
        self.training.advance(seconds)
        self.arm.advance()

    def inventory(self) -> list[Kept]:
        return self.state.inventory()

    def _routed(self, request: Request, path: str, routes: list[Route]) -> Response:
        for route in routes:
            if (names := route.match(request.method, path)) is not None:
                return route.action(request, **names)
        raise Refused(404, "NotFound", f"Invalid URL ({request.method} {request.path})")

    def _data_path(self, request: Request) -> str:
        """The path below the API's root. Raises: Refused."""
        prefix = next((p for p in PREFIXES[self.state.flavour] if request.path.startswith(p + "/")), None)
        if prefix is None:
            raise Refused(404, "NotFound", f"Invalid URL ({request.method} {request.path})")
        if prefix == "/openai" and not request.query.get("api-version"):
            raise Refused(404, "NotFound", "Resource not found: api-version is missing.")
        self._check_key(request)
        self._check_there(request, request.path)
        return request.path.removeprefix(prefix)

    def _check_there(self, request: Request, path: str) -> None:
        """Hold a request to the other resource, which has deployments alone, and a key of its own."""
        if not request.host.startswith(f"{TARGET}."):
            return
        if KEY in (request.headers.get("api-key"), request.headers.get("authorization", "").removeprefix("Bearer ")):
            raise Refused(401, "401", "Incorrect API key provided.")
        if not path.endswith(("/chat/completions", "/fine_tuning/jobs")):
            raise not_found("object", path)

    def _check_key(self, request: Request) -> None:
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.state.is_azure and not request.headers.get("api-key") and bearer.count(".") == 2:
            self._check_token(request, AUDIENCES)
        elif not self.accepts_keys or KEY not in (bearer, request.headers.get("api-key")):
            raise Refused(401, "401" if self.state.is_azure else "invalid_api_key", "Incorrect API key provided.")

    def _check_token(self, request: Request, audiences: tuple[str, ...]) -> None:
        """A token's audience; a token of one plane is not good on the other."""
        claims = claims_of(request)
        if claims is None:
            raise Refused(401, "InvalidAuthenticationToken", "The access token is missing or has expired.")
        if str(claims["aud"]).rstrip("/") not in audiences:
            raise Refused(401, "InvalidAuthenticationTokenAudience", f"audience {claims['aud']!r} is not this one")
