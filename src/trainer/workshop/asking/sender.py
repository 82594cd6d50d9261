"""Sending of requests: each answer is paid once, kept before it counts, and asked for again only within bounds."""

import threading
from collections.abc import Generator
from typing import Protocol, TypeVar

from trainer.backends.chat_endpoint import ChatEndpoint
from trainer.backends.http import Failure, failure_of, is_failure, patience_seconds, refusal
from trainer.errors import BackendError, ExitCode
from trainer.workshop.asking.budget import Budget, CapReached, Prices
from trainer.workshop.asking.endpoint import ChatAddress, Dialect, answer_of
from trainer.workshop.asking.pace import Pace
from trainer.workshop.asking.request import Answer, Request
from trainer.workshop.asking.store import AnswerStore

R = TypeVar("R")

MOST_UNKNOWN = 3  # requests that may have been executed, and were sent again
REFUSED_IN_A_ROW = 5  # requests that the endpoint refuses for their content, none answered between them
NAME_A_KEY = "name the variable of the environment that holds its key: --key-env VARIABLE"
HOPELESS = (401, 402, 403, 404)


class Ended(Exception):
    """Nothing more is sent; the reason in one sentence."""


class Unfinished(BackendError):
    """Asking ended early for a reason; every answer is kept, and the same command resumes it."""

    exit_code = ExitCode.RESUMABLE

    def __init__(self, words: str, reason: str) -> None:
        super().__init__(words)
        self.reason = reason


class RequestRefused(Exception):
    """The endpoint does not answer this request; others may go."""


class Answers(Protocol):
    """Source of answers. Raises: Ended, RequestRefused."""

    def answer(self, request: Request) -> Answer: ...


def answered(work: Generator[Request, Answer, R], answers: Answers) -> R:
    """The outcome of work that asks and is sent the answers. Raises: what `answers` raises."""
    try:
        request = next(work)
        while True:
            request = work.send(answers.answer(request))
    except StopIteration as end:
        outcome: R = end.value
        return outcome


class Missing(Exception):
    """A request whose answer is not kept."""

    def __init__(self, request: Request) -> None:
        super().__init__(request.stage)
        self.request = request


class KeptAnswers:
    """Answers of before: nothing is sent."""

    def __init__(self, store: AnswerStore) -> None:
        self._store = store

    def answer(self, request: Request) -> Answer:
        """Raises: Missing."""
        if (kept := self._store.find(request)) is None:
            raise Missing(request)
        return kept


class Sender:
    """Answers from an endpoint, for many threads."""

    def __init__(
        self, endpoint: ChatEndpoint, place: ChatAddress, store: AnswerStore, prices: Prices, budget: Budget
    ) -> None:
        self.endpoint, self.store, self.prices, self.budget = endpoint, store, prices, budget
        self.stop = threading.Event()
        self.pace = Pace()
        self.ended: str | None = None
        self.num_sent = 0
        self.is_at_limit = False
        self._place = place
        self._dialect = Dialect.read(store.dialect_file, place, store.model)
        self._lock = threading.Lock()
        self._refused = 0

    def answer(self, request: Request) -> Answer:
        """The answer, kept or asked for. Raises: Ended, RequestRefused."""
        if (kept := self.store.find(request)) is not None:
            return kept
        num_unknown = 0
        while True:
            self.pace.wait(self.stop)
            if self.stop.is_set():
                raise Ended(self.ended or "stopped")
            dialect = self._dialect
            try:
                return self._sent(request, dialect)
            except Exception as error:
                if not is_failure(error):
                    raise
                failure = failure_of(error)
            if self._adapt(dialect, failure):
                continue
            num_unknown += failure.execution == "unknown"
            self._go_on_after(failure, num_unknown)

    def end(self, sentence: str) -> Ended:
        """Have nothing more sent; the first reason counts."""
        with self._lock:
            self.ended = self.ended or sentence
            self.stop.set()
        return Ended(self.ended)

    def _sent(self, request: Request, dialect: Dialect) -> Answer:
        """One attempt. What is on its way when this process ends stays in the ledger as intended."""
        most = self.prices.most(request)
        self._reserve(most)
        cost = most
        try:
            thing = None if self.prices.is_free else self.store.intend(request, most)
            self.num_sent += 1
            try:
                record, headers = self.endpoint.ask_once(dialect.body(request))
                answer = answer_of(record, self.endpoint.name)
            except BackendError as error:  # an answer of another form, paid perhaps
                raise self._refusal(str(error)) from None
            except Exception as error:
                if is_failure(error) and failure_of(error).execution != "unknown":
                    cost = 0.0
                    if thing is not None:
                        self.store.refuse(thing)
                raise
            self.store.keep(request, answer)
            cost = self.prices.paid(answer, most)
            if thing is not None:
                self.store.settle(thing, answer, cost)
        finally:
            self.budget.release(most, cost)
        self.pace.answered(headers)
        self._refused = 0
        return answer

    def _reserve(self, most: float | None) -> None:
        """Raises: Ended, where the request could cross the limit, or this ends while others leave room."""
        try:
            self.budget.reserve(most)
        except CapReached:
            self.is_at_limit = True
            limit = f"{self.budget.limit:,.4f} USD"
            raise self.end(f"the next request could bring the cost above {limit}, so it was not sent") from None
        if self.stop.is_set():
            self.budget.release(most, 0.0)
            raise Ended(self.ended or "stopped")

    def _adapt(self, used: Dialect, failure: Failure) -> bool:
        """Learn from a refusal what the endpoint does not take; True where the request can be put in other words."""
        adapted = used.adapted(failure)
        if adapted is None:
            return False
        with self._lock:
            if self._dialect == used:
                self._dialect = adapted
                adapted.write(self.store.dialect_file, self._place, self.store.model)
        return True

    def _go_on_after(self, failure: Failure, num_unknown: int) -> None:
        """Wait where it may pass. Raises: Ended, RequestRefused."""
        doing = f"asking {self.endpoint.name}"
        if failure.status in HOPELESS or failure.is_untrusted or (failure.status is None and not failure.is_temporary):
            keyless = failure.status == 401 and not self.endpoint.address.headers()
            raise self.end(str(refusal(failure, doing, NAME_A_KEY if keyless else "")))
        if not failure.is_temporary:
            raise self._refusal(str(failure))
        pause = self.pace.refused(failure.wait_seconds)
        if self.pace.silent_seconds() + pause > patience_seconds():
            raise self.end(str(refusal(failure, doing)))
        if num_unknown >= MOST_UNKNOWN:
            raise RequestRefused(f"{failure}, {MOST_UNKNOWN} times")

    def _refusal(self, sentence: str) -> Ended | RequestRefused:
        """The end of one request; of all, where none was answered between the last ones."""
        with self._lock:
            self._refused += 1
        if self._refused >= REFUSED_IN_A_ROW:
            return self.end(f"{REFUSED_IN_A_ROW} requests in a row were refused, the last one so: {sentence}")
        return RequestRefused(sentence)
