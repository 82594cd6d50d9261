"""What only a GPU can show: `pytest -m gpu` on a machine that has one; skipped elsewhere."""

from pathlib import Path

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(missing)


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda", 0)


@pytest.fixture
def has_flex(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= (8, 0)
