"""Claims of the dated table and of the service's own list on a model and a training type, and which of them decides."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

from trainer.backends.contract import ServiceModel
from trainer.backends.openai.catalog import CatalogModel, data_zone_regions, find_in_catalog
from trainer.backends.openai.models import ServiceBase
from trainer.backends.openai.training_types import FLAGS
from trainer.config.openai import OpenAIConfig, TrainingType
from trainer.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Claim:
    """One side's answer, None where it says nothing, and its words with their source."""

    answer: bool | None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """Remarks for a person, and the agreement needed where table and service contradict each other."""

    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    def __add__(self, other: "Offer") -> "Offer":
        return Offer(self.notes + other.notes, self.doubts + other.doubts)


def judge(
    settings: OpenAIConfig,
    base: ServiceBase,
    listed: ServiceModel | None,
    region: str | None,
    today: date | None = None,
) -> Offer:
    """Compare the table with the service's list, before anything is uploaded.

    Raises: ConfigError, where both say no, or the one that is trusted does, or the only one that says anything.
    """
    kind, is_azure = settings.training_type, settings.service == "azure"
    row = find_in_catalog(base.family) if is_azure else None
    table, service = _end_claims(row, listed, today or datetime.now(UTC).date())
    ends = held("model.base", settings, f"fine-tuning of {base.model}", table, service)
    if not is_azure or kind is None:
        return ends
    what = f"{base.model} trained as {kind}" + ("" if region is None else f" in {region}")
    table, service = table_claim(row, kind, region), service_claim(listed, kind)
    if table.answer is None and service.answer is None:
        return Offer((*ends.notes, f"neither table nor service says whether there is {what}"), ends.doubts)
    offer = held("openai.training_type", settings, what, table, service, _known_wrong(base, service))
    return Offer((*ends.notes, *offer.notes), (*ends.doubts, *offer.doubts))


def held(place: str, settings: OpenAIConfig, what: str, table: Claim, service: Claim, wrong: str = "") -> Offer:
    """The outcome of two claims about one thing; `place` is the setting at fault. Raises: ConfigError, as `judge`."""
    if False not in (table.answer, service.answer):
        return Offer()
    texts = "; ".join(claim.text for claim in (table, service) if claim.text)
    return _settled(place, settings, f"{what}: {texts}{wrong}", table, service)


def _end_claims(row: CatalogModel | None, listed: ServiceModel | None, today: date) -> tuple[Claim, Claim]:
    """Table's and service's answer to whether new jobs are still taken; for who has tuned with the model already."""
    table, service = Claim(None), Claim(None)
    if row is not None and row.tuning_until is not None:
        source = row.sources["tuning_until"]
        table = Claim(row.tuning_until > today, f"the table has it end on {row.tuning_until} ({source})")
    if listed is not None and listed.tuning_until is not None:
        service = Claim(listed.tuning_until > today, f"the service has it end on {listed.tuning_until}")
    return table, service


def table_claim(row: CatalogModel | None, kind: TrainingType, region: str | None) -> Claim:
    """The table's answer; where the resource's region is not known, that of the model alone."""
    if row is None:
        return Claim(None)
    if kind not in row.training_types:
        known = ", ".join(row.training_types)
        return Claim(False, f"the table has {known} ({row.sources['training_types']})")
    where = [each for each in _regions(row, kind) if each not in row.not_in]
    if region is not None and region not in where:
        source = row.sources["standard_regions"] if kind == "Standard" else row.sources["training_types"]
        return Claim(False, f"the table has it in {', '.join(where)} ({source})")
    return Claim(True, f"the table has it ({row.sources['training_types']})")


def service_claim(listed: ServiceModel | None, kind: TrainingType) -> Claim:
    """The service's answer, by the flag of the training type; a list without that flag says no only to all types."""
    if listed is None:
        return Claim(None)
    said = listed.training_flags.get(kind)
    if said is None:
        said = False if listed.can_tune is False else None
    return Claim(said, "" if said is None else f"the service lists {_flags(listed.training_flags)}")


def _settled(place: str, settings: OpenAIConfig, said: str, table: Claim, service: Claim) -> Offer:
    """Decide where one of the two says no. Raises: ConfigError, unless the other one says yes, or is trusted."""
    if {table.answer, service.answer} == {True, False}:
        if settings.trust is None:
            return Offer(doubts=(f"{said}; set openai.trust to table or to service",))
        if (table if settings.trust == "table" else service).answer:
            return Offer(notes=(f"{said}; openai.trust is {settings.trust}",))
        said = f"{said}; openai.trust is {settings.trust}"
    elif service.answer is None and settings.trust == "service":
        return Offer(notes=(f"{said}; the service does not say, and openai.trust is service",))
    outdated = "; if the table is outdated, set openai.trust to service" if service.answer is None else ""
    raise ConfigError(f"{place}: {said}, expected what is offered; choose another, or another model{outdated}")


def _known_wrong(base: ServiceBase, service: Claim) -> str:
    row = find_in_catalog(base.family)
    if row is None or not row.flag_is_wrong or service.answer is not False:
        return ""
    return f", a flag that is known to be wrong for it ({row.sources['flag_is_wrong']})"


def _regions(row: CatalogModel, kind: TrainingType) -> tuple[str, ...]:
    match kind:
        case "Standard":
            return row.standard_regions
        case "DataZone":
            return data_zone_regions()
    return row.global_regions


def _flags(flags: Mapping[TrainingType, bool]) -> str:
    """The flags in the words of the service's list."""
    flagged = {name: flags[kind] for name, kind in FLAGS.items() if kind in flags}
    return ", ".join(f"{name}: {str(value).lower()}" for name, value in flagged.items()) or "fine_tune: false"
