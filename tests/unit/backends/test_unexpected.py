"""An error that nobody foresaw ends a command in words, with an exit code, and without secrets."""

import errno
import inspect
import os
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from trainer.backends.unexpected import without_secrets
from trainer.cli.console import command
from trainer.cli.main import train_app, trainer_app
from trainer.errors import ConfigError

SAS = "https://a.blob.core.windows.net/c/f.jsonl?sv=2024-11-04&se=2026-01-01&sr=b&sp=r&sig=aGVsbG8gd29ybGQ%3D"


@pytest.fixture(autouse=True)
def typed(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/trainer", "data", "check", "rows.jsonl"])


def ended(capsys, error: BaseException, debug: bool = False) -> tuple[int, str]:
    """Exit code and standard error of a command that ends in this error."""

    @command
    def fails(debug: bool = False) -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        fails(debug=debug)
    assert isinstance(end.value.code, int)
    return end.value.code, capsys.readouterr().err


def os_error(number: int, *name: str) -> OSError:
    return OSError(number, os.strerror(number), *name)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (KeyError("state"), 1, "unexpected KeyError: 'state'; run it again with --debug to see where"),
        (AssertionError(), 1, "unexpected AssertionError; run it again with --debug"),
        (MemoryError(), 1, "no memory is left; end other programs"),
        (os_error(errno.ENOSPC), 1, "a file: No space left on device; free space, then run the same command again"),
        (os_error(errno.EACCES, "/x/y"), 2, "/x/y: Permission denied; change its rights, or choose another place"),
        (os_error(errno.EROFS, "/x/y"), 2, "/x/y: Read-only file system; choose another place"),
        (os_error(errno.ENAMETOOLONG, "/x/y"), 2, "/x/y: File name too long; choose a shorter name"),
        (os_error(errno.ENOTDIR, "/x/y"), 2, "/x/y: Not a directory; a part of the path is a file"),
        (os_error(errno.EXDEV, "/x/y"), 1, "/x/y: Invalid cross-device link; put it right"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), 2, "bytes that are not utf-8 (the first at 0)"),
        (ConnectionError("gone"), 1, "gone; check the network and the address"),
        (ValueError("two\nlines \x1b[31mred"), 1, r"unexpected ValueError: two lines \x1b[31mred; run it again"),
        (ValueError("x" * 5000), 1, "x…; run it again"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_the_command_and_the_errors_own_words_are_told(capsys, error, code, told):
    ending, text = ended(capsys, error)
    assert ending == code
    assert text.startswith("error: trainer data check: ")
    assert told in text
    assert text.count("\n") == 1
    assert "Traceback" not in text
    assert len(text) < 1000


@pytest.mark.parametrize("error", [ValueError("what"), ConfigError("what")])
def test_debug_shows_where_it_comes_from(capsys, error):
    _, text = ended(capsys, error, debug=True)
    assert "Traceback (most recent call last)" in text
    assert "in fails" in text


@pytest.mark.parametrize("error", [ValueError(f"GET {SAS} failed"), ConfigError(f"train: {SAS}")])
@pytest.mark.parametrize("debug", [False, True])
def test_no_signature_of_a_url_is_shown(capsys, error, debug):
    _, text = ended(capsys, error, debug)
    assert "a.blob.core.windows.net" in text
    assert "aGVsbG8" not in text


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcDEF123456789012345678901234567890",
        "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
        "AccountKey=" + "a1" * 43 + "==",
        "Authorization: Bearer eyJ0eXAi.abcdefgh.ijklmnop",
        "'api-key': '0123456789abcdef0123456789abcdef'",
        "client_secret=abcdefghij0123456789",
        "https://user:hunter2@proxy.example:8080",
    ],
)
def test_no_key_is_shown(secret):
    told = without_secrets(f"the call with {secret} failed")
    assert told.startswith("the call with ")
    assert told.endswith((" failed", "@proxy.example:8080 failed"))
    for part in ("abcDEF", "abcdefgh", "a1a1", "0123456789", "hunter2"):
        assert part not in told


def test_no_key_of_the_environment_is_shown(monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "plain-words-as-a-key")
    assert without_secrets("refused: plain-words-as-a-key") == "refused: …"


def test_what_is_no_secret_is_left():
    text = "run.name: 'a', expected a token: <|im_end|>; secret=none, token: 12, sig = 3, see http://[::1]:80/a@b"
    assert without_secrets(text) == text


def commands(app: typer.Typer) -> Iterator[Any]:
    yield from (registered.callback for registered in app.registered_commands)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from commands(group.typer_instance)


def test_every_command_can_be_debugged():
    found = [*commands(train_app), *commands(trainer_app)]
    assert len(found) > 25
    assert [one for one in found if "debug" not in inspect.signature(one).parameters] == []
