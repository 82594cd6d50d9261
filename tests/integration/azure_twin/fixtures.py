"""A twin for tests: started once for a module, or skipped with the reason."""

from collections.abc import Iterator

import pytest

from tests.integration.azure_twin.blobs import Missing
from tests.integration.azure_twin.twin import Twin, twin


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twin]:
    try:
        with twin(tmp_path_factory.mktemp("twin")) as made:
            yield made
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def here(azure: Twin, monkeypatch: pytest.MonkeyPatch) -> Twin:
    """The twin, empty, and where this process finds Azure."""
    azure.start_over()
    for name, value in azure.environment().items():
        monkeypatch.setenv(name, value)
    return azure
