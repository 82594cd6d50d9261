"""Settings that the fine-tuning service cannot honour, and who can still use it."""

from datetime import date
from pathlib import Path

import pytest

from trainer.backends.openai.jobs import job_body
from trainer.backends.openai.models import who_can_use_it
from trainer.backends.openai.preflight import refuse_route, refuse_settings, resolve_service
from trainer.config.load import dump_config, load_config
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError

FOREIGN = {
    "lora.r=8": "lora.r: is set, but the service chooses how it tunes; remove it, or use another backend",
    "model.quantization=nf4": "model.quantization: is set, but the service keeps its model itself",
    "memory.token_budget=1000": "memory.token_budget: is set",
    "tracking.report_to=[mlflow]": "tracking.report_to: is set",
    "training.learning_rate=1e-4": "training.learning_rate: is set, but the service has no such setting; use "
    "learning_rate_multiplier",
    "training.warmup_ratio=0.1": "training.warmup_ratio: is set",
    "training.n_epochs=51": "training.n_epochs: is 51, expected at most 50",
    "training.batch_size=257": "training.batch_size: is 257, expected at most 256",
    "training.seed=2147483648": "training.seed: is 2,147,483,648, expected at most",
    "data.on_overlength=drop": "data.on_overlength: is 'drop', expected 'error'",
    "data.train_reasoning=false": "data.train_reasoning: is set, expected 'auto'",
    "data.train=[{path: a, weight: 2}]": "data.train: 'a' has weight 2, expected 1",
}


def load(folder: Path, *overrides: str) -> RunConfig:
    file = folder / "config.yaml"
    file.write_text("model: {base: m}\ndata: {train: rows.jsonl}\nbackend: {kind: openai}\n")
    return load_config(file, overrides)


@pytest.mark.parametrize("override", FOREIGN)
def test_a_setting_that_is_not_honoured_is_refused(override: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        refuse_settings(load(tmp_path, override))
    [problem] = refused.value.problems
    assert problem.startswith(FOREIGN[override])


def test_all_are_told_at_once(tmp_path: Path) -> None:
    given = ["lora.r=8", "memory.token_budget=1000", "training.n_epochs=51"]
    with pytest.raises(ConfigError) as refused:
        refuse_settings(load(tmp_path, *given))
    assert len(refused.value.problems) == 3


def test_what_may_stand_beside_it_is_written_down_and_read_back(tmp_path: Path) -> None:
    config = load(tmp_path, "azureml.compute=gpus")
    refuse_settings(config)
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "config.yaml") == config


def test_a_run_s_own_config_can_be_run_again(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(resolve_service(load(tmp_path))))
    refuse_settings(load_config(tmp_path / "config.yaml"))


@pytest.mark.parametrize(
    "name",
    [
        "api_version=2024-10-21",
        "training_type=Standard",
        "trust=table",
        "base_deployment=x",
        "deployment_sku=standard",
        "subscription=x",
        "account=x",
        "management_url=https://x",
    ],
)
def test_openai_has_nothing_of_azure(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only Azure has it"):
        refuse_settings(load(tmp_path, "openai.service=openai", f"openai.{name}"))


def test_a_date_in_yaml_is_a_version(tmp_path: Path) -> None:
    assert load(tmp_path, "openai.api_version=2024-10-21").openai.api_version == "2024-10-21"
    with pytest.raises(ConfigError, match="api_version"):
        load(tmp_path, "openai.api_version=latest")


def test_no_field_takes_a_url_as_the_name_of_a_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train_url_variable"):
        load(tmp_path, "openai.train_url_variable=https://a.blob.core.windows.net/f?sig=x")


def test_who_can_use_it_depends_on_the_day(tmp_path: Path) -> None:
    config = load(tmp_path, "openai.service=openai")
    assert "takes new jobs until 2027-01-06" in who_can_use_it(config, date(2026, 11, 24))
    assert "has taken no new jobs since 2027-01-06" in who_can_use_it(config, date(2027, 1, 6))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("gpt-4o-mini-2024-07-18", "existing customers until at least 2027-04-01, for others no more since 2026-10-01"),
        ("gpt-5-2025-08-07", "existing customers until at least 2027-02-06, for others until 2027-02-06"),
        ("gpt-oss-20b", "Azure tunes gpt-oss-20b for everyone, and has announced no end"),
        ("m", "for existing customers only as they near their end, open ones for everyone"),
    ],
)
def test_who_can_use_azure_depends_on_the_model(model: str, words: str, tmp_path: Path) -> None:
    assert words in who_can_use_it(load(tmp_path, f"model.base={model}"), date(2026, 11, 24))


@pytest.mark.parametrize(
    ("model", "kind"), [("gpt-oss-20b", "GlobalStandard"), ("gpt-4.1", "Standard"), ("gpt-9", "Standard")]
)
def test_the_training_type_follows_the_model(model: str, kind: str, tmp_path: Path) -> None:
    assert resolve_service(load(tmp_path, f"model.base={model}")).openai.training_type == kind
    chosen = resolve_service(load(tmp_path, f"model.base={model}", "openai.training_type=Developer"))
    assert chosen.openai.training_type == "Developer"


@pytest.mark.parametrize(
    ("version", "kind", "words"),
    [
        (None, "Standard", "Standard"),
        (None, "GlobalStandard", "GlobalStandard"),
        (None, "Developer", "developerTier"),
        ("2025-04-01-preview", "Standard", "standard"),
        ("2025-04-01-preview", "GlobalStandard", "globalStandard"),
        ("2025-04-01-preview", "Developer", "developerTier"),
        ("2024-10-21", "Standard", None),
    ],
)
def test_a_route_has_its_own_words(version: str | None, kind: str, words: str | None, tmp_path: Path) -> None:
    given = [f"openai.training_type={kind}", *([] if version is None else [f"openai.api_version={version}"])]
    config = load(tmp_path, *given)
    assert job_body(config, "m", {"train": "file-1"}, {}).get("trainingType") == words
    refuse_route(config.openai)


def test_the_stable_version_trains_as_standard_only(tmp_path: Path) -> None:
    config = load(tmp_path, "openai.api_version=2024-10-21", "openai.training_type=GlobalStandard")
    with pytest.raises(ConfigError, match=r"openai\.api_version: 2024-10-21 trains as Standard only, expected Global"):
        refuse_route(config.openai)
