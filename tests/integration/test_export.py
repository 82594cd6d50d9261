"""Exports of real runs: loaded as their README says, they are the model that was trained; nothing else is exported."""

import hashlib
import json
import os
import re
import resource
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tests.manifests import rewrite
from tests.tiny_runs import END, train, untied_base
from trainer.config.schema import ModelConfig
from trainer.errors import ConfigError, ParityError
from trainer.inference import export as exporting
from trainer.inference.bundle import write_bundle
from trainer.inference.client import Sampling
from trainer.inference.export import Accepted, export_run
from trainer.inference.local import TunedModel
from trainer.inference.parity import EXACT, QUANTIZED, ROUNDED
from trainer.inference.serve.exported import load_export
from trainer.inference.serve.limits import Limits
from trainer.inference.trained import trained_base
from trainer.model.lineage import find_parent
from trainer.model.loading import load_model
from trainer.runs import Run
from trainer.runs.files import write_json

pytestmark = pytest.mark.slow

DORA = {"lora__use_dora": True, "lora__use_rslora": True}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dora": DORA,
    "nf4": {"model__quantization": "nf4"},
    "int8": {"model__quantization": "int8"},
    "bfloat16": {"model__dtype": "bfloat16"},
    "untied": {},
}
SHORT = [("plain", False), ("plain", True), ("nf4", True)]
LONG = [(name, merge) for name in VARIANTS for merge in (False, True) if (name, merge) not in SHORT]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tuned: Run) -> "Runs":
    return Runs(tmp_path_factory.mktemp("exports"), tuned)


class Runs:
    """One run for each variant, trained when it is first asked for."""

    def __init__(self, root: Path, plain: Run) -> None:
        self.root = root
        self.made = {"plain": plain}

    def __getitem__(self, name: str) -> Run:
        if name not in self.made:
            base = {"model__base": str(untied_base(self.root / "base"))} if name == "untied" else {}
            self.made[name] = train(self.root, name, **VARIANTS[name], **base)
        return self.made[name]

    def exported(self, name: str, merge: bool) -> Path:
        """The folder of a run's export, made when it is first asked for."""
        folder = self.root / f"{name}-{'merged' if merge else 'adapter'}"
        if not folder.exists():
            export_run(self[name], folder, merge)
        return folder


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Path]:
    """A folder to export into, which must be left with nothing but whole exports."""
    yield tmp_path
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def logits_of(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0].float()
    return logits


def prompt_of(tuned: TunedModel) -> list[int]:
    return tuned.renderer.prompt_ids([{"role": "user", "content": "What is number 21?"}])


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    p, q = torch.log_softmax(a.double(), -1), torch.log_softmax(b.double(), -1)
    return float((p.exp() * (p - q)).sum(-1).mean())


def python_of(folder: Path) -> list[str]:
    """The code blocks of an export's README."""
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)


def loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the README's first block defines, executed beside the folder."""
    monkeypatch.chdir(folder.parent)
    names: dict[str, Any] = {}
    exec(python_of(folder)[0], names)
    return names


@pytest.mark.parametrize(
    ("variant", "merge"), [*SHORT, *(pytest.param(*case, marks=pytest.mark.long) for case in LONG)]
)
def test_what_the_readme_loads_is_the_model_that_was_trained(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, variant: str, merge: bool
) -> None:
    folder = runs.exported(variant, merge)
    bounds = {"nf4": QUANTIZED, "int8": QUANTIZED, "bfloat16": ROUNDED}.get(variant, EXACT)
    tuned, names = TunedModel(runs[variant]), loaded(folder, monkeypatch)
    ids = prompt_of(tuned)
    trained, plain = logits_of(tuned.model, ids), logits_of(names["model"], ids)
    with tuned.model.disable_adapter():
        change = distance(trained, logits_of(tuned.model, ids))
    assert distance(trained, plain) <= bounds.mean_kl < change
    assert json.loads((folder / "parity.json").read_text())["bounds"]["mean_kl"] == bounds.mean_kl
    if merge:
        assert len([line for line in python_of(folder)[0].splitlines() if line]) == 3
    messages = [{"role": "user", "content": "What is number 21?"}]
    assert names["tokenizer"].apply_chat_template(messages, add_generation_prompt=True)["input_ids"] == ids


@pytest.mark.parametrize("merge", [False, True], ids=["adapter", "merged"])
def test_the_readme_asks_and_gets_an_answer_that_ends(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, merge: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    names = loaded(runs.exported("plain", merge), monkeypatch)
    capsys.readouterr()
    exec(python_of(runs.exported("plain", merge))[1], names)
    assert names["answer"][0, -1] == names["tokenizer"].convert_tokens_to_ids("<|im_end|>")
    assert capsys.readouterr().out.startswith("Number")


def test_the_adapter_is_exported_as_it_is_and_names_its_base(runs: Runs) -> None:
    run, folder = runs["plain"], runs.exported("plain", merge=False)
    for name in ("adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"):
        assert (folder / name).read_bytes() == (run.adapter / name).read_bytes()
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(Path(trained_base(run).source).resolve())


@pytest.mark.parametrize("merge", [False, True], ids=["adapter", "merged"])
def test_a_tokenizer_of_several_chat_templates_keeps_them(runs: Runs, tmp_path: Path, merge: bool) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(runs["plain"].path, run.path)
    further = Path("additional_chat_templates", "tool_use.jinja")
    (run.adapter / further.parent).mkdir()
    (run.adapter / further).write_text((run.adapter / "chat_template.jinja").read_text())
    template = AutoTokenizer.from_pretrained(run.adapter).chat_template
    digest = hashlib.sha256(str(template).encode()).hexdigest()
    rewrite(run, template_sha256=digest)
    export_run(run, tmp_path / "out", merge)
    write_bundle(run, tmp_path / "bundle")
    for folder in (tmp_path / "out", tmp_path / "bundle"):
        assert AutoTokenizer.from_pretrained(folder).chat_template == template
        assert {*template} == {"default", "tool_use"}


@pytest.mark.parametrize(
    "manifest", [{}, {"base": []}, {"base": {"name": 3}, "data": []}, {"data": 3}, {"template_sha256": 7}]
)
def test_a_damaged_manifest_is_told_before_a_model_is_loaded(
    tuned: Run, tmp_path: Path, manifest: dict[str, Any]
) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(tuned.path, run.path)
    write_json(run.path / "manifest.json", manifest)
    with pytest.raises(ConfigError, match=r"manifest\.json: does not say what the run was made from"):
        export_run(run, tmp_path / "out", merge=False)
    with pytest.raises(ConfigError, match=r"manifest\.json: does not say|stopped before it had loaded its base"):
        find_parent(run.config().model_copy(update={"model": ModelConfig(base=str(run.path))}))


def test_a_quantized_run_is_merged_into_the_weights_it_was_trained_on(runs: Runs) -> None:
    """And not into those that the base had before, which is what a user would get by hand."""
    run, folder = runs["nf4"], runs.exported("nf4", merge=True)
    base, settings = trained_base(run), run.config().model
    as_trained = load_model(base, settings, torch.device("cpu"), torch.float32).dequantize().state_dict()
    unquantized = AutoModelForCausalLM.from_pretrained(base.source, dtype=torch.float32).state_dict()
    merged = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    change = torch.linalg.matrix_rank(merged[name] - as_trained[name], rtol=1e-4)
    assert change <= 4 < torch.linalg.matrix_rank(merged[name] - unquantized[name], rtol=1e-4)
    assert json.loads((folder / "parity.json").read_text())["drift"]["mean_kl"] < 1e-4
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())


def test_an_unquantized_base_would_have_been_refused(runs: Runs, beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = exporting.merged_model

    def into_unquantized(base: Any, settings: Any, adapter: Path, dtype: torch.dtype) -> Any:
        return original(base, settings.model_copy(update={"quantization": "none"}), adapter, dtype)

    monkeypatch.setattr(exporting, "merged_model", into_unquantized)
    with pytest.raises(ParityError, match=r"drift is [\d.e-]+ nats a token, expected at most 0.002; nothing was"):
        export_run(runs["nf4"], beside / "out", merge=True)
    assert not (beside / "out").exists()


def test_a_forgotten_adapter_is_refused_whatever_drift_is_accepted(
    runs: Runs, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_adapter(base: Any, settings: Any, adapter: Path, dtype: torch.dtype) -> Any:
        return load_model(base, settings, torch.device("cpu"), dtype)

    monkeypatch.setattr(exporting, "merged_model", without_adapter)
    with pytest.raises(ParityError) as caught:
        export_run(runs["plain"], beside / "out", merge=True, accepted=Accepted(drift=99.0))
    kept, answers, loss, remedy = caught.value.problems
    assert "nats a token where the fine-tuning changed" in kept
    assert "4 of 4 greedy answers differ" in answers
    assert re.search(
        r"the validation loss rises by \d\.\d+, from \d\.\d+ to \d\.\d+, expected by at most 0.0001;", loss
    )
    assert remedy == "--merge: export it without --merge: the adapter apart is the trained model"
    assert not (beside / "out").exists()


def test_the_loss_is_the_one_that_training_recorded(runs: Runs) -> None:
    run = runs["plain"]
    loss = json.loads((runs.exported("plain", merge=True) / "parity.json").read_text())["valid_loss"]
    row = next(row for row in run.results() if row["step"] == run.status()["adapter_step"])
    assert loss["recorded"] == row["valid_loss"]
    assert loss["run"] == pytest.approx(row["valid_loss"], rel=1e-5)
    assert loss["export"] == pytest.approx(row["valid_loss"], rel=1e-5)


@pytest.mark.parametrize("variant", ["plain", "untied"])
def test_tied_embeddings_stay_tied_and_others_apart(runs: Runs, variant: str) -> None:
    folder = runs.exported(variant, merge=True)
    assert ("lm_head.weight" in load_file(folder / "model.safetensors")) == (variant == "untied")
    model = AutoModelForCausalLM.from_pretrained(folder)
    tied = model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert tied == (variant == "plain")


@pytest.mark.parametrize("merge", [pytest.param(False, marks=pytest.mark.long), True], ids=["adapter", "merged"])
def test_added_tokens_and_the_end_marker_that_is_not_the_tokenizers_own_are_kept(runs: Runs, merge: bool) -> None:
    folder = runs.exported("untied", merge)
    before, after = (AutoTokenizer.from_pretrained(path) for path in (runs["untied"].adapter, folder))
    assert after.get_vocab() == before.get_vocab()
    assert after.convert_tokens_to_ids(END) == 1536
    assert after.chat_template == before.chat_template
    generation = GenerationConfig.from_pretrained(folder)
    assert generation.eos_token_id == sorted([after.eos_token_id, 1536])
    if merge:
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model.get_input_embeddings().num_embeddings == len(after) == 1537
        assert model.generation_config.eos_token_id == generation.eos_token_id


def test_the_number_format_can_be_chosen_and_is_compared_too(runs: Runs, beside: Path) -> None:
    result = export_run(runs["plain"], beside / "out", merge=True, dtype="bfloat16")
    assert {t.dtype for t in load_file(beside / "out" / "model.safetensors").values()} == {torch.bfloat16}
    assert result.bounds == ROUNDED
    assert 1e-6 < result.drift.mean_kl < 2e-3
    assert result.losses is not None
    assert result.losses.run == pytest.approx(result.losses.recorded, abs=1e-5)  # as it was trained, not rounded too
    assert f"computed in {result.compared_in} | {result.losses.run:.4f}" in (beside / "out" / "README.md").read_text()


def test_drift_beyond_the_stated_bound_exports_nothing(runs: Runs, beside: Path) -> None:
    with pytest.raises(ParityError, match=r"drift is [\d.e-]+ nats a token, expected at most 1e-07"):
        export_run(runs["plain"], beside / "out", merge=True, dtype="bfloat16", accepted=Accepted(drift=1e-7))
    assert list(beside.iterdir()) == []


def test_the_numbers_are_stored_in_the_export_its_readme_and_the_run(runs: Runs) -> None:
    folder = runs.exported("plain", merge=True)
    parity = json.loads((folder / "parity.json").read_text())
    (event,) = [event for event in runs["plain"].events() if event["message"] == f"exported to {folder}"]
    assert event["data"] == parity
    drift = parity["drift"]
    cells = f"| same most likely token | {drift['num_same_choice']} of {drift['num_tokens']} |"
    assert cells in (folder / "README.md").read_text()


def test_the_readme_names_base_data_license_and_metrics(runs: Runs) -> None:
    from huggingface_hub import ModelCard

    run = runs["untied"]
    card = ModelCard.load(runs.exported("untied", merge=True) / "README.md")
    assert card.data.base_model == "base"
    assert (card.data.license, card.data.license_link) == ("apache-2.0", "https://example.org/l")
    digest = hashlib.sha256((runs.root / "train.jsonl").read_bytes()).hexdigest()
    assert f"| train.jsonl | train | `{digest}` |" in card.text
    assert f"`{run.manifest().base.weights_sha256}`" in card.text
    row = next(row for row in run.results() if row["step"] == run.status()["adapter_step"])
    assert f"| valid_loss | {row['valid_loss']:.4f} |" in card.text


@pytest.mark.parametrize("merge", [False, True], ids=["adapter", "merged"])
def test_the_readme_holds_no_path_of_this_machine(runs: Runs, merge: bool) -> None:
    card = (runs.exported("untied", merge) / "README.md").read_text()
    assert "base, fine-tuned with LoRA" in card
    assert str(runs.root) not in card
    assert str(Path.home()) not in (runs.exported("plain", merge) / "README.md").read_text()


def test_a_license_that_the_base_does_not_state_is_called_unknown(runs: Runs) -> None:
    assert "\nlicense: unknown\n" in (runs.exported("plain", merge=False) / "README.md").read_text()


def test_a_run_whose_data_is_gone_is_compared_on_fixed_questions(runs: Runs, beside: Path) -> None:
    shutil.copytree(runs["plain"].path, beside / "copy")
    run = Run(beside / "copy")
    rewrite(run, data=tuple(replace(file, sha256="0" * 64) for file in run.manifest().data))
    result = export_run(run, beside / "out", merge=True)
    assert result.rows == "fixed questions, as the run's data is gone or has changed"
    assert (result.drift.num_answers, result.losses) == (2, None)


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_what_is_there_already_is_not_touched(runs: Runs, beside: Path, make: Any) -> None:
    make(beside / "out")
    with pytest.raises(ConfigError, match=r"--output: '.*out' exists, expected a new folder"):
        export_run(runs["plain"], beside / "out", merge=False)
    assert [path.name for path in beside.iterdir()] == ["out"]


def test_folders_above_an_export_are_made_and_a_file_is_none(runs: Runs, beside: Path) -> None:
    export_run(runs["plain"], beside / "missing" / "too" / "out", merge=False)
    assert (beside / "missing" / "too" / "out" / "adapter_model.safetensors").is_file()
    (beside / "file").touch()
    with pytest.raises(ConfigError, match=r"--output: '.*file' is no folder, expected one to write into; choose"):
        export_run(runs["plain"], beside / "file" / "out", merge=False)


def test_a_disk_that_is_too_small_is_told_before_anything_is_loaded(
    runs: Runs, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**7, 10**7 - 5000, 5000))
    with pytest.raises(ConfigError, match=r"has 5,000 bytes free, expected at least [78],\d{3},\d{3}; free some"):
        export_run(runs["plain"], beside / "out", merge=True)


def test_a_disk_that_fills_up_leaves_nothing_behind(runs: Runs, beside: Path) -> None:
    """A real failure of a real write: files may not grow beyond 1 MB in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(ConfigError, match=r"--output: '.*out' cannot be written: .*; nothing was left behind"):
            export_run(runs["plain"], beside / "out", merge=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(beside.iterdir()) == []


@pytest.mark.parametrize(("number", "ending"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_leaves_nothing_behind(
    runs: Runs, beside: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, ending: type[BaseException]
) -> None:
    monkeypatch.setattr(exporting, "_compare", lambda *arguments: os.kill(os.getpid(), number))
    with pytest.raises(ending):
        export_run(runs["plain"], beside / "out", merge=False)
    assert list(beside.iterdir()) == []


def test_a_base_that_changed_or_is_gone_is_told(runs: Runs, beside: Path) -> None:
    run, base = runs["untied"], runs.root / "base"
    weights = base / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        with pytest.raises(ConfigError, match=r"run 'untied': its base '.*base' has changed since training"):
            export_run(run, beside / "out", merge=True)
        base.rename(runs.root / "elsewhere")
        with pytest.raises(ConfigError, match=r"model.base: '.*base' was not found as a folder here nor on the"):
            export_run(run, beside / "out", merge=True)
    finally:
        (runs.root / "elsewhere").rename(base)
        weights.write_bytes(before)
    assert list(beside.iterdir()) == []


def test_a_template_that_was_changed_after_training_is_told(runs: Runs, beside: Path) -> None:
    shutil.copytree(runs["plain"].path, beside / "copy")
    template = beside / "copy" / "adapter" / "chat_template.jinja"
    template.write_text(template.read_text().replace("Tools:", "Tool:"))
    with pytest.raises(ConfigError, match=r"run 'copy': the chat template in '.*adapter' is not the trained one"):
        export_run(Run(beside / "copy"), beside / "out", merge=False)


def test_a_run_without_an_adapter_is_told(runs: Runs, beside: Path) -> None:
    shutil.copytree(runs["plain"].path, beside / "copy", ignore=shutil.ignore_patterns("adapter"))
    with pytest.raises(ConfigError, match=r"run 'copy': has no adapter \(its state is succeeded\), expected a"):
        export_run(Run(beside / "copy"), beside / "out", merge=False)


# Exports that are served again


@pytest.mark.long
@pytest.mark.parametrize(("variant", "merge"), [("nf4", False), ("dora", False), ("untied", True)])
def test_an_export_is_served_as_the_model_that_was_trained(runs: Runs, variant: str, merge: bool) -> None:
    from trainer.inference.serve.scoring import Scorer

    scorer = Scorer(runs.exported(variant, merge), Limits(max_requests=1))
    messages = [{"role": "user", "content": "What is number 21?"}]
    body = {"model": variant, "messages": messages, "temperature": 0, "max_tokens": 20}
    scored = scorer.score(json.dumps(body).encode())
    expected = TunedModel(runs[variant]).tuned.answer(messages, Sampling(max_tokens=20))
    assert scored.body["choices"][0]["message"]["content"].strip() == expected
    scorer.models.stop()


def test_a_folder_that_is_no_export_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no parity.json, expected a folder written by: trainer export"):
        load_export(tmp_path)


def test_an_export_whose_template_was_changed_is_not_served(runs: Runs, tmp_path: Path) -> None:
    shutil.copytree(runs.exported("plain", merge=True), tmp_path / "copy")
    template = tmp_path / "copy" / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    with pytest.raises(ConfigError, match="the chat template is not the trained one; export the run again"):
        load_export(tmp_path / "copy")
