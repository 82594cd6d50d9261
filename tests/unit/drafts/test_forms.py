"""The form is made from the schema: every field in it, texts to a config and back, each mistake beside its field."""

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from trainer.config.conflicts import foreign_settings
from trainer.config.fields import Section
from trainer.config.load import load_config
from trainer.config.problems import field_names
from trainer.config.schema import DpoConfig, RunConfig
from trainer.drafts import forms
from trainer.drafts.forms import OF_THE_SERVER, by_field, fields, honored, shown_for, texts_of, yaml_of
from trainer.errors import ConfigError

LEAST = {"model.base": "builtin:tiny", "data.train": "rows.jsonl"}
KINDS = ("local", "azureml", "openai")


def loaded(texts: dict[str, str], folder: Path) -> RunConfig:
    file = folder / "draft.yaml"
    file.write_text(yaml_of(texts), encoding="utf-8")
    return load_config(file)


def wrong(texts: dict[str, str], folder: Path) -> dict[str, list[str]]:
    with pytest.raises(ConfigError) as caught:
        loaded(texts, folder)
    return by_field(caught.value.problems, str(folder / "draft.yaml"))


def test_every_setting_is_a_field_but_those_of_the_server():
    assert sorted(field.name for field in fields()) == sorted(set(field_names()) - OF_THE_SERVER)
    for field in fields():
        assert field.title
        assert field.sentence, field.name
        assert field.takes, field.name


def test_a_setting_and_a_section_that_the_schema_gains_appear_by_themselves(monkeypatch):
    class Tuning(Section):
        """New."""

        depth: int = 3
        """How deep."""

    class Wider(RunConfig):
        tuning: Tuning = Tuning()

    monkeypatch.setattr(forms, "RunConfig", Wider)
    fields.cache_clear()
    try:
        new = fields()[-1]
    finally:
        fields.cache_clear()
    assert (new.name, new.group, new.title, new.sentence) == ("tuning.depth", "Tuning", "Depth", "How deep.")
    assert (new.widget, new.default, new.takes) == ("number", "3", "a whole number")


@pytest.mark.parametrize("kind", KINDS)
def test_a_backend_shows_what_it_honors_and_nothing_else(kind):
    values = {"model": {"base": "-"}, "data": {"train": "-"}, "backend": {"kind": kind}}
    foreign = {f"{section}.{name}" for section, name in foreign_settings(RunConfig.model_validate(values))}
    shown = {field.name for field in honored(kind)}
    assert not {name for name in shown if any(name == one or name.startswith(f"{one}.") for one in foreign)}
    assert ("backend.spend_cap" in shown) == (kind != "local")
    assert ("backend.auto_deploy" in shown) == (kind == "openai")


def test_api_openai_com_shows_nothing_that_only_azure_has():
    names = {field.name for field in honored("openai", service="openai")}
    assert "openai.base_url" in names
    assert not {"openai.training_type", "openai.account", "openai.deployment_sku"} & names
    asked = {field.name for field in honored("openai", method="dpo") if field.name.startswith("training.dpo.")}
    assert asked == {"training.dpo.beta"}
    assert {f"training.dpo.{name}" for name in DpoConfig.model_fields} < {
        field.name for field in honored("local", method="dpo")
    }


def test_the_backend_that_is_typed_decides_what_is_written_and_the_rest_stays_in_the_form():
    texts = LEAST | {"backend.kind": "openai", "lora.r": "8", "openai.training_type": "Developer"}
    assert yaml.safe_load(yaml_of(texts)) == {
        "backend": {"kind": "openai"},
        "openai": {"training_type": "Developer"},
        "model": {"base": "builtin:tiny"},
        "data": {"train": "rows.jsonl"},
    }
    assert "lora.r" not in {field.name for field in shown_for(texts)}
    assert yaml.safe_load(yaml_of(texts | {"backend.kind": "local"}))["lora"] == {"r": 8}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("training.n_epochs", " 3 ", 3),
        ("training.n_epochs", "auto", "auto"),
        ("training.n_epochs", "2.5", 2.5),
        ("training.n_epochs", "three", "three"),
        ("training.learning_rate", "2e-4", 2e-4),
        ("training.learning_rate", ".5", 0.5),
        ("training.learning_rate", "nan", "nan"),
        ("training.seed", "9" * 300, "9" * 300),
        ("training.deterministic", "true", True),
        ("memory.shard_base", "false", False),
        ("memory.shard_base", "auto", "auto"),
        ("model.revision", "123", "123"),
        ("model.revision", "null", "null"),
        ("lora.target_modules", "all-linear", "all-linear"),
        ("lora.target_modules", "q_proj\n v_proj", ["q_proj", "v_proj"]),
        ("lora.target_modules", "q_proj", ["q_proj"]),
        ("tracking.report_to", "mlflow", ["mlflow"]),
        ("data.train", "a.jsonl\n{path: b.jsonl, weight: 2}", ["a.jsonl", {"path": "b.jsonl", "weight": 2}]),
        ("data.train", "{path: b.jsonl, weight: 2}", [{"path": "b.jsonl", "weight": 2}]),
        ("data.train", "{not: [yaml", ["{not: [yaml"]),
    ],
)
def test_texts_become_the_values_that_one_would_write(name, text, value):
    section, key = name.split(".")
    assert yaml.safe_load(yaml_of(LEAST | {name: text}))[section][key] == value


def test_empty_texts_leave_the_default():
    assert yaml_of({"training.n_epochs": "  ", "model.base": ""}) == ""


def _texts(field: forms.FormField) -> st.SearchStrategy[str]:
    typed = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    if field.widget == "number":
        numbers = st.integers(-3, 70_000).map(str) | st.floats(0, 2).map(repr)
        return numbers | st.just("auto") | typed
    if field.choices:
        return st.sampled_from(field.choices) | typed
    return typed


FORMS = st.fixed_dictionaries({"backend.kind": st.sampled_from(KINDS)}).flatmap(
    lambda fixed: st.fixed_dictionaries(
        {name: st.just(text) for name, text in (LEAST | fixed).items()},
        optional={field.name: _texts(field) for field in fields() if field.name not in (*LEAST, "backend.kind")},
    )
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(FORMS)
def test_whatever_is_typed_is_a_config_or_a_mistake_beside_its_field(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("draft")
    try:
        config = loaded(texts, folder)
    except ConfigError as error:
        found = by_field(error.problems, str(folder / "draft.yaml"))
        shown = {field.name for field in shown_for(texts)} | set(RunConfig.model_fields)
        assert set(found) <= shown, found
        return
    again = loaded(texts_of(_given(config)), folder)
    assert again == config


def _given(config: BaseModel) -> dict[str, object]:
    """Only what was set, as a config that was loaded from a file has it."""
    return config.model_dump(mode="json", exclude_unset=True)


def test_each_mistake_stands_beside_its_field(tmp_path):
    texts = LEAST | {"training.n_epochs": "three", "lora.r": "0", "data.train": "a\n{path: b, weight: x}"}
    assert wrong(texts, tmp_path) == {
        "data.train": ["data.train.1.weight: is 'x', expected a number"],
        "lora.r": ["is 0, expected a number of at least 1"],
        "training.n_epochs": ["is 'three', expected a whole number or 'auto'"],
    }


def test_a_mistake_of_two_settings_stands_at_their_section(tmp_path):
    texts = LEAST | {"backend.kind": "azureml", "azureml.compute": "a", "azureml.instance_type": "b"}
    assert list(wrong(texts, tmp_path)) == ["azureml"]


def test_what_does_nothing_beside_the_others_is_said_at_its_field(tmp_path):
    found = wrong(LEAST | {"training.adam_beta1": "0.8", "training.optimizer": "sgd"}, tmp_path)
    assert list(found) == ["training.adam_beta1"]


def test_what_is_missing_is_said_at_its_field_or_its_section(tmp_path):
    assert list(wrong({"data.train": "rows.jsonl"}, tmp_path)) == ["model"]
    assert list(wrong({"data.train": "rows.jsonl", "model.revision": "main"}, tmp_path)) == ["model.base"]


def test_what_names_no_setting_stands_at_the_top():
    assert by_field(["the local backend needs torch, which is not installed; run: pip install x"], "d.yaml") == {
        "": ["the local backend needs torch, which is not installed; run: pip install x"]
    }
