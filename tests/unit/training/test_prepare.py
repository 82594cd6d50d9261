"""What is said once before a run starts."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from trainer.config import RunConfig
from trainer.training.prepare import prepare

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
