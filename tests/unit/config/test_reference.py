"""What is generated from the schema has not drifted, and every shipped config keeps what it promises."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.configs import OF_RUNS, SERVER
from trainer.config.load import load_config
from trainer.config.problems import field_names
from trainer.config.reference import json_schema, markdown
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError

ROOT = Path(__file__).parents[3]
CONFIGS = OF_RUNS
SCHEMA = json_schema()
TRAINER = Path(sys.executable).with_name("trainer")


class EditorLoader(yaml.SafeLoader):
    """YAML 1.2, as editors read it: 5e-3 is a number."""


EditorLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)$"), list("-+0123456789")
)


def as_an_editor_reads(text: str) -> object:
    return yaml.load(text, EditorLoader)


@pytest.mark.apart
@pytest.mark.parametrize(("page", "command"), [("docs/config.md", "reference"), ("docs/config.schema.json", "schema")])
def test_a_generated_page_is_what_its_command_prints(page, command):
    printed = subprocess.run([TRAINER, "config", command], capture_output=True, text=True, check=True).stdout
    assert (ROOT / page).read_text(encoding="utf-8") == printed, f"{page} is not up to date; run: make docs"


def sections() -> dict[str, dict]:
    return SCHEMA["$defs"] | {"RunConfig": SCHEMA}


@pytest.mark.parametrize("name", sections())
def test_every_section_is_described_and_closed(name):
    section = sections()[name]
    assert section["description"].strip()
    assert section["additionalProperties"] is False


@pytest.mark.parametrize("name", SCHEMA["$defs"])
def test_every_field_is_described(name):
    fields = SCHEMA["$defs"][name]["properties"]
    assert fields
    assert [key for key, field in fields.items() if not field.get("description", "").strip()] == []


@pytest.mark.parametrize("name", list(field_names()))
def test_every_setting_has_one_row_in_the_reference(name):
    rows = [line for line in markdown().splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1
    *_, meaning, end = re.split(r"(?<!\\)\|", rows[0])
    assert meaning.strip()
    assert (rows[0].count("|") - rows[0].count("\\|"), end) == (5, "")


def test_the_schema_is_a_json_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "mistake",
    [
        {"model": {"base": 5}},
        {"model": {"base": "x", "bse": "y"}},
        {"data": {"train": []}},
        {"data": {"train": [{"path": "a", "wieght": 2}]}},
        {"lora": {"r": 0}},
        {"lora": {"r": True}},
        {"lora": {"lora_dropout": 1}},
        {"training": {"learning_rate": 0}},
        {"training": {"weight_decay": -1}},
        {"training": {"n_epochs": "many"}},
        {"training": {"seed": -1}},
        {"run": {"name": "a/b"}},
        {"tracking": {"report_to": ["weights"]}},
        {"zzz": {}},
    ],
    ids=json.dumps,
)
@pytest.mark.apart
def test_the_schema_refuses_what_the_loader_refuses(mistake, tmp_path):
    values = {"model": {"base": "x"}, "data": {"train": "a"}} | mistake
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, SCHEMA)
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError):
        load_config(path)


def test_every_file_of_configs_is_checked_here():
    assert {path.name for path in (ROOT / "configs").iterdir()} == {path.name for path in (*CONFIGS, SERVER)} | {
        "accelerate"
    }
    assert len(CONFIGS) >= 6


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
class TestConfig:
    """What holds for each file of configs/."""

    def test_it_loads(self, path):
        assert isinstance(load_config(path), RunConfig)

    def test_it_is_valid_where_an_editor_checks_it(self, path):
        jsonschema.validate(as_an_editor_reads(path.read_text(encoding="utf-8")), SCHEMA)

    def test_an_editor_and_the_loader_read_the_same(self, path):
        values = as_an_editor_reads(path.read_text(encoding="utf-8"))
        assert RunConfig.model_validate(values) == load_config(path)

    def test_it_names_its_schema_for_editors(self, path):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert first == "# yaml-language-server: $schema=../docs/config.schema.json"
        assert (path.parent / "../docs/config.schema.json").is_file()

    def test_its_header_names_the_command_that_runs_it(self, path):
        lines = path.read_text(encoding="utf-8").splitlines()
        header = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
        commands = [line.removeprefix("# Run:").strip() for line in header if line.startswith("# Run:")]
        assert commands == [f"train --config configs/{path.name}"]

    def test_its_data_files_exist(self, path):
        data = load_config(path).data
        named = [source.path for source in data.train_sources] + list(data.validation_paths)
        assert [name for name in named if not (ROOT / name).is_file()] == []
