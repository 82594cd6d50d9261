"""A first visit in a real browser, from an empty folder to a tuned answer, by clicks that are counted."""

import json
from pathlib import Path

import pytest

from tests.browser import browsed
from tests.studio import studio
from trainer.dashboard.playground.page import playground_of
from trainer.runs import list_runs
from trainer.start.sample import FILES, sample_rows

MOST_CLICKS = 10
COUNT = """addEventListener("click", (event) => {
  if (event.isTrusted) sessionStorage.setItem("clicks", 1 + Number(sessionStorage.getItem("clicks")));
}, true);"""
PATIENCE = 300_000  # milliseconds, on a slow machine
EPOCHS = 25  # enough to know the rows by heart


def shared(text: str, reference: str) -> float:
    """Share of the reference's words that the text has."""
    words = set(reference.lower().split())
    return len(words & set(text.lower().split())) / len(words)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_first_visit_leads_to_a_tuned_answer_in_few_clicks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    row = json.loads(sample_rows(FILES[0]).splitlines()[0])
    question, answer = (
        next(one["content"] for one in row["messages"] if one["role"] == r) for r in ("user", "assistant")
    )
    with studio(Path("runs")) as served, browsed(served) as page:
        page.set_default_timeout(PATIENCE)
        page.add_init_script(COUNT)
        page.goto(f"{served.server.address}/runs")
        page.get_by_role("heading", name="No runs yet").wait_for()

        page.get_by_role("button", name="Try it with sample data").click()
        page.locator("#training-n_epochs").click()
        page.keyboard.press("Control+a")
        page.keyboard.type(str(EPOCHS))
        page.get_by_text("Everything is kept").wait_for()
        page.get_by_role("button", name="Start training").click()  # as soon as it may be
        page.wait_for_url("**/runs/*-tiny-glossary-*")
        (run,) = list_runs(Path("runs"))
        page.locator("#run-head .chip.succeeded").wait_for()
        page.get_by_role("navigation", name="Parts of this run").get_by_role("link", name="Playground").click()
        page.get_by_role("button", name="Load the model").click()
        page.locator("#model[data-state=ready]").wait_for()
        page.get_by_label("Question").click()
        page.keyboard.type(question)
        page.get_by_role("button", name="Ask", exact=True).click()

        tuned = page.locator(".answer", has=page.get_by_role("heading", name=f"Tuned: {run.name}", exact=True))
        tuned.get_by_role("button", name="Continue with this").wait_for()
        base = page.locator(".answer", has=page.get_by_role("heading", name="Base: builtin:tiny", exact=True))
        assert shared(tuned.locator(".said").inner_text(), answer) > 0.6
        assert shared(base.locator(".said").inner_text(), answer) < 0.4
        assert 0 < int(page.evaluate("sessionStorage.getItem('clicks')")) <= MOST_CLICKS
    playground_of(Path("runs").resolve()).models.close()
