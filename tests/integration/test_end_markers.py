"""A base that has never learned the template's end marker: a warning before training, and one in the verdict."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tiny_runs import train
from trainer.inference.evaluation.result import Answer, _with_endings
from trainer.inference.evaluation.verdict import Verdict
from trainer.inference.replies import Spoken
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


def test_a_verdict_says_when_answers_do_not_end() -> None:
    verdict = Verdict("better", "better on 3 of 3 rows", 3, 0, 0)
    ended, cut = (Answer(Spoken("a", ()), ended, {}) for ended in (True, False))
    assert _with_endings(verdict, [ended, ended, ended, ended, cut]) == verdict
    assert _with_endings(verdict, [ended, cut, cut]).sentence == "better on 3 of 3 rows; 2 of 3 answers did not end"
