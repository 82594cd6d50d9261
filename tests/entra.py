"""A login service: `login.microsoftonline.com` as azure-identity speaks to it; nobody signs its tokens."""

import base64
import json
import time
from typing import Any
from urllib.parse import parse_qs

from tests.loopback import Request, Response

LOGIN = "login.microsoftonline.com"
TENANT = "11111111-1111-1111-1111-111111111111"
CLIENT = "22222222-2222-2222-2222-222222222222"
SECRET = "canary-client-secret"
CREDENTIAL = {"AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": CLIENT, "AZURE_CLIENT_SECRET": SECRET}


class Entra:
    """Gives tokens to whoever knows the secret. `lifetime_seconds` may be short; `given` holds every token's claims."""

    def __init__(self, lifetime_seconds: int = 3600) -> None:
        self.lifetime_seconds, self.given = lifetime_seconds, list[dict[str, Any]]()

    def __call__(self, request: Request) -> Response:
        base = f"https://{LOGIN}/{TENANT}"
        if request.path.endswith("/.well-known/openid-configuration"):
            endpoints = {"authorization_endpoint": f"{base}/oauth2/v2.0/authorize", "issuer": f"{base}/v2.0"}
            return Response(200, {"token_endpoint": f"{base}/oauth2/v2.0/token"} | endpoints)
        if request.path.endswith("/discovery/instance"):
            found = {"preferred_network": LOGIN, "preferred_cache": LOGIN, "aliases": [LOGIN]}
            return Response(200, {"tenant_discovery_endpoint": f"{base}/v2.0/.well-known/openid-configuration",
                                  "api-version": "1.1", "metadata": [found]})  # fmt: skip
        if request.method == "POST" and request.path.endswith("/token"):
            return self._token({name: values[0] for name, values in parse_qs(request.body.decode()).items()})
        return Response(404, {"error": "not_found"})

    def _token(self, form: dict[str, str]) -> Response:
        if form.get("client_secret") != SECRET:
            return Response(401, {"error": "invalid_client", "error_description": "AADSTS7000215: invalid secret"})
        now = int(time.time())
        audience = form["scope"].removesuffix("/.default")
        claims = {"aud": audience, "tid": TENANT, "oid": CLIENT, "appid": CLIENT, "iss": f"https://sts.windows.net/{TENANT}/",
                  "iat": now, "nbf": now, "exp": now + self.lifetime_seconds, "jti": str(len(self.given))}  # fmt: skip
        self.given.append(claims)
        token = token_of(claims)
        return Response(200, {"token_type": "Bearer", "expires_in": self.lifetime_seconds, "access_token": token})


def token_of(claims: dict[str, Any]) -> str:
    """An unsigned token."""
    return ".".join([_base64({"alg": "none", "typ": "JWT"}), _base64(claims), ""])


def claims_of(request: Request) -> dict[str, Any] | None:
    """The claims of a request's bearer token, None where it has none or an expired one."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    parts = token.split(".")
    if kind.lower() != "bearer" or len(parts) != 3:
        return None
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
    return claims if claims["exp"] > time.time() else None


def _base64(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
