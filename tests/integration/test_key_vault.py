"""A secret of a Key Vault is read over real HTTPS, with a token for vaults, and shown nowhere."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.entra import CREDENTIAL, LOGIN, Entra, claims_of
from tests.loopback import Fault, Loopback, Request, Response, status
from tests.proxy import Authority, Proxy
from trainer.backends.azureml.key_vault import VERSION, read_secret
from trainer.errors import ConfigError

HOST = "mine.vault.azure.net"
VAULT, SECRET = f"https://{HOST}", "canary-hub-token"


def vault(request: Request) -> Response:
    """One secret, for whoever has a token for vaults."""
    claims = claims_of(request)
    if claims is None or claims["aud"] != "https://vault.azure.net":
        return Response(401, {"error": {"code": "Unauthorized", "message": SECRET}})
    if (request.path, request.query.get("api-version")) != ("/secrets/hub token", VERSION):
        return Response(404, {"error": {"code": "SecretNotFound", "message": SECRET}})
    return Response(200, {"value": SECRET, "id": f"{VAULT}/secrets/hub/1"})


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    authority = Authority(tmp_path / "authority")
    with (
        Loopback(vault, authority.context(HOST)) as azure,
        Loopback(Entra(), authority.context(LOGIN)) as login,
        Proxy(authority, {HOST: azure.port, LOGIN: login.port}) as proxy,
    ):
        for name, value in (proxy.environment() | CREDENTIAL).items():
            monkeypatch.setenv(name, value)
        yield azure


def test_a_secret_is_read_with_a_token_for_vaults(service: Loopback) -> None:
    assert read_secret(VAULT, "hub token") == SECRET
    assert len(service.requests) == 1


NO_SECRET = {
    "not there": (None, "other", "the vault answered 404; give the job's identity the role Key Vault Secrets User"),
    "forbidden": (status(403, {"message": SECRET}), "hub token", "the vault answered 403; give the job's identity"),
    "no JSON": (lambda own: Response(200, SECRET.encode()), "hub token", "JSONDecodeError; see azureml.identity"),
    "no value": (lambda own: Response(200, {"secret": SECRET}), "hub token", "KeyError; see azureml.identity"),
}


@pytest.mark.parametrize("name", NO_SECRET)
def test_a_secret_that_cannot_be_read_is_told_without_any_part_of_it(name: str, service: Loopback) -> None:
    answer, secret, words = NO_SECRET[name]
    service.faults = [] if answer is None else [Fault(name, answer=answer)]
    with pytest.raises(ConfigError) as refused:
        read_secret(VAULT, secret)
    message = str(refused.value)
    assert message.startswith(f"azureml.key_vault: the secret {secret!r} of {VAULT}: cannot be read: {words}"), message
    assert SECRET not in message


def test_without_an_identity_nothing_is_asked(service: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong")
    with pytest.raises(ConfigError, match=r"cannot be read: OSError; see azureml\.identity"):
        read_secret(VAULT, "hub token")
    assert service.requests == []
