"""The frame of a run's page, its head and tabs, and the first tab: everything that the run was made from."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from trainer.backends.choose import choose
from trainer.backends.contract import Control
from trainer.errors import ConfigError
from trainer.kinds import executes_here
from trainer.runs import Run, files
from trainer.runs.collection import list_folders, run_below
from trainer.runs.damage import readable_manifest
from trainer.runs.ledger import NAME as LEDGER
from trainer.runs.ledger import Ledger
from trainer.runs.lifecycle import failed_gate, last_output, pending_note
from trainer.runs.manifest import NAME as MANIFEST
from trainer.runs.progress import seconds_left
from trainer.runs.results import COLUMNS, last_values
from trainer.runs.run import CONFIG, OUTPUT
from trainer.runs.summary import LOOKED_AT, Summary
from trainer.web.app import render, render_text, studio_of
from trainer.web.attendance import ATTENDANCE
from trainer.web.problems import Problem
from trainer.web.routes import Access, Route
from trainer.web.streaming import EventStream, Feed, RenderedPart, Together, cursors, digest_of, state_of

HEAD = "run-head"
NEW_RUN = "/new"
SHOWN_BY_HEAD = (*LOOKED_AT, "request.json", "report/report.json", OUTPUT)


@dataclass(frozen=True, slots=True)
class Tab:
    """A tab of a run's page, at `/runs/RUN/name`; the first one has no name."""

    title: str
    name: str = ""


TABS: list[Tab] = []  # of all page modules, in their order; the package fills it


def run_of(request: Request) -> Run:
    """The run that the address names. Raises: Problem, where there is none of exactly that name."""
    name = request.path_params["name"]
    if (run := run_below(name, studio_of(request).root)) is None:
        raise Problem(404, f"run {name[:100]!r}: there is no such run; see the list of runs")
    return run


def leads_to(page: str) -> Callable[[Request], Response]:
    """Make the handler of a tab that leads to the run's place on another page."""

    def tab(request: Request) -> Response:
        return RedirectResponse(f"{page}/{quote(run_of(request).name, safe='')}", 303)

    return tab


def path_of(run: Run, *parts: str) -> str:
    """The address of a run's page, or of something below it."""
    return "/".join(["/runs", *(quote(part, safe="") for part in (run.name, *parts))])


def run_page(
    request: Request,
    run: Run,
    tab: Tab,
    template: str,
    /,
    *,
    stream: str = "",
    query: str = "",
    cursor: str = "",
    **values: Any,
) -> Response:
    """A tab in the run's frame. `stream` and `query` are the tab's own stream, `cursor` is that of its feed."""
    head = head_of(request, run)
    tabs = [(each.title, path_of(run, *filter(None, [each.name])), each == tab) for each in TABS]
    known = digest_of(head)
    address = f"{stream}?{query}{'&' if query else ''}" if stream else f"{path_of(run)}/live?"
    connect = f"{address}cursor={cursors(known, cursor) if stream else known}"
    frame = {"query": query, "run": run, "tabs": tabs, "connect": connect, "head": Markup(head)}  # noqa: S704  # rendered with autoescape
    return render(request, template, title=f"{run.name}, {tab.title.lower()}", **(frame | values))


def run_stream(request: Request, run: Run, *feeds: Feed) -> EventStream:
    """The stream of a tab: the run's head first, then the tab's own feeds."""
    head = RenderedPart(HEAD, ("head", run.path), lambda: _state_of(run), lambda: head_of(request, run))
    return studio_of(request).streams.open(request, Together(head, *feeds) if feeds else head)


def _state_of(run: Run) -> Hashable:
    """A process may end without a change of any file. A service is asked in the background."""
    ATTENDANCE.look(run, is_awaited=True)
    return (
        state_of(run.path / name for name in SHOWN_BY_HEAD),
        run.path.is_dir() and run.state,
        ATTENDANCE.problems.get(run.path),
    )


def head_of(request: Request, run: Run) -> str:
    """State, progress, what is wrong and what can be done, as HTML; of a deleted run that it is."""
    try:
        html = _head_of(request, run)
    except Exception:  # whatever a file that is being deleted leads to
        if run.path.is_dir():
            raise
        html = ""
    if run_below(run.name, run.path.parent) is None:
        return render_text(request, "run_gone.html.jinja", name=run.name)
    return html


def _head_of(request: Request, run: Run) -> str:
    status, summary = run.status(), Summary.of(run)
    last = last_values(run.path / "results.csv", COLUMNS)
    return render_text(
        request,
        "run_head.html.jinja",
        run=run,
        here=path_of(run),
        status=status,
        summary=summary,
        left=seconds_left(run, last.get("step", 0.0)) if summary.is_active else None,
        last=last,
        verdict=run.verdict_sentence(),
        remarks=run.remarks(),
        failed_gate=failed_gate(run),
        note=pending_note(run),
        asked=run.asked(),
        stale=ATTENDANCE.problems.get(run.path),
        output=last_output(run),
        bills=_bills(run),
        bills_nothing=executes_here(run.backend),
        actions=_actions(run),
        further=_new_run(request, run, status["state"]),
    )


def _actions(run: Run) -> Sequence[tuple[Control, str]]:
    """Controls that the run's state allows, each with what it costs or loses."""
    backend = choose(run.backend, asks=False)
    return [(control, words) for control in get_args(Control) if (words := backend.consequence(run, control))]


def _new_run(request: Request, run: Run, state: str) -> str:
    """Address of the action that drafts a run to train this one further; empty without an adapter or such a page."""
    has_page = any(link.path == NEW_RUN for link in studio_of(request).navigation)
    has_adapter = (run.adapter / "adapter_model.safetensors").is_file()
    return f"{NEW_RUN}/from/{quote(run.name, safe='')}" if has_page and state == "succeeded" and has_adapter else ""


def _bills(run: Run) -> Sequence[str]:
    try:
        billing = Ledger(run.path).billing()
    except ConfigError:
        return [f"{LEDGER} is damaged: look at the service for what still bills"]
    return [
        f"{entry.thing.kind} {entry.thing.key}: {entry.thing.bills}; delete it with: {entry.thing.delete_with}"
        for entry in billing
    ]


def live(request: Request) -> EventStream:
    """The head of the run, for tabs that do not change by themselves."""
    return run_stream(request, run_of(request))


def show(request: Request) -> Response:
    """Everything resolved: origin, settings, versions, and the runs before and after this one."""
    run = run_of(request)
    return run_page(
        request,
        run,
        TAB,
        "run_details.html.jinja",
        facts=_facts(run),
        manifest=readable_manifest(run),
        settings=settings_of(run),
        lineage=lineage_of(run),
        commands=[f"trainer show {run.path}", f"trainer logs {run.path} --follow"],
    )


def _facts(run: Run) -> Mapping[str, object]:
    """Facts that the backend puts first, without asking a service."""
    backend = choose(run.backend, asks=False)
    return {"executes": backend.where, **{name: value for name, value in backend.facts(run).items() if value}}


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting as it was resolved."""

    name: str
    value: str
    is_default: bool


def settings_of(run: Run) -> Sequence[Setting] | str:
    """Every setting that means something to the run's backend; or why they cannot be read."""
    import yaml

    from trainer.config.conflicts import is_default

    try:
        config = run.config()
        written = yaml.safe_load((run.path / CONFIG).read_text(encoding="utf-8"))
    except (ConfigError, OSError, yaml.YAMLError) as error:
        return str(error)
    return [
        Setting(f"{section}.{name}", _as_written(value), is_default(config, section, name))
        for section, fields in written.items()
        for name, value in fields.items()
    ]


def _as_written(value: object) -> str:
    import yaml

    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")


@dataclass(frozen=True, slots=True)
class Lineage:
    """Runs that this one trains further, the nearest first, each with the step it began from; and those after it."""

    before: Sequence[tuple[str, int | None]]
    after: Sequence[str]


def lineage_of(run: Run) -> Lineage:
    """The chain of parents as the manifests have it, and the runs whose parent this one is."""
    parents = {folder.name: _parent_of(folder) for folder in list_folders(run.path.parent)}
    return Lineage(list(_ancestors(run.name, parents)), sorted(_children(run.name, parents)))


def _ancestors(name: str, parents: Mapping[str, Any]) -> Iterator[tuple[str, int | None]]:
    seen = {name}
    while (found := parents.get(name)) is not None and found[0] not in seen:
        yield found
        name = found[0]
        seen.add(name)


def _children(name: str, parents: Mapping[str, Any]) -> Iterator[str]:
    return (child for child, parent in parents.items() if parent is not None and parent[0] == name)


def _parent_of(folder: Path) -> tuple[str, int | None] | None:
    parent = files.read_record(folder / MANIFEST).get("parent")
    if not isinstance(parent, dict) or not isinstance(parent.get("run"), str):
        return None
    step = parent.get("step")
    return parent["run"], step if isinstance(step, int) else None


TAB = Tab("Details")
ROUTES = (
    Route("/runs/{name}", show, Access.PAGE),
    Route("/runs/{name}/live", live, Access.STREAM),
)
