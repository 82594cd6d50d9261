"""Real host names on loopback: both SDKs' ways of speaking HTTPS go through the proxy, and nothing leaves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.entra import CREDENTIAL, LOGIN, Entra, claims_of
from tests.loopback import Loopback, Request, Response
from tests.proxy import Authority, Proxy

OPENAI = """
from azure.identity import DefaultAzureCredential, get_bearer_token_provider
from openai import OpenAI
token = get_bearer_token_provider(DefaultAzureCredential(), "https://cognitiveservices.azure.com/.default")
client = OpenAI(base_url="https://mine.openai.azure.com/openai/v1/", api_key=token, max_retries=0)
print(client.models.retrieve("one").id)
"""
ARM = """
from azure.identity import DefaultAzureCredential
from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient
client = CognitiveServicesManagementClient(DefaultAzureCredential(), "00000000-0000-0000-0000-000000000000")
print(client.deployments.get("group", "account", "one").name)
"""
OUTSIDE = """
import requests
try:
    requests.get("https://example.com/", timeout=5)
except requests.exceptions.ProxyError:
    print("refused")
"""
SERVICES = ("mine.openai.azure.com", "management.azure.com")


class Service:
    """Says who asked for what."""

    def __init__(self) -> None:
        self.audiences: list[str] = []

    def __call__(self, request: Request) -> Response:
        claims = claims_of(request)
        if claims is None:
            return Response(401, {"error": {"code": "Unauthorized", "message": "no token"}})
        self.audiences.append(claims["aud"])
        return Response(200, {"id": "one", "name": "one", "object": "model", "created": 0, "owned_by": request.host})


@pytest.mark.parametrize(
    ("program", "printed", "audience"),
    [
        (OPENAI, "one", "https://cognitiveservices.azure.com"),
        (ARM, "one", "https://management.azure.com"),
        (OUTSIDE, "refused", None),
    ],
    ids=["openai", "azure-mgmt", "outside"],
)
def test_programs_reach_the_services_and_nothing_else(
    program: str, printed: str, audience: str | None, tmp_path: Path
) -> None:
    authority, service, entra = Authority(tmp_path / "authority"), Service(), Entra()
    with (
        Loopback(service, authority.context(*SERVICES)) as azure,
        Loopback(entra, authority.context(LOGIN)) as login,
        Proxy(authority, dict.fromkeys(SERVICES, azure.port) | {LOGIN: login.port}) as proxy,
    ):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **proxy.environment(), **CREDENTIAL},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.stdout.strip() == printed, done.stderr[-2000:]
    assert service.audiences == ([audience] if audience else [])
    assert proxy.refused == ([] if audience else ["example.com:443"])
