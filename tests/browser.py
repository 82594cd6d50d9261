"""A real browser on a page of a studio; a mistake in a script, or a breach of the policy, fails the test."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.studio import Studio

if TYPE_CHECKING:
    from playwright.sync_api import Page


REQUIRED = "TRAINER_REQUIRE_BROWSER"  # set where a missing browser must fail the tests
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


def chromium() -> str:
    """The path of a Chromium; without one the test is skipped, or fails where it is required."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        missing = "needs Chromium, which is not installed: apt-get install chromium"
        pytest.fail(missing) if os.environ.get(REQUIRED) else pytest.skip(missing)
    return found


@contextmanager
def browsed(served: Studio, **options: Any) -> "Iterator[Page]":
    """A page of the studio in Chromium; `options` are those of a browser context, such as its viewport."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS])
        page, mistakes = browser.new_context(**options).new_page(), list[str]()
        page.on("pageerror", lambda error: mistakes.append(str(error)))
        page.on("console", lambda said: mistakes.append(said.text) if said.type == "error" else None)
        page.on("dialog", lambda shown: mistakes.append(f"dialog: {shown.message}"))
        page.set_default_timeout(30_000)
        page.goto(served.server.link)
        yield page
        browser.close()
    # A refusal, and a server that is away, are for the page to show; the browser and htmx write them too.
    away = "Failed to fetch"
    expected = ("Failed to load resource", f"htmx: htmx:error: {away}", f"htmx: htmx:sse:error: {away}")
    assert [text for text in mistakes if not text.startswith(expected)] == []
