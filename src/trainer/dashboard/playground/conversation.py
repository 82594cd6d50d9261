"""Parts of a playground's conversation, which an answer or a stream of the server puts into the page."""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from trainer.dashboard.playground.forms import open_calls
from trainer.dashboard.playground.rounds import Round
from trainer.dashboard.run import run_of
from trainer.errors import TrainerError
from trainer.runs import Run
from trainer.web.app import json_text, studio_of
from trainer.web.streaming import Event, event_text, partial


def here_of(run: Run) -> str:
    """The address of a run's playground."""
    return f"/playground/{quote(run.name, safe='')}"


def parts_of(request: Request) -> Any:
    """The macros of the page's parts."""
    return studio_of(request).templates.environment.get_template("playground_parts.html.jinja").module


def swapped(request: Request, status: int = 200, /, **parts: str) -> Response:
    """Parts of the page by their ids, each in the place of the one that is there."""
    return HTMLResponse("".join(partial(name, html, "outerHTML").data for name, html in parts.items()), status)


def refused(request: Request, error: TrainerError) -> Response:
    """The reason beside the question, which stays as it is."""
    return swapped(request, 400, problem=parts_of(request).problem(str(error)))


def card_of(request: Request, run: Run, found: Round, letter: str, is_over: bool = False) -> Markup:
    """An answer as far as it has come; once all have ended, with what can be done with it."""
    side, title = found.sides[letter], f"Answer {letter.upper()}"
    if not found.is_hidden:
        title = f"Tuned: {run.name}" if side.which == "tuned" else f"Base: {run.base_name() or 'the base'}"
    at, has_next = f"{here_of(run)}/rounds/{found.id}", is_over and side.ended and not found.is_hidden
    card: Markup = parts_of(request).answer(at, letter, side, title, found.is_hidden, has_next)
    return card


async def events_of(request: Request, run: Run, found: Round | None) -> AsyncGenerator[str]:
    """The stream of a question's answers, which ends by itself; None of one that is no longer known."""
    parts, broke = parts_of(request), "the connection broke"
    if found is None:
        yield event_text(partial("problem", parts.problem(f"{broke}, and the answers are lost; ask again")))
    elif found.has_begun:
        found.stop(broke)
    else:
        async for event in found.events():
            letter = event["side"]
            if "text" in event or "thought" in event:
                yield event_text(Event(json_text(event), "said"))
            elif "call" in event:
                yield event_text(partial(f"calls-{letter}", parts.one_call(event["call"]), "beforeend"))
            else:
                yield event_text(partial(f"side-{letter}", card_of(request, run, found, letter)))
    if found is not None:
        for letter in found.sides:
            yield event_text(partial(f"side-{letter}", card_of(request, run, found, letter, is_over=True)))
        if found.is_hidden and found.both_answered:
            vote = parts.after(parts.vote(f"{here_of(run)}/rounds/{found.id}"))
            yield event_text(partial("after", vote, "outerHTML"))
    yield event_text(partial("acts", parts.acts(here_of(run), "", True)))
    yield event_text(Event("", "over"))


def said_parts(request: Request, said: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Parts of a conversation that has come so far."""
    parts, calls = parts_of(request), open_calls(said)
    label = f"Result of {calls[0]['function']['name']}, in place of the tool" if calls else "Next question"
    return {
        "conversation": parts.conversation(said, json.dumps(said, ensure_ascii=False)),
        "asked": parts.question(label if said else "Question"),
        "acts": parts.acts(here_of(run_of(request)), "", bool(said)),
    }
