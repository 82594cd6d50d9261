"""The whole journey in a real browser: a first visit and the sample, and own data with a broken row."""

import json
from pathlib import Path

import pytest

from tests.browser import browsed
from tests.studio import studio
from tests.waiting import until
from trainer.runs import list_runs
from trainer.start.sample import FILES, sample_rows

BROKEN = json.dumps({"messages": [{"role": "human", "content": "<script>alert(1)</script>"}]}) + "\n"
PATIENCE = 60_000  # milliseconds, on a slow machine


@pytest.mark.slow
def test_from_the_first_visit_to_a_run_and_from_a_broken_row_to_a_ready_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own rows.jsonl").write_bytes(sample_rows(FILES[0]) + BROKEN.encode())
    Path("book.xlsx").write_bytes(b"PK\x03\x04 of a workbook")
    with studio(Path("runs")) as served, browsed(served) as page:
        page.set_default_timeout(PATIENCE)

        page.get_by_role("button", name="Try it with sample data").click()
        page.locator("#training-n_epochs").fill("1")
        page.get_by_text("Everything is kept").wait_for()
        page.get_by_role("button", name="Start training").click()  # as soon as it may be
        page.wait_for_url("**/runs/*-tiny-glossary-*")
        (run,) = list_runs(Path("runs"))

        page.get_by_role("link", name="New run").click()
        page.locator("#training-seed").fill("seven")
        page.get_by_text("is 'seven', expected a whole number or 'auto'").wait_for()
        page.reload()
        assert page.locator("#training-seed").input_value() == "seven"
        assert page.locator("#training-seed").get_attribute("aria-invalid") == "true"
        page.locator("#file-train").set_input_files("book.xlsx")
        page.get_by_text("save the sheet as CSV").wait_for()
        page.locator("#file-train").set_input_files("own rows.jsonl")
        page.get_by_text("own-rows.jsonl, line 121").wait_for()
        assert page.locator(".finding .said").first.text_content() == "<script>alert(1)</script>"
        with page.expect_download() as download:
            page.get_by_role("link", name="Download cleaned copy").click()
        assert download.value.suggested_filename == "own-rows.clean.jsonl"
        assert Path(download.value.path()).read_bytes() == sample_rows(FILES[0])
        page.get_by_role("button", name="Use a copy of own-rows.jsonl without these rows").click()
        page.get_by_role("button", name="Hold out a tenth of the training rows").click()
        page.locator(".chosen .file", has_text="own-rows.clean.validation.jsonl").wait_for()

        # Typed while the server does not answer, and kept through a reload until it does.
        page.route("**/set", lambda route: route.abort())
        page.locator("#training-seed").fill("7")
        page.get_by_text("the server does not answer").wait_for()
        page.reload()
        page.unroute("**/set")
        until(lambda: "seed: 7" in page.locator("#yaml").text_content(), "what was typed is sent again", 30)
        assert page.locator("#training-seed").input_value() == "7"

        until(lambda: run.state == "succeeded", "the sample run is done", 60)


@pytest.mark.slow
def test_a_file_that_arrives_while_a_field_is_being_kept_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_bytes(sample_rows(FILES[0]))
    with studio(Path("runs")) as served, browsed(served) as page:
        page.goto(f"{served.server.address}/new")
        held = []
        page.route("**/set", lambda route: held.append((route, route.fetch())))
        page.locator("#training-seed").fill("7")
        until(lambda: held or page.wait_for_timeout(50), "the field is sent", 20)
        with page.expect_response("**/upload/train?*"):
            page.locator("#file-train").set_input_files("rows.jsonl")
        page.wait_for_timeout(300)  # the page asks for the file now, while the field's answer is on its way
        for route, answer in held:
            route.fulfill(response=answer)
        page.locator(".chosen .file", has_text="rows.jsonl").wait_for()


@pytest.mark.slow
def test_an_answer_that_was_overtaken_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("book.xlsx").write_bytes(b"PK\x03\x04 of a workbook")
    Path("rows.jsonl").write_bytes(sample_rows(FILES[0]))
    with studio(Path("runs")) as served, browsed(served) as page:
        page.goto(f"{served.server.address}/new")
        held = []
        page.route("**/state", lambda route: held.append((route, route.fetch())), times=1)
        page.locator("#file-train").set_input_files("book.xlsx")
        until(lambda: held or page.wait_for_timeout(50), "the page looks after what was refused", 20)
        page.locator("#file-train").set_input_files("rows.jsonl")
        page.locator(".chosen .file", has_text="rows.jsonl").wait_for()
        for route, answer in held:
            route.fulfill(response=answer)
        page.get_by_text("is trained, and").or_(page.get_by_text("Show which tokens are trained")).first.wait_for()
        assert page.locator(".chosen .file").inner_text() == "rows.jsonl"


@pytest.mark.slow
def test_a_file_chosen_while_the_page_changes_is_taken_and_a_typed_place_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("rows.jsonl", "more.jsonl"):
        Path(name).write_bytes(sample_rows(FILES[0]))
    with studio(Path("runs")) as served, browsed(served) as page:
        page.goto(f"{served.server.address}/new")
        with page.expect_file_chooser() as chooser:
            page.locator(".drop[data-role=train]").click()
        page.locator("#pick-train summary").click()
        page.locator("#place-train").fill("half a na")
        page.locator("#file-validation").set_input_files("more.jsonl")
        page.locator(".chosen .file", has_text="more.jsonl").wait_for()
        chooser.value.set_files("rows.jsonl")
        page.locator(".chosen .file", has_text="rows.jsonl").wait_for()
        assert page.locator("#place-train").input_value() == "half a na"
