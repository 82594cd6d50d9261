"""Commands around what is deployed: make it, list it, find what still bills, remove it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from trainer.cli.backends import agree, print_verdict, service_for, settle, show_plan
from trainer.cli.console import Debug, Format, Output, Root, RunName, command, err, out, say
from trainer.errors import Attempts, ConfigError, TrainerError
from trainer.runs import Run, find_run, list_runs
from trainer.runs.ledger import Ledger
from trainer.runs.lifecycle import refuse_failed_gate

if TYPE_CHECKING:
    from trainer.backends.contract import Deploys, Endpoint

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before something that costs money or deletes.")]
Where = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="Where to, for a run of this machine.")
]

IgnoreGate = Annotated[bool, typer.Option("--ignore-gate", help="Also where the run's evaluation.gate does not hold.")]


@command
def register(
    run: RunName,
    name: Annotated[str | None, typer.Option(help="The model's name; default: the run's.")] = None,
    config: Where = None,
    ignore_gate: IgnoreGate = False,
    root: Root = Path("runs"),
    output: Output = Format.text,
    debug: Debug = False,
) -> None:
    """Keep a run's adapter as a model of the workspace, with base, hashes and metrics."""
    found = find_run(run, root)
    refuse_failed_gate(found, ignore_gate)
    service, settings = service_for(found, config)
    model = service.register(found, settings, name, say)
    if output is Format.json:
        from trainer.cli.documents.use import Register

        Register(run=found.name, model=model).print()
    else:
        out.print(model, markup=False)


@command
def deploy(
    run: RunName,
    name: Annotated[str | None, typer.Option(help="The endpoint's or deployment's name; default: the run's.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="A checkpoint instead of the result.")] = None,
    mode: Annotated[
        str | None, typer.Option(help="Azure ML: score (the scoring script) or vllm (OpenAI's routes).")
    ] = None,
    sku: Annotated[
        str | None, typer.Option(help="Azure OpenAI: developer, standard, global-standard or data-zone.")
    ] = None,
    capacity: Annotated[int | None, typer.Option(min=1, help="Azure OpenAI: thousands of tokens a minute.")] = None,
    instance_type: Annotated[str | None, typer.Option(help="Azure ML: the machine, e.g. Standard_NC4as_T4_v3.")] = None,
    instance_count: Annotated[int | None, typer.Option(min=1, help="Azure ML: how many of them.")] = None,
    resource: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Azure OpenAI: another resource, as [[SUBSCRIPTION/]GROUP/]ACCOUNT or its id."),
    ] = None,
    copies: Annotated[
        bool, typer.Option("--copy", help="Azure OpenAI: copy the checkpoint to --resource first.")
    ] = False,
    config: Where = None,
    ignore_gate: IgnoreGate = False,
    check: Annotated[bool, typer.Option("--check", help="Verify and quote; create nothing.")] = False,
    yes: Yes = False,
    root: Root = Path("runs"),
    output: Output = Format.text,
    debug: Debug = False,
) -> None:
    """Put a run's model behind an endpoint; what it costs by the hour is said first."""
    from trainer.backends.contract import DeploymentOptions
    from trainer.backends.quote import hold_cap

    found = find_run(run, root)
    service, settings = service_for(found, config)
    options = DeploymentOptions(
        name, checkpoint, sku, capacity, mode, instance_type, instance_count, resource, copies, ignore_gate
    )
    plan = service.plan_deployment(found, settings, options, say)
    show_plan(plan.rows, plan.quote, plan.checks)
    hold_cap(plan.quote, settings.backend.spend_cap)
    if check and output is Format.json:
        from trainer.cli.documents.plans import deploy_check

        deploy_check(plan, settings.backend.spend_cap).print()
        return
    if check:
        print_verdict("ready to deploy", "nothing has been created and nothing bills", plan.doubts)
        return
    settle(plan.doubts)
    agree(f"deploy {found.name} as {plan.name}?", yes)
    with _naming_what_bills([found]):
        endpoint = service.deploy(plan, found, say)
    if output is Format.json:
        from trainer.cli.documents.plans import Deploy, endpoint_of

        Deploy(endpoint=endpoint_of(endpoint, found.name)).print()
    else:
        out.print(f"endpoint {endpoint.name}  {endpoint.state}  {endpoint.url}", markup=False)
    say(f"try it:    trainer chat {found.path} --endpoint {endpoint.name}")
    say(f"remove it: trainer teardown {found.path}")


@command
def endpoints(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Only this run's.")] = None,
    root: Root = Path("runs"),
    output: Output = Format.text,
    debug: Debug = False,
) -> None:
    """List what is deployed, its cost, and everything else that was created and still bills."""
    attempts = Attempts()
    every_run = [find_run(run, root)] if run else list_runs(root)
    runs = _with_ledger(every_run, attempts)
    deployed: list[tuple[Run, Endpoint]] = []
    unreachable: list[str] = []
    for found in runs:
        for kind in _kinds_of(found):
            try:
                deployed += [(found, endpoint) for endpoint in _service(kind).endpoints(found, say)]
            except TrainerError as error:  # what the ledgers say of all runs is shown still
                err.print(f"[yellow]{escape(found.name)}[/]: {escape(str(error))}")
                unreachable.append(found.name)
    if output is Format.json:
        _print_document(runs, deployed, unreachable, [run.name for run in every_run if run not in runs])
        attempts.end()
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("endpoint", "run", "state", "model", "cost", "until"):
        table.add_column(column)
    for found, endpoint in deployed:
        row = (endpoint.name, found.name, endpoint.state, endpoint.model, endpoint.cost, endpoint.until)
        table.add_row(*map(escape, row))
    out.print(table if table.row_count else "nothing is deployed")
    for line in _billing(runs):
        out.print(line, markup=False)
    attempts.end()


@command
def teardown(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="A run's name or folder.")] = None,
    every_run: Annotated[bool, typer.Option("--all", help="What every run below --root has deployed.")] = False,
    everything: Annotated[
        bool, typer.Option("--everything", help="Also models and uploaded files, not only deployments.")
    ] = False,
    yes: Yes = False,
    root: Root = Path("runs"),
    debug: Debug = False,
) -> None:
    """Delete what a run has deployed, so that it bills no more; its own folder stays."""
    if (run is None) != every_run:
        raise ConfigError("trainer teardown: expected RUN, or --all for every run")
    attempts = Attempts()
    runs = _with_ledger(list_runs(root) if run is None else [find_run(run, root)], attempts)
    concerned = [(found, entry) for found in runs for entry in Ledger(found.path).open()]
    if not concerned:
        attempts.end()
        say("nothing is left to delete: no ledger holds anything that exists")
        return
    for found, entry in concerned:
        say(f"{found.name}: {entry.thing.kind} {entry.thing.key} in {entry.thing.place}  {entry.thing.bills}")
    agree("delete " + ("all of this?" if everything else "what is deployed of this?"), yes)
    with _naming_what_bills(runs):
        for found in runs:
            for kind in _kinds_of(found):  # one that cannot be torn down leaves none of the others billing
                attempts.make(_tear_down, kind, found, everything)
    for line in _billing(runs):
        out.print(line, markup=False)
    attempts.end()


def _print_document(
    runs: list[Run], deployed: "list[tuple[Run, Endpoint]]", unreachable: list[str], damaged: list[str]
) -> None:
    from trainer.cli.documents.plans import Endpoints, endpoint_of
    from trainer.cli.documents.runs import billing

    Endpoints(
        endpoints=[endpoint_of(endpoint, run.name) for run, endpoint in deployed],
        bills=[thing for run in runs for thing in billing(run) or ()],
        unreachable=unreachable,
        damaged=damaged,
    ).print()


def _with_ledger(runs: list[Run], attempts: Attempts) -> list[Run]:
    """The runs whose ledger can be read; the others are named at the end, and stop none of these."""
    return [run for run in runs if attempts.make(Ledger(run.path).entries) is not None]


def _tear_down(kind: str, run: Run, everything: bool) -> None:
    _service(kind).teardown(run, everything, say)


def _kinds_of(run: Run) -> list[str]:
    """The services at which the run has something."""
    return sorted({entry.thing.backend for entry in Ledger(run.path).open()})


def _service(kind: str) -> "Deploys[Any]":
    """The service that a ledger names. Raises: ConfigError, MissingDependency."""
    from trainer.backends.choose import choose_service

    service = choose_service(kind)
    assert service is not None, "nothing on this machine stands in a ledger"
    return service


@contextmanager
def _naming_what_bills(runs: list[Run]) -> Iterator[None]:
    """After Ctrl-C, name what bills on: the service completes what it was asked for."""
    try:
        yield
    except KeyboardInterrupt:
        for line in _billing(runs):
            say(line)
        raise


def _billing(runs: list[Run]) -> Iterator[str]:
    """Lines on the things in the ledgers that exist, or may exist, and bill."""
    for found in runs:
        for entry in Ledger(found.path).billing():
            thing = entry.thing
            known = "" if entry.step == "exists" else " (may exist: an answer was lost)"
            yield f"bills: {thing.kind} {thing.key} of {found.name}{known}: {thing.bills}"
            yield f"       remove it: {thing.delete_with}"
