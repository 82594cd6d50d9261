"""Waits: with a limit in tests; without one, and with signs of life, for a person."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import waiting
from tests.integration.azure_twin import demo
from tests.waiting import attended, installed, until

SLOW = [sys.executable, "-c", "import time; time.sleep(0.5); print('done')"]


def test_a_test_waits_within_its_limit() -> None:
    with pytest.raises(AssertionError, match="the moon: did not happen within 0 s"):
        until(lambda: False, "the moon", 0.05, pause=0.01)


def test_a_person_waits_without_a_limit_and_sees_that_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "SIGN_SECONDS", 0.1)
    shown, started = list[str](), time.monotonic()
    with attended(shown.append):
        until(lambda: time.monotonic() - started > 0.35, "the sun", 0.05, pause=0.01)
    assert shown == ["  ... the sun: 0 s so far"] * 3


def test_an_installer_that_takes_longer_than_any_test_may_is_waited_for_by_a_person(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(waiting, "SIGN_SECONDS", 0.1)
    with pytest.raises(AssertionError, match="installing a package"):
        installed(SLOW, "a package", 0.1, tmp_path)
    shown = list[str]()
    with attended(shown.append):
        assert installed(SLOW, "a package", 0.1, tmp_path) is None
        assert installed([sys.executable, "-c", "raise SystemExit('no index')"], "another", 9.0) == "no index\n"
    assert shown
    assert all(line.startswith("  ... installing a") for line in shown)


def test_the_demo_of_azure_ml_is_waited_for_by_a_person(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It starts its twin and travels without limits, and shows that it goes on."""
    monkeypatch.setattr(waiting, "SIGN_SECONDS", 0.1)
    started = time.monotonic()

    @contextmanager
    def waits(folder: Path) -> Iterator[None]:
        until(lambda: time.monotonic() - started > 0.15, "the twin", 0.05, pause=0.01)
        yield

    def travels(journey: None) -> None:
        until(lambda: time.monotonic() - started > 0.4, "the journey", 0.05, pause=0.01)

    monkeypatch.setattr(demo, "working_twin", waits)
    monkeypatch.setattr(demo, "travel", travels)
    monkeypatch.setattr(demo, "Journey", lambda *given: None)
    monkeypatch.setattr(sys, "argv", ["demo"])
    assert demo.main() == 0
    shown = capsys.readouterr().out
    assert ("  ... the twin: " in shown, "  ... the journey: " in shown) == (True, True)
