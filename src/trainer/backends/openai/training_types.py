"""`openai.training_type`: the default of a model, where the data goes, and how a route of Azure's API spells it.

The stable api-version has no such field and trains as Standard. A word that a route does not know makes it drop the
whole body, and answer that the job is missing; nothing exists then, so the next spelling is tried.
"""

from typing import Literal

from trainer.backends.openai.catalog import CatalogModel
from trainer.config.openai import OpenAIConfig, TrainingType

Route = Literal["v1", "dated", "stable"]

FIRST_WITH_FIELD = "2025-04-01"  # 2024-10-21 and what came before it have none
# The likelier word first. Developer: field reports of 2026-09 saw "Developer" refused and "developerTier" taken, on v1
# and on 2025-04-01-preview, and documents have both. DataZone: no document shows it in a request.
SPELLINGS: dict[Route, dict[TrainingType, tuple[str, ...]]] = {
    "v1": {
        "Standard": ("Standard",),
        "GlobalStandard": ("GlobalStandard", "globalStandard"),
        "DataZone": ("DataZoneStandard", "dataZoneStandard", "DataZone"),
        "Developer": ("developerTier", "Developer"),
    },
    "dated": {
        "Standard": ("standard", "Standard"),
        "GlobalStandard": ("globalStandard", "globalstandard", "GlobalStandard"),
        "DataZone": ("dataZoneStandard", "datazonestandard", "DataZone"),
        "Developer": ("developerTier", "Developer"),
    },
    "stable": {},
}
UNREAD = "finetuningjob field is required"  # of the answer to a body that the route could not read
FLAGS: dict[str, TrainingType] = {  # of the service's own list of models
    "fine_tune": "Standard",
    "global_fine_tune": "GlobalStandard",
    "datazone_fine_tune": "DataZone",
    "devtier_fine_tune": "Developer",
}


def route_of(settings: OpenAIConfig) -> Route:
    """The route that a config's api_version takes."""
    if settings.api_version is None:
        return "v1"
    return "dated" if settings.api_version[: len(FIRST_WITH_FIELD)] >= FIRST_WITH_FIELD else "stable"


def spellings(settings: OpenAIConfig) -> tuple[str, ...]:
    """The words for the config's training type on its route, in the order to try; none where the route has no field."""
    if settings.service != "azure" or settings.training_type is None:
        return ()
    return SPELLINGS[route_of(settings)].get(settings.training_type, ())


def type_of(word: object) -> TrainingType | None:
    """The training type that a route spells so; None for a word that none has."""
    for kinds in SPELLINGS.values():
        for kind, words in kinds.items():
            if str(word).lower() in (kind.lower(), *map(str.lower, words)):
                return kind
    return None


def usual_type(row: CatalogModel | None) -> TrainingType:
    """The training type of a config that names none: in the resource's own region, where the model trains there."""
    return "Standard" if row is None or "Standard" in row.training_types else "GlobalStandard"


def route_problems(settings: OpenAIConfig) -> list[str]:
    """Settings that the route does not take."""
    if settings.training_type in (None, "Standard") or route_of(settings) != "stable":
        return []
    return [
        (
            f"openai.api_version: {settings.api_version} trains as Standard only, expected {settings.training_type}, "
            f"which versions from {FIRST_WITH_FIELD}-preview on take; remove it, or set a newer one"
        )
    ]


def residency(settings: OpenAIConfig) -> str:
    """Sentence on where the service trains and keeps weights and data."""
    match settings.training_type:
        case "Standard":
            return "Standard: training data and weights stay in the resource's region"
        case "GlobalStandard":
            return "GlobalStandard: may be trained in any region; weights are kept in the resource's"
        case "DataZone":
            return "DataZone: may be trained anywhere in the resource's data zone, which is the United States"
        case "Developer":
            return "Developer: may be trained in any region, on spare capacity; may be paused, and resumes by itself"
    return "the service's own"
