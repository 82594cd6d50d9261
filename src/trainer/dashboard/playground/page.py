"""The playground: base and tuned model side by side, blind votes, calls as code, and good answers as new rows."""

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from trainer.backends.http import hurried
from trainer.dashboard.datasets.edits import append_to_set
from trainer.dashboard.datasets.files import DataSets, id_of
from trainer.dashboard.playground.code import code_for
from trainer.dashboard.playground.conversation import (
    card_of,
    events_of,
    here_of,
    parts_of,
    refused,
    said_parts,
    swapped,
)
from trainer.dashboard.playground.forms import (
    answer_message,
    are_calls,
    are_messages,
    asked_of,
    messages_of,
    open_calls,
    pretty,
    tools_of,
)
from trainer.dashboard.playground.local_model import LocalModels
from trainer.dashboard.playground.rounds import Round, Rounds, Which, is_id
from trainer.dashboard.playground.sources import LOCAL, client_of, sources_of, target_of
from trainer.dashboard.playground.votes import Vote, Votes
from trainer.dashboard.run import Tab, leads_to, run_of
from trainer.data.strict_json import parse
from trainer.errors import ConfigError, TrainerError
from trainer.inference.client import ChatClient, Sampling
from trainer.inference.dialogue import training_row, with_thought
from trainer.runs import Run, list_runs
from trainer.runs.run import now
from trainer.web.app import form_of, render, studio_of
from trainer.web.problems import Problem
from trainer.web.routes import Access, Link, Route

MODELS: dict[str, tuple[Which, ...]] = {"both": ("base", "tuned"), "tuned": ("tuned",), "base": ("base",)}


@dataclass
class Playground:
    """State of one server's playground: the model that is loaded, and the questions asked last."""

    root: Path
    models: LocalModels = field(default_factory=LocalModels)
    rounds: Rounds = field(default_factory=Rounds)


@cache
def playground_of(root: Path) -> Playground:
    """The playground over a folder of runs."""
    return Playground(root)


def index(request: Request) -> Response:
    """Runs whose model can answer."""
    runs = [run for run in reversed(list_runs(studio_of(request).root)) if run.state == "succeeded"]
    return render(request, "playground_runs.html.jinja", title="Playground", runs=runs)


def page(request: Request) -> Response:
    """A run's playground, prefilled from its training data."""
    run, state = run_of(request), _state(request)
    found, unread, manifest = sources_of(run), list[str](), None
    try:
        manifest = run.find_manifest()
    except ConfigError as error:
        unread = list(error.problems)
    return render(
        request,
        "playground.html.jinja",
        title=f"Playground · {run.name}",
        here=here_of(run),
        sources=found.found,
        notes=list(dict.fromkeys((*found.notes, *unread))),
        system=(manifest.system_prompt or "") if manifest else "",
        tools=pretty(list(manifest.tools)) if manifest and manifest.tools else "",
        defaults=Sampling(),
        tally=Votes(state.root, run).tally(),
        **_model_values(state, run),
    )


def model(request: Request) -> Response:
    """State of the model on this machine; a part of the page."""
    return render(request, "playground_model.html.jinja", **_model_values(_state(request), run_of(request)))


def load(request: Request) -> Response:
    """Load the run's model in a process of its own; another run's is ended."""
    run, state = run_of(request), _state(request)
    state.models.load(run)
    return render(request, "playground_model.html.jinja", **_model_values(state, run))


def unload(request: Request) -> Response:
    """End the model's process."""
    run, state = run_of(request), _state(request)
    state.models.unload()
    return render(request, "playground_model.html.jinja", **_model_values(state, run))


def ask(request: Request) -> Response:
    """Begin a question; its answers are streamed from the address of its id."""
    run, state, form = run_of(request), _state(request), form_of(request)
    try:
        asked, source = asked_of(form), str(form.get("source", LOCAL))
        wanted = MODELS.get(str(form.get("models")), MODELS["both"])
        with hurried():
            clients: list[tuple[Which, ChatClient]] = [
                (which, client_of(run, source, which == "base", state.models)) for which in wanted
            ]
    except TrainerError as error:
        return refused(request, error)
    parts = parts_of(request)
    if open_calls(asked.said):  # the next call is answered first
        return swapped(request, problem=parts.problem(), **said_parts(request, asked.said))
    is_blind = form.get("blind") == "on" and len(clients) == 2
    made = state.rounds.begin(run.name, clients, asked.messages, asked.sampling, asked.tools, is_blind)
    at = f"{here_of(run)}/rounds/{made.id}"
    return swapped(
        request,
        problem=parts.problem(),
        after=parts.after(),
        answers=parts.answers(at, [card_of(request, run, made, letter) for letter in made.sides], True),
        acts=parts.acts(here_of(run), at, True),
    )


async def answers(request: Request) -> Response:
    """Answers of a question as they come. Once: whoever connects again gets what came until the connection broke."""
    run, round_id = run_of(request), request.path_params["id"]
    if not is_id(round_id):
        raise Problem(404, f"{round_id[:40]!r}: is no question of this page; ask again")
    found = _state(request).rounds.find(run.name, round_id)
    return StreamingResponse(events_of(request, run, found), media_type="text/event-stream")


def stop(request: Request) -> Response:
    """Stop the answers of a question; its stream then ends."""
    found = _state(request).rounds.find(run_of(request).name, request.path_params["id"])
    if found is not None:
        found.stop()
    return Response(status_code=204)


def vote(request: Request) -> Response:
    """Count a vote between two hidden answers, and say which was which."""
    run, state, choice = run_of(request), _state(request), str(form_of(request).get("choice"))
    found = state.rounds.find(run.name, request.path_params["id"])
    if found is None or not found.is_blind or not found.both_answered or choice not in ("a", "b", "same"):
        words = "vote: is on no pair of whole answers that is known here; ask again, and vote then"
        return refused(request, ConfigError(words))
    if found.has_vote:
        return refused(request, ConfigError("vote: this pair has one already; ask another question"))
    found.has_vote = True
    votes, chosen = Votes(state.root, run), "same" if choice == "same" else found.sides[choice].which
    tuned, base = found.answer_of("tuned"), found.answer_of("base")
    votes.add(Vote(now(), chosen, found.system, found.question, tuned, base))
    cards = {f"side-{letter}": card_of(request, run, found, letter, is_over=True) for letter in found.sides}
    parts = parts_of(request)
    return swapped(request, tally=parts.tally(votes.tally().sentence), after=parts.after(), **cards)


def proceed(request: Request) -> Response:
    """Continue the conversation with one of the answers."""
    run = run_of(request)
    try:
        found, message = _chosen(request, run)
    except TrainerError as error:
        return refused(request, error)
    parts = parts_of(request)
    empty = {"answers": parts.answers("", (), False), "after": parts.after(), "problem": parts.problem()}
    return swapped(request, **empty, **said_parts(request, [*found.said, message]))


def begin_again(request: Request) -> Response:
    """An empty conversation; parts of the page."""
    parts = parts_of(request)
    empty = {"answers": parts.answers("", (), False), "after": parts.after(), "problem": parts.problem()}
    return swapped(request, **empty, **said_parts(request, []))


def edit(request: Request) -> Response:
    """The form that keeps an answer, edited, as a row of a data set."""
    run = run_of(request)
    try:
        found, message = _chosen(request, run)
    except TrainerError as error:
        return refused(request, error)
    parts, before = parts_of(request), json.dumps(found.said, ensure_ascii=False)
    calls = pretty(message["tool_calls"]) if "tool_calls" in message else ""
    text, thought = message.get("content", ""), message.get("reasoning_content", "")
    box = parts.edit(here_of(run), before, text, thought, calls, f"{run.name}-answers")
    return swapped(request, after=parts.after(box))


def _chosen(request: Request, run: Run) -> tuple[Round, dict[str, Any]]:
    """The question of the address, and the chosen answer as its next message. Raises: ConfigError."""
    found, letter = _state(request).rounds.find(run.name, request.path_params["id"]), form_of(request).get("side")
    if found is None or found.is_hidden or (side := found.sides.get(str(letter))) is None or not side.ended:
        raise ConfigError("side: is no whole answer that is known here; ask again")
    return found, answer_message(found.said, side.text, side.calls) | with_thought(side.thought)


def code(request: Request) -> Response:
    """The question as curl and Python send it; a part of the page."""
    run, form = run_of(request), form_of(request)
    if "question" in form and not str(form["question"]).strip():
        form = FormData([*(pair for pair in form.multi_items() if pair[0] != "question"), ("question", "…")])
    try:
        asked, target = asked_of(form), target_of(run, str(form.get("source", LOCAL)))
    except TrainerError as error:
        return render(request, "playground_code.html.jinja", 400, problem=str(error), code=None, before="")
    made = code_for(target, asked.messages, asked.sampling, asked.tools)
    return render(request, "playground_code.html.jinja", problem="", code=made, before=target.before, target=target)


def keep(request: Request) -> Response:
    """Append a conversation with its answer, as it was edited, to a named data set, if the rules of data take it."""
    state, form = _state(request), form_of(request)
    problems: list[str] = []
    try:
        said = _kept(form) if "before" in form else messages_of(form, problems)
        tools = tools_of(form, problems)
        if problems or said[-1]["role"] != "assistant":
            raise ConfigError(*(problems or ["messages: end without an answer, expected one; ask first"]))
        row = training_row(str(form.get("system", "")).strip() or None, said, tools)
        sets = DataSets(state.root)
        file = append_to_set(sets.own, str(form.get("set", "")).strip(), row, sets.used())
    except TrainerError as error:
        return swapped(request, 400, kept=parts_of(request).kept(problem=str(error)))
    return swapped(request, kept=parts_of(request).kept(f"/data/{id_of(file)}", file.name[13:]))


def _kept(form: FormData) -> list[dict[str, Any]]:
    """A conversation with its answer as it was edited. Raises: ConfigError, where its calls are no tool calls."""
    text, calls = str(form.get("answer", "")).strip(), str(form.get("calls", "")).strip()
    answer = {"role": "assistant", **({"content": text} if text or not calls else {})}
    answer |= with_thought(str(form.get("thought", "")))
    before, called = parse(str(form["before"])), parse(calls) if calls else []
    if not are_calls(called):
        form_of_calls = '[{"id": "…", "type": "function", "function": {"name": "…", "arguments": "…"}}]'
        raise ConfigError(f"tool calls: are no list of calls, expected {form_of_calls}; correct them")
    if not are_messages(before):
        raise ConfigError("messages: are no conversation of this page, expected one; ask again")
    return [*before, answer | ({"tool_calls": called} if calls else {})]


def _model_values(state: Playground, run: Run) -> dict[str, Any]:
    loaded, other = state.models.of(run), state.models.loaded
    return {
        "run": run,
        "loaded": loaded,
        "other": other.run.name if other is not None and loaded is None else None,
        "idle_minutes": state.models.idle_seconds / 60,
    }


def _state(request: Request) -> Playground:
    return playground_of(studio_of(request).root.resolve())


LINK = Link("Playground", "/playground")
TAB = Tab("Playground", "playground")
ROUTES = (
    Route("/runs/{name}/playground", leads_to("/playground"), Access.PAGE),
    Route("/playground", index, Access.PAGE),
    Route("/playground/{name}", page, Access.PAGE),
    Route("/playground/{name}/model", model, Access.PAGE),
    Route("/playground/{name}/load", load, Access.ACTION),
    Route("/playground/{name}/unload", unload, Access.ACTION),
    Route("/playground/{name}/rounds", ask, Access.ACTION),
    Route("/playground/{name}/rounds/{id}/answers", answers, Access.STREAM),
    Route("/playground/{name}/rounds/{id}/stop", stop, Access.ACTION),
    Route("/playground/{name}/rounds/{id}/vote", vote, Access.ACTION),
    Route("/playground/{name}/rounds/{id}/continue", proceed, Access.ACTION),
    Route("/playground/{name}/rounds/{id}/edit", edit, Access.ACTION),
    Route("/playground/{name}/conversation", begin_again, Access.PAGE),
    Route("/playground/{name}/code", code, Access.ACTION),
    Route("/playground/{name}/rows", keep, Access.ACTION),
)
