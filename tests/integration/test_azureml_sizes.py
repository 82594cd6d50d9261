"""`trainer sizes`: the list of the package, and of the subscription where it is asked for."""

import json
from pathlib import Path

import pytest

pytest.importorskip("azure.ai.ml")

from tests.commands import performed
from tests.integration.azure_twin.catalog import SIZES
from tests.integration.azure_twin.fixtures import azure, here
from tests.integration.azure_twin.twin import Twin

__all__ = ["azure", "here"]

CONFIG = "model: {{base: builtin:tiny}}\ndata: {{train: x.jsonl}}\nbackend: {{kind: {kind}}}\n"


def test_the_subscriptions_list_is_kept_and_used(here: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path / "cache"))
    config = tmp_path / "azure.yaml"
    config.write_text(CONFIG.format(kind="azureml"))
    asked = ("sizes", "--config", str(config), "--format", "json")

    def listed(*more: str) -> dict[str, tuple[int, str]]:
        done = performed((*asked, *more), lambda: 0.0)
        assert done.code == 0, done.err
        return {size["name"]: (size["disk_bytes"] // 2**30, size["as_of"]) for size in json.loads(done.out)["sizes"]}

    before = listed()
    assert here.service.requests == [], "without --refresh no service is asked"
    after = listed("--refresh")
    offered = {name: disk for name, _, _, gpus, _, disk, *_ in SIZES if gpus}
    assert {name for name in after if after[name] != before.get(name)} == set(offered)
    assert {name: after[name][0] for name in offered} == offered
    assert listed() == after
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["azureml-sizes.json"]


def test_a_size_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "azure.yaml").write_text(CONFIG.format(kind="azureml"))
    lines = performed(("sizes", "--config", str(tmp_path / "azure.yaml")), lambda: 0.0).out.splitlines()
    (line,) = (line for line in lines if line.startswith("Standard_NV36ads_A10_v5"))
    assert line.split() == ["Standard_NV36ads_A10_v5", "1", "A10", "24", "36", "440", "1440", "grid", "2026-11-28"]


@pytest.mark.parametrize("kind", ["local", "openai"])
def test_other_backends_have_no_machines_to_choose(kind: str, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(CONFIG.format(kind=kind))
    done = performed(("sizes", "--config", str(tmp_path / "other.yaml")), lambda: 0.0)
    assert done.code == 2
    assert f"backend.kind: is '{kind}', expected 'azureml'" in done.err
