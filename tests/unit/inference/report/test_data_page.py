"""The page about data holds every number of the charts as text, asks for nothing, and escapes what the data says."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from trainer.data.files.stats import StepTokens, measure_files
from trainer.inference.report.data_page import data_page, histograms, share_charts
from trainer.inference.report.histograms import shares_of

EVIL = "<script>alert(1)</script>"


def row(question, answer, **more):
    said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": said, **more}


@pytest.fixture
def measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [row(f"{EVIL} number {n}?", "A sentence in English about the weather. " * (n + 1)) for n in range(12)]
    Path("a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    Path("b.jsonl").write_text(json.dumps(row("Is this held out?", "It is, and nobody trains on it.")) + "\n")
    return measure_files([Path("a.jsonl")], [Path("b.jsonl")]).to_json()


def with_tokens(measured):
    """The same with the numbers of tokens that the rows' characters are."""
    steps = StepTokens(4, 4096, 100, 50, 2_000, 1_500, 1_000)
    side = measured["train"]
    side["tokens"] = {
        "tokens": side["characters"], "supervised": side["characters"], "unique": 17, "max_length": 9,
        "over_length": [f"{EVIL}:3"], "refused": [f"{EVIL}:4: TEMPLATE"], "supervised_share": 1.0,
        "shared_prefix_share": 0.5, "steps": steps.to_json(),
    }  # fmt: skip
    return measured


def test_the_page_needs_nothing_and_runs_nothing(measured):
    page = data_page(f"{EVIL}.jsonl", with_tokens(measured))
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)") >= 2
    assert "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'" in page
    assert not re.search(r"(?:src|href|action)=|url\(|https?:", page)
    assert "prefers-color-scheme: dark" in page


def test_each_chart_has_its_numbers_in_a_table(measured):
    page, side = data_page("a.jsonl", with_tokens(measured)), measured["train"]
    figures = page.split("<figure")[1:]
    charts = [*histograms(side), *share_charts(side)]
    titles = [chart.title for chart in charts]
    assert titles == [
        "Tokens a row", "Supervised tokens a row", "Characters a row", "Turns a row", "Supervised tokens",
        "Shared prefixes", "Tokens that training computes", "Messages by role", "Languages",
    ]  # fmt: skip
    for title, figure in zip(titles, figures, strict=False):
        assert f"<h3>{title}</h3>" in figure
        assert "The same in every row." in figure or ("<svg" in figure and "<table>" in figure)
    assert '<td>computed</td><td class="number" data-label="Tokens">1,000</td>' in page
    assert "Sharing leaves 1 of 1.50 tokens without padding, and 1 of 2.00 with it. This counts tokens" in page
    assert "50 counted (of 100 in an epoch)" in page
    assert '<td>English</td><td class="number" data-label="Rows">12</td>' in page


def test_without_a_config_or_a_detector_the_page_says_what_is_missing(measured):
    measured["train"]["languages"] = None
    page = data_page("a.jsonl", measured)
    assert "py3langid is not installed (the extra workshop brings it)" in page
    assert "not counted: a config names the model that counts them" in page
    assert "Rows held out" in page


def test_bars_are_as_long_as_their_numbers():
    drawing = ElementTree.fromstring(str(shares_of(EVIL, {"a<b": 300, "c": 100, "d": 0}, "rows").svg))
    widths = [float(bar.get("width", "")) for bar in drawing.iter() if bar.get("class") == "bar-fill"]
    assert widths[0] == pytest.approx(3 * widths[1], abs=0.2)
    assert widths[2] == 0
    assert [text.text for text in drawing.iter("text")] == ["a<b", "300", "c", "100", "d", "0"]
    assert [share for _, _, share in shares_of("", {"a": 3, "b": 1}, "rows").rows] == [0.75, 0.25]
