"""Deployments of the studio against the whole service: agreed to, listed, talked to, removed with all that bills."""

import json
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.loopback import Fault, status
from tests.openai_service.arm import Other
from tests.openai_service.deviations import unexplained
from tests.openai_service.service import KEY
from tests.openai_service.state import TARGET
from tests.openai_service.world import RUN, World, world
from tests.studio import Studio, studio
from trainer.dashboard.deployments.bills import read_bills
from trainer.dashboard.deployments.page import deployment_pages
from trainer.runs.ledger import Ledger, Thing

PAGE = f"/deployments/run/{RUN}"


@pytest.fixture
def made(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A run that has been tuned on Azure; the service's clock moves with the requests."""
    for place in ("http", "idempotent", "openai.deploy", "openai.teardown"):
        monkeypatch.setattr(f"trainer.backends.{place}.FIRST_WAIT_SECONDS", 0.01)
    with world(tmp_path, "azure", with_key=getattr(request, "param", False)) as found:
        assert found.command("train", "--config", "config.yaml", "--yes").code == 0
        found.service.state.clock.a_request = 3.0
        yield found
        assert unexplained("azure", found.contract.findings) == []


@pytest.fixture
def served(made: World) -> Iterator[Studio]:
    with made.surroundings(), studio(made.folder / "runs") as server:
        yield server


@pytest.fixture
def there(made: World) -> World:
    """The run's model in another resource, made before the studio begins."""
    assert made.command("deploy", RUN, "--name", "one", "--resource", Other().id, "--yes").code == 0
    return made


def deployments(made: World) -> list[str]:
    """Names of the deployments that the service has."""
    return [key for kind, key in made.inventory() if kind == "deployment"]


def digest_in(page: str) -> str:
    found = re.search(r'name="digest" value="([0-9a-f]{64})"', page)
    assert found is not None, page
    return found[1]


def deployed(served: Studio, made: World, **options: str) -> None:
    """Plan, agree and wait."""
    plan = served.post(f"{PAGE}/plan", options)
    assert served.post(f"{PAGE}/deploy", {"digest": digest_in(plan.text)}).status == 303
    pages = deployment_pages((made.folder / "runs").resolve())
    pages.deployments.wait(made.run)
    assert (pages.deployments.state(made.run) or {})["state"] == "ready", pages.deployments.state(made.run)


def named(made: World, key: str, place: str | None = None) -> dict[str, str]:
    """The fields that name a deployment of the run."""
    entry = Ledger(made.run.path).find("deployment", key, place)
    assert entry is not None
    return {"run": RUN} | entry.thing.identity._asdict()


def hidden_in(page: str) -> dict[str, str]:
    """The hidden fields of a page's forms, but for the sign of the session."""
    found = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page)
    return {name: value for name, value in found if name != "csrf"}


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_nothing_is_made_before_its_price_is_agreed_to(served: Studio, made: World) -> None:
    assert "Nothing bills" in served.get("/deployments").text
    assert f'href="{PAGE}"' in served.get("/deployments").text
    plan = served.post(f"{PAGE}/plan", {"name": "one", "sku": "standard"})
    assert "1.70 USD" in plan.text
    for wrong in ("", "0" * 64):
        refused = served.post(f"{PAGE}/deploy", {"digest": wrong})
        assert refused.status == 400
        assert "the plan is no longer known" in refused.text
    assert deployments(made) == []
    refused = served.post(f"{PAGE}/plan", {"sku": "huge", "capacity": "2"})
    assert "--sku: is &#39;huge&#39;" in refused.text
    assert (
        "capacity: is &#39;many&#39;, expected a whole number" in served.post(f"{PAGE}/plan", {"capacity": "many"}).text
    )
    assert deployments(made) == []


def test_a_deployment_is_made_listed_and_talked_to(served: Studio, made: World) -> None:
    plan = served.post(f"{PAGE}/plan", {"name": "one", "sku": "standard"})
    deployed(served, made, name="one", sku="standard")
    assert deployments(made) == ["one"]
    assert served.post(f"{PAGE}/deploy", {"digest": digest_in(plan.text)}).status == 400, "an agreement holds once"
    page = served.get(PAGE).text
    assert "one answers." in text_of(page)
    assert "1.70 USD" in page
    listed = text_of(served.get("/deployments").text)
    assert "exists, by the ledger" in listed
    assert "1.70 USD an hour" in listed
    assert " one glossary Succeeded " in text_of(served.post("/deployments/refresh").text)
    assert "There is no key: calls are signed in with Microsoft Entra ID" in text_of(
        served.post(f"{PAGE}/key", named(made, "one")).text
    )
    for wrong in ({}, {"key": "another"}, {"place": ""}, {"run": "another"}):
        assert served.post(f"{PAGE}/key", named(made, "one") | wrong if wrong else {}).status == 400
    said = answer_of(served, "What is train term 3?")
    assert said["b"] == "Term 3 of train is a word for a test."
    assert "openai.base_deployment: is not set" in said["a"]


def test_what_a_service_deletes_by_itself_is_counted_down(served: Studio, made: World) -> None:
    thing = Thing("openai", "deployment", "short", f"{'/x' * 8}/account", "by the token", "trainer teardown glossary")
    Ledger(made.run.path).write(thing, "exists", sku="DeveloperTier", hourly=0.0, model="ft")
    page = served.get("/deployments").text
    found = re.search(r'data-until="([^"]+)">in (?:23 h|24 h)', page)
    assert found is not None, page
    until = datetime.fromisoformat(found[1])
    assert timedelta(hours=23) < until - datetime.now(UTC) <= timedelta(hours=24)


def answer_of(served: Studio, question: str) -> dict[str, str]:
    """Answers, or the reasons why there are none, of the deployment and its base."""
    form: dict[str, str] = {
        "source": "endpoint:one", "models": "both", "system": "You explain terms.", "tools": "", "max_tokens": "50",
        "temperature": "0", "top_p": "1", "seed": "0", "messages": json.dumps([{"role": "user", "content": question}]),
    }  # fmt: skip
    code = served.post(f"/playground/{RUN}/code", form).text
    assert "AZURE_OPENAI_API_KEY" in code
    assert ".openai.azure.com/openai/v1" in code
    begun = re.search(r'hx-sse:connect="([^"]+)"', served.post(f"/playground/{RUN}/rounds", form).text)
    assert begun
    connection = HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.request("GET", begun[1], headers=served.signed_in)
    sent = unescape(connection.getresponse().read().decode())
    connection.close()
    return {side: re.findall(rf'id="said-{side}"[^>]*>([^<]*)</div>', sent)[-1] for side in "ab"}


def test_one_button_removes_everything_that_bills(served: Studio, made: World) -> None:
    root = (made.folder / "runs").resolve()
    deployed(served, made, name="one", sku="standard")
    old = digest_in(served.get("/deployments/bills").text)
    deployed(served, made, name="two", sku="global-standard")
    page = served.get("/deployments/bills")
    assert "1.70 USD an hour until it is deleted" in page.text
    assert "Remove all 2" in text_of(page.text)
    refused = served.post("/deployments/bills/remove", {"digest": old})
    assert refused.status == 400
    assert "other things bill by now" in refused.text
    assert deployments(made) == ["one", "two"]
    assert served.post("/deployments/bills/remove", {"digest": digest_in(page.text)}).status == 303
    deployment_pages(root).cleanup.wait()
    after = text_of(served.get("/deployments/bills").text)
    assert after.count(" removed ") == 2
    assert "Nothing bills" in after
    assert deployments(made) == []
    assert read_bills(root).found == ()
    assert made.difference() == ""
    assert [kind for kind, _ in made.inventory()] == ["file", "file", "job", "model"], "what costs nothing stays"


def test_progress_that_cannot_be_written_stops_neither_deployment_nor_removal(
    served: Studio, made: World, capsys: pytest.CaptureFixture[str]
) -> None:
    records = made.folder / "runs" / ".ui"
    (records / "deployments").write_text("in the place of a folder")
    (records / "cleanup.json").mkdir()
    for name in ("one", "two"):
        deployed(served, made, name=name, sku="standard")
        assert f"{name} answers." in text_of(served.get(PAGE).text)
    assert deployments(made) == ["one", "two"]
    page = served.get("/deployments/bills").text
    assert served.post("/deployments/bills/remove", {"digest": digest_in(page)}).status == 303
    deployment_pages((made.folder / "runs").resolve()).cleanup.wait()
    assert deployments(made) == []
    after = text_of(served.get("/deployments/bills").text)
    assert (after.count(" removed "), "Removed last ended" in after) == (2, True)
    assert capsys.readouterr().err.count("Error: ") == 2, "one report of each record"


def test_one_of_several_is_removed_alone(served: Studio, made: World) -> None:
    deployed(served, made, name="one", sku="standard")
    deployed(served, made, name="two", sku="global-standard")
    link = re.search(r'href="(/deployments/bills\?[^"]*one[^"]*)"', served.get(PAGE).text)
    assert link is not None
    page = served.get(link[1].replace("&amp;", "&")).text
    assert "Remove one" in page
    fields = {"digest": digest_in(page)} | named(made, "one")
    assert hidden_in(page) == fields
    for wrong in ({"key": ""}, {"place": ""}, {"run": ""}, dict.fromkeys(named(made, "one"), "")):
        assert served.post("/deployments/bills/remove", fields | wrong).status == 400, "it was not agreed to for all"
    assert served.post("/deployments/bills/remove", fields).status == 303
    deployment_pages((made.folder / "runs").resolve()).cleanup.wait()
    assert deployments(made) == ["two"]


def test_a_deployment_in_another_resource_has_a_key_and_a_removal(there: World, served: Studio, made: World) -> None:
    deployed(served, made, name="one", sku="standard")
    assert deployments(made) == [f"{TARGET}/one", "one"]
    page = served.get(PAGE).text
    forms = [hidden_in(part) for part in page.split("Show the key")[:2]]
    assert forms == [named(made, "one", Other().id), named(made, "one")]
    answers = [text_of(served.post(f"{PAGE}/key", fields).text) for fields in forms]
    assert "OPENAI_API_KEY is the key of the run's own resource" in unescape(answers[0])
    assert "is the key of the run" not in answers[1]
    links = [unescape(link) for link in re.findall(r'href="(/deployments/bills\?[^"]*)"', page)]
    assert len(set(links)) == 2
    for link, fields in zip(links, forms, strict=True):
        removal = served.get(link).text
        assert "Remove it" in removal
        assert hidden_in(removal).items() >= fields.items()
    assert served.post("/deployments/bills/remove", hidden_in(served.get(links[1]).text)).status == 303
    deployment_pages((made.folder / "runs").resolve()).cleanup.wait()
    assert deployments(made) == [f"{TARGET}/one"], "the one of that name elsewhere stays"


def test_what_is_named_and_not_found_is_not_said_to_bill_nothing(served: Studio, made: World) -> None:
    deployed(served, made, name="one", sku="standard")
    for wrong in ({"key": "two"}, {"place": "/elsewhere"}, {"kind": "job"}, {"run": ""}):
        fields = named(made, "one") | wrong
        page = text_of(served.get(f"/deployments/bills?{urlencode(fields)}").text)
        assert "Not found" in page
        assert "Nothing bills" not in page
        assert "Remove it" not in page
        refused = served.post("/deployments/bills/remove", fields | {"digest": read_bills(made.run.path).digest})
        assert (refused.status, "is not found among what bills" in refused.text) == (400, True)
    (made.run.path / "ledger.jsonl").write_text('{"no": "entry"}\n')
    assert all("Nothing bills" not in served.get(path).text for path in ("/deployments", "/deployments/bills"))


def test_what_cannot_be_removed_hides_nothing_else(served: Studio, made: World) -> None:
    root = (made.folder / "runs").resolve()
    deployed(served, made, name="one", sku="standard")
    shutil.copytree(made.run.path, root / "second")
    with (root / "second" / "ledger.jsonl").open("a") as ledger:
        ledger.write('{"no": "entry"}\n')
    made.loopback.faults = [Fault("refused", lambda request: request.method == "DELETE", answer=status(403), times=99)]
    page = served.get("/deployments/bills").text
    assert "second/ledger.jsonl" in page, "a ledger that cannot be read may bill"
    assert served.post("/deployments/bills/remove", {"digest": digest_in(page)}).status == 303
    deployment_pages(root).cleanup.wait()
    after = served.get("/deployments/bills").text
    assert " failed " in text_of(after)
    assert "Remove it" in text_of(after), "it bills still, and can be tried again"
    assert [entry.thing.key for entry in Ledger(made.run.path).billing()] == ["one"]


@pytest.mark.parametrize("made", [True], indirect=True)
def test_a_key_is_shown_on_request_alone(served: Studio, made: World) -> None:
    deployed(served, made, name="one", sku="standard")
    pages = [served.get(path).text for path in ("/deployments", PAGE, f"/playground/{RUN}", "/deployments/bills")]
    assert all(KEY not in page for page in pages)
    assert KEY in served.post(f"{PAGE}/key", named(made, "one")).text
    assert served.get(f"{PAGE}/key").status == 405
