"""A base that has never learned the template's end marker: a warning before training."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tiny_runs import train
from trainer.model.tiny import tiny_base


def test_the_warning_names_the_tokens_and_the_way_out(tmp_path: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_base()), AutoTokenizer.from_pretrained(tiny_base())
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("<|im_end|>")] = 0
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    run = train(tmp_path, model__base=str(tmp_path / "base"), training__n_epochs=1)
    (event,) = [event for event in run.events() if event["type"] == "unlearned_tokens"]
    assert event["message"].startswith(
        "the base has not learned 1 of the 2 control tokens of the chat template ('<|im_end|>': its row in the "
        "embedding is zero, or nearly): answers may never end"
    )
