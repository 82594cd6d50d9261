"""Which workspace is meant: each part from the first place that has it."""

import json
from pathlib import Path

import pytest

from trainer.backends.azureml.workspace import ENVIRONMENT, Place, find_place
from trainer.config.azureml import AzureMLConfig
from trainer.errors import ConfigError


@pytest.fixture(autouse=True)
def nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variables in ENVIRONMENT.values():
        for variable in variables:
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AZURE_CONFIG_DIR", str(tmp_path / "azure"))
    (tmp_path / "project" / "deep").mkdir(parents=True)
    (tmp_path / "azure").mkdir()
    monkeypatch.chdir(tmp_path / "project" / "deep")


def test_the_config_wins_over_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", "other")
    config = AzureMLConfig(subscription="s", resource_group="r", workspace="w")
    assert find_place(config) == Place("s", "r", "w")


def test_environment_then_a_file_above_then_the_defaults_of_az(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", "from-environment")
    stored = {"subscription_id": "from-file", "workspace_name": "from-file"}
    (tmp_path / "project" / "config.json").write_text(json.dumps(stored), encoding="utf-8")
    (tmp_path / "azure" / "config").write_text("[defaults]\ngroup = from-az\nworkspace = from-az\n", encoding="utf-8")
    assert find_place(AzureMLConfig()) == Place("from-environment", "from-az", "from-file")


def test_the_subscription_of_az_is_read_with_its_byte_order_mark(tmp_path: Path) -> None:
    profile = {"subscriptions": [{"id": "one", "isDefault": False}, {"id": "two", "isDefault": True}]}
    (tmp_path / "azure" / "azureProfile.json").write_text(json.dumps(profile), encoding="utf-8-sig")
    assert find_place(AzureMLConfig(resource_group="r", workspace="w")).subscription == "two"


def test_another_tools_config_json_is_not_taken_for_a_workspaces(tmp_path: Path) -> None:
    (tmp_path / "project" / "deep" / "config.json").write_text('{"subscription_id": "x"}', encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        find_place(AzureMLConfig())
    assert len(caught.value.problems) == 3
    assert caught.value.problems[0].startswith(
        "azureml.subscription: is not known, expected it in the config, in AZURE"
    )
