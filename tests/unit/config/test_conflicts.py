"""Settings that need one another, held against each other as a table."""

from pathlib import Path

import pytest
import yaml

from trainer.config.conflicts import NEEDS
from trainer.config.load import dump_config, load_config
from trainer.config.problems import field_names
from trainer.errors import ConfigError

NO_VALIDATION = (
    "has no effect without validation data; give data.validation (trainer data split FILE makes one), or remove it"
)
VALID = "data.validation=v.jsonl"

# What is set, the sentence about it, and what gives it an effect.
IDLE = {
    "training.early_stopping_patience=3": ("3", NO_VALIDATION, VALID),
    "training.early_stopping_threshold=0.1": ("0.1", NO_VALIDATION, VALID),
    "training.eval_steps=5": ("5", NO_VALIDATION, VALID),
    "training.eval_rows=20": ("20", NO_VALIDATION, VALID),
    "training.adapter_from=best": ("'best'", NO_VALIDATION, VALID),
    "data.allow_leak=true": ("true", NO_VALIDATION, VALID),
    "evaluation.max_rows=5": ("5", NO_VALIDATION, VALID),
    "evaluation.max_new_tokens=50": ("50", NO_VALIDATION, VALID),
    "evaluation.gate=better": ("'better'", NO_VALIDATION, VALID),
    "openai.validation_url_variable=SAS": (
        "'SAS'",
        "names where data.validation is fetched from, and that is not set; give data.validation, the file that it is "
        "kept in, or remove it",
        VALID,
    ),
    **{
        f"training.{name}": (
            name.partition("=")[2],
            "is a setting of AdamW, and training.optimizer is 'sgd'; set training.optimizer to adamw, or remove it",
            "training.optimizer=adamw",
        )
        for name in ("adam_beta1=0.5", "adam_beta2=0.5", "adam_epsilon=0.5")
    },
    **{
        f"openai.wandb.{name}": (
            shown,
            "belongs to a project of Weights & Biases, and openai.wandb.project is not set; give openai.wandb.project, "
            "or remove it",
            "openai.wandb.project=bikes",
        )
        for name, shown in (("entity=me", "'me'"), ("name=first", "'first'"), ("tags=[one]", "['one']"))
    },
    **{
        f"tracking.wandb.{name}": (
            shown,
            "names a run at Weights & Biases, and tracking.report_to does not hold wandb; add wandb to "
            "tracking.report_to, or remove it",
            "tracking.report_to=[wandb]",
        )
        for name, shown in (
            ("project=bikes", "'bikes'"),
            ("entity=me", "'me'"),
            ("name=first", "'first'"),
            ("tags=[one]", "['one']"),
        )
    },
    **{
        f"training.dpo.{setting}": (
            shown,
            "is a setting of dpo, and training.method is 'sft'; set training.method to dpo, or remove it",
            "training.method=dpo",
        )
        for setting, shown in (
            ("beta=0.2", "0.2"),
            ("loss=ipo", "'ipo'"),
            ("label_smoothing=0.1", "0.1"),
            ("sft_weight=0.5", "0.5"),
        )
    },
    "training.dpo.label_smoothing=0.2": (
        "0.2",
        "is a setting of the sigmoid loss, and training.dpo.loss is 'ipo'; set training.dpo.loss to sigmoid, or remove "
        "it",
        "training.dpo.loss=sigmoid",
    ),
    "training.dpo.reference=run": (
        "'run'",
        "stays close to the earlier run that model.base names, and model.base names none; set model.base to "
        "runs/<name>, or remove it",
        "model.base=earlier@3",
    ),
    "model.quantize_partly=true": (
        "true",
        "accepts what a quantization leaves out, and model.quantization is 'none'; set model.quantization to nf4 or "
        "int8, or remove it",
        "model.quantization=int8",
    ),
    "model.revision=main": (
        "'main'",
        "is a commit of a hub model, and model.base is none; name a hub model, or remove it",
        "model.base=someone/model",
    ),
    "azureml.hub_token_secret=other": (
        "'other'",
        "is a secret of azureml.key_vault, which is not set; give azureml.key_vault, or remove it",
        "azureml.key_vault=https://v.vault.azure.net",
    ),
    **{
        f"azureml.deployment.{name}": (
            repr(value),
            "is a setting of vllm, and azureml.deployment.mode is 'score'; set azureml.deployment.mode to vllm, or "
            "remove it",
            "azureml.deployment.mode=vllm",
        )
        for name, value in (("max_requests=8", 8), ("max_length=500", 500), ("tool_parser=hermes", "hermes"))
    },
    "azureml.deployment.max_tokens=9": (
        "9",
        "is a setting of the scoring script, and azureml.deployment.mode is 'vllm'; set azureml.deployment.mode to "
        "score, or remove it",
        "azureml.deployment.mode=score",
    ),
}
IDLE_BESIDE = {
    "training.adam": ["training.optimizer=sgd"],
    "training.dpo.label_smoothing=0.2": ["training.method=dpo", "training.dpo.loss=ipo"],
    "training.dpo.reference": ["training.method=dpo"],
    "azureml.deployment.max_tokens": ["azureml.deployment.mode=vllm"],
}


def beside(setting: str) -> list[str]:
    return next((others for start, others in IDLE_BESIDE.items() if setting.startswith(start)), [])


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text("model: {base: builtin:tiny}\ndata: {train: a.jsonl}\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "config.yaml").touch()
    return path


@pytest.mark.parametrize("setting", IDLE)
def test_a_setting_without_effect_is_refused_with_what_gives_it_one(file: Path, setting: str) -> None:
    value, sentence, remedy = IDLE[setting]
    with pytest.raises(ConfigError) as caught:
        load_config(file, [*beside(setting), setting])
    name = setting.partition("=")[0]
    assert caught.value.problems == (f"override {setting!r}: {name}: is {value}, but {sentence}",)
    assert load_config(file, [*beside(setting), setting, remedy])


def test_every_need_is_in_the_table_and_every_name_is_a_setting() -> None:
    needed = [name for need in NEEDS for name in need.settings]
    assert set(needed) == {setting.partition("=")[0] for setting in IDLE}
    assert set(needed) <= set(field_names())


def test_all_of_them_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "data: {train: a.jsonl}\n"
        "training:\n  early_stopping_patience: 2\n  eval_rows: 7\nmodel: {base: builtin:tiny, revision: b}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert [problem.partition(": is ")[0] for problem in caught.value.problems] == [
        f"{path}:4: training.eval_rows",
        f"{path}:3: training.early_stopping_patience",
        f"{path}:5: model.revision",
    ]


def test_a_default_that_is_written_down_asks_for_nothing(file: Path) -> None:
    assert load_config(file, ["training.eval_rows=200", "training.eval_steps=auto", "training.adapter_from=last"])


def test_a_run_is_given_a_name_whatever_suffix_its_config_has(file: Path) -> None:
    assert load_config(file, ["run.name=a", "run.suffix=b"]).run.name == "a"


def test_a_runs_own_config_is_read_and_what_is_changed_in_it_is_looked_at(file: Path, tmp_path: Path) -> None:
    config = load_config(file, ["run.suffix=b"])
    training = config.training.model_copy(update={"eval_steps": 4})
    own = tmp_path / "config.yaml"
    run = config.run.model_copy(update={"name": "a"})
    own.write_text(dump_config(config.model_copy(update={"training": training, "run": run})))
    assert load_config(own).training.eval_steps == 4
    with pytest.raises(ConfigError, match="early_stopping_patience: is 2, but has no effect"):
        load_config(own, ["training.early_stopping_patience=2"])


def test_a_run_s_own_config_is_read_under_the_earlier_name_of_a_setting(file: Path, tmp_path: Path) -> None:
    """Of a run made before its dpo settings had a section of their own; in another config it is no setting."""
    own = tmp_path / "config.yaml"
    written = yaml.safe_load(dump_config(load_config(file, ["training.method=dpo"])))
    del written["training"]["dpo"]
    written["training"]["beta"] = 0.3
    own.write_text(yaml.safe_dump(written))
    assert load_config(own).training.dpo.beta == 0.3
    with pytest.raises(ConfigError, match=r"training\.beta: unknown field, it is called training\.dpo\.beta here"):
        load_config(file, ["training.method=dpo", "training.beta=0.3"])


def test_a_run_s_own_config_counts_as_resolved_without_what_means_nothing_to_it(tmp_path: Path) -> None:
    """As do those of earlier versions, which lack what came later: nobody chose each of their numbers."""
    file = tmp_path / "config.yaml"
    file.write_text("model: {base: m}\ndata: {train: rows.jsonl}\n")
    written = dump_config(load_config(file, ["data.validation=v.jsonl", "evaluation.max_rows=5"]))
    assert {"dpo", "beta", "azureml", "openai"} & {
        line.strip().partition(":")[0] for line in written.splitlines()
    } == set()
    file.write_text(written.replace("validation: v.jsonl", "validation: null"))
    assert load_config(file).evaluation.max_rows == 5
