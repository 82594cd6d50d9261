"""The wheel that all installations of a session get."""

from pathlib import Path

import pytest

from tests.environments import CannotInstall
from tests.installations.environments import build_wheel


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build_wheel(tmp_path_factory.mktemp("wheel"))
    except CannotInstall as error:
        pytest.skip(str(error))
