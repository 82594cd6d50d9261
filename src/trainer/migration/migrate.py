"""From a job of the old side to a run of one's own and a page about both: read this file top to bottom.

    fetch       the job's rows, settings and metrics, into the migration's folder
    configure   a config for the base that was named
    outlook     the comparison with the old model: its rows and price, or why there is none
    (train)     the command trains, as any other run is
    compete     both models asked, and the page written

Each step finds what an earlier call has done.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trainer.backends.http import Say, found
from trainer.backends.openai.chat import ServiceChat
from trainer.backends.openai.client import FineTuningService, address
from trainer.backends.quote import is_above
from trainer.certificates import use_certificates
from trainer.config.openai import OpenAIConfig
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError
from trainer.inference.client import ReplyClient
from trainer.inference.evaluation.chat_endpoint import EndpointAnswerer
from trainer.inference.evaluation.comparison import compare
from trainer.inference.evaluation.measures import ModelKey
from trainer.migration.contest import (
    Contest,
    KeptReplies,
    OldAndNew,
    endpoint_replies,
    held_out_of,
    local_replies,
    plan_contest,
)
from trainer.migration.folder import ANSWERS, COMPARISON, PAGE, RECORD, Folder, digest_of
from trainer.migration.old_job import is_job, read_old, refuse_unclear
from trainer.migration.page import Facts, migration_page
from trainer.migration.settings import Place, translated, write_config
from trainer.runs import Run, files
from trainer.runs.ledger import Ledger
from trainer.runs.manifest import Role
from trainer.runs.queue import agreed_of

NAMES: Mapping[ModelKey, str] = {"base": "the old model", "tuned": "the new model"}
AGREED = "agreed"  # of the record: the price of the comparison


@dataclass(frozen=True, slots=True)
class Old:
    """The old side: what is moved, the service that has it, and on Azure the deployment that answers."""

    source: str
    settings: OpenAIConfig
    deployment: str | None = None


@dataclass(frozen=True, slots=True)
class OldSide:
    """A migration whose old side has been read."""

    folder: Folder
    model: str
    rows: Mapping[Role, Path]
    lost: tuple[str, ...]

    @property
    def validation(self) -> Path | None:
        return self.rows.get("validation")


def is_fetched(folder: Folder, source: str, given: Mapping[Role, Path]) -> bool:
    """True where an earlier call has read all, and nothing is given beside that. Raises: ConfigError."""
    record = folder.record(source)
    return bool(record.get("complete")) and given.keys() <= record["files"].keys()


def fetch(folder: Folder, old: Old, given: Mapping[Role, Path], say: Say) -> OldSide:
    """Read the old job into the folder, unless an earlier call has; `given` rows take the place of its own.

    Raises: ConfigError, BackendError; MissingDependency.
    """
    refuse_unclear(old.source)
    record = folder.record(old.source)
    kept = folder.rows(record)
    _refuse_others(kept, given)
    if not is_fetched(folder, old.source, given):
        use_certificates()
        service = FineTuningService(old.settings)
        say(f"{service.place}: reading the job of {old.source}")
        read = read_old(service, old.source, {*kept, *given}, say)
        folder.keep(read, given)
        record = folder.record(old.source)
        kept = folder.rows(record)
        for role, content in read.files.items():
            say(f"{kept[role]}: fetched {len(content):,} bytes")
    return OldSide(folder, str(record["model"]), kept, tuple(record["lost"]))


def _refuse_others(kept: Mapping[Role, Path], given: Mapping[Role, Path]) -> None:
    """Raises: ConfigError, for rows that are not those that the folder began with."""
    if others := [role for role, path in given.items() if role in kept and kept[role].resolve() != path.resolve()]:
        raise ConfigError(
            *(
                f"--{role}: is {str(given[role])!r}, and this migration has {str(kept[role])!r}, expected the same; "
                "begin another one with --output"
                for role in others
            )
        )


def configure(fetched: OldSide, into: Folder, old: Old, base: str | None, place: Place | None, name: str) -> OldSide:
    """Write the config into a folder, unless an earlier call has; `name` is that of the new run.

    Returns the migration as it goes on there. Raises: ConfigError, DataError.
    """
    if into.config.exists():
        _refuse_other_base(into, base, place)
        return fetched
    if base is None:
        raise ConfigError("--base: missing, expected an open model; add --base MODEL, or see what fits: --bases")
    job = fetched.folder.job()
    sections, said = translated(job, old.settings, base, place or "local", fetched.rows, name)
    into.note(old.source, base=base, backend=place or "local", settings=said)
    write_config(into.config, old.source, sections, said)
    return replace(fetched, folder=into)


def _refuse_other_base(folder: Folder, base: str | None, place: Place | None) -> None:
    record = files.read_record(folder.path / RECORD)
    wanted = (("--base", base, record.get("base")), ("--backend", place, record.get("backend")))
    if problems := [
        f"{option}: is {asked!r}, and {str(folder.config)!r} says {there!r}, expected the same; name another --output"
        for option, asked, there in wanted
        if asked is not None and asked != there
    ]:
        raise ConfigError(*problems)


def outlook(fetched: OldSide, old: Old, config: RunConfig, say: Say) -> tuple[Contest | None, str]:
    """The comparison with the old model, or why there is none. Raises: DataError, BackendError."""
    if not fetched.model:
        return None, "the job has made no model"
    if fetched.validation is None:
        return None, "no rows are held out: give them with --validation FILE"
    if old.settings.service == "azure" and old.deployment is None:
        return None, f"on Azure a model answers as a deployment: deploy {fetched.model}, and name it with --deployment"
    if old.settings.service != "azure" and not _answers(old, fetched.model, say):
        return None, f"{fetched.model} does not exist any more at the service"
    contest = plan_contest(config, old.settings, fetched.model, fetched.validation)
    return contest, "" if contest is not None else "evaluation.enabled is false, or no row can be asked"


def _answers(old: Old, model: str, say: Say) -> bool:
    service = FineTuningService(old.settings)
    return found(
        lambda: service.ask(lambda client: client.models.with_raw_response.retrieve(model).http_response, "id"),
        f"looking for the model {model}",
        say,
    ) is not None  # fmt: skip


def is_agreed(folder: Folder, contest: Contest) -> bool:
    """True where an earlier call was told to ask these questions, at no lower price."""
    record = files.read_record(folder.path / RECORD).get(AGREED) or {}
    try:
        agreed = agreed_of(record["quote"])
    except (LookupError, TypeError):
        return False
    return record.get("key") == contest.thing("").key and not is_above(contest.quote, agreed)


def note_agreed(folder: Folder, old: Old, contest: Contest) -> None:
    """Write down that a person has agreed to the comparison's price."""
    agreed = contest.quote.agreed()
    assert agreed is not None  # an old model's answers always bill
    folder.note(old.source, **{AGREED: {"key": contest.thing("").key, "quote": asdict(agreed)}})


def compete(
    fetched: OldSide, old: Old, run: Run, contest: Contest, new: ReplyClient | None, say: Say
) -> dict[str, Any]:
    """Ask both models and keep what was found; `new` reaches the new one where it is not loaded here.

    Raises: BackendError, ConfigError, MissingDependency, TrainingError.
    """
    since, folder = time.monotonic(), fetched.folder.path
    held_out, adapter = held_out_of(contest, run), digest_of(run.adapter / "adapter_model.safetensors")
    before = files.read_record(folder / COMPARISON)
    if (before.get("rows_sha256"), before.get("adapter_sha256")) == (held_out.sha256, adapter):
        return before
    service = FineTuningService(old.settings)
    client = KeptReplies(ServiceChat(service, old.deployment or contest.model), contest.model, folder / ANSWERS)
    replies = local_replies(run, contest) if new is None else endpoint_replies(new, contest)
    ledger, thing = Ledger(folder), contest.thing(service.place)
    ledger.write(thing, "intended")
    answerer = OldAndNew(EndpointAnswerer({"base": client}, contest.max_new_tokens), replies)
    result = compare(run, held_out, answerer, say, since, names=NAMES) | {"adapter_sha256": adapter}
    ledger.write(thing, "deleted", answers=contest.plan.num_answers)  # asked and answered: nothing bills any more
    files.write_json(folder / COMPARISON, result)
    return result


def write_page(
    fetched: OldSide, old: Old, run: Run, contest: Contest | None, result: Mapping[str, Any] | None, why_not: str
) -> Path:
    """Write the page of a migration, anew each time."""
    folder = fetched.folder
    record = files.read_record(folder.path / RECORD)
    facts = Facts(
        old.source, fetched.model, address(old.settings), folder.job(), folder.results(), fetched.lost,
        record.get("settings", []), None if contest is None else contest.thousand, folder.config,
    )  # fmt: skip
    page = folder.path / PAGE
    files.write_whole(page, migration_page(run, facts, result, why_not))
    return page


def default_folder(source: str) -> Path:
    """The folder of a migration that is given none, made of the source's name."""
    name = source if is_job(source) else source.removeprefix("ft:").replace(":", "-").replace("/", "-")
    return Path("migrations") / name.strip("-.")
