"""The studio in a real browser: live rows, filters, themes, keys, widths, and pages that need no script."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import browsed
from tests.studio import Studio, make_run, studio, write_results, write_status
from tests.waiting import until
from trainer.dashboard import ROUTES
from trainer.runs import Run
from trainer.runs.queue import Queue
from trainer.runs.summary import Summaries
from trainer.web.routes import Access

pytestmark = pytest.mark.slow
PHONE = {"width": 360, "height": 700}
PAGES = [route.path for route in ROUTES if route.access is Access.PAGE]
WITHOUT_PARAMETERS = [path for path in PAGES if "{" not in path and not path.endswith("/progress")]
RUN_PAGES = [path.format(name="run-1") for path in PAGES if path.startswith("/runs/{name}")]


@pytest.fixture
def served(tmp_path) -> Iterator[Studio]:
    for number in range(3):
        created = f"2026-11-0{number + 1}T10:00:00+00:00"
        make_run(tmp_path, f"run-{number}", "running" if number == 1 else "paused", total_steps=9, created_at=created)
    with studio(tmp_path) as server:
        yield server


def test_rows_change_as_their_files_do_and_keep_what_is_selected(served, tmp_path):
    with browsed(served) as page:
        page.goto(served.server.address + "/runs")
        page.get_by_text("live", exact=True).wait_for()
        page.get_by_label("Select run-1").check()
        page.get_by_label("Select run-0").focus()
        write_results(tmp_path / "run-1", [{"step": 4, "valid_loss": 1.25}])
        page.get_by_text("1.2500").wait_for()
        make_run(tmp_path, "run-9", created_at="2026-11-09T10:00:00+00:00")
        page.get_by_role("link", name="run-9").wait_for()
        assert page.get_by_label("Select run-1").is_checked()
        assert page.evaluate("document.activeElement.value") == "run-0"
        Run(tmp_path / "run-9").delete()
        page.get_by_text("3 of 3 runs").wait_for()


def test_a_filter_changes_the_list_the_address_and_its_stream(served, tmp_path):
    with browsed(served) as page:
        page.goto(served.server.address + "/runs")
        page.get_by_label("Search").press_sequentially("run-2")
        page.get_by_text("1 of 3 runs").wait_for()
        assert page.url.endswith("/runs?q=run-2&state=")
        page.reload()
        assert page.get_by_label("Search").input_value() == "run-2"
        write_results(tmp_path / "run-2", [{"step": 4, "valid_loss": 1.5}])
        page.get_by_text("1.5000").wait_for()
        page.get_by_label("Search").fill("")
        page.get_by_text("3 of 3 runs").wait_for()
        page.get_by_role("link", name="Best valid loss").click()
        assert page.locator("tbody tr").first.get_by_role("link").inner_text() == "run-2"


def test_selected_runs_are_compared(served):
    with browsed(served) as page:
        page.goto(served.server.address + "/runs")
        page.get_by_label("Select run-0").check()
        page.get_by_label("Select run-2").check()
        page.get_by_role("button", name="Compare selected").click()
        page.get_by_role("heading", name="Compare").wait_for()
        assert page.url.endswith("/compare?run=run-2&run=run-0")


def test_an_action_asks_on_the_page_and_a_second_tab_sees_it(served, tmp_path):
    with browsed(served) as page:
        other = page.context.new_page()
        other.goto(served.server.address + "/runs")
        page.goto(served.server.address + "/runs/run-2")
        page.locator("summary", has_text="Cancel").click()
        page.get_by_text("Ends the run for good").wait_for()
        assert Run(tmp_path / "run-2").state == "paused"
        page.get_by_role("button", name="Cancel run-2").click()
        page.locator("#notices").get_by_text("run-2 is cancelled").wait_for()
        page.locator("#run-head").get_by_text("cancelled", exact=True).wait_for()
        other.locator("tr", has_text="run-2").get_by_text("cancelled").wait_for()
        page.locator("summary", has_text="Delete").click()
        page.get_by_role("button", name="Delete run-2").click()
        page.get_by_text("2 of 2 runs").wait_for()


def test_a_page_is_live_however_late_its_scripts_come_and_its_stream_opens(served, tmp_path):
    with browsed(served) as page:
        refused = []

        def late(route):
            page.wait_for_timeout(500)
            route.continue_()

        def refuse_once(route):
            refused.append(route)
            route.abort() if len(refused) == 1 else route.continue_()

        page.route("**/hx-sse.min.js*", late)
        page.route("**/runs-live*", refuse_once)
        page.goto(served.server.address + "/runs")
        write_status(tmp_path / "run-2", state="cancelled", host="h", pid=1, created_at="x", updated_at="x")
        page.locator("tr", has_text="run-2").get_by_text("cancelled").wait_for()
        assert len(refused) == 2


def test_a_page_says_since_when_it_is_not_current(served, tmp_path, monkeypatch):
    def breaks(self):
        raise OSError("the disk is away")

    sign = re.compile(r"^reconnecting, last current at \d\d:\d\d:\d\d$")
    with browsed(served) as page:
        page.goto(served.server.address + "/runs")
        page.locator("[data-live=on]").wait_for()
        with monkeypatch.context() as broken:
            broken.setattr(Summaries, "all", breaks)
            page.get_by_text(sign).wait_for()
        page.get_by_text("live", exact=True).wait_for()
        served.server.studio.streams.heartbeat_seconds = 1000.0
        opened = []
        page.on("request", lambda request: opened.append(request.url) if "/runs-live" in request.url else None)
        page.clock.install()
        page.goto(served.server.address + "/runs")
        page.locator("[data-live=on]").wait_for()
        page.clock.run_for(45_000)  # without a heartbeat
        until(lambda: len(opened) == 2 or page.wait_for_timeout(50), "a silent connection is opened anew", 20)
        page.get_by_text("live", exact=True).wait_for()
    assert [str(mistake) for mistake in served.mistakes] == ["the disk is away"]
    served.mistakes.clear()


def test_what_is_typed_and_open_survives_a_change_elsewhere(served, tmp_path):
    with browsed(served) as page:
        page.goto(served.server.address + "/runs/run-1")
        page.get_by_text("live", exact=True).wait_for()
        page.locator("summary", has_text="Cancel").click()
        write_results(tmp_path / "run-1", [{"step": 4, "train_loss": 2.125, "valid_loss": 1.5}])
        page.get_by_text("2.1250").wait_for()
        assert page.locator("[data-live]").inner_text() == "live", "a change of the head leaves the sign in it"
        assert page.locator("details#act-cancel").get_attribute("open") is not None


def test_names_of_settings_stand_in_one_line(served):
    with browsed(served) as page:
        page.goto(served.server.address + "/runs/run-0")
        box = page.locator(".settings code").first.bounding_box()
        assert box is not None
        assert box["height"] < 30


def test_a_chosen_theme_is_kept_on_every_page(served):
    with browsed(served, color_scheme="light") as page:
        page.goto(served.server.address + "/runs")
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.get_by_role("button", name="Use the dark theme").click()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
        page.goto(served.server.address + "/queue")
        assert page.locator("html").get_attribute("data-theme") == "dark"
        page.get_by_role("button", name="Use the light theme").click()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == light


def test_the_list_is_reached_by_keys_and_named_for_readers(served):
    with browsed(served) as page:
        page.goto(served.server.address + "/runs")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('main') !== null")
        link = page.get_by_role("navigation", name="Pages").get_by_role("link", name="Runs")
        assert link.get_attribute("aria-current") == "page"
        unnamed = page.evaluate(
            "[...document.querySelectorAll('input:not([type=hidden]), select, button')]"
            ".filter((e) => !(e.ariaLabel || e.labels?.[0]?.textContent.trim() || e.textContent.trim())).length"
        )
        assert unnamed == 0


def test_a_phone_shows_pages_without_scrolling_sideways(served):
    make_run(served.server.studio.root, "a-name-" * 12, base="an/" + "endless" * 9)
    Queue(served.server.studio.root).add("a-name-" * 12)
    with browsed(served, viewport=PHONE) as page:
        for path in (*WITHOUT_PARAMETERS, *RUN_PAGES, "/compare?run=run-0&run=run-1"):
            page.goto(served.server.address + path)
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path


def test_pages_can_be_read_and_runs_deleted_without_a_script(served, tmp_path):
    with browsed(served, java_script_enabled=False) as page:
        page.goto(served.server.address + "/runs")
        page.get_by_role("link", name="run-0").click()
        page.locator("summary", has_text="Delete").click()
        page.get_by_role("button", name="Delete run-0").click()
        assert page.locator("#count").inner_text() == "2 of 2 runs"
    assert not (tmp_path / "run-0").exists()


def test_markup_in_names_and_errors_runs_nothing(tmp_path):
    name = "<img src=x onerror=alert(1)>"
    make_run(tmp_path, name, "failed", base="<script>alert(1)</script>", error="<svg onload=alert(1)>")
    (Path(tmp_path) / name / "<b>.json").write_text("x")
    with studio(tmp_path) as served, browsed(served) as page:  # an alert fails the test
        page.goto(served.server.address + "/runs")
        page.get_by_role("link", name=name).click()
        page.get_by_text("<svg onload=alert(1)>").wait_for()
        write_status(
            tmp_path / name, state="failed", error="<img src=y onerror=alert(2)>", host="h", pid=1, updated_at="x"
        )
        page.get_by_text("<img src=y onerror=alert(2)>").wait_for()
        assert page.locator("img").count() == 0
