"""A run's tabs in a real browser: what grows while one looks, what a restart of the server does, who can read it."""

import hashlib
import json
import re
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser import browsed
from tests.conftest import REPOSITORY
from tests.studio import make_run, studio, write_results
from tests.waiting import until
from trainer.runs.files import append_line
from trainer.runs.results import as_line

if TYPE_CHECKING:
    from playwright.sync_api import Route

AXE = REPOSITORY / "tests" / "vendor" / "axe-core"
OLD = REPOSITORY / "tests" / "old_runs" / "local" / "runs" / "finished"


def grow(folder: Path, first: int, last: int) -> None:
    with (folder / "results.csv").open("a") as file:
        for step in range(first, last + 1):
            file.write(as_line({"step": step, "train_loss": 3 / step, "valid_loss": 4 / step}))


@pytest.mark.slow
def test_a_chart_grows_and_recovers_when_the_server_was_away(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    folder = make_run(root, "live", state="running", total_steps=100)
    write_results(folder, [{"step": 1, "train_loss": 3.0}])
    with ExitStack() as servers:
        served = servers.enter_context(studio(root))
        with browsed(served) as page:
            page.goto(f"{served.server.address}/runs/live/metrics")
            chart = page.locator("#chart-loss")

            def has_points(count: int) -> bool:
                return chart.get_attribute("data-points") == str(3 * count)  # the source has three curves

            until(lambda: has_points(1), "the chart is drawn", 10)
            grow(folder, 2, 20)
            until(lambda: has_points(20), "it grows", 10)
            assert "validation from 2 to 0.2" in (chart.locator(".plot").get_attribute("aria-label") or "")
            opened = chart.locator("details").evaluate(
                "table => { table.querySelector('summary').click(); return table.querySelectorAll('tbody tr').length; }"
            )
            assert opened == 20, "the table has its numbers as soon as it is open"
            page.locator("#findings").get_by_text("Best so far: step 20").wait_for()

            servers.close()
            page.get_by_text(re.compile(r"^reconnecting, last current at \d\d:\d\d:\d\d$")).wait_for()
            grow(folder, 21, 30)
            servers.enter_context(studio(root, port=served.port))
            until(lambda: has_points(30), "it has what came meanwhile", 15)
            page.locator("[data-live=on]").wait_for()


@pytest.mark.slow
def test_a_point_that_comes_while_all_are_fetched_is_not_lost(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    folder = make_run(root, "live", state="running", total_steps=100)
    write_results(folder, [{"step": 1, "train_loss": 3.0}])
    with studio(root) as served, browsed(served) as page:
        held: list[Route] = []
        page.route("**/metrics/points?file=results.csv*", lambda route: held.append(route))  # it marks its handlers
        page.goto(f"{served.server.address}/runs/live/metrics")
        page.locator("[data-live=on]").wait_for()
        until(lambda: held or page.wait_for_timeout(50), "the points are asked for", 10)
        answers = [route.fetch() for route in held]
        grow(folder, 2, 20)
        page.locator("#findings").get_by_text("Best so far: step 20").wait_for()  # came with the points
        for route, answer in zip(held, answers, strict=True):
            route.fulfill(response=answer)
        page.locator("#chart-loss[data-points='60']").wait_for()


@pytest.mark.slow
def test_the_chart_of_runs_that_are_compared_grows_with_them(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    folders = [make_run(root, name, state="running", total_steps=100) for name in ("first", "second")]
    for folder in folders:
        write_results(folder, [{"step": 1, "train_loss": 3.0, "valid_loss": 4.0}])
    with studio(root) as served, browsed(served) as page:
        page.goto(f"{served.server.address}/compare?run=first&run=second")
        page.locator("#chart-runs[data-points='2']").wait_for()
        grow(folders[1], 2, 20)
        page.locator("#chart-runs[data-points='21']").wait_for()
        assert "second from 4 to 0.2" in (page.locator(".plot").get_attribute("aria-label") or "")
        page.locator("#compared tr", has_text="second").get_by_text("0.2000").wait_for()
        assert page.locator("#chart-runs thead th").all_text_contents() == ["Step", "first", "second"]
        assert page.locator("[data-live=on]").count() == 1


@pytest.mark.slow
def test_a_chart_is_smoothed_and_zoomed_by_two_fingers(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    folder = make_run(root, "done", total_steps=100)
    write_results(folder, [{"step": step, "train_loss": 1 + step % 2, "valid_loss": 2} for step in range(1, 101)])
    with studio(root) as served, browsed(served, has_touch=True) as page:
        page.goto(f"{served.server.address}/runs/done/metrics")
        chart = page.locator("#chart-loss")
        chart.locator("canvas").wait_for()
        values = chart.locator(".u-legend .u-series", has_text="training")
        until(lambda: values.locator(".u-value").all_inner_texts() == ["1"] or page.wait_for_timeout(50), "drawn", 20)
        chart.get_by_label("Smoothing").select_option("0.95")
        chart.locator(".u-legend").get_by_text("training, exact").wait_for()
        until(
            lambda: values.locator(".u-value").all_inner_texts()[1:] == ["1"] or page.wait_for_timeout(50), "both", 20
        )
        assert 1.45 < float(values.locator(".u-value").first.inner_text()) < 1.5
        chart.get_by_text("Table of the numbers").click()
        assert set(chart.locator(".numbers td:nth-child(2)").all_inner_texts()) <= {"1", "2"}, "exact"

        place = chart.locator(".u-over").bounding_box()
        assert place
        middle, y = place["x"] + place["width"] / 2, place["y"] + 50
        session = page.context.new_cdp_session(page)
        for kind, spread in (("touchStart", 40), ("touchMove", 80), ("touchMove", 120), ("touchEnd", 0)):
            fingers = [
                {"x": middle + side * spread, "y": y, "id": number} for number, side in enumerate((-1, 1)) if spread
            ]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
        show_all = chart.get_by_role("button", name="Show all")
        until(lambda: show_all.is_enabled() or page.wait_for_timeout(50), "it is zoomed", 10)
        show_all.click()
        until(lambda: show_all.is_disabled() or page.wait_for_timeout(50), "and whole again", 10)


@pytest.mark.slow
def test_new_lines_come_into_the_log_without_a_reload(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    folder = make_run(root, "live", state="running")
    line = {"created_at": "2026-11-29T05:00:00+00:00", "level": "info", "message": "<i>first</i>"}
    append_line(folder / "events.jsonl", line)
    with studio(root) as served, browsed(served) as page:
        page.goto(f"{served.server.address}/runs/live/logs")
        page.get_by_text("<i>first</i>").wait_for()
        append_line(folder / "events.jsonl", line | {"message": "<i>second</i>", "level": "error"})
        page.get_by_text("<i>second</i>").wait_for()
        assert page.locator("#log-lines li").count() == 2

        log, at = (
            page.locator(".log"),
            "box => box.lastElementChild.getBoundingClientRect().bottom - box.getBoundingClientRect().bottom",
        )
        for number in range(80):
            append_line(folder / "events.jsonl", line | {"message": f"line {number}"})
        page.get_by_text("line 79", exact=True).wait_for()
        assert abs(log.evaluate(at)) < 20, "the end stays in view"
        log.evaluate("box => { box.scrollTop = -300; }")
        append_line(folder / "events.jsonl", line | {"message": "the last"})
        page.get_by_text("the last", exact=True).wait_for()
        assert log.evaluate(at) > 250, "the reader's place stays"


def test_the_vendored_axe_is_the_published_one() -> None:
    for line in (AXE / "SHA256SUMS").read_text().splitlines()[1:]:
        digest, name = line.split()
        assert hashlib.sha256((AXE / name).read_bytes()).hexdigest() == digest


PAGES = (
    "/runs", "/runs/seen", "/runs/seen/logs", "/runs/seen/logs?q=no+such", "/runs/seen/metrics",
    "/runs/seen/checkpoints", "/runs/seen/report", "/runs/seen/report?rows=all", "/runs/seen/files",
    "/compare?run=seen&run=other", "/compare", "/new", "/data", "/queue", "/playground", "/deployments", "/nowhere",
)  # fmt: skip


@pytest.mark.slow
def test_axe_finds_nothing_serious_on_any_page_in_either_theme(tmp_path: Path) -> None:
    root, axe = tmp_path / "runs", (AXE / "axe.min.js").read_text(encoding="utf-8")
    for name in ("seen", "other"):
        shutil.copytree(OLD, root / name)
    with studio(root) as served, browsed(served) as page:
        found = []
        for path in PAGES:
            page.goto(served.server.address + path)
            if path.endswith("/metrics"):
                page.locator("#chart-loss canvas").wait_for()
            page.evaluate(axe)
            for theme in ("light", "dark"):
                page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
                result = page.evaluate("axe.run({ resultTypes: ['violations'] })")
                found += [
                    f"{path} {theme}: {each['id']}, {each['help']}: {each['nodes'][0]['html'][:200]}"
                    for each in result["violations"]
                    if each["impact"] in ("serious", "critical")
                ]
    assert found == [], json.dumps(found, indent=2)
