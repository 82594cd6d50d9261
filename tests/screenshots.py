"""Pictures of the studio's pages in docs/screenshots, light and dark: `make screenshots`.

Two sample runs are trained, a data file gets a broken row, and the pages are shown as a person finds them.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tests.browser import FLAGS, chromium
from tests.conftest import REPOSITORY
from tests.studio import Studio, studio

if TYPE_CHECKING:
    from playwright.sync_api import Page

FOLDER = REPOSITORY / "docs" / "screenshots"
WIDE, PHONE = {"width": 1280, "height": 820}, {"width": 390, "height": 820}
RUNS = {"glossary": (), "glossary-short": ("training.n_epochs=12",)}
BROKEN = {"messages": [{"role": "human", "content": "What is a cassette?"}]}


def _train(name: str, overrides: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "trainer", "train", "--config", "configs/tiny.yaml", f"run.name={name}"]
    subprocess.run([*command, *overrides], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _ask(page: "Page") -> None:
    page.click("#load")
    page.locator("#model[data-state=ready]").wait_for(timeout=120_000)
    page.fill("#question", "What is a cassette?")
    page.click("#ask")
    page.get_by_role("button", name="Continue with this").nth(1).wait_for(timeout=120_000)


def _broken_file(page: "Page") -> None:
    page.locator("#file-train").set_input_files("own-rows.jsonl")
    page.get_by_text("own-rows.jsonl, line").first.wait_for()
    page.locator("#file-train").scroll_into_view_if_needed()


def _data_file(page: "Page") -> None:
    page.get_by_role("link", name="glossary_train.jsonl").first.click()
    page.get_by_text("Every rule is checked").wait_for(state="hidden")
    page.wait_for_load_state("networkidle")


def _documents(page: "Page") -> None:
    page.locator("input[name=files]").set_input_files(REPOSITORY / "docs" / "guide.md")
    typed = {"name": "guide", "rows": "200", "cap": "5.00", "endpoint": "http://127.0.0.1:8000", "model": "my-model"}
    for name, text in (typed | {"price_in": "0.40", "price_out": "1.60"}).items():
        page.fill(f"[name={name}]", text)
    page.get_by_role("button", name="Read the documents").click()
    page.get_by_role("button", name="Agree to this cost").wait_for()


Act = Callable[["Page"], None]
PAGES: dict[str, tuple[str, Act | None]] = {
    "runs": ("/runs", None),
    "run": ("/runs/glossary", None),
    "metrics": ("/runs/glossary/metrics", None),
    "logs": ("/runs/glossary/logs", None),
    "checkpoints": ("/runs/glossary/checkpoints", None),
    "report": ("/runs/glossary/report", None),
    "compare": ("/compare?run=glossary&run=glossary-short", None),
    "new-run": ("/new", None),
    "broken-row": ("/new", _broken_file),
    "data": ("/data", None),
    "data-file": ("/data", _data_file),
    "data-generate": ("/data/generate", _documents),
    "playground": ("/playground/glossary", _ask),
    "queue": ("/queue", None),
    "deployments": ("/deployments", None),
}


def _shoot(page: "Page", name: str) -> None:
    """Both themes of what is there; the page is not asked for again."""
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        page.wait_for_timeout(300)  # charts are drawn anew
        page.screenshot(path=FOLDER / f"{name}-{theme}.png")


def _walk(page: "Page", served: Studio) -> None:
    for name, (path, act) in PAGES.items():
        page.goto(f"{served.server.address}{path}")
        page.wait_for_timeout(1500)
        if act is not None:
            act(page)
        _shoot(page, name)
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    for name in ("runs", "metrics"):
        page.goto(f"{served.server.address}{PAGES[name][0]}")
        page.wait_for_timeout(1500)
        _shoot(page, f"phone-{name}")
    page.set_viewport_size(WIDE)  # type: ignore[arg-type]


def main() -> int:
    from playwright.sync_api import sync_playwright

    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="screenshots-") as folder, contextlib.chdir(folder), sync_playwright() as p:
        for name in ("configs", "data"):
            shutil.copytree(REPOSITORY / name, name)
        rows = (REPOSITORY / "data" / "glossary_train.jsonl").read_text(encoding="utf-8")
        Path("own-rows.jsonl").write_text(rows + json.dumps(BROKEN) + "\n", encoding="utf-8")
        os.environ["TZ"] = "UTC"
        browser = p.chromium.launch(executable_path=chromium(), args=[*FLAGS])
        page = browser.new_page(viewport=WIDE, timezone_id="UTC")  # type: ignore[arg-type]
        page.set_default_timeout(60_000)
        with studio(Path("nothing-yet")) as served:
            page.goto(served.server.link)
            page.wait_for_timeout(1000)
            _shoot(page, "first-visit")
        for name, overrides in RUNS.items():
            _train(name, overrides)
        with studio(Path("runs")) as served:
            page.goto(served.server.link)
            _walk(page, served)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
