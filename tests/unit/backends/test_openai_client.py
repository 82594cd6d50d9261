"""Where the API is, and what of an answer counts."""

import json
from typing import Any

import pytest

from trainer.backends.http import failure_of, is_failure
from trainer.backends.openai.client import FineTuningService, address, as_record
from trainer.config.openai import OpenAIConfig
from trainer.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "version", "url"),
    [
        ("https://name.openai.azure.com", None, "https://name.openai.azure.com/openai/v1"),
        ("https://name.openai.azure.com/", None, "https://name.openai.azure.com/openai/v1"),
        ("https://name.openai.azure.com/openai/v1/", None, "https://name.openai.azure.com/openai/v1"),
        ("https://name.openai.azure.com", "2024-10-21", "https://name.openai.azure.com/openai"),
    ],
)
def test_an_azure_address_gets_the_path_of_its_version(given: str, version: str | None, url: str) -> None:
    assert address(OpenAIConfig(base_url=given, api_version=version)) == url


def test_openai_has_an_address_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert address(OpenAIConfig(service="openai")) == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1/")
    assert address(OpenAIConfig(service="openai")) == "http://127.0.0.1:1/v1"


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_OPENAI_ENDPOINT", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"openai\.base_url: is missing"):
        address(OpenAIConfig())
    with pytest.raises(ConfigError, match="begins with https://"):
        address(OpenAIConfig(base_url="name.openai.azure.com"))
    with pytest.raises(ConfigError, match=r"openai\.base_url: is 'api\.example/v1', expected an address"):
        address(OpenAIConfig(service="openai", base_url="api.example/v1"))
    monkeypatch.setenv("OPENAI_BASE_URL", "ftp://api.example/v1")
    with pytest.raises(ConfigError, match=r"OPENAI_BASE_URL: is 'ftp://api\.example/v1', expected an address"):
        address(OpenAIConfig(service="openai"))
    monkeypatch.delenv("OPENAI_BASE_URL")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY: is not set"):
        FineTuningService(OpenAIConfig(service="openai"))


class Answer:
    def __init__(self, content: bytes) -> None:
        self.content = content


@pytest.mark.parametrize("content", [b"<html>", b'{"id": ', b"[]", b'"text"', b"{}", b'{"id": null}', b"", b"\xff"])
def test_what_is_no_answer_is_a_failure_that_may_have_been_executed(content: bytes) -> None:
    answer: Any = Answer(content)
    with pytest.raises(json.JSONDecodeError) as wrong:
        as_record(answer, "id")
    assert is_failure(wrong.value)
    assert failure_of(wrong.value).execution == "unknown"


def test_an_answer_may_have_more_than_is_asked_for() -> None:
    answer: Any = Answer(b'\xef\xbb\xbf{"id": "a", "of tomorrow": [null]}')
    assert as_record(answer, "id") == {"id": "a", "of tomorrow": [None]}
