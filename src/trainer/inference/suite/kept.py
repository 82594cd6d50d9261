"""Comparison on a suite: of what the base had right, how much the tuned model still has."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from trainer.inference.client import Reply
from trainer.inference.evaluation.measures import ModelKey
from trainer.inference.evaluation.questions import Answerer, Question, Reference, thought_json
from trainer.inference.evaluation.significance import LEVEL, share_interval, sign_test
from trainer.inference.suite.checks import is_right
from trainer.inference.suite.items import Suite, SuiteItem, kinds_of

MAX_NEW_TOKENS = 128  # no item asks for more than a few sentences
MAX_THOUGHT_TOKENS = 1024  # before them, of a model whose template knows thoughts

BOTH: tuple[ModelKey, ModelKey] = ("base", "tuned")
NONE_OMITTED: Mapping[str, str] = MappingProxyType({})

Advance = Callable[[ModelKey, int, int], None]  # which model, how many answers it has given, and of how many


def measure_kept(
    suite: Suite, answerer: Answerer, progress: Advance, omitted: Mapping[str, str] = NONE_OMITTED
) -> dict[str, Any]:
    """The result as report.json holds it. `answerer` gives up to `answer_tokens` an answer.

    `omitted`: the reasons why items were not asked, by id.
    """
    questions = [
        Question(number, item.prompt, len(item.prompt.messages) - 1, Reference(""))
        for number, item in enumerate(suite.items)
    ]
    base, tuned = (_replies(model, questions, answerer, progress) for model in BOTH)
    return scored(suite, base, tuned) | {"omitted": dict(omitted)}


def answer_tokens(thinks: bool) -> int:
    """Room for the answer to an item: a thought that is cut off would never come to one."""
    return MAX_NEW_TOKENS + (MAX_THOUGHT_TOKENS if thinks else 0)


def with_kept(result: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """A comparison's result with what was kept, which its remarks tell as well."""
    verdict = result["verdict"]
    return dict(result) | {
        "suite": dict(kept),
        "verdict": verdict | {"remarks": (*verdict["remarks"], kept["sentence"])},
    }


def _replies(model: ModelKey, questions: Sequence[Question], answerer: Answerer, progress: Advance) -> Sequence[Reply]:
    done = 0

    def advance(number: int) -> None:
        nonlocal done
        done += number
        progress(model, done, len(questions))

    return answerer.replies(model, questions, advance)


def scored(suite: Suite, base: Sequence[Reply], tuned: Sequence[Reply]) -> dict[str, Any]:
    """Counts, interval and every item, from the two models' answers in the suite's order."""
    marks = [
        (item, is_right(item.check, before), is_right(item.check, after))
        for item, before, after in zip(suite.items, base, tuned, strict=True)
    ]
    counts = _counts([(before, after) for _, before, after in marks])
    had = [float(after) for _, before, after in marks if before]
    interval = share_interval([(hit, 1.0) for hit in had], range(len(had))) if had else (0.0, 1.0)
    clear = sign_test(counts["gained"], counts["lost"]) < LEVEL
    return {
        "name": suite.name,
        "sha256": suite.sha256,
        **counts,
        "interval": interval,
        "change": "unclear" if not clear else "gained" if counts["gained"] > counts["lost"] else "lost",
        "sentence": _sentence(counts, interval, clear),
        "kinds": {
            kind: _counts([(before, after) for item, before, after in marks if item.kind == kind])
            for kind in kinds_of(suite.items)
        },
        "items": [
            _shown(item, before, after, said, says)
            for (item, before, after), said, says in zip(marks, base, tuned, strict=True)
        ],
    }


def _counts(marks: Sequence[tuple[bool, bool]]) -> dict[str, int]:
    return {
        "total": len(marks),
        "base_right": sum(before for before, _ in marks),
        "tuned_right": sum(after for _, after in marks),
        "kept": sum(before and after for before, after in marks),
        "lost": sum(before and not after for before, after in marks),
        "gained": sum(after and not before for before, after in marks),
    }


def _sentence(counts: Mapping[str, int], interval: tuple[float, float], clear: bool) -> str:
    total, had, gained = counts["total"], counts["base_right"], counts["gained"]
    if not had:
        return f"the base had none of {total:,} general items right, so nothing could be lost; gained {gained:,}"
    low, high = (100 * end for end in interval)
    change = "" if clear else "; the change is within chance"
    return (
        f"kept {counts['kept']:,} of the {had:,} general items that the base had right "
        f"(95% CI {low:.0f}-{high:.0f}%), lost {counts['lost']:,}, gained {gained:,} of the other {total - had:,}"
        f"{change}"
    )


def _shown(item: SuiteItem, before: bool, after: bool, said: Reply, says: Reply) -> dict[str, Any]:
    return {
        "id": item.id,
        "kind": item.kind,
        "prompt": [{"role": message.role, "content": message.content} for message in item.prompt.messages[:-1]],
        "base": _answer(said, before),
        "tuned": _answer(says, after),
    }


def _answer(reply: Reply, right: bool) -> dict[str, Any]:
    said = {"text": reply.text, "calls": [str(call) for call in reply.calls], "ended": reply.ended, "right": right}
    return said | thought_json(reply)
