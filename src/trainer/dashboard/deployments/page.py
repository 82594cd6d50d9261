"""Deployments: every run's endpoints with their cost, a new one by plan and agreement, and everything that bills."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from trainer.backends.choose import choose_service
from trainer.backends.contract import Endpoint
from trainer.backends.http import hurried
from trainer.dashboard.deployments.bills import Bills, Cleanup, Named, read_bills
from trainer.dashboard.deployments.deploying import Deployments, options_of, takes_adapters
from trainer.dashboard.playground.sources import known_endpoints
from trainer.dashboard.run import Tab, leads_to, run_of
from trainer.errors import ConfigError, TrainerError
from trainer.kinds import executes_here, is_service
from trainer.runs import Run, list_runs
from trainer.runs.ledger import Ledger
from trainer.web.app import form_of, redirect, render, studio_of
from trainer.web.routes import Access, Link, Route

SERVICE_OPTIONS = ("name", "checkpoint", "sku", "capacity")  # of a service that keeps the weights
MACHINE_OPTIONS = ("name", "checkpoint", "mode", "instance_type", "instance_count")


@dataclass
class DeploymentPages:
    """State of one server's deployment pages."""

    deployments: Deployments
    cleanup: Cleanup


@cache
def deployment_pages(root: Path) -> DeploymentPages:
    """The deployment pages over a folder of runs."""
    return DeploymentPages(Deployments(root), Cleanup(root))


@dataclass(frozen=True, slots=True)
class Deployed:
    """A run with an endpoint of it."""

    run: Run
    endpoint: Endpoint

    @property
    def named(self) -> Named:
        """Its names in addresses and forms."""
        return Named(self.run.name, self.endpoint.thing.identity)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the service deletes it by itself; None where that is not certain."""
        if not self.endpoint.deletes_at:
            return None
        return (datetime.fromisoformat(self.endpoint.deletes_at) - datetime.now(UTC)).total_seconds()


def index(request: Request) -> Response:
    """All deployments by the ledgers, runs that can be deployed, and everything that bills."""
    return render(request, "deployments.html.jinja", title="Deployments", **_list_values(request, asks=False))


def refresh(request: Request) -> Response:
    """The same list as the services report it now; a part of the page."""
    return render(request, "deployments_list.html.jinja", **_list_values(request, asks=True))


def run_page(request: Request) -> Response:
    """A run's endpoints, the progress of the one in the making, and the form for a new one."""
    run, state = run_of(request), _state(request)
    root = studio_of(request).root
    deployed, notes = _deployed([run], asks=False)
    is_local = executes_here(run.backend)
    others = [other.name for other in list_runs(root) if takes_adapters(other.backend)] if is_local else []
    return render(
        request,
        "deployment.html.jinja",
        title=f"Deployments · {run.name}",
        run=run,
        checkpoint=request.query_params.get("checkpoint", "")[:100],
        deployed=deployed,
        notes=notes,
        others=others,
        is_local=is_local,
        on_machines=not is_service(run.backend),
        progress=state.deployments.state(run),
    )


def plan(request: Request) -> Response:
    """A deployment's facts and price, to be agreed to; a part of the page."""
    run, form = run_of(request), form_of(request)
    names = SERVICE_OPTIONS if is_service(run.backend) else MACHINE_OPTIONS
    try:
        options = options_of(**{name: str(form.get(name, "")) for name in names})
        with hurried():
            planned = _state(request).deployments.plan(run, str(form.get("where", "")), options)
    except TrainerError as error:
        return render(request, "deployment_plan.html.jinja", run=run, planned=None, problems=list(error.problems))
    return render(request, "deployment_plan.html.jinja", run=run, planned=planned, problems=[])


def deploy(request: Request) -> Response:
    """Make the deployment that was agreed to, and show its progress."""
    run, form = run_of(request), form_of(request)
    _state(request).deployments.agree(run, str(form.get("digest", "")), form.get("settled") == "on")
    return redirect(request, f"/deployments/run/{run.name}")


def progress(request: Request) -> Response:
    """Progress of a deployment; a part of the page."""
    run = run_of(request)
    return render(request, "deployment_progress.html.jinja", run=run, progress=_state(request).deployments.state(run))


def key(request: Request) -> Response:
    """The key of an endpoint, on request alone; a part of the page."""
    run, named = run_of(request), Named.of(form_of(request))
    things = [endpoint.thing for endpoint in known_endpoints(run)]
    thing = next((thing for thing in things if named == (run.name, thing.identity)), None)
    if thing is None:
        raise ConfigError(f"{named or 'an endpoint'}: is not found, expected one of the list; reload the page")
    service = choose_service(thing.backend)
    assert service is not None, "nothing on this machine stands in a ledger"
    with hurried():
        found = service.key(run, thing)
    return render(request, "deployment_key.html.jinja", key=found)


def confirm(request: Request) -> Response:
    """Each thing that bills, or the one that the address names, to agree to its removal once."""
    values = _bill_values(request)
    named = values["named"]
    title = f"Remove {named.identity.key[:80]}" if named else "Everything that still bills"
    return render(request, "bills.html.jinja", title=title, **values)


def remove(request: Request) -> Response:
    """Remove everything that was listed."""
    form = form_of(request)
    _state(request).cleanup.begin(str(form.get("digest", "")), Named.of(form))
    return redirect(request, "/deployments/bills")


def removal(request: Request) -> Response:
    """Progress and results of the removal; a part of the page."""
    return render(request, "bills_progress.html.jinja", **_bill_values(request))


def _list_values(request: Request, asks: bool) -> dict[str, Any]:
    runs = list_runs(studio_of(request).root)
    deployed, notes = _deployed(runs, asks)
    names = {each.run.name for each in deployed}
    ready = [run for run in reversed(runs) if run.state == "succeeded" and run.name not in names]
    return {"deployed": deployed, "notes": notes, "ready": ready, "asked": asks, "bills": _bills(request)}


def _deployed(runs: Sequence[Run], asks: bool) -> tuple[list[Deployed], list[str]]:
    """The endpoints of the runs; a run that cannot be read or asked becomes a note, and hides no other."""
    found, notes = list[Deployed](), list[str]()
    for run in runs:
        try:
            endpoints = _asked(run, notes) if asks else known_endpoints(run)
            found += [Deployed(run, endpoint) for endpoint in endpoints]
        except TrainerError as error:
            notes.append(f"{run.name}: {error}")
    return found, notes


def _asked(run: Run, notes: list[str]) -> list[Endpoint]:
    """The endpoints as the services report them; those of a service that does not answer as the ledger has them."""
    kinds = sorted({entry.thing.backend for entry in Ledger(run.path).open() if entry.thing.kind == "deployment"})
    found: list[Endpoint] = []
    for kind in kinds:
        service, said = choose_service(kind), list[str]()
        assert service is not None, "nothing on this machine stands in a ledger"
        try:
            with hurried():
                found += service.endpoints(run, said.append)
            notes += said
        except TrainerError as error:
            notes.append(f"{run.name}: {error}")
            found += service.known_endpoints(run)
    return found


def _bills(request: Request) -> Bills:
    return read_bills(studio_of(request).root)


def _bill_values(request: Request) -> dict[str, Any]:
    named = Named.of(request.query_params)
    return {"bills": _bills(request).only(named), "cleanup": _state(request).cleanup.state(), "named": named}


def _state(request: Request) -> DeploymentPages:
    return deployment_pages(studio_of(request).root.resolve())


LINK = Link("Deployments", "/deployments")
TAB = Tab("Deployments", "deployments")
ROUTES = (
    Route("/runs/{name}/deployments", leads_to("/deployments/run"), Access.PAGE),
    Route("/deployments", index, Access.PAGE),
    Route("/deployments/refresh", refresh, Access.ACTION),
    Route("/deployments/bills", confirm, Access.PAGE),
    Route("/deployments/bills/remove", remove, Access.ACTION),
    Route("/deployments/bills/progress", removal, Access.PAGE),
    Route("/deployments/run/{name}", run_page, Access.PAGE),
    Route("/deployments/run/{name}/plan", plan, Access.ACTION),
    Route("/deployments/run/{name}/deploy", deploy, Access.ACTION),
    Route("/deployments/run/{name}/progress", progress, Access.PAGE),
    Route("/deployments/run/{name}/key", key, Access.ACTION),
)
