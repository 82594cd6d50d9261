"""What is said once before a run starts."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CHATML
from tests.hub import COMMIT, fetched
from tests.manifests import manifest
from trainer.backends.azureml.estimate import measure
from trainer.config import RunConfig
from trainer.errors import ConfigError, DataError
from trainer.model.base import Base
from trainer.model.lineage import Parent
from trainer.model.tiny import tiny_base
from trainer.runs import create_run
from trainer.runs.manifest import PinnedBase
from trainer.training.prepare import _check_same_base, prepare

SAID = "developer messages are rendered as system: this model's chat template has no such role"


@pytest.mark.parametrize(("role", "count"), [("developer", 1), ("system", 0)])
def test_a_role_that_the_template_does_not_know_is_told_once(
    settings: Callable[..., RunConfig], write_rows: Callable[..., Path], role: str, count: int
) -> None:
    def row(number: int) -> dict[str, Sequence[Any]]:
        turns = [(role, "Be brief."), ("user", f"What is {number}?"), ("assistant", f"It is {number + 1}.")]
        return {"messages": [{"role": who, "content": text} for who, text in turns]}

    rows = write_rows([row(number) for number in range(5)], "rows.jsonl")
    said: list[str] = []
    prepare(settings(data__train=str(rows), data__validation=None), said.append)
    assert said.count(SAID) == count


@pytest.fixture
def thinking(tmp_path: Path, settings: Callable[..., RunConfig], write_rows: Callable[..., Path]) -> Callable[..., Any]:
    """Prepares a run on answers with these thoughts, of a base that can think."""
    thought = "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    file = tmp_path / "thinks.jinja"
    file.write_text(CHATML.replace("{{ m.content }}", thought + "{{ m.content }}"))

    def prepared(thoughts: Sequence[str | None], reasoning: bool | str = "auto", base: Path | None = file) -> Any:
        rows = [
            {"messages": [
                {"role": "user", "content": f"What is {number}?"},
                {"role": "assistant", "content": f"It is {number}."} | ({"reasoning_content": said} if said else {}),
            ]}
            for number, said in enumerate(thoughts)
        ]  # fmt: skip
        data = {"data__train": str(write_rows(rows, "rows.jsonl")), "data__validation": None}
        config = settings(**data, data__train_reasoning=reasoning, model__chat_template=base and str(base))
        return prepare(config, lambda said: None)

    return prepared


@pytest.mark.parametrize("reasoning", ["auto", True, False])
def test_a_thought_is_trained_as_the_setting_says(thinking: Callable[..., Any], reasoning: bool | str) -> None:
    made = thinking(["Count.", None], reasoning)
    trains = reasoning is not False
    assert made.config.data.train_reasoning is trains
    texts = [
        made.tokenizer.decode([label for label in row.examples[0].labels if label >= 0]) for row in made.data.train
    ]
    assert [text.startswith("<think>Count.</think>It is 0.") for text in texts] == [trains, False]
    assert [text.startswith(f"It is {number}.") for number, text in enumerate(texts)] == [not trains, True]


def test_rows_without_thoughts_resolve_to_none_trained(thinking: Callable[..., Any]) -> None:
    config = thinking([None, None]).config
    assert config.data.train_reasoning is False
    wanted = config.model_copy(update={"data": config.data.model_copy(update={"train_reasoning": True})})
    with pytest.raises(ConfigError, match="no row has a thought"):
        measure(wanted, None)  # before a machine of Azure ML is paid for
    with pytest.raises(ConfigError) as caught:
        thinking([None, None], True)
    assert str(caught.value) == (
        "data.train_reasoning: is true, and no row has a thought, expected reasoning_content in answers; add it, or "
        "set auto"
    )


def test_targets_that_a_hub_model_has_not_are_named_before_a_machine_is_paid_for(
    settings: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched(tiny_base(), "org/model", tmp_path / "hub", monkeypatch)
    work = measure(settings(model__base="org/model", lora__target_modules=["nothing"]), None)
    (problem,) = work.problems
    assert problem.startswith("lora.target_modules: 'nothing' matches no layer of this model, expected some of: ")


def test_rows_with_thoughts_for_a_base_without_a_place_for_them_are_named(thinking: Callable[..., Any]) -> None:
    with pytest.raises(DataError) as caught:
        thinking([None, "Count."], base=None)
    assert "rows.jsonl:2: TEMPLATE: messages[1].reasoning_content has no place in" in str(caught.value)


@pytest.mark.parametrize(("noted", "fits"), [(COMMIT, True), (None, True), (COMMIT[::-1], False)])
def test_an_adapter_is_trained_further_on_the_commit_that_its_run_noted(
    settings: Callable[..., RunConfig], noted: str | None, fits: bool
) -> None:
    run = create_run(settings())
    run.write_manifest(manifest(base=PinnedBase("org/model", noted, None)))
    base, parent = Base("org/model", "org/model", COMMIT, Any, {}), Parent(run, run.adapter, None)
    if fits:
        _check_same_base(base, parent)
        return
    with pytest.raises(ConfigError, match=f"with revision '{noted}', and now it has '{COMMIT}'"):
        _check_same_base(base, parent)
