"""Table and service held against each other: which of them decides, for each of their answers."""

from datetime import date
from typing import Any

import pytest

from trainer.backends.contract import ServiceModel
from trainer.backends.openai.catalog import find_in_catalog
from trainer.backends.openai.models import ServiceBase
from trainer.backends.openai.offer import Offer, judge, service_claim, table_claim
from trainer.config.openai import OpenAIConfig
from trainer.errors import ConfigError

TODAY = date(2026, 11, 28)
YES, NO = "gpt-4.1-mini", "gpt-oss-20b"  # what the table says of each as Standard
FLAGS: dict[bool | None, dict[str, bool]] = {True: {"Standard": True}, False: {"Standard": False}, None: {}}


def listed(flags: dict[str, bool]) -> ServiceModel:
    can_tune = any(flags.values()) if flags else None
    return ServiceModel("m", can_tune, None, None, "", False, training_flags=flags)  # type: ignore[arg-type]


def outcome(model: str, service: bool | None, trust: str | None) -> str:
    settings = OpenAIConfig.model_validate({"training_type": "Standard", "trust": trust})
    try:
        found = judge(settings, ServiceBase(model, model), listed(FLAGS[service]), None, TODAY)
    except ConfigError:
        return "refused"
    return "asked" if found.doubts else "noted" if found.notes else "fine"


@pytest.mark.parametrize(
    ("model", "service", "expected"),  # without trust, with the table's, with the service's
    [
        (YES, True, ["fine", "fine", "fine"]),
        (YES, None, ["fine", "fine", "fine"]),
        (YES, False, ["asked", "noted", "refused"]),
        (NO, True, ["asked", "refused", "noted"]),
        (NO, None, ["refused", "refused", "noted"]),
        (NO, False, ["refused", "refused", "refused"]),
        ("gpt-9", True, ["fine", "fine", "fine"]),
        ("gpt-9", None, ["noted", "noted", "noted"]),
        ("gpt-9", False, ["refused", "refused", "refused"]),
    ],
)
def test_each_pair_of_answers_has_its_outcome(model: str, service: bool | None, expected: list[str]) -> None:
    assert [outcome(model, service, trust) for trust in (None, "table", "service")] == expected


def test_both_sides_are_shown_with_their_sources() -> None:
    settings = OpenAIConfig(training_type="GlobalStandard")
    flags = {"Standard": False, "GlobalStandard": False, "Developer": False}
    found = judge(settings, ServiceBase("gpt-oss-20b-11", NO), listed(flags), "swedencentral", TODAY)
    [doubt] = found.doubts
    row = find_in_catalog(NO)
    assert row is not None
    assert doubt == (
        f"gpt-oss-20b-11 trained as GlobalStandard in swedencentral: the table has it "
        f"({row.sources['training_types']}); the service lists fine_tune: false, global_fine_tune: false, "
        f"devtier_fine_tune: false, a flag that is known to be wrong for it ({row.sources['flag_is_wrong']}); "
        "set openai.trust to table or to service"
    )


@pytest.mark.parametrize(
    ("model", "kind", "region", "answer"),
    [
        ("gpt-4.1", "Standard", "swedencentral", True),
        ("gpt-4.1", "Standard", "eastus2", False),
        ("gpt-4o", "Standard", "eastus2", True),
        ("gpt-4.1", "GlobalStandard", "eastus2", True),
        ("gpt-4.1-nano", "GlobalStandard", "polandcentral", False),
        ("gpt-4.1", "GlobalStandard", "polandcentral", True),
        ("gpt-oss-120b", "GlobalStandard", "uaenorth", True),
        ("gpt-oss-20b", "GlobalStandard", "uaenorth", False),
        ("gpt-oss-20b", "DataZone", "swedencentral", False),
        ("gpt-oss-20b", "DataZone", "westus3", True),
        ("gpt-oss-20b", "Developer", None, False),
        ("gpt-4.1", "Standard", None, True),
        ("gpt-9", "Standard", "eastus2", None),
    ],
)
def test_the_table_knows_types_and_regions(model: str, kind: Any, region: str | None, answer: bool | None) -> None:
    assert table_claim(find_in_catalog(model), kind, region).answer is answer


@pytest.mark.parametrize(
    ("model", "day", "ends", "expected"),  # the table has gpt-4o end on 2027-04-01
    [
        ("gpt-4o", date(2027, 3, 31), None, "fine"),
        ("gpt-4o", date(2027, 4, 1), None, "refused"),
        ("gpt-4o", date(2027, 4, 1), date(2027, 4, 2), "asked"),
        ("gpt-4o", date(2027, 3, 31), date(2026, 10, 1), "asked"),
        ("gpt-4o", date(2027, 4, 1), date(2027, 4, 1), "refused"),
        ("gpt-9", date(2027, 4, 1), date(2027, 4, 1), "refused"),
        ("gpt-9", date(2027, 4, 1), date(2027, 4, 2), "fine"),
    ],
)
def test_last_days_are_held_against_each_other(model: str, day: date, ends: date | None, expected: str) -> None:
    settings = OpenAIConfig(training_type="Standard")
    shown = ServiceModel("m", True, ends, None, "", False, training_flags={"Standard": True})
    if expected == "refused":
        with pytest.raises(ConfigError, match=rf"^model\.base: fine-tuning of {model}: the (table|service) has it end"):
            judge(settings, ServiceBase(model, model), shown, None, day)
        return
    found = judge(settings, ServiceBase(model, model), shown, None, day)
    assert bool(found.doubts) == (expected == "asked")


def test_a_list_that_knows_only_one_flag_says_no_to_all_types() -> None:
    none_at_all = ServiceModel("m", False, None, None, "", False)
    assert [service_claim(none_at_all, "Developer").answer, service_claim(None, "Developer").answer] == [False, None]
    assert service_claim(listed({"Standard": True}), "Developer").answer is None


def test_openai_has_no_table() -> None:
    assert judge(OpenAIConfig(service="openai"), ServiceBase("m", "m"), None, None) == Offer()
