"""A model as the judge of a run's answers: plan and quote it, then ask; read it top to bottom.

with make_plan(run, settings) as plan:
    page, outcome = judge(plan, agreed=plan.quote)
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from trainer.backends.chat_endpoint import ChatEndpoint
from trainer.backends.quote import Quote
from trainer.data.quoting import counted
from trainer.errors import Attempts, BackendError, ConfigError
from trainer.extras import need
from trainer.inference.report.run_report import own_report, write_report
from trainer.runs import Run
from trainer.workshop.asking.budget import (
    Budget,
    Prices,
    TokenNeed,
    hold_agreed,
    limit_of,
    prices_for,
    quote_need,
    twice,
)
from trainer.workshop.asking.endpoint import ChatAddress, connect, place_of
from trainer.workshop.asking.numbers import limits, wrong
from trainer.workshop.asking.sender import (
    Answers,
    Ended,
    KeptAnswers,
    Missing,
    RequestRefused,
    Sender,
    Unfinished,
    answered,
)
from trainer.workshop.asking.side_by_side import side_by_side
from trainer.workshop.asking.store import AnswerStore
from trainer.workshop.judge.outcome import make_outcome
from trainer.workshop.judge.pairs import AnswerPair, pairs_of
from trainer.workshop.judge.question import Judged, both_orders, steps

FOLDER = "judge"  # of a run: the answers and the ledger
VERDICT_TOKENS = 60

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """The judge and its limits, in the words of the command's options."""

    endpoint: str
    model: str
    cap: float | None = None
    price_in: float | None = None
    price_out: float | None = None
    key_variable: str | None = None
    max_tokens: int = 2048
    concurrency: int = 4


@dataclass(frozen=True, slots=True)
class JudgeProgress:
    """State after a pair; the cost is None where no price is known."""

    done: int
    total: int
    failures: int
    cost: float | None


@dataclass(slots=True)
class JudgePlan:
    """Pairs of a run that can be judged, and the quote of those that are not yet.

    It holds the lock of the folder of answers until it is closed.
    """

    run: Run
    settings: JudgeSettings
    result: Mapping[str, Any]
    pairs: list[AnswerPair]
    place: ChatAddress
    prices: Prices
    endpoint: ChatEndpoint
    store: AnswerStore
    quote: Quote
    known: dict[int, Judged] = field(default_factory=dict)  # by the pair's number: alike, or all answers kept

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.store.close()

    def facts(self) -> list[tuple[str, str]]:
        """The plan as a person reads it."""
        asked = len(self.pairs) - len(self.known)
        facts = [
            ("judge", f"{self.settings.model} at {self.place.url}"),
            ("pairs", f"{counted(len(self.pairs), 'pair')} of answers, {asked:,} to ask about, each in both orders"),
            ("sent", f"the held-out conversations and all answers to them, to {self.place.host}"),
        ]
        if lost := self.store.unknown:
            unknown = f"{counted(len(lost), 'request')} without an answer before, which may have been paid"
            facts.append(("unknown", unknown))
        if not self.quote.bills and self.prices.is_free:
            facts.append(("cost", f"none: {self.prices.source}"))
        return facts


def make_plan(run: Run, settings: JudgeSettings) -> JudgePlan:
    """Read the run's report, find the answers that are kept, and quote the rest; nothing is sent.

    Raises: ConfigError, MissingDependency.
    """
    need("trainer compare --judge", "azure.core", extra="workshop")
    need("trainer compare --judge", "jinja2", "matplotlib", extra="local")  # it writes the report anew
    attempts = Attempts()
    attempts.make(_refuse_numbers, settings)
    place = attempts.make(place_of, settings.endpoint)
    result = attempts.make(own_report, run, "to judge")
    attempts.end()
    assert place is not None
    assert result is not None
    prices = prices_for(place, settings.model, settings.price_in, settings.price_out)
    endpoint = connect(place, settings.model, settings.key_variable)
    store = AnswerStore(run.path / FOLDER, place.url, settings.model)
    plan = JudgePlan(
        run, settings, result, pairs_of(result), place, prices, endpoint, store, Quote((), prices.source)
    )  # fmt: skip
    try:
        _quote(plan)
    except BaseException:
        store.close()
        raise
    return plan


def judge(
    plan: JudgePlan,
    agreed: Quote,
    progress: Callable[[JudgeProgress], None] = lambda state: None,
    stop: threading.Event | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Ask for what is missing, and write the outcome into the run's report; returns its page and the outcome.

    `stop` ends it after the requests that are on their way.

    Raises: ConfigError, above the price that was agreed to; Unfinished, where it ends early: all answers are kept;
    BackendError, where no pair could be judged.
    """
    hold_agreed(plan.quote, agreed)
    spent = plan.store.spent
    budget = Budget(limit_of(plan.quote, plan.prices, plan.settings.cap, spent), spent)
    sender = Sender(plan.endpoint, plan.place, plan.store, plan.prices, budget)
    if stop is not None:
        sender.stop = stop
    judged = dict(plan.known)
    try:
        _ask_all(plan, sender, judged, progress)
    except Ended as ended:
        is_capped = sender.is_at_limit and plan.settings.cap is not None
        raise Unfinished(_how_to_go_on(plan, str(ended), is_capped), str(ended)) from None
    return _store(plan, [judged[number] for number in range(len(plan.pairs))])


def _refuse_numbers(settings: JudgeSettings) -> None:
    """Raises: ConfigError."""
    if problems := wrong(limits(settings)):
        raise ConfigError(*problems)


def _quote(plan: JudgePlan) -> None:
    """Find what is kept, and quote the rest."""
    plan.store.recover(plan.prices.paid)
    kept, needed, lacking = KeptAnswers(plan.store), TokenNeed(), 0
    for number, pair in enumerate(plan.pairs):
        try:
            plan.known[number] = _judged(plan, pair, kept)
        except Missing as missing:
            lacking += 1
            requests = [each for each in both_orders(pair, plan.settings.max_tokens) if plan.store.find(each) is None]
            for request in requests or [missing.request]:
                needed += twice(request, VERDICT_TOKENS)
    about, spent = f"{counted(lacking, 'pair')} of answers", plan.store.spent
    plan.quote = quote_need(needed, plan.prices, plan.settings.cap, spent, len(plan.store), about)


def _judged(plan: JudgePlan, pair: AnswerPair, answers: Answers) -> Judged:
    """The opinions on a pair. Raises: what `answers` raises; a refused request is an outcome."""
    try:
        return answered(steps(pair, plan.settings.max_tokens), answers)
    except RequestRefused as refused:
        return Judged(pair, failure=str(refused))


def _ask_all(
    plan: JudgePlan, sender: Sender, judged: dict[int, Judged], progress: Callable[[JudgeProgress], None]
) -> None:
    """Ask about the pairs side by side; about the first one alone, which shows a wrong key or name by one request."""
    lock = threading.Lock()

    def ask(number: int) -> None:
        one = _judged(plan, plan.pairs[number], sender)
        with lock:
            judged[number] = one
            cost = None if plan.prices.input is None else sender.budget.spent
            progress(
                JudgeProgress(len(judged), len(plan.pairs), sum(bool(each.failure) for each in judged.values()), cost)
            )

    rest = deque(number for number in range(len(plan.pairs)) if number not in judged)
    if rest:
        ask(rest.popleft())
    side_by_side(ask, rest, plan.settings.concurrency, sender.stop)


def _store(plan: JudgePlan, judged: list[Judged]) -> tuple[Path, dict[str, Any]]:
    """Write the outcome into the report. Raises: BackendError, where every pair failed; ConfigError."""
    failures = [f"{one.pair.place}: {one.failure}" for one in judged if one.failure]
    if len(failures) == len(judged):
        raise BackendError(f"run {plan.run.name!r}: no pair could be judged, and nothing was written", *failures)
    if plan.run.comparison() != plan.result:
        raise ConfigError(
            f"run {plan.run.name!r}: its report was replaced meanwhile, expected the one that was judged; run the same "
            "command again: every answer is kept"
        )
    outcome = make_outcome(plan.result, judged, plan.settings.model, plan.place.url, plan.store.cost)
    page = write_report(plan.run, dict(plan.result) | {"judge": outcome}, replace=True)
    plan.run.event(outcome["sentence"], kind="judge")
    return page, outcome


def _how_to_go_on(plan: JudgePlan, reason: str, is_capped: bool) -> str:
    if not len(plan.store):
        return f"{reason}; nothing was answered yet: put it right and run the same command again"
    more = " with a greater --cap" if is_capped else ""
    return (
        f"{reason}; the report is as it was, and every answer is kept in {plan.store.folder}: the same command{more} "
        "resumes without paying for them again"
    )
