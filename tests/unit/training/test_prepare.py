"""What is said once before a run starts."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.hub import COMMIT
from tests.manifests import manifest
from trainer.config import RunConfig
from trainer.errors import ConfigError
from trainer.model.base import Base
from trainer.model.lineage import Parent
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
