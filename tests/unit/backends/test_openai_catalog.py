"""The dated table of models: every row is whole, every fact has a source, and every name of a model finds its row."""

from dataclasses import fields
from datetime import date
from pathlib import Path

import pytest

from trainer.backends.openai.catalog import (
    CatalogModel,
    catalog,
    data_zone_regions,
    family_of,
    find_in_catalog,
    read_on,
)

ROWS = pytest.mark.parametrize("model", catalog().values(), ids=lambda model: model.name)
TRAINING_TYPES = {"Standard", "GlobalStandard", "DataZone", "Developer"}
SKUS = {"DeveloperTier", "Standard", "GlobalStandard", "DataZoneStandard"}
UNSOURCED = {"name", "also", "publisher", "capacity", "own_tokenizer", "global_regions", "not_in", "sources"}


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("gpt-4.1-mini-2025-04-14", "gpt-4.1-mini"),
        ("ft:gpt-4o-mini-2024-07-18:org:suffix:id", "gpt-4o-mini"),
        ("ft:gpt-4o-mini-2024-07-18:org:suffix:id:ckpt-step-10", "gpt-4o-mini"),
        ("gpt-4o-2024-08-06.ft-0123456789abcdef0123456789abcdef-suffix", "gpt-4o"),
        ("gpt-35-turbo-0125", "gpt-3.5-turbo"),
        ("gpt-oss-20b-11", "gpt-oss-20b"),
        ("gpt-oss-20b-12", "gpt-oss-20b"),
        ("gpt-oss-20b-11.ft-0123456789abcdef0123456789abcdef-suffix", "gpt-oss-20b"),
        ("Ministral-3B-2411", "Ministral-3B"),
        ("qwen-32b", "Qwen3-32B"),
        ("Qwen-3-32B", "Qwen3-32B"),
        ("Llama-3.3-70B-Instruct", "Llama-3.3-70B-Instruct"),
        ("ftckpt-1", "ftckpt-1"),
    ],
)
def test_a_model_has_a_family(model: str, family: str) -> None:
    assert family_of(model) == family


def test_what_the_table_lacks_is_none() -> None:
    assert [find_in_catalog(name) for name in ("gpt-9", "ftckpt-1", "text-embedding-3-small")] == [None, None, None]


@ROWS
def test_a_row_speaks_in_known_words(model: CatalogModel) -> None:
    assert set() < set(model.methods) <= {"sft", "dpo", "rft"}
    assert set() < set(model.training_types) <= TRAINING_TYPES
    assert set(model.skus) <= SKUS
    assert ("Standard" in model.training_types) == bool(model.standard_regions)
    assert not model.standard_deployments or "Standard" in model.skus
    regions = (*model.standard_regions, *model.standard_deployments, *model.global_regions, *model.not_in)
    assert all(region.islower() and region.isalnum() for region in regions)


@ROWS
def test_each_fact_names_a_document_that_was_there_when_it_was_read(model: CatalogModel) -> None:
    facts = {field.name for field in fields(model) if getattr(model, field.name)} - UNSOURCED
    assert set(model.sources) == facts
    assert all(source.address.startswith("https://") for source in model.sources.values())
    assert all(source.date <= read_on() for source in model.sources.values())


@ROWS
def test_days_are_in_their_order(model: CatalogModel) -> None:
    days = [day for day in (model.new_customers_until, model.tuning_until, model.answers_until) if day is not None]
    assert days == sorted(days)


def test_the_rows_that_a_new_customer_needs() -> None:
    found = {
        name: (row.format, row.training_types, row.skus, row.flag_is_wrong, row.tuning_until)
        for name, row in catalog().items()
        if name in ("gpt-oss-20b", "Llama-3.3-70B-Instruct", "Qwen3-32B", "Ministral-3B", "gpt-4o-mini")
    }
    anywhere, hosted = ("GlobalStandard", "DataZone"), ("GlobalStandard",)
    assert found == {
        "gpt-oss-20b": ("Microsoft", anywhere, hosted, True, None),
        "Llama-3.3-70B-Instruct": ("Meta", anywhere, hosted, True, None),
        "Qwen3-32B": ("Alibaba", anywhere, hosted, True, None),
        "Ministral-3B": ("Mistral AI", anywhere, hosted, True, None),
        "gpt-4o-mini": (
            "OpenAI",
            ("Standard", "GlobalStandard", "DataZone", "Developer"),
            ("Standard", "GlobalStandard", "DataZoneStandard"),
            False,
            date(2027, 4, 1),
        ),
    }
    assert "centralus" in data_zone_regions()
    assert "swedencentral" not in data_zone_regions()


def test_the_table_is_in_the_wheel() -> None:
    import trainer.backends.openai.catalog as module

    text = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    assert '"trainer.backends.openai" = ["*.yaml"]' in text
    assert (Path(module.__file__).parent / "models.yaml").is_file()
