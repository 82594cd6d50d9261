"""A run on Azure OpenAI through the page: the form, what stands in its way, price, start, progress and result."""

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_new_run_page import ID, JSON, change, settled, words
from tests.loopback import Fault, status
from tests.openai_service import arm
from tests.openai_service.world import MODEL, RUN, World, world
from tests.studio import Studio, stream, studio
from tests.waiting import until
from trainer.web import attendance

PAGE = f"/runs/{RUN}"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The service of Azure, whose clock moves with the requests."""
    monkeypatch.setattr(attendance, "MIN_SECONDS", 0.1)
    with world(tmp_path, "azure") as found, found.surroundings():
        monkeypatch.setenv("TRAINER_PATIENCE_SECONDS", "2")
        monkeypatch.setenv("TRAINER_TIMEOUT_SECONDS", "30")
        found.service.state.clock.a_request = 3.0
        yield found


@pytest.fixture
def served(made: World) -> Iterator[Studio]:
    with studio(Path("runs")) as server:
        server.wait_seconds = 300.0
        server.server.studio.file_roots = (Path(),)
        yield server


def shown(served: Studio, path: str) -> str:
    return unescape(words(served.get(path).text))


def top_of(state: dict[str, Any]) -> str:
    return unescape(words(state["parts"]["top"]))


@pytest.mark.slow
def test_a_form_becomes_a_job_of_azure_openai_and_a_result(
    made: World, served: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(served, backend__kind="openai", model__base=MODEL, run__name=RUN, training__n_epochs="2")
    for role in ("train", "validation"):
        change(served, **{"act": f"name {role}", f"place__{role}": f"{role}.jsonl"})
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "expired")
    assert top_of(settled(served)) == (
        "reading the list of fine-tuning jobs: EnvironmentCredential: Authentication failed: AADSTS7000215: invalid "
        "secret; sign in, for example with: az login"
    )
    monkeypatch.setenv("AZURE_CLIENT_SECRET", made.environment["AZURE_CLIENT_SECRET"])
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT")
    change(served, act="again")
    (missing,) = settled(served)["problems"]["openai-base_url"]
    assert missing.startswith("is missing, expected the resource's endpoint")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", made.environment["AZURE_OPENAI_ENDPOINT"])
    change(served, act="again", openai__subscription=arm.SUBSCRIPTION, openai__resource_group=arm.GROUP)
    card = settled(served)["parts"]["card"]
    assert "you may train and deploy" in words(card)
    assert "I agree to 0.01 USD" in words(card)
    (agreed,) = re.findall(r'value="start (\w+)"', card)
    assert "expected your agreement" in served.post(f"/new/{ID}/set", {"act": f"start {agreed}"}, **JSON).text
    assert made.inventory() == []
    found = served.post(f"/new/{ID}/set", {"act": f"start {agreed}", "confirm": "yes"}, **JSON)
    assert json.loads(found.text) == {"go": PAGE}
    assert len(made.service.state.jobs) == 1
    assert "Still bills: job" in shown(served, PAGE)

    made.service.state.clock.a_request = 0.0
    made.loopback.faults = [Fault("401", answer=status(401), times=10**6)]
    with stream(served, f"{PAGE}/live?cursor="):
        until(lambda: "sign in again, or correct the key" in shown(served, PAGE), "the refusal", 60)
    made.loopback.faults, made.service.state.clock.a_request = [], 3.0
    with stream(served, f"{PAGE}/live?cursor="):
        until(lambda: made.run.state == "succeeded", "the end", 120)
    page = shown(served, PAGE)
    assert "Still bills" not in page
    assert "sign in again" not in page
    assert re.search(r"Cost so far about 0\.0\d USD", page)
    assert re.search(r"0\.0\d USD", shown(served, "/runs"))
    assert "Nothing bills" in shown(served, "/deployments")
    plan = unescape(words(served.post(f"/deployments/run/{RUN}/plan", {"name": "one", "sku": "standard"}).text))
    assert "1.70 USD" in plan
