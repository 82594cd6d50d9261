"""`trainer migrate`: a job of a fine-tuning service, trained again on an open base, and both compared."""

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from trainer.cli.backends import agree, show_plan
from trainer.cli.console import Debug, Root, clean, command, out, print_rows, say
from trainer.cli.train import Yes, rooted, train_as
from trainer.errors import BackendError, ConfigError, ExitCode
from trainer.runs import Run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trainer.config.openai import OpenAIConfig
    from trainer.config.schema import RunConfig
    from trainer.inference.client import ReplyClient
    from trainer.migration.contest import Contest
    from trainer.migration.migrate import Old, OldSide
    from trainer.runs.manifest import Role

GIB = 2**30


@command
def migrate(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A tuned model of the service, or a job: ftjob-ID.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings of the new run, e.g. training.n_epochs=1.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The open model to train: a hub id, a folder, builtin:tiny.")
    ] = None,
    backend: Annotated[
        Literal["local", "azureml"] | None, typer.Option(help="Where it is trained. Default: local.")
    ] = None,
    bases: Annotated[bool, typer.Option("--bases", help="Show the open models that fit, and leave.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="The migration's folder. Default: by SOURCE."),
    ] = None,
    train: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Training rows, where the service hands out none.")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Held-out rows, where the service hands out none.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="A config whose openai section says where SOURCE is."),
    ] = None,
    deployment: Annotated[
        str | None, typer.Option(metavar="NAME", help="On Azure: the deployment that answers as the old model.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask the new model there instead of loading it here.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="The new model's name at the endpoint.")] = None,
    compares: Annotated[
        bool, typer.Option("--compare/--no-compare", help="Ask both models the held-out rows at the end.")
    ] = True,
    check: Annotated[bool, typer.Option("--check", help="Verify and quote everything; create nothing.")] = False,
    cap: Annotated[
        float | None, typer.Option(metavar="USD", min=0, help="The most that training and comparison may cost.")
    ] = None,
    yes: Yes = False,
    root: Root = Path("runs"),
    debug: Debug = False,
) -> int:
    """Move a job of a fine-tuning service to an open model that is yours.

    trainer migrate ft:gpt-4.1-mini-2025-04-14:acme::AbC --base Qwen/Qwen2.5-7B-Instruct

    Fetches its rows, settings and metrics, trains the base with them, and asks old and new the same held-out rows. The
    same command, repeated, goes on where it stopped. Without --base it shows what fits.
    """
    from trainer.migration.folder import Folder
    from trainer.migration.migrate import Old, configure, default_folder, fetch, is_fetched

    old = Old(source, _service(config), deployment)
    files: dict[Role, Path | None] = {"train": train, "validation": validation}
    given = {role: path for role, path in files.items() if path is not None}
    with ExitStack() as stack:
        place = output or default_folder(source)
        folder = Folder(place)
        passing = Folder(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="migrate-"))))
        if (check or bases) and not is_fetched(folder, source, given):  # an earlier call's files serve as they are
            folder = passing
        fetched = fetch(folder, old, given, say)
        for line in fetched.lost:
            say(f"not fetched: {line}")
        if bases or (base is None and not folder.config.exists()):
            _show_bases(fetched)
        if bases:
            return ExitCode.DONE
        into = passing if check and not folder.config.exists() else folder
        fetched = configure(fetched, into, old, base, backend, place.resolve().name)
        settings = rooted(context, _settings(fetched, overrides or []), overrides or [], root)
        wishes = _Wishes(compares, cap, yes, check, endpoint, model)
        return _carry_out(fetched, old, settings, overrides or [], wishes)


@dataclass(frozen=True, slots=True)
class _Wishes:
    """Options for what follows once the old side has been read."""

    compares: bool
    cap: float | None
    yes: bool
    check: bool
    endpoint: str | None
    model: str | None


def _service(config: Path | None) -> "OpenAIConfig":
    """The service of a config, else the one that the environment names."""
    from trainer.cli.init import named_service
    from trainer.config.load import load_config
    from trainer.config.openai import OpenAIConfig

    return OpenAIConfig(service=named_service()) if config is None else load_config(config).openai


def _show_bases(fetched: "OldSide") -> None:
    from trainer.drafts.bases import this_machine
    from trainer.migration.bases import caution, demand_of, fits

    demand, machine = demand_of(fetched.rows["train"]), this_machine()
    rows = [
        (
            fit.base.name,
            f"{fit.base.parameters / 1e9:g} B",
            f"{fit.base.context:,}",
            fit.base.licence + (" (gated)" if fit.base.gated else ""),
            f"{fit.lora_bytes / GIB:,.0f} GiB",
            "-" if fit.qlora_bytes is None else f"{fit.qlora_bytes / GIB:,.0f} GiB",
            "; ".join(fit.against) or "fits",
        )
        for fit in fits(demand, machine)
    ]
    print_rows(("base", "size", "context", "licence", "LoRA", "QLoRA", "these rows, this machine"), rows)
    tools = ", with tool calls" if demand.tools else ""
    say(f"the longest row has about {demand.longest:,} tokens{tools}; memory is an estimate by the number of weights,")
    say("which the check replaces by a plan; another base: any chat model of the hub")
    say(f"size, context, licence and tool calls are {caution()}")


def _settings(fetched: "OldSide", overrides: "Sequence[str]") -> "RunConfig":
    """The config, with held-out rows that were given after it had been written."""
    from trainer.config.load import load_config

    settings = load_config(fetched.folder.config, overrides)
    if fetched.validation is not None and settings.data.validation is None:
        return load_config(fetched.folder.config, [f"data.validation={fetched.validation}", *overrides])
    return settings


def _carry_out(
    fetched: "OldSide", old: "Old", settings: "RunConfig", overrides: "Sequence[str]", wishes: _Wishes
) -> int:
    """Quote, ask, train and compare; each unless an earlier call has."""
    from trainer.migration.migrate import outlook, write_page
    from trainer.runs import find_begun

    run = find_begun(settings)
    contest, why_not = outlook(fetched, old, settings, say) if wishes.compares else (None, "--no-compare")
    if contest is None:
        say(f"old and new will not be compared: {why_not}")
    else:
        _agree_to(contest, fetched, old, settings, wishes)
    if run is None or run.state != "succeeded":
        code = train_as(
            _capped(settings, contest, wishes), _words(fetched, settings, overrides), wishes.check, wishes.yes
        )
        if wishes.check or code not in (ExitCode.DONE, ExitCode.GATE_FAILED):
            return code
        run = find_begun(settings)
    assert run is not None
    if wishes.check:
        say(f"run {run.path} has succeeded already: only the comparison is left")
        return ExitCode.DONE
    result, code = None, ExitCode.DONE
    if contest is not None:
        result, why_not = _compete(fetched, old, run, contest, wishes)
        code = ExitCode.DONE if result is not None else ExitCode.RUN_FAILED
    page = write_page(fetched, old, run, contest, result, why_not)
    _show(result, page, why_not)
    return code


def _agree_to(contest: "Contest", fetched: "OldSide", old: "Old", settings: "RunConfig", wishes: _Wishes) -> None:
    """Show the price of the old model's answers and ask, unless that was agreed to before. Raises: ConfigError."""
    from trainer.backends.quote import hold_cap
    from trainer.migration.migrate import is_agreed, note_agreed

    show_plan(
        [("compared", f"{contest.model} and the new model, on {len(contest.plan.rows):,} held-out rows")], contest.quote
    )
    hold_cap(contest.quote, wishes.cap, "raise --cap, or compare fewer rows: evaluation.max_rows=N", "--cap")
    if wishes.check or is_agreed(fetched.folder, contest):
        return
    agree("ask the old model these questions once the new one is trained?", wishes.yes)
    note_agreed(fetched.folder, old, contest)


def _capped(settings: "RunConfig", contest: "Contest | None", wishes: _Wishes) -> "RunConfig":
    """The settings with what the cap leaves for the training, where it bills."""
    from trainer.kinds import executes_here

    if wishes.cap is None or executes_here(settings.backend.kind):
        return settings
    left = wishes.cap - ((contest.quote.ceiling or 0.0) if contest is not None else 0.0)
    if left <= 0:
        raise ConfigError(f"--cap: is {wishes.cap:,.2f}, and the comparison takes all of it; raise it, or --no-compare")
    least = min(filter(None, (left, settings.backend.spend_cap)))
    backend = settings.backend.model_copy(update={"spend_cap": least})
    return settings.model_copy(update={"backend": backend})


def _words(fetched: "OldSide", settings: "RunConfig", overrides: "Sequence[str]") -> list[str]:
    """The training alone, as a command."""
    words = ["train", "--config", str(fetched.folder.config), "--auto-resume", "--root", settings.run.root, *overrides]
    if settings.data.validation is not None:
        words.append(f"data.validation={settings.data.validation}")
    return words


def _compete(
    fetched: "OldSide", old: "Old", run: Run, contest: "Contest", wishes: _Wishes
) -> "tuple[Mapping[str, Any] | None, str]":
    """Result of the comparison, or why it could not be made: the page is written all the same."""
    from trainer.migration.migrate import compete

    try:
        return compete(fetched, old, run, contest, _new(wishes), say), ""
    except BackendError as error:
        say(f"{error}; answers that came are kept: the same command goes on")
        return None, str(error)


def _new(wishes: _Wishes) -> "ReplyClient | None":
    """The client of a new model that is not loaded here. Raises: ConfigError."""
    if wishes.endpoint is None:
        return None
    if wishes.model is None:
        raise ConfigError("--model: missing beside --endpoint, expected the model's name there; add --model NAME")
    from trainer.migration.contest import EndpointModel
    from trainer.workshop.asking.endpoint import connect, place_of

    return EndpointModel(connect(place_of(wishes.endpoint), wishes.model, None))


def _show(result: "Mapping[str, Any] | None", page: Path, why_not: str) -> None:
    from trainer.cli.evaluate import show_measures

    if result is None:
        say(f"old and new were not compared: {why_not}")
    else:
        show_measures(result)
        out.print(escape(result["verdict"]["sentence"]), style="bold")
        for remark in result["verdict"]["remarks"]:
            out.print(remark, markup=False)
    out.print(clean(f"page  {page}"), markup=False)
