"""What is asked of the service, and what a run of it leaves in its folder."""

from pathlib import Path

import pytest
import yaml

from tests.loopback import Loopback
from tests.openai_runs import Settings, environment, loopback, quiet, run_to_end, settings, snapshot, tuning
from tests.tuning import MODEL, Tuning
from trainer.backends.openai.backend import OpenAIService
from trainer.backends.openai.names import launch_of
from trainer.config.load import dump_config
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError
from trainer.runs.checkpoint import list_checkpoints
from trainer.runs.ledger import Ledger

__all__ = ["environment", "loopback", "settings", "tuning"]


def test_a_run_ends_with_the_files_of_every_run(settings: Settings, tuning: Tuning) -> None:
    run = run_to_end(settings())
    assert run.state == "succeeded"
    assert run.status()["fine_tuned_model"] == f"ft:{MODEL}:org::ftjob-1"
    assert run.results() == [
        {"step": 1, "train_loss": 2.0, "train_mean_token_accuracy": 0.5},
        {"step": 2, "train_loss": 1.5, "train_mean_token_accuracy": 0.6, "valid_loss": 1.75,
         "valid_mean_token_accuracy": 0.55, "full_valid_loss": 1.8},
    ]  # fmt: skip
    training = run.config().training
    resolved = (training.n_epochs, training.batch_size, training.learning_rate_multiplier, training.seed)
    assert resolved == (3, 4, 0.5, 7)
    messages = [event["message"] for event in run.events() if event["message"].startswith("look")]
    assert messages == ["look 0", "look 1", "look 2", "look 3"]
    [checkpoint] = list_checkpoints(run.checkpoints)
    assert checkpoint.problem() is None
    assert checkpoint.state()["model"] == f"ft:{MODEL}:org::ftjob-1:ckpt-step-2"
    assert {entry.thing.kind: entry.step for entry in Ledger(run.path).entries()} == {
        "file": "exists", "job": "exists", "model": "exists",
    }  # fmt: skip
    assert Ledger(run.path).billing() == []


FOREIGN = {"lora", "memory", "tracking", "azureml"}


@pytest.mark.parametrize("service", ["openai", "azure"])
@pytest.mark.parametrize("compared", ["true", "false"])
def test_the_run_s_config_holds_what_means_something_to_the_service_and_no_auto(
    service: str, compared: str, settings: Settings, tuning: Tuning
) -> None:
    tuning.azure = service == "azure"
    run = run_to_end(settings(f"evaluation.enabled={compared}", service=service))
    text = (run.path / "config.yaml").read_text()
    assert ": auto\n" not in text
    written = yaml.safe_load(text)
    assert set(written) == set(RunConfig.model_fields) - FOREIGN
    assert set(written["model"]) == {"base"}
    assert set(written["training"]) == {"method", "n_epochs", "batch_size", "learning_rate_multiplier", "seed"}
    assert ("subscription" in written["openai"]) == (service == "azure")
    assert written["data"]["max_length"] == 65_536


def test_a_run_that_wrote_every_setting_down_is_read_and_brought_up_to_date(settings: Settings) -> None:
    run = run_to_end(settings())
    before, file = snapshot(run), run.path / "config.yaml"
    everything = yaml.safe_dump(run.config().model_dump(mode="json"), sort_keys=False)
    assert "lora:" in everything
    file.write_text(everything)
    OpenAIService().refresh(run, quiet)
    assert snapshot(run) | {"config.yaml": b""} == before | {"config.yaml": b""}
    assert dump_config(run.config()).encode() == before["config.yaml"]


def test_a_second_refresh_changes_nothing(settings: Settings) -> None:
    run = run_to_end(settings())
    before = snapshot(run)
    OpenAIService().refresh(run, quiet)
    assert snapshot(run) == before


def test_openai_gets_auto_and_our_token(settings: Settings, tuning: Tuning) -> None:
    run = run_to_end(settings())
    [body] = tuning.bodies
    assert body["method"]["supervised"]["hyperparameters"] == {
        "n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto",
    }  # fmt: skip
    assert body["metadata"] == {"trainer_run": "one", "trainer_token": launch_of(run).token}
    assert "trainingType" not in body
    assert "seed" not in body


def test_azure_always_gets_a_training_type(settings: Settings, tuning: Tuning) -> None:
    tuning.azure, tuning.script = True, ["pending", "running", "running", "succeeded"]
    run = run_to_end(settings(service="azure"))
    assert tuning.bodies[0]["trainingType"] == "Standard"
    assert run.config().openai.training_type == "Standard"
    assert run.status()["model_until"] == "2031-10-17"
    assert run.state == "succeeded"


def test_a_dated_api_gets_numbers_only(settings: Settings, tuning: Tuning, loopback: Loopback) -> None:
    tuning.azure = True
    run_to_end(settings("openai.api_version=2024-10-21", "training.n_epochs=2", service="azure"))
    [body] = tuning.bodies
    assert body["hyperparameters"] == {"n_epochs": 2}
    assert "method" not in body
    assert "metadata" not in body
    created = next(request for request in loopback.requests if request.body and request.path.endswith("/jobs"))
    assert created.path == "/openai/fine_tuning/jobs"
    assert created.query == {"api-version": "2024-10-21"}


def test_a_failed_job_tells_why(settings: Settings, tuning: Tuning) -> None:
    tuning.script = ["running", "failed"]
    run = run_to_end(settings())
    assert run.state == "failed"
    assert run.status()["error"] == "invalid: training_file: the rows are unsafe"


def test_an_earlier_run_is_tuned_further(settings: Settings, tuning: Tuning, tmp_path: Path) -> None:
    first = run_to_end(settings())
    for name, base in (("two", str(first.path)), ("three", f"{first.path}@2")):
        run_to_end(settings(f"model.base={base}", f"run.name={name}"))
    made = f"ft:{MODEL}:org::ftjob-1"
    assert [body["model"] for body in tuning.bodies] == [MODEL, made, f"{made}:ckpt-step-2"]


def test_the_weights_of_such_a_run_are_not_here(settings: Settings) -> None:
    from trainer.inference.trained import trained_adapter

    with pytest.raises(ConfigError, match="its model is kept by the service"):
        trained_adapter(run_to_end(settings()))
