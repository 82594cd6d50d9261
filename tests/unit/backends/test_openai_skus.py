"""SKUs by model and region, and what a run's plan says of the deployment that will follow it."""

from dataclasses import replace

import pytest

from trainer.backends.openai.catalog import CatalogModel, catalog, data_zone_regions, find_in_catalog
from trainer.backends.openai.offer import Offer
from trainer.backends.openai.skus import Quota, find_quota, hold_quota, judge_sku, outlook, usual_sku
from trainer.config.openai import OpenAIConfig
from trainer.errors import ConfigError

OSS = Quota("AIServices.GlobalStandard.gpt-oss-20b-11-finetune", 160.0, 250.0)
QUOTAS = (
    Quota("OpenAI.GlobalStandard.gpt-4.1-mini", 0.0, 9000.0),
    Quota("OpenAI.Standard.gpt-4.1-mini-finetune", 0.0, 0.0),
    Quota("OpenAI.DeveloperTier.gpt-4.1-finetune", 0.0, 250.0),
    OSS,
)


@pytest.mark.parametrize(
    ("model", "region", "sku"),
    [
        ("gpt-4.1-mini", "swedencentral", "developer"),
        ("gpt-4o", "swedencentral", "standard"),
        ("gpt-4o", "northcentralus", "global-standard"),
        ("gpt-4o", None, "standard"),
        ("gpt-oss-20b", "swedencentral", "global-standard"),
        ("gpt-9", "swedencentral", "developer"),
    ],
)
def test_the_usual_sku_is_the_model_s_first_one_in_the_region(model: str, region: str | None, sku: str) -> None:
    assert usual_sku(find_in_catalog(model), region) == sku


def test_a_model_that_is_served_elsewhere_has_none() -> None:
    with pytest.raises(ConfigError, match="gpt-oss-120b on managed compute and Fireworks alone"):
        usual_sku(find_in_catalog("gpt-oss-120b"), "eastus2")


def test_a_quota_is_that_of_the_tuned_model_and_its_sku() -> None:
    assert find_quota(QUOTAS, "GlobalStandard", "gpt-oss-20b") == OSS
    assert find_quota(QUOTAS, "GlobalStandard", "gpt-4.1-mini") is None, "the base's is another one"
    assert find_quota(QUOTAS, "DeveloperTier", "gpt-4.1-mini") is None


@pytest.mark.parametrize(
    ("model", "sku", "region", "there"),
    [
        ("gpt-4.1-mini", "DataZoneStandard", "eastus2", True),
        ("gpt-4.1-mini", "DataZoneStandard", "swedencentral", False),
        ("gpt-4.1-mini", "DataZoneStandard", None, True),
        ("gpt-4o", "Standard", "swedencentral", True),
        ("gpt-4o", "Standard", "northcentralus", False),
        ("gpt-4o", "Standard", None, True),
        ("gpt-4.1-mini", "GlobalStandard", "anywhere", True),
        ("gpt-4.1-mini", "DeveloperTier", "anywhere", True),
        ("gpt-4o", "DeveloperTier", "swedencentral", False),
    ],
)
def test_a_sku_is_where_the_table_has_it(model: str, sku: str, region: str | None, there: bool) -> None:
    row = find_in_catalog(model)
    assert row is not None
    if there:
        assert judge_sku(OpenAIConfig(), model, row, sku, region, None) == Offer()
        return
    regions = {"Standard": row.standard_deployments, "DataZoneStandard": data_zone_regions()}
    has = f"the table has it in {', '.join(regions[sku])}" if sku in row.skus else "the table has "
    with pytest.raises(ConfigError, match=rf"^--sku: {model} deployed as {sku} in {region}: {has}"):
        judge_sku(OpenAIConfig(), model, row, sku, region, None)


@pytest.mark.parametrize(("capacity", "fits"), [(90, True), (91, False)])
def test_a_capacity_fits_into_what_is_free(capacity: int, fits: bool) -> None:
    if fits:
        hold_quota(capacity, OSS)
        return
    with pytest.raises(
        ConfigError, match=r"--capacity: is 91, expected at most 90, which is free of the 250 of AIServ"
    ):
        hold_quota(capacity, OSS)


def test_a_quota_of_nothing_contradicts_the_table() -> None:
    row = find_in_catalog("gpt-4.1-mini")
    quota = find_quota(QUOTAS, "Standard", "gpt-4.1-mini")
    [doubt] = judge_sku(OpenAIConfig(), "m", row, "Standard", "swedencentral", quota).doubts
    assert "the service has a quota of 0 for OpenAI.Standard.gpt-4.1-mini-finetune" in doubt


def regional(model: str, *skus: str) -> CatalogModel:
    """A model that is deployed as `skus` alone."""
    row = find_in_catalog(model)
    assert row is not None
    return replace(row, skus=skus, standard_deployments=("eastus2",))


def test_a_model_that_is_deployed_in_other_regions_is_not_said_to_be_served_elsewhere() -> None:
    row = regional("gpt-4.1", "Standard", "DataZoneStandard")
    assert usual_sku(row, "eastus2") == "standard"
    words = "the table has gpt-4.1 deployed as Standard, DataZoneStandard, and none of it in swedencentral"
    with pytest.raises(ConfigError, match=f"--sku: {words}, expected a region that has one; deploy it in a resource"):
        usual_sku(row, "swedencentral")
    assert outlook(row, "swedencentral", QUOTAS) == ("warning", f"{words}: it could be tuned and not deployed")


@pytest.mark.parametrize("region", ["swedencentral", "eastus2", "nowhere", None])
def test_the_outlook_of_no_model_in_the_table_raises(region: str | None) -> None:
    for row in catalog().values():
        assert outlook(row, region, QUOTAS) is not None
        assert outlook(replace(row, skus=("ProvisionedManaged",)), region, QUOTAS) is not None


@pytest.mark.parametrize(
    ("model", "quotas", "line"),
    [
        ("gpt-oss-20b", (), ("deploys as", "GlobalStandard, 100,000 tokens a minute")),
        (
            "gpt-4.1",
            QUOTAS,
            ("deploys as", "DeveloperTier, 50,000 tokens a minute; also Standard, GlobalStandard"),
        ),
        ("gpt-9", (), None),
    ],
)
def test_a_plan_names_the_deployment_to_come(
    model: str, quotas: tuple[Quota, ...], line: tuple[str, str] | None
) -> None:
    assert outlook(find_in_catalog(model), "swedencentral", quotas) == line


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("gpt-oss-20b", "90,000 of the 250,000 of AIServices.GlobalStandard.gpt-oss-20b-11-finetune are free"),
        ("gpt-oss-120b", "this trainer could tune it and not deploy it"),
    ],
)
def test_a_plan_warns_of_a_model_that_could_not_be_deployed(model: str, words: str) -> None:
    line = outlook(find_in_catalog(model), "swedencentral", QUOTAS)
    assert line is not None
    assert (line[0], words in line[1]) == ("warning", True)
