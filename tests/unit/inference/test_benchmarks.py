"""Published benchmarks: the harness' result as the report holds and shows it, and what is refused before it runs."""

import pytest

from tests.commands import performed
from trainer.extras import is_installed
from trainer.inference.benchmarks import _metrics
from trainer.inference.report.run_page import benchmarks_view
from trainer.runs import Run


def found(accuracy: float, error: float | str) -> dict[str, object]:
    values = {
        "alias": "sums",
        "acc,none": accuracy,
        "acc_stderr,none": error,
        "f1,strict": 1,
        "f1_stderr,strict": "N/A",
    }
    return {"results": {"sums": values}, "versions": {"sums": 2.0}, "n-samples": {"sums": {"effective": 8}},
            "higher_is_better": {"sums": {"acc": True}}}  # fmt: skip


def test_both_models_stand_side_by_side_with_their_errors() -> None:
    metrics = _metrics(found(0.25, 0.125), found(0.5, 0.1))
    named = {"task": "sums", "version": 2.0, "questions": 8}
    assert metrics == [
        named | {"metric": "acc", "filter": "none", "higher_is_better": True,
                 "base": {"value": 0.25, "stderr": 0.125}, "tuned": {"value": 0.5, "stderr": 0.1}},
        named | {"metric": "f1", "filter": "strict", "higher_is_better": None,
                 "base": {"value": 1.0, "stderr": None}, "tuned": {"value": 1.0, "stderr": None}},
    ]  # fmt: skip
    settings = {"harness": "lm-eval 1", "limit": 8, "num_fewshot": 2, "apply_chat_template": False}
    view = benchmarks_view({"benchmarks": settings | {"metrics": metrics}})
    assert view is not None
    assert view["settings"] == (
        "lm-eval 1, 2 examples before each question, the first 8 questions of each task, without the chat template"
    )
    assert [row["values"] for row in view["rows"]] == [["0.2500 ± 0.1250", "0.5000 ± 0.1000"], ["1.0000", "1.0000"]]


@pytest.mark.parametrize(("words", "told"), [
    (("--tasks", "arc_easy", "--suite", "builtin"), "--suite: is given with --tasks, expected benchmarks alone"),
    (("--tasks", "arc_easy", "--suite-items", "7"), "--suite-items: is given with --tasks, expected benchmarks alone"),
    (("--suite-items", "7"), "--suite-items: is given and no suite is asked, expected both; add --suite builtin"),
    (("--limit", "8"), "--limit: is given without --tasks, expected both; add --tasks TASK,…"),
    (("--tasks", ", "), "--tasks: is empty, expected names of tasks"),
    (("--tasks", "arc_easy"), "has no comparison with its base, expected one that benchmarks can join"),
])  # fmt: skip
def test_options_that_do_not_fit_are_told(words: tuple[str, ...], told: str, tuned: Run) -> None:
    done = performed(("evaluate", str(tuned.path), *words), lambda: 0.0)
    assert (done.code, told in done.err) == (2, True), done.err


@pytest.mark.skipif(is_installed("lm_eval"), reason="lm-eval is installed")
def test_the_extra_is_named(tuned: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "comparison", lambda run: {"format": 2})
    done = performed(("evaluate", str(tuned.path), "--tasks", "arc_easy"), lambda: 0.0)
    assert (done.code, "trainer evaluate --tasks needs lm-eval" in done.err, "[lm-eval]" in done.err) == (2, True, True)
