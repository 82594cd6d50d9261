"""The document of a sweep."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from trainer.cli.documents.document import Document, Part
from trainer.cli.documents.plans import Quote, quote_of
from trainer.kinds import Kind

if TYPE_CHECKING:
    from trainer.backends.quote import Quote as Priced
    from trainer.backends.sweep import Member


class SweepRun(Part):
    """A run of the grid."""

    run: str
    """Its name, made of the values."""
    settings: dict[str, str]
    """The settings that vary, with its values as they were typed."""
    is_new: bool
    """True where this command makes it, or would with --check; false where an earlier one has."""
    state: str | None
    """Its state now; null where its folder is not there."""
    total_steps: int | None
    """Steps in all; null where it is no new run of this machine."""
    num_tokens: int | None
    """Tokens of an epoch; null where it is no new run of this machine."""
    price: float | None
    """Its quote, or the one that was agreed to; null where it bills nothing or a price is missing."""


class Sweep(Document):
    """A grid of settings as runs: what each takes, and with --follow which is the best."""

    document: Literal["sweep"] = "sweep"
    """The command."""
    backend: Kind
    """The backend that executes the runs."""
    root: str
    """The folder of the runs."""
    runs: list[SweepRun]
    """Each combination of the values."""
    quote: Quote | None
    """The price of the whole grid, an item for each run; null where nothing bills."""
    cap: float | None
    """--cap, or backend.spend_cap, which the whole quote does not exceed; null where nothing bills or none is given."""
    num_enqueued: int
    """Runs that this command put into the queue; 0 with --check."""
    doubts: list[str]
    """Contradictions that have to be settled first: a terminal asks, and --yes does not answer."""
    notes: list[str]
    """Messages of the check."""
    best: str | None
    """With --follow the run that `trainer compare` puts first; null where runs cannot be compared."""
    sentence: str | None
    """The verdict of that comparison; null without one."""


def sweep_of(
    members: "Sequence[Member]",
    states: Mapping[str, str],
    quote: "Priced",
    cap: float | None,
    num_enqueued: int,
    found: tuple[Sequence[str], Sequence[str]],
    verdict: tuple[str, str] | None,
) -> Sweep:
    """The document; `states` of runs that are there, `found` doubts and notes, `verdict` best run and sentence."""
    return Sweep(
        backend=members[0].settings.backend.kind,
        root=str(members[0].path.parent),
        runs=[_run(member, states.get(member.path.name)) for member in members],
        quote=quote_of(quote) if quote.bills else None,
        cap=cap,
        num_enqueued=num_enqueued,
        doubts=list(found[0]),
        notes=list(found[1]),
        best=None if verdict is None else verdict[0],
        sentence=None if verdict is None else verdict[1],
    )


def _run(member: "Member", state: str | None) -> SweepRun:
    numbers = None if member.plan is None else member.plan.numbers
    return SweepRun(
        run=member.path.name,
        settings=dict(member.combination.varied),
        is_new=member.waits_to_begin,
        state=state,
        total_steps=None if numbers is None else numbers.total_steps,
        num_tokens=None if numbers is None else numbers.num_tokens,
        price=None if member.price is None else member.price.total,
    )
