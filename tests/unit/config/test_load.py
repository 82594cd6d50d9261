"""One YAML file and `key=value` overrides: a config, or one error that names every mistake with its place."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.configs import OF_RUNS
from tests.golden_messages import FILE as GOLDEN
from tests.golden_messages import finding, golden_text
from trainer.config.load import dump_config, load_config
from trainer.config.problems import FOREIGN_NAMES, field_names
from trainer.config.schema import DataSource, RunConfig
from trainer.errors import ConfigError

ROOT = Path(__file__).parents[3]
CONFIGS = OF_RUNS
FILE = Path("c.yaml")
LEAST = "model: {base: builtin:tiny}\ndata: {train: a.jsonl}\n"  # what follows it stands on line 3
SECTIONS = "model, data, lora, training, memory, evaluation, tracking, backend, azureml, openai, run"
TEXT = "text (in quotes where it looks like a number)"
NAME = "expected a name of up to 100 letters, digits, dots, - and _ that begins with a letter or digit"
SECTION = "expected a section of settings, such as"
NO_MODEL = "c.yaml: model: missing; add it, for example model: {base: builtin:tiny}"
NO_DATA = "c.yaml: data: missing; add it, for example data: {train: rows.jsonl}"
TOO_MUCH = "c.yaml: not valid yaml: more than 10,000 values or nested deeper than 32"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def loaded(text: str | bytes, *overrides: str) -> RunConfig:
    FILE.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_config(FILE, overrides)


def problems(text: str | bytes, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(text, *overrides)
    return list(caught.value.problems)


def findings(text: str | bytes, *overrides: str) -> list[str]:
    return list(map(finding, problems(text, *overrides)))


def test_the_least_config_gets_every_default():
    expected = RunConfig.model_validate({"model": {"base": "builtin:tiny"}, "data": {"train": "a.jsonl"}})
    assert loaded(LEAST) == expected


UNKNOWN_KEYS = {
    "a section": ("trainig: {}\n", "trainig: unknown field"),
    "a section like no other": ("zzz: 1\n", "zzz: unknown field"),
    "a setting": ("training: {n_epoch: 1}\n", "training.n_epoch: unknown field"),
    "a setting like no other": ("memory: {zzz: 1}\n", "memory.zzz: unknown field"),
    "a setting of another section": ("lora: {learning_rate: 1}\n", "lora.learning_rate: unknown field"),
    "a setting without its section": ("base: x\n", "base: unknown field"),
    "a setting of a dotted name": ("training.seed: 1\n", "training.seed: unknown field"),
    "a number": ("1: 2\n", "1: unknown field"),
    "an empty name": ("'': 2\n", ": unknown field"),
}


@pytest.mark.parametrize("name", UNKNOWN_KEYS)
def test_an_unknown_key_is_refused_with_the_nearest_right_one(name):
    text, expected = UNKNOWN_KEYS[name]
    assert findings(LEAST + text) == [f"c.yaml:3: {expected}"]


def test_an_unknown_key_of_a_data_source_is_refused_with_the_nearest_right_one():
    text = "model: {base: x}\ndata:\n  train:\n    - path: a.jsonl\n      wieght: 2\n"
    assert problems(text) == ["c.yaml:5: data.train.0.wieght: unknown field, did you mean weight?"]


@pytest.mark.parametrize("foreign", FOREIGN_NAMES)
def test_a_name_of_another_trainer_is_translated(foreign):
    place, ours = "c.yaml:4: training", FOREIGN_NAMES[foreign]
    assert problems(f"{LEAST}training:\n  {foreign}: 1\n") == [
        f"{place}.{foreign}: unknown field, it is called {ours} here"
    ]


def test_a_name_of_another_trainer_is_translated_at_the_top_level():
    expected = "c.yaml:3: num_train_epochs: unknown field, it is called training.n_epochs here"
    assert problems(LEAST + "num_train_epochs: 1\n") == [expected]


def test_every_translation_names_a_setting_that_exists():
    words = {word.strip(":") for ours in FOREIGN_NAMES.values() for word in ours.split() if "." in word}
    assert words <= set(field_names())


WRONG_VALUES = {
    "a method that is not trained": ("training: {method: rft}", "training.method: is 'rft'"),
    "a beta of nothing": ("training: {method: dpo, dpo: {beta: 0}}", "training.dpo.beta: is 0"),
    "a beta beyond the service's": ("training: {method: dpo, dpo: {beta: 2.5}}", "training.dpo.beta: is 2.5"),
    "a loss of another preference method": ("training: {dpo: {loss: hinge}}", "training.dpo.loss: is 'hinge'"),
    "half of the preferences reversed": (
        "training: {dpo: {label_smoothing: 0.5}}",
        "training.dpo.label_smoothing: is 0.5",
    ),
    "a negative share of supervision": ("training: {dpo: {sft_weight: -1}}", "training.dpo.sft_weight: is -1"),
    "a reference that is no part of the run": ("training: {dpo: {reference: hub}}", "training.dpo.reference: is 'hub'"),
    "an environment by its name alone": ("azureml: {environment: my-env}", "azureml.environment: is 'my-env'"),
    "an environment without a version": (
        "azureml: {environment: 'azureml:my-env'}",
        "azureml.environment: is 'azureml:my-env'",
    ),
    "an image of Docker Hub by its name alone": (
        "azureml: {deployment: {vllm_image: 'vllm/vllm-openai:v0.33.0'}}",
        "azureml.deployment.vllm_image: is 'vllm/vllm-openai:v0.33.0'",
    ),
    "an image without a version": (
        "azureml: {deployment: {vllm_image: 'me.azurecr.io/vllm'}}",
        "azureml.deployment.vllm_image: is 'me.azurecr.io/vllm'",
    ),
    "an image for an environment": (
        "azureml: {environment: 'docker.io/me/image:1'}",
        "azureml.environment: is 'docker.io/me/image:1'",
    ),
    "a name that no secret has": ("azureml: {hub_token_secret: hf_token}", "azureml.hub_token_secret: is 'hf_token'"),
    "a null character": ('openai: {account: "a\\0b"}', "openai.account: is 'a\\x00b'"),
    "no address": (
        "openai: {management_url: management.azure.com}",
        "openai.management_url: is 'management.azure.com'",
    ),
    "true for a count": ("training: {n_epochs: true}", "training.n_epochs: is True"),
    "minutes for a count": ("training: {n_epochs: 1:30}", "training.n_epochs: is '1:30'"),
    "minutes for a number": ("training: {weight_decay: 1:30.5}", "training.weight_decay: is '1:30.5'"),
    "an octal number of another writing": ("training: {seed: 0o10}", "training.seed: is '0o10'"),
    "more epochs than anybody trains": ("training: {n_epochs: 1000000000000}", "training.n_epochs: is 1000000000000"),
    "a seed that numpy does not take": ("training: {seed: 4294967296}", "training.seed: is 4294967296"),
    "a rate beyond all weights": ("training: {learning_rate: 1.0e+308}", "training.learning_rate: is 1e+308"),
    "a rate beyond all numbers": (
        "training: {learning_rate_multiplier: 1e308}",
        "training.learning_rate_multiplier: is '1e308'",
    ),
    "no for a text": ("run: {root: no}", "run.root: is False"),
    "true for a number": ("training: {learning_rate: yes}", "training.learning_rate: is True"),
    "text for a count": ("training: {batch_size: many}", "training.batch_size: is 'many'"),
    "a quoted number for a count": ("lora: {r: '8'}", "lora.r: is '8'"),
    "a fraction for a count": ("lora: {r: 1.5}", "lora.r: is 1.5"),
    "a whole float for a count": ("lora: {r: 8.0}", "lora.r: is 8.0"),
    "text for a number": ("training: {weight_decay: low}", "training.weight_decay: is 'low'"),
    "a list for a number": ("training: {weight_decay: [1]}", "training.weight_decay: is [1]"),
    "nothing for a number": ("training: {weight_decay: }", "training.weight_decay: is None"),
    "not a number": ("training: {weight_decay: .nan}", "training.weight_decay: is nan"),
    "infinity": ("training: {max_grad_norm: .inf}", "training.max_grad_norm: is inf"),
    "a float beyond its range": ("lora: {lora_dropout: 1e400}", "lora.lora_dropout: is '1e400'"),
    "text for a switch": ("lora: {use_dora: 'yes'}", "lora.use_dora: is 'yes'"),
    "a number for a switch": ("lora: {use_dora: 1}", "lora.use_dora: is 1"),
    "a number for text": ("run: {name: 20240101}", "run.name: is 20240101"),
    "a list for text": ("run: {root: [a]}", "run.root: is ['a']"),
    "empty text": ("run: {root: ''}", "run.root: is ''"),
    "another word than those accepted": ("training: {optimizer: adam}", "training.optimizer: is 'adam'"),
    "a backend that is not there": ("backend: {kind: gpu}", "backend.kind: is 'gpu'"),
    "a name that is a path": ("run: {name: a/b}", "run.name: is 'a/b'"),
    "a name that is the folder above": ("run: {name: ..}", "run.name: is '..'"),
    "a word for a list": ("tracking: {report_to: mlflow}", "tracking.report_to: is 'mlflow'"),
    "a wrong word in a list": ("tracking: {report_to: [weights]}", "tracking.report_to.0: is 'weights'"),
    "an empty list": ("lora: {target_modules: []}", "lora.target_modules: is []"),
    "zero for a count": ("lora: {r: 0}", "lora.r: is 0"),
    "a negative seed": ("training: {seed: -1}", "training.seed: is -1"),
    "a zero rate": ("training: {learning_rate: 0}", "training.learning_rate: is 0"),
    "a share of one": ("training: {warmup_ratio: 1}", "training.warmup_ratio: is 1"),
    "a negative share": ("lora: {lora_dropout: -0.1}", "lora.lora_dropout: is -0.1"),
    "a word for a section": ("lora: big", "lora: is 'big'"),
    "a list for a section": ("lora: [1]", "lora: is [1]"),
    "nothing for a section": ("training:", "training: is None"),
}


@pytest.mark.parametrize("name", WRONG_VALUES)
def test_a_wrong_value_is_shown_with_what_is_accepted(name):
    text, expected = WRONG_VALUES[name]
    assert findings(LEAST + text) == [f"c.yaml:3: {expected}"]


def test_a_long_value_is_shortened():
    (problem,) = problems(f"{LEAST}lora: {{r: {'x' * 100}}}")
    assert problem == f"c.yaml:3: lora.r: is '{'x' * 58}…, expected a whole number"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: tiny\ndata: {train: a}", f"1: model: is 'tiny', {SECTION} {{base: tiny}}"),
        ("model: {base: x}\ndata: a.jsonl", f"2: data: is 'a.jsonl', {SECTION} {{train: a.jsonl}}"),
    ],
)
def test_a_value_in_place_of_its_section_is_shown_in_it(text, expected):
    assert problems(text) == [f"c.yaml:{expected}"]


@pytest.mark.parametrize("name", list(field_names()))
def test_every_number_is_bounded(name):
    """What nobody means is refused: far too large, infinite, not a number, or a switch."""
    values = {"model": {"base": "x"}, "data": {"train": "a"}}
    *sections, field = name.split(".")
    section = values
    for part in sections:
        section = section.setdefault(part, {})
    for wrong in (10**18, float("inf"), float("nan"), 1.7e308):
        section[field] = wrong
        with pytest.raises(ValidationError):
            RunConfig.model_validate(values)


ONE_SOURCE = "model: {{base: x}}\ndata:\n  train:\n    - {}\n"
WRONG_SOURCES = {
    "a weight of zero": ("{path: a, weight: 0}", "data.train.0.weight: is 0"),
    "a weight in words": ("{path: a, weight: heavy}", "data.train.0.weight: is 'heavy'"),
    "no path": ("{weight: 2}", "data.train.0.path: missing"),
    "a number": ("3", "data.train.0: is 3"),
}


@pytest.mark.parametrize("name", WRONG_SOURCES)
def test_a_mistake_in_a_data_source_is_told_once(name):
    entry, expected = WRONG_SOURCES[name]
    assert findings(ONE_SOURCE.format(entry)) == [f"c.yaml:4: {expected}"]


def test_data_sources_keep_their_order_and_weights():
    config = loaded("model: {base: x}\ndata: {train: [a.jsonl, {path: b.jsonl, weight: 0.5}]}")
    assert config.data.train_sources == (DataSource(path="a.jsonl"), DataSource(path="b.jsonl", weight=0.5))


DUPLICATES = {
    "a section": ("model: {base: x}\n", "c.yaml:3: model: given twice, first on line 1"),
    "a setting": ("lora:\n  r: 1\n  r: 1\n", "c.yaml:5: lora.r: given twice, first on line 4"),
    "a setting on one line": ("lora: {r: 1, r: 2}\n", "c.yaml:3: lora.r: given twice, first on line 3"),
}


@pytest.mark.parametrize("name", DUPLICATES)
def test_a_key_given_twice_is_refused_with_both_lines(name):
    text, expected = DUPLICATES[name]
    assert findings(LEAST + text) == [expected]


NOT_KEYS = {
    "merge": ("<<: {run: {}}\n", "c.yaml:3: <<: not a plain key"),
    "merge in a section": ("lora:\n  <<: {r: 1}\n", "c.yaml:4: lora.<<: not a plain key"),
    "merge of an alias": ("lora: &a {r: 1}\nrun:\n  <<: *a\n", "c.yaml:5: run.<<: not a plain key"),
    "a list": ("? [a, b]\n: 1\n", "c.yaml:3: ?: not a plain key"),
}


@pytest.mark.parametrize("name", NOT_KEYS)
def test_a_key_that_is_no_name_is_refused(name):
    text, expected = NOT_KEYS[name]
    assert findings(LEAST + text) == [expected]


NOT_YAML = {
    "an open list": ("model: [\n", "2:1: not valid yaml: it ends inside of a bracket or quote"),
    "an open section": (
        "model: {base: x\ndata: y\n",
        "2:5: not valid yaml: a bracket that is not closed before this place, or a comma that is missing",
    ),
    "two colons": ("a: b: c\n", "1:5: not valid yaml: a second colon on its line"),
    "two colons behind a line break of YAML's": (
        "a: x\u2028b: y\rc: d: e\n",
        "3:5: not valid yaml: a second colon on its line",
    ),
    "a line that is indented alone": (
        "model:\n  base: x\n   revision: y\n",
        "3:12: not valid yaml: a line that is indented deeper than the one before it, which has a value already",
    ),
    "a line that is indented less": (
        "model:\n   base: x\n  revision: y\n",
        "3:3: not valid yaml: a line that is indented unlike those beside it",
    ),
    "a line without a colon": (
        "model:\n  base: x\n  revision\ndata: {}\n",
        "4:1: not valid yaml: a line without a colon",
    ),
    "an open quote": ("model: {base: 'x}\n", "2:1: not valid yaml: it ends inside of a bracket or quote"),
    "rows": ('{"messages": []}\n{"messages": []}\n', "2:1: not valid yaml: one JSON object a line, as in a data file"),
    "a merge": (
        "model: {}\n<<<<<<< HEAD\ndata: {}\n=======\nlora: {}\n>>>>>>> other\n",
        "2: a merge that git could not finish",
    ),
    "an octal number": ("seed: 010", "1:7: not valid yaml: '010' is 8 to YAML 1.1 and another number to YAML 1.2"),
    "a tab": ("\tmodel: 1", "1:1: not valid yaml: a tab"),
    "an alias of nothing": ("a: 1\nb: *y\n", "2:4: not valid yaml: a value that begins with *"),
    "two documents": ("a: 1\n---\nb: 2\n", "2:1: not valid yaml: a second document"),
    "a tag of its own": ("a: !x 1\n", "1:4: not valid yaml: a value that begins with !"),
    "a section without a colon": ("model\n  base: x\n", "2:7: not valid yaml: the line before it has no colon"),
    "half of a merge": ("model: {}\n=======\nlora: {}\n", "3:1: not valid yaml: a merge that git could not finish"),
    "a pattern of files": ("data:\n  train: *.jsonl\n", "2:11: not valid yaml: a value that begins with *, & or %"),
    "a path of Windows": ('train: "C:\\data"\n', "1:12: not valid yaml: a backslash in double quotes"),
    "a space of a web page": ("model:\n\u00a0 base: x\n", "2: the space '\\xa0' at its beginning"),
    "a control character": ("a: 1\nb: \x01\n", "2: not valid yaml: the character U+0001"),
    "a value that nothing begins with": ("a: @x\n", "1:4: not valid yaml: a character that no value can begin with"),
}


def test_a_colon_without_a_space_is_told():
    assert problems("model:\n  base:x\ndata: {train: y}\n") == [
        "c.yaml:1: model: is 'base:x', expected a section of settings; put a space behind the colon of base:"
    ]


def test_one_row_of_a_data_file_is_told_from_a_config():
    assert problems('{"messages": []}') == [
        "c.yaml: is a row of a data file, expected a config; name the file in it as data.train"
    ]


@pytest.mark.parametrize("name", NOT_YAML)
def test_what_is_not_yaml_is_told_with_line_and_column(name):
    text, expected = NOT_YAML[name]
    assert findings(text) == [f"c.yaml:{expected}"]


@pytest.mark.parametrize(
    "value",
    ["!!int foo", "!!int ''", "!!float foo", "!!float ''", "!!bool foo", "!!timestamp foo", "2024-13-45", "0b_"],
)
def test_a_value_that_contradicts_its_own_type_is_told_with_its_line(value):
    (problem,) = problems(f"{LEAST}run: {{name: {value}}}\n")
    assert problem.startswith("c.yaml:3:")
    assert "not valid yaml" in problem


@pytest.mark.parametrize("char", ["\x00", "\x1b", "\x7f", "\ufffe"])
def test_a_character_that_yaml_forbids_is_refused(char):
    (problem,) = problems(f"{LEAST}run: {{root: a{char}}}\n")
    assert problem.startswith("c.yaml:")
    assert char not in problem


def test_no_object_is_built_from_a_tag():
    text = f"{LEAST}run:\n  root: !!python/object/apply:os.mkdir [built]\n"
    assert problems(text) == [f"c.yaml:4: run.root: is ['built'], expected {TEXT}"]
    assert not Path("built").exists()


def test_aliases_that_expand_without_end_are_refused():
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in pairwise("abcdefg")]
    assert problems("\n".join(lines)) == [TOO_MUCH]


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}"])
def test_an_alias_of_itself_is_refused(text):
    assert problems(text) == [TOO_MUCH]


@pytest.mark.parametrize("text", ["[" * 40 + "]" * 40, "{a: " * 40 + "1" + "}" * 40])
def test_deep_nesting_is_refused(text):
    assert problems(f"x: {text}") == [TOO_MUCH]


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "- " * 5000])
@pytest.mark.apart
def test_nesting_deeper_than_the_parser_can_go_is_refused(text):
    (problem,) = problems(f"x: {text}" if text[0] != "-" else text)
    assert problem.startswith("c.yaml")
    assert "not valid yaml" in problem


@pytest.mark.parametrize("text", ["", "\n", "# a comment\n", "---\n", "{}"])
def test_an_empty_file_lacks_what_must_be_given(text):
    assert problems(text) == [NO_MODEL, NO_DATA]


def test_empty_sections_lack_what_must_be_given():
    assert problems("model: {}\ndata: {}\n") == [
        "c.yaml:1: model.base: missing; add it, for example base: builtin:tiny",
        "c.yaml:2: data.train: missing; add it, for example train: rows.jsonl",
    ]


@pytest.mark.parametrize(("text", "kind"), [("- a", "a list"), ("words", "a text"), ("12", "a number")])
def test_a_file_without_sections_is_refused(text, kind):
    assert problems(text) == [f"c.yaml: holds {kind}, expected sections such as model: and data:"]


@pytest.mark.parametrize("folder", ["", "some/quite/deep/folder/"])
def test_an_unrelated_file_is_not_what_was_meant(folder):
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(f"{folder}other.yaml").write_text(LEAST)
    with pytest.raises(ConfigError) as caught:
        load_config(Path(f"{folder}llama.yaml"))
    assert (
        str(caught.value) == f"{folder}llama.yaml: no such file, expected a yaml config; write one with: trainer init"
    )


@pytest.mark.parametrize("missing", ["cc.yaml", "c.yml"])
def test_a_missing_file_is_told_with_the_one_that_was_meant(missing):
    FILE.write_text(LEAST)
    with pytest.raises(ConfigError) as caught:
        load_config(Path(missing))
    assert str(caught.value) == f"{missing}: no such file, expected a yaml config, did you mean c.yaml?"


def test_a_missing_file_unlike_any_other_is_told():
    with pytest.raises(ConfigError) as caught:
        load_config(Path("nowhere/x.yaml"))
    assert str(caught.value) == "nowhere/x.yaml: no such file, expected a yaml config; write one with: trainer init"


def test_a_folder_is_not_a_config():
    with pytest.raises(ConfigError) as caught:
        load_config(Path())
    assert str(caught.value) == ".: cannot be read: Is a directory"


@pytest.mark.parametrize(
    ("text", "byte"), [(b"model: \xff\n", 7), (LEAST.encode("utf-16"), 0), ("é".encode("cp1252"), 0)]
)
def test_another_encoding_than_utf_8_is_refused(text, byte):
    assert problems(text) == [f"c.yaml: byte {byte} is not utf-8, expected utf-8 text"]


def test_a_byte_order_mark_is_accepted():
    assert loaded(b"\xef\xbb\xbf" + LEAST.encode()) == loaded(LEAST)


def test_windows_line_ends_are_accepted():
    assert problems(LEAST.replace("\n", "\r\n") + "lora: 1\r\n") == [
        "c.yaml:3: lora: is 1, expected a section of settings"
    ]


def test_all_mistakes_stand_in_one_error():
    text = "model:\n  bse: x\ndata:\n  train: a.jsonl\n  train: b.jsonl\nlora:\n  r: many\n  use_dora: 1\ntrainig: {}\n"
    assert problems(text, "training.seed", "run.nam=x", "data.train.x=1", "lora.lora_alpha=[") == [
        "c.yaml:5: data.train: given twice, first on line 4; remove one",
        "override 'training.seed': not understood, expected section.name=value",
        "override 'data.train.x=1': data.train is not a section",
        "override 'lora.lora_alpha=[':1:2: not valid yaml: it ends inside of a bracket or quote; close it",
        "c.yaml:1: model.base: missing; add it, for example base: builtin:tiny",
        "c.yaml:2: model.bse: unknown field, did you mean base?",
        "c.yaml:7: lora.r: is 'many', expected a whole number",
        "c.yaml:8: lora.use_dora: is 1, expected true or false",
        "override 'run.nam=x': run.nam: unknown field, did you mean name?",
        "c.yaml:9: trainig: unknown field, did you mean training?",
    ]


def test_25_mistakes_are_shown_as_20_and_a_count():
    text = LEAST + "".join(f"bad{number}: 1\n" for number in range(25))
    with pytest.raises(ConfigError) as caught:
        loaded(text)
    shown = [f"c.yaml:{number + 3}: bad{number}: unknown field, expected {SECTIONS}" for number in range(20)]
    assert str(caught.value).splitlines() == [*shown, "… and 5 more"]
    assert len(caught.value.problems) == 25


@pytest.mark.parametrize("written", ["2e-4", "2E-4", "2.0e-4", "0.0002", ".0002", "2e-04"])
def test_a_rate_may_be_written_in_any_usual_way(written):
    assert loaded(f"{LEAST}training: {{learning_rate: {written}}}").training.learning_rate == 2e-4
    assert loaded(LEAST, f"training.learning_rate={written}").training.learning_rate == 2e-4


def test_two_learning_rates_that_differ_are_refused():
    text = f"{LEAST}training:\n  learning_rate: 2e-4\n  learning_rate_multiplier: 2\n"
    expected = "training: learning_rate and learning_rate_multiplier are both set, expected one of them"
    assert problems(text) == [f"c.yaml:3: {expected}"]


@pytest.mark.parametrize("multiplier", ["auto", "2.5"])
def test_two_learning_rates_that_agree_are_accepted(multiplier):
    config = loaded(f"{LEAST}training: {{learning_rate: 5e-4, learning_rate_multiplier: {multiplier}}}")
    assert config.training.learning_rate == 5e-4


OVERRIDES = {
    "a setting of the file": ("data.train=b.jsonl", "data", "train", "b.jsonl"),
    "a setting of a section that is not in the file": ("lora.r=4", "lora", "r", 4),
    "a whole section": ("lora={r: 4}", "lora", "r", 4),
    "a list": ("data.train=[b, c]", "data", "train", ["b", "c"]),
    "a list of sections": ("data.train=[{path: b, weight: 2}]", "data", "train", [DataSource(path="b", weight=2)]),
    "a switch": ("lora.use_dora=true", "lora", "use_dora", True),
    "a quoted number": ("run.name='12'", "run", "name", "12"),
    "an equals sign in the value": ("run.root=a=b", "run", "root", "a=b"),
    "a path with spaces": ("run.root=my runs/é", "run", "root", "my runs/é"),
    "null": ("data.validation=null", "data", "validation", None),
    "a tilde": ("data.validation=~", "data", "validation", None),
    "nothing": ("data.validation=", "data", "validation", None),
    "a space": ("data.validation= ", "data", "validation", None),
}


@pytest.mark.parametrize("name", OVERRIDES)
def test_an_override_replaces_one_setting(name):
    override, section, key, expected = OVERRIDES[name]
    text = "model: {base: builtin:tiny}\ndata: {train: a.jsonl, validation: v.jsonl}\n"
    before, after = loaded(text), loaded(text, override)
    assert getattr(getattr(after, section), key) == expected
    changed = getattr(before, section).model_copy(update={key: expected})
    assert after == before.model_copy(update={section: changed})


def test_the_later_of_two_overrides_wins():
    assert loaded(LEAST, "lora.r=4", "lora.r=8").lora.r == 8


def test_overrides_alone_can_make_a_config():
    assert loaded("", "model.base=builtin:tiny", "data.train=a.jsonl") == loaded(LEAST)


def test_an_override_mends_a_mistake_of_the_file():
    assert loaded(LEAST + "lora: {r: many}\n", "lora.r=4").lora.r == 4


BAD_OVERRIDES = {
    "": ": not understood",
    "lora.r": ": not understood",
    "=1": ": not understood",
    "lora.=1": ": not understood",
    ".r=1": ": not understood",
    "lora..r=1": ": not understood",
    "memory.zzz=1": ": memory.zzz: unknown field",
    "lora.r_=1": ": lora.r_: unknown field",
    "x=1": ": x: unknown field",
    "lr=1": ": lr: unknown field",
    "lora.r=many": ": lora.r: is 'many'",
    "lora.r=[1": ":1:3: not valid yaml: it ends inside of a bracket or quote",
    "lora=4": ": lora: is 4",
    "lora.r.x=4": ": lora.r: is {'x': 4}",
    "model.base.x=1": ": model.base is not a section",
    "data.train=null": ": data.train: is None",
    "data.train=": ": data.train: is None",
    "run.name=12": ": run.name: is 12",
}


@pytest.mark.parametrize("override", BAD_OVERRIDES)
def test_a_bad_override_is_told_as_it_was_typed(override):
    assert findings(LEAST, override) == [f"override {override!r}{BAD_OVERRIDES[override]}"]


WRONG_TEXTS = {
    "unknown keys": {name: LEAST + text for name, (text, _) in UNKNOWN_KEYS.items()},
    "wrong values": {name: LEAST + text for name, (text, _) in WRONG_VALUES.items()},
    "data sources": {name: ONE_SOURCE.format(entry) for name, (entry, _) in WRONG_SOURCES.items()},
    "given twice": {name: LEAST + text for name, (text, _) in DUPLICATES.items()},
    "not keys": {name: LEAST + text for name, (text, _) in NOT_KEYS.items()},
    "not yaml": {name: text for name, (text, _) in NOT_YAML.items()},
}


def test_every_sentence_is_the_one_that_was_read_and_found_good():
    """Of rows too: one file shows a reviewer each word that changes."""
    assert golden_text() == GOLDEN.read_text(encoding="utf-8"), "read the difference; python -m tests.golden_messages"


def test_an_override_that_gives_a_key_twice_is_refused():
    (problem,) = problems(LEAST, "lora={r: 1, r: 2}")
    assert problem.startswith("override 'lora={r: 1, r: 2}'")
    assert problem.endswith("r: given twice, first on line 1; remove one")


@pytest.mark.parametrize("char", ["\x00", "\x1b", "\ud800"])
def test_an_override_with_a_character_that_yaml_forbids_is_refused(char):
    (problem,) = problems(LEAST, f"run.root=a{char}")
    assert problem.startswith(f"override {f'run.root=a{char}'!r}:")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_dumped_config_is_read_back_equal(path):
    config = load_config(path)
    assert loaded(dump_config(config)) == config


STRUCTURE = [": ", ":", "- ", "? ", "{", "}", "[", "]", ",", "|", ">", "'", '"', "\n", "\n  ", "---\n", "...\n", "#"]
WORDS = ["model", "data", "training", "base", "train", "n_epochs", "auto", "x", "null", "-1", ".nan", "9" * 400]
TAGS = ["&a ", "*a", "<<: ", "!!int ", "!!bool ", "!!float ", "!!timestamp ", "!!set ", "!x ", "%YAML 9", "0x_"]
CHARACTERS = ["2024-13-45", "é", "\ufeff", "\x85", "\u2028", "\t", "\r", "\x00", "\x1b", '"\\ud800"']
a_config_fragment = st.sampled_from(STRUCTURE + WORDS + TAGS + CHARACTERS)
quick = settings(
    max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def is_loaded_or_refused_in_words(text: str, *overrides: str) -> bool:
    try:
        return isinstance(loaded(text, *overrides), RunConfig)
    except ConfigError as error:
        return bool(error.problems) and all(error.problems)


@quick
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_a_config_or_a_config_error(text):
    assert is_loaded_or_refused_in_words(text)


@quick
@given(st.lists(a_config_fragment, max_size=12).map("".join))
def test_any_yaml_is_a_config_or_a_config_error(text):
    assert is_loaded_or_refused_in_words(text)


@quick
@given(st.data())
def test_a_damaged_config_is_a_config_or_a_config_error(data):
    text = data.draw(st.sampled_from(CONFIGS)).read_text()
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(start + 8, len(text))))
        text = text[:start] + data.draw(a_config_fragment) + text[end:]
    assert is_loaded_or_refused_in_words(text)


@quick
@given(st.lists(st.text() | st.lists(a_config_fragment, max_size=4).map(lambda value: f"lora.r={''.join(value)}")))
def test_any_overrides_are_a_config_or_a_config_error(overrides):
    assert is_loaded_or_refused_in_words(LEAST, *overrides)


@quick
@given(
    path=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
    rate=st.floats(min_value=0, exclude_min=True, max_value=10),
    seed=st.integers(min_value=0, max_value=2**32 - 1),
)
@pytest.mark.apart
def test_any_setting_is_read_back_equal(path, rate, seed):
    values = {
        "model": {"base": "builtin:tiny"},
        "data": {"train": [path], "validation": path},
        "training": {"learning_rate": rate, "seed": seed},
    }
    config = RunConfig.model_validate(values)
    assert loaded(dump_config(config)) == config


@pytest.mark.parametrize(
    "environment",
    [
        "azureml:my-env:1",
        "azureml:my.env_2:2024-01.x",
        "azureml:my-env@latest",
        "azureml://registries/azureml/environments/acpt-pytorch-2.8/versions/3",
        "azureml://registries/azureml/environments/acpt-pytorch-2.8/labels/latest",
        "azureml:/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w/"
        "environments/e/versions/1",
    ],
)
def test_every_form_of_an_environment_is_taken(environment):
    assert loaded(LEAST + f"azureml: {{environment: '{environment}'}}").azureml.environment == environment
