"""Blobs of a storage account and data assets of a workspace as data files: by SAS, by key and as oneself."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.storage.blob import BlobSasPermissions, generate_blob_sas

from tests.integration.azure_twin.fixtures import azure, here  # noqa: F401
from tests.integration.azure_twin.resources import version
from tests.integration.azure_twin.twin import Twin
from tests.integration.azure_twin.world import ACCOUNT, ACCOUNT_KEY, WORKSPACE
from tests.loopback import Fault, Request, Response
from trainer.backends.data_sources import local_file
from trainer.data.fetch.limits import VARIABLE
from trainer.data.read.origins import origin_beside
from trainer.errors import BackendError, ConfigError, DataError
from trainer.runs.files import sha256_of

TEXT = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}\n' * 12
ADDRESS = f"az://rows@{ACCOUNT}/sets/rows.jsonl"
SECRETS = (ACCOUNT_KEY, "sig=")


@pytest.fixture
def store(here: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Twin:  # noqa: F811
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRAINER_PATIENCE_SECONDS", "1")
    here.blobs.make_container("rows")
    here.blobs.write("rows", "sets/rows.jsonl", TEXT)
    return here


def fetched(address: str = ADDRESS) -> Path:
    return local_file(Path(address), lambda said: None).path


def refused(address: str = ADDRESS) -> str:
    with pytest.raises((DataError, ConfigError, BackendError)) as raised:
        fetched(address)
    said = str(raised.value)
    assert not any(secret in said for secret in SECRETS)
    return said


def signed(hours: float, container: str = "rows") -> str:
    end = datetime.now(UTC) + timedelta(hours=hours)
    rights = BlobSasPermissions(read=True)
    return generate_blob_sas(
        ACCOUNT, container, "sets/rows.jsonl", account_key=ACCOUNT_KEY, permission=rights, expiry=end
    )


CREDENTIALS = {
    "as oneself": {},
    "a SAS": {"AZURE_STORAGE_SAS_TOKEN": "SAS"},
    "a key": {"AZURE_STORAGE_KEY": ACCOUNT_KEY},
    "an account of the environment": {"AZURE_STORAGE_ACCOUNT": ACCOUNT},
    "a connection string": {
        "AZURE_STORAGE_CONNECTION_STRING":
            f"AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};EndpointSuffix=core.windows.net"},
}  # fmt: skip


@pytest.mark.parametrize("given", CREDENTIALS.values(), ids=CREDENTIALS)
def test_a_blob_is_fetched_once(given: dict[str, str], store: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, signed(1) if value == "SAS" else value)
    is_named = "AZURE_STORAGE_ACCOUNT" in given or "AZURE_STORAGE_CONNECTION_STRING" in given
    address = "az://rows/sets/rows.jsonl" if is_named else ADDRESS
    found = fetched(address)
    assert found.read_bytes() == TEXT
    record = origin_beside(found, sha256_of(found))
    assert record is not None
    assert (record.address, record.num_bytes) == (address, len(TEXT))
    for file in found.parent.iterdir():
        assert not any(secret.encode() in file.read_bytes() for secret in SECRETS)
    num_reads = sum(request.method == "GET" for request in store.door.requests)
    assert fetched(address) == found
    assert sum(request.method == "GET" for request in store.door.requests) == num_reads
    store.blobs.write("rows", "sets/rows.jsonl", TEXT * 2)
    assert fetched(address).read_bytes() == TEXT * 2


def test_a_pattern_is_every_blob_that_it_matches(store: Twin) -> None:
    from trainer.backends.data_sources import local_files

    for name in ("sets/b.jsonl", "sets/deep/c.jsonl", "sets/notes.txt"):
        store.blobs.write("rows", name, TEXT)
    found = local_files([Path(f"az://rows@{ACCOUNT}/sets/*.jsonl")], lambda said: None)
    assert [file.path.name for file in found] == ["b.jsonl", "rows.jsonl"]
    assert "no blob matches the pattern" in refused(f"az://rows@{ACCOUNT}/none/*.jsonl")


def test_a_sas_that_has_ended_is_told_with_its_end(store: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", signed(-1))
    said = refused()
    assert said.startswith(f"{ADDRESS}: may not be read, as the SAS in AZURE_STORAGE_SAS_TOKEN ended at 20")
    assert said.endswith("expected one that holds; renew it")


def test_a_sas_of_another_container_is_told(store: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", signed(1, "others"))
    assert refused().startswith(f"{ADDRESS}: may not be read with the SAS in AZURE_STORAGE_SAS_TOKEN (the storage ")


def test_an_identity_without_a_role_is_told_the_role(store: Twin) -> None:
    store.arm.storage_refusal = "AuthorizationPermissionMismatch"
    assert "an identity with the role Storage Blob Data Reader; ask" in refused()


@pytest.mark.parametrize("address", [f"az://rows@{ACCOUNT}/none.jsonl", f"az://none@{ACCOUNT}/rows.jsonl"])
def test_a_blob_that_is_not_there_is_told(address: str, store: Twin) -> None:
    assert refused(address).startswith(f"{address}: does not exist (the storage answered 404")


WRONG = {
    "az://rows": "names no blob, expected az://CONTAINER/PATH or az://CONTAINER@ACCOUNT/PATH; correct it",
    "az://rows/sets/rows.jsonl": "names no storage account, expected az://",
    f"az://rows@{ACCOUNT}/x?sig=SECRET": "the address has a query",
}


@pytest.mark.parametrize("address", WRONG)
def test_an_address_that_names_no_blob_is_refused(address: str, store: Twin) -> None:
    said = refused(address)
    assert WRONG[address] in said
    assert "SECRET" not in said


@pytest.mark.parametrize(
    "account", ["thieves.example", f"{ACCOUNT}.blob.core.windows.net.thieves.example", "thieves#", "thieves:443", "a b"]
)
def test_a_credential_goes_to_no_server_but_a_storage_account(
    account: str, store: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", signed(1))
    num_requests = len(store.door.requests)
    said = refused(f"az://rows@{account}/sets/rows.jsonl")
    assert f"names {account}, which is no storage account of Azure" in said
    assert len(store.door.requests) == num_requests


def test_a_storage_account_may_be_named_by_its_host(store: Twin) -> None:
    assert fetched(f"az://rows@{ACCOUNT}.blob.core.windows.net/sets/rows.jsonl").read_bytes() == TEXT


def test_a_blob_that_is_cut_off_or_too_large_leaves_nothing(
    store: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "100")
    assert f"holds {len(TEXT):,} bytes, expected at most 100 bytes" in refused()
    monkeypatch.delenv(VARIABLE)
    store.door.faults = [
        Fault("cut off", lambda request: request.method == "GET", commits=True, broken="truncated", times=99)
    ]
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert refused().startswith(f"{ADDRESS}: ")
    assert [file.suffix for file in (tmp_path / "cache" / "sources").iterdir()] == [".lock"]


def test_a_blob_that_changes_while_it_is_fetched_leaves_nothing(store: Twin, tmp_path: Path) -> None:
    def is_of_a_version(request: Request) -> bool:
        return request.method == "GET" and "if-match" in request.headers

    changed = {"x-ms-error-code": "ConditionNotMet"}
    store.door.faults = [Fault("changed", is_of_a_version, answer=lambda _: Response(412, None, changed), times=99)]
    assert refused().startswith(
        f"{ADDRESS}: was changed while it was read, expected it to rest; nothing was kept, try again"
    )
    assert [file.suffix for file in (tmp_path / "cache" / "sources").iterdir()] == [".lock"]
    store.door.faults = []
    assert fetched().read_bytes() == TEXT


def asset(store: Twin, number: str, path: str, kind: str = "uri_file") -> None:
    properties = {"dataUri": path, "dataType": kind}
    place = f"data/rows/versions/{number}"
    store.arm.resources[place] = version(place, "workspaces/data/versions", {"properties": properties})


def stored(store: Twin, name: str) -> str:
    store.blobs.write(store.arm.containers["workspaceblobstore"], name, TEXT + name.encode())
    return f"azureml://datastores/workspaceblobstore/paths/{name}"


def test_a_data_asset_is_fetched_by_its_version_and_by_its_label(store: Twin) -> None:
    asset(store, "1", stored(store, "LocalUpload/one/rows.jsonl"))
    asset(store, "2", stored(store, "LocalUpload/two/rows.jsonl"))
    first = fetched("azureml:rows:1")
    assert first.read_bytes() == TEXT + b"LocalUpload/one/rows.jsonl"
    record = origin_beside(first, sha256_of(first))
    assert record is not None
    assert record.address == "azureml:rows:1"
    assert str(record.revision).endswith(f"/workspaces/{WORKSPACE}:1")
    num_requests = len(store.service.requests)
    assert fetched("azureml:rows:1") == first
    assert len(store.service.requests) == num_requests
    assert fetched("azureml:rows@latest").read_bytes() == TEXT + b"LocalUpload/two/rows.jsonl"


@pytest.mark.parametrize("address", ["azureml:rows:1", "azureml:rows@latest"])
def test_another_workspaces_asset_of_the_same_name_is_another_one(
    address: str, store: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset(store, "1", stored(store, "LocalUpload/one/rows.jsonl"))
    first = fetched(address)
    monkeypatch.setenv("AZUREML_WORKSPACE_NAME", "another")
    said = refused(address)
    assert "another" in said
    assert first.is_file()


def test_a_data_asset_that_cannot_be_read_is_told(store: Twin) -> None:
    asset(store, "1", "azureml://datastores/workspaceblobstore/paths/LocalUpload/folder/", "uri_folder")
    asset(store, "2", "https://elsewhere.example/rows.jsonl")
    assert "is of type uri_folder, expected uri_file" in refused("azureml:rows:1")
    assert "lies outside of the workspace's datastores" in refused("azureml:rows:2")
    assert "has no such data asset, expected azureml:NAME:VERSION" in refused("azureml:rows:9")
    assert "names no data asset, expected azureml:NAME:VERSION" in refused("azureml:rows")
