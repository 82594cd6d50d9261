"""Several runs on one page: the same rows, or a refusal that says what differs. Nothing is trained here."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.commands import performed
from tests.conftest import talk
from tests.documents import answered
from tests.manifests import data_file, manifest
from trainer.config import RunConfig
from trainer.config.schema import EvaluationConfig
from trainer.errors import ConfigError
from trainer.inference.client import Reply
from trainer.inference.evaluation.held_out import HeldOut
from trainer.inference.evaluation.measures import ModelKey, Sums, is_right, text_measures
from trainer.inference.evaluation.questions import MeasuredAnswer, Question, Reference
from trainer.inference.evaluation.result import make_result
from trainer.inference.report.run_report import write_report
from trainer.inference.report.standings import write_comparison
from trainer.inference.tool_calls import Call
from trainer.runs import Run, create_run, files
from trainer.runs.lifecycle import pending_note
from trainer.runs.manifest import Manifest, PinnedBase

pytestmark = pytest.mark.slow

HOSTILE = '<script>alert(1)</script><img src="https://evil.example/x.png" onerror=alert(1)>{{ 7*7 }}&amp;'
RIGHT = [f"Number {number} is the one after {number - 1}." for number in range(1, 9)]
FACTS = [
    "Spokes radiate from the hub in the middle.", "A rim is the outer hoop which holds the tyre.",
    "Mechanics turn nipples with a small key.", "The saddle carries most of a rider's weight.",
    "Chains move power to the rear wheel.", "Brakes press pads against both sides.",
    "A ferrule caps where cable housing ends.", "Gears trade speed for climbing strength.",
]  # fmt: skip
MODELS = ("base", "tuned")
BASE = PinnedBase("acme/base", "0123abc", None)

Make = Callable[..., Run]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """A finished run with a report about answers that the test gives."""

    def make(name: str, tuned: list[str], base: PinnedBase = BASE, right: list[str] = RIGHT, **changes: Any) -> Run:
        config = RunConfig.model_validate(
            {
                "model": {"base": "acme/base"},
                "data": {"train": "t.jsonl", "validation": "v.jsonl"},
                "training": {"n_epochs": 2, "batch_size": 4, "learning_rate": 1e-4, "seed": 1},
                "run": {"root": str(tmp_path), "name": name},
            }
        )
        run = create_run(config)
        run.write_manifest(made_from(base=base, **changes))
        for step, loss in ((1, 3.0), (2, 2.0), (3, 2.5)):
            run.append_result({"step": step, "train_loss": loss, "valid_loss": loss, "train_mean_token_accuracy": 0.5})
        run.set_status("succeeded", adapter_step=2, total_steps=4, finished_at="2026-01-01T00:01:00.000+00:00")
        write_report(run, result(run, right, tuned))
        return run

    return make


def made_from(**changes: Any) -> Manifest:
    return manifest(**{"device": "A <GPU>", "data": (data_file("v.jsonl"),)} | changes)


def result(
    run: Run, right: list[str], tuned: list[str], prompt: str = "What is it?", base: str | None = "nothing"
) -> dict[str, Any]:
    """`base` is what the base says to everything, None where it is always right."""
    rows, questions = [], []
    for number, text in enumerate(right):
        rows.append(talk(("system", "Count."), ("user", prompt), ("assistant", text)))
        questions.append(Question(number, rows[-1], 2, Reference(text)))
    held_out = HeldOut(tuple(rows), 8, ("v.jsonl",), EvaluationConfig(max_rows=8, max_new_tokens=64), 1, (), ())
    answers: dict[ModelKey, list[MeasuredAnswer]] = {"base": [answer(base or text, text) for text in right],
               "tuned": [answer(said, text) for said, text in zip(tuned, right, strict=True)]}  # fmt: skip
    losses: dict[ModelKey, list[Sums]] = {name: [{"loss": (loss, 10), "token_accuracy": (5, 10)}] * len(right)
              for name, loss in (("base", 30), ("tuned", 12))}  # fmt: skip
    return make_result(run, held_out, questions, answers, losses, seconds=62.4)


def answer(said: str, right: str) -> MeasuredAnswer:
    measures = text_measures(said, right)
    return MeasuredAnswer(
        Reply(said, (Call("f", {"a": said}),), True),
        measures | {"score": measures["chrf"], "ended": 1.0, "right": float(is_right(said, right))},
    )


# The report of a run


class Page(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def pages(made: Make) -> dict[str, str]:
    """The pages with hostile text everywhere that a user or a model writes."""
    rows = [f"{HOSTILE} {number}" for number in range(8)]
    first, second = (made(f"run-{i}", [f"{HOSTILE} {i} {n}" for n in range(8)], right=rows,
                          device=HOSTILE) for i in range(2))  # fmt: skip
    write_report(first, result(first, rows, rows, prompt=HOSTILE) | {"notes": [HOSTILE], "files": [HOSTILE]}, True)
    write_report(second, result(second, rows, rows, prompt=HOSTILE), True)
    write_comparison([first, second], first.path / "both.html")
    return {"report": (first.report / "report.html").read_text(), "comparison": (first.path / "both.html").read_text()}


def test_no_text_becomes_part_of_a_page_and_no_page_asks_for_anything(made: Make) -> None:
    for name, text in pages(made).items():
        page = Page(text)
        assert "&lt;script&gt;alert(1)" in text, name
        assert "{{ 7*7 }}" in text
        assert {tag for tag, _ in page.tags} & {
            "script",
            "img",
            "iframe",
            "object",
            "link",
            "form",
            "a",
            "base",
        } == set()
        references = [value or "" for _, attributes in page.tags for key, value in attributes.items()
                      if key in ("src", "href", "xlink:href", "action", "data")]  # fmt: skip
        assert [value for value in references if not value.startswith("#")] == []
        assert [key for _, attributes in page.tags for key in attributes if key.startswith("on")] == []
        assert re.findall(r"url\((?!#)", text) == []
        (policy,) = [a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv")]
        assert policy == "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def test_ids_are_unique_on_a_page(made: Make) -> None:
    for text in pages(made).values():
        ids = [attributes["id"] for _, attributes in Page(text).tags if "id" in attributes]
        assert len(ids) == len(set(ids)) > 10


def test_a_report_says_what_was_found_and_how_to_do_it_again(made: Make) -> None:
    run = made("counting", RIGHT, parent={"run": "earlier", "step": 30})
    text = (run.report / "report.html").read_text()
    for part in (
        "run earlier at step 30; the base is the model before both",
        "Better: 8 of 8 answers right or nearly right (95% CI 68-100%), base 0; beyond noise better on 8 of 8 rows",
        "worse on 0; loss 3.00 to 1.20", "more than 5 words, one that shares at least 80%", 'better-chip">right</span>',
        "All 8 held-out rows were compared.",
        "The adapter is from step 2 of 4.", "Overfitting: validation loss rose from epoch 1.5 on",
        "acme/base (0123abc)", "1 min 2 s for this comparison", "A &lt;GPU&gt;",
        f"train --config {run.path}/config.yaml run.name=counting-again",
        f"trainer evaluate {run.path} --max-rows 8 --max-new-tokens 64",
    ):  # fmt: skip
        assert part in text, part
    assert text.count('class="card row better"') == 8


def test_a_loss_that_still_fell_is_said_beside_the_verdict(made: Make) -> None:
    run = made("counting", RIGHT)
    run.write_results([{"step": step, "valid_loss": loss} for step, loss in ((1, 3.0), (2, 2.0), (3, 1.5))])
    write_report(run, result(run, RIGHT, RIGHT), True)
    note = (
        "validation loss was still falling at the end, from 2.000 at step 2 to 1.500 at step 3: train longer, such as"
    )
    assert run.remarks()[-1] == f"{note} training.n_epochs=4"
    assert (run.report / "report.html").read_text().count(f"V{note[1:]} training.n_epochs=4.") == 2


def test_plots_are_files_that_follow_light_and_dark(made: Make) -> None:
    run = made("counting", RIGHT)
    for path in run.report.glob("*.svg"):
        text = path.read_text()
        assert "prefers-color-scheme:dark" in text
        assert set(re.findall(r"var\(--(\w+)\)", text)) <= set(re.findall(r"--(\w+):#", text))
    assert 'aria-label="loss by step"' in (run.report / "loss.svg").read_text()


def test_the_weakest_answers_come_first(made: Make) -> None:
    run = made("counting", [*RIGHT[:5], "xyz", "Number 7", RIGHT[7]])
    text = (run.report / "report.html").read_text()
    scores = [float(found) for found in re.findall(r'class="scores">\d+ → (\d+)<', text)]
    assert scores == sorted(scores)
    assert scores[0] == 0


def test_rows_of_another_file_are_no_runs_report_even_where_it_has_none(made: Make) -> None:
    """Else a run whose comparison was interrupted would seem compared."""
    run = made("counting", RIGHT)
    own = run.comparison()
    for path in run.report.iterdir():
        path.unlink()
    page = write_report(run, own | {"files": ["other.jsonl"], "rows_sha256": "5" * 64})
    assert (page.name, run.comparison()) == ("8-rows-other-55555555-64-tokens.html", {})
    assert pending_note(run) is not None
    assert write_report(run, own).name == "report.html"
    files.write_json(run.report / "report.json", {"verdict": {"sentence": "damaged"}, "files": 7})
    assert write_report(run, own).name == "report.html"
    assert run.comparison() == own


# Several runs


def test_the_better_run_is_named_with_how_sure_that_is(made: Make, tmp_path: Path) -> None:
    runs = [made("rough", [text[:12] for text in RIGHT]), made("fine", RIGHT)]
    sentence, ranked = write_comparison(runs, tmp_path / "page.html")
    counts = "8 of 8 (95% CI 68-100%) and 0 of 8 (95% CI 0-32%) answers right or nearly right"
    assert sentence == f"fine is better than rough: {counts}"
    assert [contestant.name for contestant in ranked] == ["acme/base (base)", "fine", "rough"]
    text = (tmp_path / "page.html").read_text()
    assert sentence in text
    assert [part for part in ("acme/base (base)", "fine", "rough") if f"<b>{part}</b>" not in text] == []


def test_a_run_that_only_comes_closer_is_not_called_right_more_often(made: Make, tmp_path: Path) -> None:
    runs = [made("far", ["nothing"] * 8, right=FACTS), made("near", [text[:20] for text in FACTS], right=FACTS)]
    sentence, _ = write_comparison(runs, tmp_path / "page.html")
    assert re.fullmatch(
        r"near comes closer to the references than far, score \d\d\.\d and \d\.\d \(95% CI of the difference "
        r"\+\d\d\.\d to \+\d\d\.\d\); it is not clearly right more often: 0 of 8 .*",
        sentence,
    ), sentence


def test_runs_are_held_to_the_same_noise_as_a_report(made: Make, tmp_path: Path) -> None:
    """What all answers have in common is no better than nothing, beside a base and beside another run."""
    runs = [made("far", ["nothing"] * 8), made("alike", [text[:16] for text in RIGHT])]
    assert runs[1].comparison()["verdict"]["kind"] == "unclear"
    sentence, _ = write_comparison(runs, tmp_path / "page.html")
    assert sentence.startswith("no clear difference between alike and far: ")
    assert gated("better", runs[1], runs[0], code=3)["against"][1]["kind"] == "unclear"


def test_a_report_of_an_earlier_version_is_compared(made: Make, tmp_path: Path) -> None:
    """One that knew no right answers: they are found in what it holds."""
    runs = [made("rough", [text[:12] for text in RIGHT]), made("fine", RIGHT)]
    expected, _ = write_comparison(runs, tmp_path / "page.html")
    for run in runs:
        write_former(run)
    assert write_comparison(runs, tmp_path / "page.html")[0] == expected


def write_former(run: Run) -> None:
    """The run's report as the first version had it."""
    found = run.comparison()
    for row in found["rows"]:
        for values in (
            *row["sums"].values(),
            *(answer[key]["measures"] for answer in row["answers"] for key in MODELS),
        ):
            del values["right"]
        del row["noise"]
    found["measures"] = [
        {key: value for key, value in measure.items() if key != "num_groups"}
        for measure in found["measures"] if measure["key"] != "right"
    ]  # fmt: skip
    found["verdict"] = {"kind": "better", "sentence": "better on 8 of 8 rows", "better": 8, "same": 0, "worse": 0}
    (run.report / "report.json").write_text(json.dumps(found | {"format": 1}))


def test_runs_that_answer_alike_are_not_told_apart(made: Make, tmp_path: Path) -> None:
    sentence, _ = write_comparison([made("one", RIGHT), made("two", RIGHT)], tmp_path / "page.html")
    counts = "8 of 8 (95% CI 68-100%) and 8 of 8 (95% CI 68-100%) answers right or nearly right"
    assert sentence == f"no clear difference between one and two: {counts}"
    worse, _ = write_comparison([made("a", ["nothing"] * 8), made("b", ["nothing"] * 8)], tmp_path / "page.html")
    assert worse.endswith("; not even a is clearly better than its base")


def test_each_base_stands_there_once(made: Make, tmp_path: Path) -> None:
    other = PinnedBase("acme/other", "0123abc", None)
    runs = [made("one", RIGHT), made("two", RIGHT), made("three", RIGHT, base=other)]
    _, ranked = write_comparison(runs, tmp_path / "page.html")
    assert [c.name for c in ranked] == ["acme/base (base)", "acme/other (base)", "one", "two", "three"]
    assert "loss and token accuracy count other tokens in each" in (tmp_path / "page.html").read_text()


def test_runs_without_a_comparison_are_refused_all_at_once(made: Make, tmp_path: Path) -> None:
    runs = [made("one", RIGHT), made("two", RIGHT), made("three", RIGHT)]
    (runs[1].report / "report.json").unlink()
    (runs[2].report / "report.json").write_text("{")
    with pytest.raises(ConfigError) as caught:
        write_comparison(runs, tmp_path / "page.html")
    assert caught.value.problems == tuple(
        f"run {run.name!r}: has no comparison with its base, expected one; run: trainer evaluate {run.path}"
        for run in runs[1:]
    )


def test_runs_with_other_rows_are_refused(made: Make, tmp_path: Path) -> None:
    runs = [made("one", RIGHT), made("two", RIGHT[:7], right=RIGHT[:7])]
    with pytest.raises(ConfigError) as caught:
        write_comparison(runs, tmp_path / "page.html")
    assert caught.value.problems == (
        "run 'one': its answers are to 8 of 8 rows of v.jsonl",
        "run 'two': its answers are to 7 of 8 rows of v.jsonl",
        "trainer compare: expected answers to the same rows; give each run the same ones: "
        "trainer evaluate RUN --rows FILE --max-rows N",
    )
    assert not (tmp_path / "page.html").exists()


def test_one_run_is_not_compared_with_itself(made: Make, tmp_path: Path) -> None:
    run = made("one", RIGHT)
    for runs in ([run], [run, run]):
        with pytest.raises(ConfigError, match="expected two or more different runs"):
            write_comparison(runs, tmp_path / "page.html")


def test_only_a_page_of_ours_is_replaced(made: Make, tmp_path: Path) -> None:
    runs, page, other = [made("one", RIGHT), made("two", RIGHT)], tmp_path / "page.html", tmp_path / "thesis.tex"
    write_comparison(runs, page)
    write_comparison(runs, page)
    other.write_text("mine")
    with pytest.raises(ConfigError, match="exists and is no page of this program"):
        write_comparison(runs, other)
    assert other.read_text() == "mine"


def test_a_page_that_cannot_be_written_is_told(made: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written: No such file or directory"):
        write_comparison([made("one", RIGHT), made("two", RIGHT)], tmp_path / "none" / "page.html")


def test_json_holds_everything_that_the_page_shows(made: Make) -> None:
    run = made("counting", RIGHT)
    found = json.loads((run.report / "report.json").read_text())
    assert found == run.comparison()
    assert [row["answers"][0]["tuned"]["text"] for row in found["rows"]] == RIGHT


# Gates


def gated(gate: str, *runs: Run, code: int = 0) -> dict[str, Any]:
    """What the document says of the gate; people get the same code and the same answer."""
    words = ("compare", *(str(run.path) for run in runs), "--gate", gate, "--root", str(runs[0].path.parent))
    told: dict[str, Any] = answered(*words, code=code)["gate"]
    as_text = performed(words, lambda: 0.0)
    assert as_text.code == code
    assert (
        f"gate {gate} {'holds' if told['holds'] else 'does not hold'}: {told['against'][0]['kind']} beside its base"
        in as_text.out
    )
    assert told["holds"] == (code == 0)
    assert all(remark in as_text.out for remark in runs[0].remarks() if len(runs) == 1)
    return told


def test_a_gate_holds_where_the_run_is_as_asked_beyond_chance(made: Make) -> None:
    good, same, bad = made("good", RIGHT), made("same", ["nothing"] * 8), made("bad", RIGHT)
    write_report(bad, result(bad, RIGHT, ["nothing"] * 8, base=None))
    for run, kind, codes in ((good, "better", (0, 0)), (same, "unclear", (3, 0)), (bad, "worse", (3, 3))):
        for gate, code in zip(("better", "not-worse"), codes, strict=True):
            told = gated(gate, run, code=code)
            assert told["against"] == [{"name": "its base", "kind": kind, "holds": code == 0}]


def test_a_gate_holds_the_first_run_against_the_others_too(made: Make) -> None:
    good, rough = made("good", RIGHT), made("rough", [text[:16] for text in RIGHT])
    assert gated("better", good, rough)["against"][1] == {"name": "rough", "kind": "better", "holds": True}
    assert gated("not-worse", rough, good, code=3)["against"][1] == {"name": "good", "kind": "worse", "holds": False}
    again = made("again", RIGHT)
    assert gated("better", again, good, code=3)["against"][1]["kind"] == "unclear"


def test_a_copied_run_is_held_against_the_one_that_it_was_copied_from(made: Make, tmp_path: Path) -> None:
    """A copied folder holds a report under the name that it was written for; retrained since, it is another model."""
    first = made("first", RIGHT)
    copied = Run(shutil.copytree(first.path, tmp_path / "copied"))
    report = result(first, RIGHT, ["nothing"] * 8)
    assert report["run"] == "first"
    write_report(copied, report, replace=True)
    assert gated("not-worse", copied, first, code=3)["against"][1] == {"name": "first", "kind": "worse", "holds": False}
    sentence, ranked = write_comparison([copied, first], tmp_path / "page.html")
    assert [model.name for model in ranked] == ["acme/base (base)", "first", "copied"]
    assert sentence.startswith("first is better than copied: ")


def test_two_revisions_of_a_base_have_a_column_each(made: Make, tmp_path: Path) -> None:
    """Columns are known by their names, so that no two may share one."""
    runs = [made("one", RIGHT), made("two", RIGHT, base=replace(BASE, revision="4567def"))]
    _, ranked = write_comparison(runs, tmp_path / "page.html")
    names = [model.name for model in ranked]
    assert names == ["acme/base@0123abc (base)", "acme/base@4567def (base)", "one", "two"]


def test_too_few_rows_keep_no_gate_that_asks_for_better(made: Make) -> None:
    few = made("few", RIGHT[:3], right=RIGHT[:3])
    assert gated("better", few, code=3)["against"][0]["kind"] == "unclear"
    assert gated("not-worse", few)["against"][0]["kind"] == "unclear"


def test_a_gate_without_a_report_is_a_mistake_and_no_verdict(made: Make) -> None:
    run = made("one", RIGHT)
    (run.report / "report.json").unlink()
    done = performed(("compare", str(run.path), "--gate", "better"), lambda: 0.0)
    assert (done.code, done.out) == (2, "")
    assert done.errors == [
        f"error: run 'one': has no comparison with its base, expected one; run: trainer evaluate {run.path}"
    ]
    without = performed(("compare", str(made("two", RIGHT).path)), lambda: 0.0)
    assert without.errors == [
        "error: trainer compare: got 'two', expected two or more different runs, or one with --gate or --judge"
    ]


def test_a_comparison_is_told_to_machines(made: Make, tmp_path: Path) -> None:
    runs = [made("rough", [text[:12] for text in RIGHT]), made("fine", RIGHT)]
    found = answered("compare", "rough", "fine", "--root", str(tmp_path))
    assert [(model["name"], model["is_base"]) for model in found["models"]] == [
        ("acme/base (base)", True), ("fine", False), ("rough", False)
    ]  # fmt: skip
    assert [model["measures"]["right"] for model in found["models"]] == [0.0, 1.0, 0.0]
    assert found["notes"] == []
    assert (found["page"], found["gate"]) == (str(tmp_path / "rough-vs-fine.html"), None)
    assert found["sentence"] == write_comparison(runs, tmp_path / "rough-vs-fine.html")[0]
    write_former(runs[0])
    assert answered("show", "rough", "--root", str(tmp_path))["verdict"]["right"] is None
    counts = answered("show", "fine", "--root", str(tmp_path))["verdict"]["right"]
    assert counts == {"base": 0, "start": None, "tuned": 8}
