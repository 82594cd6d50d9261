"""Whether a hub model needs a token, as the hub tells somebody without one."""

import io
import urllib.error
import urllib.request
from email.message import Message

import pytest

from trainer.backends.azureml.hub_base import is_gated


class Opener:
    def __init__(self, answer: bytes | Exception) -> None:
        self.answer, self.asked = answer, list[str]()

    def open(self, address: str, timeout: float) -> io.BytesIO:
        self.asked.append(address)
        if isinstance(self.answer, Exception):
            raise self.answer
        return io.BytesIO(self.answer)


def refused(code: int) -> Exception:
    return urllib.error.HTTPError("https://huggingface.co", code, "no", Message(), None)


@pytest.mark.parametrize(
    ("answer", "gated"),
    [
        (b'{"gated": false}', False),
        (b"{}", False),
        (b'{"gated": "manual"}', True),
        (b'{"gated": "auto"}', True),
        (refused(401), True),
        (refused(403), True),
        (refused(500), None),
        (OSError("no network"), None),
        (b"<html>", None),
        (b"[]", None),
    ],
)
def test_what_the_hub_says(monkeypatch: pytest.MonkeyPatch, answer: bytes | Exception, gated: bool | None) -> None:
    opener = Opener(answer)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(urllib.request, "build_opener", lambda: opener)
    assert is_gated("someone/Model 1B") is gated
    assert opener.asked == ["https://huggingface.co/api/models/someone/Model%201B"]


def test_nobody_is_asked_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    opener = Opener(b"{}")
    monkeypatch.setattr(urllib.request, "build_opener", lambda: opener)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert (is_gated("someone/Model"), opener.asked) == (None, [])
