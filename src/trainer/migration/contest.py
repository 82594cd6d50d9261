"""Old model against new one: the same held-out rows, asked through the API of each, every paid answer kept."""

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer.backends.chat_endpoint import ChatEndpoint
from trainer.backends.chat_route import reply_of, request_body
from trainer.backends.openai.catalog import family_of
from trainer.backends.openai.held_out import ComparisonPlan, plan_comparison, seed_of
from trainer.backends.openai.price_list import prices_of
from trainer.backends.openai.prices import cost
from trainer.backends.quote import Item, Quote
from trainer.config.openai import OpenAIConfig
from trainer.config.schema import RunConfig
from trainer.data.conversations import Conversation
from trainer.data.read.checks import check_files
from trainer.inference.client import ChatMessage, Reply, ReplyClient, Sampling, Tool
from trainer.inference.evaluation.chat_endpoint import EndpointAnswerer
from trainer.inference.evaluation.held_out import HeldOut, trained_files
from trainer.inference.evaluation.measures import ModelKey
from trainer.inference.evaluation.questions import Question, Reference, thought_json
from trainer.inference.tool_calls import Call
from trainer.runs import Run
from trainer.runs.files import append_line, read_lines
from trainer.runs.ledger import Thing


@dataclass(frozen=True, slots=True)
class Contest:
    """The rows, and what the old model's answers to them cost at most."""

    model: str  # the old one
    held_out: HeldOut
    plan: ComparisonPlan
    quote: Quote

    @property
    def max_new_tokens(self) -> int:
        return self.held_out.max_new_tokens

    @property
    def thousand(self) -> float | None:
        """The price of a thousand such answers, as an upper bound; None where it is not known."""
        total = self.quote.total
        return None if total is None else 1000 * total / self.plan.num_answers

    def thing(self, place: str) -> Thing:
        """The old model's answers, as the ledger of the migration knows them."""
        key = hashlib.sha256(f"{self.model} {self.held_out.sha256} {self.max_new_tokens}".encode())
        price = "not known" if self.quote.total is None else f"{self.quote.total:,.4f} {self.quote.currency}"
        bills = f"by the token, quoted at {price} for {self.plan.num_answers:,} answers at most"
        return Thing("openai", "answers", key.hexdigest()[:16], place, bills)


def plan_contest(config: RunConfig, settings: OpenAIConfig, model: str, file: Path) -> Contest | None:
    """The comparison that the config asks for; None where it asks for none. Raises: DataError, for broken rows."""
    report = check_files([], [file], allow_leak=True, method=config.training.method)
    report.raise_on_errors()
    plan = plan_comparison(config, report.validation, family_of(model))
    if plan is None:
        return None
    prices = prices_of(family_of(model), settings)
    what = (
        f"the old model: {plan.num_answers:,} answers by {model}, at most {plan.num_input:,} tokens read and "
        f"{plan.num_output:,} written"
    )
    shares = (("input", plan.num_input), ("output", plan.num_output))
    amounts = [cost(tokens, getattr(prices, kind)) for kind, tokens in shares]
    dearest = [cost(tokens, prices.dearest(kind)) for kind, tokens in shares]
    quote = Quote(
        (Item(what, _sum(amounts), _sum(dearest)),), prices.source, notes=("kept answers are not paid again",)
    )
    held_out = HeldOut(plan.rows, plan.total, (str(file),), plan.limits, seed_of(config), (), None)
    return Contest(model, held_out, plan, quote)


def held_out_of(contest: Contest, run: Run) -> HeldOut:
    """The rows as a comparison of the run takes them."""
    trained, gone = trained_files(run)
    notes = (
        "the answers of both end where the same number of tokens is reached, and each counts tokens in its own way",
        *([f"not known which answers were trained on: {', '.join(gone)} is gone or has changed"] if gone else []),
    )
    return replace(contest.held_out, notes=notes, trained=None if gone else trained)


class KeptReplies:
    """A model whose answers are written down as they come: a second call asks for none of them again."""

    def __init__(self, client: ReplyClient, model: str, file: Path) -> None:
        self.client, self.model, self.file = client, model, file
        self._lock = threading.Lock()
        self._kept = {str(line.get("key")): line for line in read_lines(file)}

    def reply(self, messages: Sequence[ChatMessage], sampling: Sampling, tools: Sequence[Tool] = ()) -> Reply:
        asked = [self.model, [dict(message) for message in messages], sampling.max_tokens, list(tools)]
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        if (line := self._kept.get(key)) is not None:
            return _reply(line)
        reply = self.client.reply(messages, sampling, tools)
        calls = [{"name": call.name, "arguments": call.arguments} for call in reply.calls]
        with self._lock:
            line = {"key": key, "text": reply.text, "calls": calls, "ended": reply.ended} | thought_json(reply)
            append_line(self.file, line, flush=True)
        return reply


def _reply(line: Mapping[str, Any]) -> Reply:
    calls = tuple(Call(call["name"], call["arguments"]) for call in line["calls"])
    return Reply(str(line["text"]), calls, bool(line["ended"]), thought=str(line.get("reasoning_content", "")))


@dataclass(frozen=True, slots=True)
class EndpointModel:
    """A model behind an address of the user's, as a client of whole answers."""

    endpoint: ChatEndpoint

    def reply(self, messages: Sequence[ChatMessage], sampling: Sampling, tools: Sequence[Tool] = ()) -> Reply:
        body = request_body(self.endpoint.address.model, messages, sampling, tools)
        return reply_of(self.endpoint.ask(body), self.endpoint.name)


Replies = Callable[[Sequence[Question], Callable[[int], None]], Sequence[Reply]]


@dataclass(frozen=True, slots=True)
class OldAndNew:
    """The answerer of a migration. The old model stands in the place of the base, the new one is the tuned model."""

    old: EndpointAnswerer
    new: Replies

    models: tuple[ModelKey, ...] = ("base", "tuned")

    def reference(self, conversation: Conversation, message: int) -> Reference:
        """As data, and without its thought, which neither side's answers hold."""
        return self.old.reference(conversation, message)

    def replies(
        self, model: ModelKey, questions: Sequence[Question], advance: Callable[[int], None]
    ) -> Sequence[Reply]:
        return self.old.replies("base", questions, advance) if model == "base" else self.new(questions, advance)

    def losses(self, model: ModelKey) -> None:
        """The old side tells no probabilities, so neither counts."""
        return


def local_replies(run: Run, contest: Contest) -> Replies:
    """The new model, loaded here. Raises: ConfigError, MissingDependency."""
    from trainer.inference.evaluation.local_model import LocalAnswerer
    from trainer.inference.local import TunedModel

    budget = run.config().memory.token_budget
    assert isinstance(budget, int)  # a run's config is resolved
    answerer = LocalAnswerer(TunedModel(run), (), contest.max_new_tokens, budget, None)
    return lambda questions, advance: answerer.replies("tuned", questions, advance)


def endpoint_replies(client: ReplyClient, contest: Contest) -> Replies:
    """The new model behind an endpoint."""
    answerer = EndpointAnswerer({"tuned": client}, contest.max_new_tokens)
    return lambda questions, advance: answerer.replies("tuned", questions, advance)


def _sum(amounts: Sequence[float | None]) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None
