"""The README.md of an export: how to load it, what it was made from, how good it is, and under which license."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.model.base import Base
from trainer.runs import Run
from trainer.runs.manifest import DataFile

MERGED = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModelForCausalLM.from_pretrained("{folder}", dtype="{dtype}")
"""
# By way of PeftModel: transformers' own loading of adapters leaves the magnitudes of DoRA out, with a warning only.
ADAPTER = """\
from peft import {peft}
from transformers import AutoModelForCausalLM, AutoTokenizer{imports}

tokenizer = AutoTokenizer.from_pretrained("{folder}")
base = AutoModelForCausalLM.from_pretrained({base}, {arguments})
model = PeftModel.from_pretrained(base, "{folder}")
"""
PACKED = """\
In training the experts of the base were held in NF4, for which bitsandbytes has no form. This loads the base in
{dtype}, so answers differ a little from those of the run; the merged model is the trained one.
"""
ASKING = """\
from transformers import GenerationConfig

messages = {messages}
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
model.generation_config = GenerationConfig.from_pretrained("{folder}")  # it ends where the template ends a turn
answer = model.generate(**prompt, max_new_tokens=256)
print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
"""


@dataclass(frozen=True, slots=True)
class License:
    """The license fields of a model card's metadata, as the base states them."""

    license: str = "unknown"  # as the hub calls one that is not stated
    name: str | None = None
    link: str | None = None


def model_card(run: Run, base: Base, folder: str, merged: bool, dtype: str, parity: Mapping[str, Any]) -> str:
    """The card of the export in the folder named `folder`."""
    manifest = run.manifest()
    title = run.name if merged else f"{run.name} (adapter)"
    return "\n".join(
        [
            f"---\n{_metadata(base, merged)}\n---",
            f"# {title}\n",
            *_origin(run, base, merged, dtype),
            "## Load\n",
            "Run this beside the folder:\n",
            f"```python\n{loading(run, base, folder, merged, dtype)}```\n",
            *([PACKED.format(dtype=dtype)] if not merged and manifest.has_quantized_experts else []),
            "Ask:\n",
            f"```python\n{_asking(manifest.system_prompt, folder)}```\n",
            "## Trained on\n",
            *_table(("file", "role", "sha256"), [_data_cells(file) for file in manifest.data]),
            f"{manifest.rows.train:,} rows, {manifest.num_supervised_tokens:,} trained tokens.\n",
            "## Metrics\n",
            *_table(("measured in training", "value"), list(_metrics(run))),
            "## The same model as the trained one\n",
            *_table(("compared with the trained model", "value"), list(_parity_cells(parity))),
            "## License\n",
            _license_sentence(base),
        ]
    )


def loading(run: Run, base: Base, folder: str, merged: bool, dtype: str) -> str:
    """Python that loads the export as it was compared with the trained model."""
    if merged:
        return MERGED.format(folder=folder, dtype=dtype)
    arguments, imports = [f'dtype="{dtype}"'], ""
    # A folder is read from adapter_config.json, which has to name it: a card is for others, who need not know it.
    source, peft = f'PeftConfig.from_pretrained("{folder}").base_model_name_or_path', "PeftConfig, PeftModel"
    if base.from_hub:
        source, peft = f'"{base.source}"', "PeftModel"
        arguments.append(f'revision="{base.revision}"')
    quantization = run.config().model.quantization
    if quantization != "none" and not run.manifest().has_quantized_experts:
        imports = ", BitsAndBytesConfig"
        arguments.append(f"quantization_config=BitsAndBytesConfig({_bitsandbytes(quantization, dtype)})")
    return ADAPTER.format(folder=folder, base=source, arguments=", ".join(arguments), imports=imports, peft=peft)


def _public_name(base: Base) -> str:
    """The base's name, without the path to a folder of this machine."""
    return Path(base.source).resolve().name if Path(base.name).is_dir() else base.name


def _bitsandbytes(quantization: str, dtype: str) -> str:
    if quantization == "int8":
        return "load_in_8bit=True"
    compute = f'bnb_4bit_compute_dtype="{dtype}"'
    return f'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, {compute}'


def _asking(system: str | None, folder: str) -> str:
    head = [{"role": "system", "content": system}] if system else []
    return ASKING.format(folder=folder, messages=[*head, {"role": "user", "content": "Hello!"}])


def _metadata(base: Base, merged: bool) -> str:
    from huggingface_hub import ModelCardData

    stated = license_of(base)
    card = ModelCardData(
        base_model=_public_name(base),
        library_name="transformers" if merged else "peft",
        license=stated.license,
        license_name=stated.name,
        license_link=stated.link,
        pipeline_tag="text-generation",
        tags=["lora", "sft", "azure-llm-trainer"],
        base_model_relation="finetune" if merged else "adapter",
    )
    return str(card.to_yaml()).strip()


def license_of(base: Base) -> License:
    """License of the base by its own model card, where that is on this machine."""
    from huggingface_hub import ModelCard

    card = _card_of(base)
    if card is None:
        return License()
    try:
        data = ModelCard.load(card, ignore_metadata_errors=True).data
    except (OSError, ValueError):
        return License()
    if not data.license:
        return License()
    return License(str(data.license), data.get("license_name"), data.get("license_link"))


def _card_of(base: Base) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    if Path(base.source).is_dir():
        card = Path(base.source) / "README.md"
        return card if card.is_file() else None
    cached = try_to_load_from_cache(base.source, "README.md", revision=base.revision)
    return Path(cached) if isinstance(cached, str) else None


def _license_sentence(base: Base) -> str:
    stated = license_of(base)
    name = (stated.license == "other" and stated.name) or stated.license
    return (
        f"The license of the base {_public_name(base)}: {name}{f' ({stated.link})' if stated.link else ''}. "
        "Its terms hold for this model too, and those of the training data come on top.\n"
    )


def _origin(run: Run, base: Base, merged: bool, dtype: str) -> Iterator[str]:
    config, pin = run.config(), run.manifest().base
    kind = "DoRA" if config.lora.use_dora else "LoRA"
    form = f"merged into the weights, {dtype}" if merged else "as an adapter"
    yield f"{_public_name(base)}, fine-tuned with {kind} (rank {config.lora.r}) by azure-llm-trainer; {form}.\n"
    pinned = {
        "base": _public_name(base),
        "revision": pin.revision,
        "sha256 of its weights": pin.weights_sha256,
    }
    quantization = config.model.quantization
    pinned["quantized in training"] = None if quantization == "none" else quantization
    yield from _table(("", ""), [(name, f"`{value}`") for name, value in pinned.items() if value is not None])


def _data_cells(file: DataFile) -> tuple[str, ...]:
    """A file by its name alone: its path says more about a machine than about the data."""
    return (Path(file.path).name.replace("|", "\\|"), file.role, f"`{file.sha256}`")


def _metrics(run: Run) -> Iterator[tuple[str, str]]:
    status = run.status()
    step = status.get("adapter_step")
    yield "step of the adapter", f"{step} of {status.get('total_steps')}"
    row = next((row for row in run.results() if row["step"] == step), {})
    for name, value in row.items():
        if name != "step":
            yield name, f"{value:.4f}"


def _parity_cells(parity: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    drift, change = parity["drift"], parity["fine_tuning_change"]
    yield "rows", str(parity["rows"])
    yield "mean divergence, nats a token", f"{drift['mean_kl']:.1e} (accepted: {parity['bounds']['mean_kl']:.2g})"
    yield "what the fine-tuning changed, nats a token", f"{change['mean_kl']:.1e}"
    yield "same most likely token", f"{drift['num_same_choice']} of {drift['num_tokens']}"
    yield "same greedy answer", f"{drift['num_same_answers']} of {drift['num_answers']}"
    if loss := parity["valid_loss"]:
        yield f"validation loss of the trained model, computed in {parity['compared_in']}", f"{loss['run']:.4f}"
        yield "validation loss of this one", f"{loss['export']:.4f} ({loss['export'] - loss['run']:+.4f})"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""
