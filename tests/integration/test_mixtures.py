"""A mixture of experts from training to its release: resumed bit by bit, answering, exported in both forms."""

import signal
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.conftest import make_settings
from tests.integration.test_fit import adapter_hash, measurements, resume, stop_at, train
from tests.mixtures import MIXTURES, mixture
from trainer.backends.azureml.estimate import measure
from trainer.backends.azureml.sizes import find_machine
from trainer.errors import ConfigError
from trainer.inference.client import Sampling
from trainer.inference.export import export_run
from trainer.inference.local import TunedModel
from trainer.model.nf4 import is_packed
from trainer.model.tiny import tiny_base
from trainer.training.prepare import prepare

CASES = [
    pytest.param(name, quantization, marks=() if (name, quantization) == ("DeepseekV3", "nf4") else pytest.mark.slow)
    for name in MIXTURES
    for quantization in ("none", "nf4")
]


def base_of(name: str, folder: Path) -> str:
    """With the tiny base's tokenizer, and rows of whole blocks, which bitsandbytes restores rightly on a CPU."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_base())
    shape = {"hidden_size": 64, "intermediate_size": 64, "moe_intermediate_size": 64, "kv_lora_rank": 64}
    wide = {"q_lora_rank": 64, "v_head_dim": 16} if name == "DeepseekV3" else {"head_dim": 16}
    model = mixture(name, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **shape, **wide)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(("name", "quantization"), CASES)
def test_it_is_trained_resumed_asked_and_exported(
    name: str, quantization: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(tmp_path)
    changes: dict[str, Any] = {
        "model__base": base_of(name, tmp_path / "base"), "model__quantization": quantization,
        "training__learning_rate": 2e-2,
    }  # fmt: skip
    whole, _ = train(settings(run__name="whole", **changes))
    with monkeypatch.context() as patch:
        stop_at(patch, 3, signal.SIGTERM)
        stopped, _ = train(settings(run__name="stopped", **changes))
    resume(stopped)
    assert (adapter_hash(stopped), measurements(stopped)) == (adapter_hash(whole), measurements(whole))

    shares = {share.kind: share for share in whole.manifest().weights}
    assert shares["experts"].adapted == shares["experts"].weights
    assert shares["experts"].quantized == (shares["experts"].weights if quantization == "nf4" else 0)
    assert (shares["router"].adapted, shares["router"].quantized) == (0, 0)

    tuned = TunedModel(whole)
    packed = [is_packed(weight) for key, weight in tuned.model.named_parameters() if key.endswith("gate_up_proj")]
    assert packed
    assert set(packed) == {quantization == "nf4"}
    tuned.tuned.answer([{"role": "user", "content": "What is number 3?"}], Sampling(max_tokens=3))
    for merge in (False, True):
        exported = export_run(whole, tmp_path / f"out-{merge}", merge)  # held against the run, or it raises
        assert exported.drift.mean_kl <= exported.bounds.mean_kl
        assert exported.change.mean_kl > 2 * exported.bounds.mean_kl


def test_a_check_refuses_what_misses_the_experts(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    config = settings(model__base=base_of("Mixtral", tmp_path / "base"), model__quantization="int8")
    with pytest.raises(ConfigError, match=r"int8 would leave .* set model\.quantization to nf4"):
        prepare(config, lambda message: None)
    machine = find_machine("Standard_NC24ads_A100_v4")
    (problem,) = measure(config, machine).problems  # before a machine is paid for
    assert problem.startswith("model.quantization: int8 would leave ")
    accepted = config.model_copy(update={"model": config.model.model_copy(update={"quantize_partly": True})})
    assert prepare(accepted, lambda message: None).num_trained > 0
