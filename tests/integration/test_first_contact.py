"""The page for somebody's first hour with Azure: its commands run, and print what it shows."""

from pathlib import Path

import pytest

from tests import first_contact
from tests.first_contact import PAGE, STEP, part_of, shape, written_again
from tests.integration.azure_twin.fixtures import azure, here  # noqa: F401
from tests.integration.azure_twin.journey import Journey
from tests.integration.azure_twin.twin import Twin
from tests.openai_service.world import world

pytestmark = pytest.mark.slow

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_page_has_twelve_commands() -> None:
    assert len(STEP.findall(TEXT)) == 12


def test_the_journey_on_foundry_prints_what_the_page_shows(tmp_path: Path) -> None:
    part = part_of(TEXT, "Microsoft Foundry")
    with world(tmp_path, "azure") as made:
        now = written_again(part, first_contact.on_foundry(made))
    assert shape(now) == shape(part), "python -m tests.first_contact writes it again"


def test_the_check_of_a_workspace_prints_what_the_page_shows(
    here: Twin,  # noqa: F811
    tmp_path: Path,
) -> None:
    command, output = STEP.findall(part_of(TEXT, "Azure Machine Learning"))[0]
    perform = first_contact.on_azureml(Journey(here, tmp_path, print))
    assert shape(perform(command)) == shape(output), "python -m tests.first_contact writes it again"
