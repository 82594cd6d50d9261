"""Open models of Foundry, whose flags are wrong, and what each model and route has of training types and SKUs."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.openai_service.deviations import unexplained
from tests.openai_service.jobs import WORDS
from tests.openai_service.operations import ASK, TEARDOWN
from tests.openai_service.world import RUN, World, one_message, world

TRAIN = ("train", "--config", "config.yaml", "--yes")
CHECK = ("train", "--config", "config.yaml", "--check")
OPEN = {
    "gpt-oss-20b-11": "Microsoft",
    "Llama-3.3-70B-Instruct": "Meta",
    "Qwen3-32B": "Alibaba",
    "Ministral-3B": "Mistral AI",
}


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, "azure") as found:
        yield found
        assert unexplained("azure", found.contract.findings) == []


def configured(made: World, base: str, **openai: Any) -> None:
    made.config(model={"base": base}, openai=openai)


def only_job(made: World) -> dict[str, Any]:
    [job] = made.service.state.jobs.values()
    return job.asked


def put_bodies(made: World) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in made.loopback.requests if request.method == "PUT"]


@pytest.mark.parametrize("base", OPEN)
def test_an_open_model_goes_from_check_to_teardown(base: str, azure: World) -> None:
    configured(azure, base, trust="table")
    checked = azure.command(*CHECK)
    assert checked.code == 0, checked.err
    assert "GlobalStandard: may be trained in any region" in checked.err
    assert "known to be wrong for it" in " ".join(checked.err.split())
    assert azure.command(*TRAIN).code == 0
    assert (only_job(azure)["model"], only_job(azure)["trainingType"]) == (base, "GlobalStandard")
    deployed = azure.command("deploy", RUN, "--yes")
    assert deployed.code == 0, deployed.err
    [body] = put_bodies(azure)
    assert body["sku"] == {"name": "GlobalStandard", "capacity": 100}
    assert body["properties"]["model"]["format"] == OPEN[base]
    assert azure.command(*ASK).code == 0
    assert azure.command(*TEARDOWN).code == 0
    assert azure.inventory() == []


def test_the_name_that_the_service_lists_is_sent_and_shown(azure: World) -> None:
    configured(azure, "gpt-oss-20b", trust="table")
    done = azure.command(*TRAIN)
    assert done.code == 0, done.err
    assert "gpt-oss-20b is listed as gpt-oss-20b-11, which is sent" in " ".join(done.err.split())
    assert only_job(azure)["model"] == "gpt-oss-20b-11"


def test_without_trust_and_terminal_the_contradiction_is_refused_before_an_upload(azure: World) -> None:
    configured(azure, "gpt-oss-20b")
    assert azure.command(*CHECK).code == 0, "a check shows it"
    done = azure.command(*TRAIN)
    assert done.code == 2
    assert one_message(done).endswith("; set openai.trust to table or to service")
    assert azure.inventory() == []
    assert not azure.run.path.exists()


def test_the_service_s_word_is_a_refusal_for_who_trusts_it(azure: World) -> None:
    configured(azure, "gpt-oss-20b", trust="service")
    done = azure.command(*TRAIN)
    assert (done.code, azure.inventory()) == (2, [])
    assert "openai.training_type: gpt-oss-20b-11 trained as GlobalStandard in swedencentral" in one_message(done)
    assert "openai.trust is service, expected what is offered" in one_message(done)


@pytest.mark.parametrize(
    ("base", "openai", "words"),
    [
        ("gpt-oss-20b", {"training_type": "Standard"}, "the table has GlobalStandard, DataZone"),
        ("gpt-oss-20b", {"training_type": "DataZone"}, "the table has it in centralus, eastus"),
        ("gpt-4.1-mini-2025-04-14", {"training_type": "DataZone"}, "the table has it in centralus, eastus"),
        (
            "gpt-4.1-mini-2025-04-14",
            {"training_type": "Developer", "api_version": "2024-10-21"},
            "2024-10-21 trains as Standard only, expected Developer",
        ),
    ],
)
def test_what_is_not_offered_is_refused_before_an_upload(
    base: str, openai: dict[str, Any], words: str, azure: World
) -> None:
    configured(azure, base, **openai)
    done = azure.command(*TRAIN)
    assert (done.code, azure.inventory()) == (2, [])
    assert words in one_message(done)


@pytest.mark.parametrize("version", [None, "2025-04-01-preview"])
@pytest.mark.parametrize("kind", ["Standard", "GlobalStandard", "Developer"])
def test_each_route_reads_the_training_type(kind: str, version: str | None, azure: World) -> None:
    given = {} if version is None else {"api_version": version}
    configured(azure, "gpt-4.1-mini-2025-04-14", training_type=kind, **given)
    done = azure.command(*TRAIN, "--detach")
    assert done.code == 0, done.err
    words = WORDS["v1" if version is None else "dated"]
    assert words[only_job(azure)["trainingType"]] == kind
    assert azure.difference() == ""


@pytest.mark.parametrize(("version", "word"), [(None, "DataZoneStandard"), ("2025-04-01-preview", "dataZoneStandard")])
def test_a_model_of_the_data_zone_goes_from_check_to_teardown(version: str | None, word: str, azure: World) -> None:
    azure.service.state.region = "eastus2"
    given = {} if version is None else {"api_version": version}
    configured(azure, "gpt-4.1-mini-2025-04-14", training_type="DataZone", **given)
    checked = azure.command(*CHECK)
    assert checked.code == 0, checked.err
    text = " ".join(checked.err.split())
    assert "demo-openai (OpenAI) in East US 2; you may train and deploy" in text
    assert "DataZone: may be trained anywhere in the resource's data zone, which is the United States" in text
    assert "epochs at 5.50 a million" in text
    assert re.search(r"prices\.azure\.com on \d{4}-\d\d-\d\d, eastus2", text)
    assert "DeveloperTier, 50,000 tokens a minute; also GlobalStandard, DataZoneStandard" in text
    assert azure.command(*TRAIN).code == 0
    assert only_job(azure)["trainingType"] == word
    deployed = azure.command("deploy", RUN, "--sku", "data-zone", "--yes")
    assert deployed.code == 0, deployed.err
    assert [body["sku"]["name"] for body in put_bodies(azure)] == ["DataZoneStandard"]
    assert azure.command(*ASK).code == 0
    assert azure.command(*TEARDOWN).code == 0
    assert azure.inventory() == []


def test_a_data_zone_that_the_service_denies_is_a_contradiction(azure: World) -> None:
    """Shown by a check, with the flag in the service's word, and refused where nobody can be asked."""
    azure.service.state.region = "eastus2"
    configured(azure, "gpt-oss-20b", training_type="DataZone")
    checked = azure.command(*CHECK)
    [shown] = contradictions(checked.err)
    assert shown.startswith("gpt-oss-20b-11 trained as DataZone in eastus2: the table has it (")
    assert "global_fine_tune: false, datazone_fine_tune: false, devtier_fine_tune: false, a flag" in shown
    assert "ready to train once a contradiction is settled: it asks in a terminal" in checked.out
    assert one_message(azure.command(*TRAIN)) == f"error: {shown}"


def contradictions(shown: str) -> list[str]:
    """The rows of a plan that contradict each other, each on one line again."""
    rows: list[str] = []
    title = ""
    for line in shown.splitlines():
        if not line.startswith(" "):
            title = line.split("  ")[0]
            rows += [line[len(title) :].strip()] if title == "contradiction" else []
        elif title == "contradiction":
            rows[-1] = f"{rows[-1]} {line.strip()}"
    return rows


def test_a_deployment_s_contradiction_is_shown_by_a_check_and_refused_where_nobody_can_be_asked(azure: World) -> None:
    configured(azure, "gpt-4o-mini-2024-07-18")
    assert azure.command(*TRAIN).code == 0
    azure.service.arm.limit = 0
    checked = azure.command("deploy", RUN, "--check")
    assert checked.code == 0, checked.err
    [shown] = contradictions(checked.err)
    assert shown.startswith("gpt-4o-mini deployed as Standard in swedencentral: the table has it (")
    assert "; the service has a quota of 0 for OpenAI.Standard.gpt-4o-mini-finetune; set openai.trust to " in shown
    assert "ready to deploy once a contradiction is settled: it asks in a terminal" in checked.out
    assert one_message(azure.command("deploy", RUN, "--yes")) == f"error: {shown}"
    assert put_bodies(azure) == []


def test_a_weight_that_an_open_model_may_not_honor_is_told_before_an_upload(azure: World) -> None:
    row = {"messages": [
        {"role": "user", "content": "Which terms are there?"}, {"role": "assistant", "content": "Many.", "weight": 0},
        {"role": "user", "content": "Name one."}, {"role": "assistant", "content": "A cassette."},
    ]}  # fmt: skip
    with (azure.folder / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    told = "warning weight 0 stands in 1 of 23 rows, and no document says that Qwen3-32B honors it"
    configured(azure, "Qwen3-32B", trust="table")
    assert told in " ".join(azure.command(*CHECK).err.split())
    assert azure.inventory() == []
    configured(azure, "gpt-4.1-mini-2025-04-14")
    assert "weight 0" not in azure.command(*CHECK).err


def test_the_stable_version_gets_no_training_type(azure: World) -> None:
    configured(azure, "gpt-4.1-mini-2025-04-14", api_version="2024-10-21")
    assert azure.command(*TRAIN, "--detach").code == 0
    assert "trainingType" not in only_job(azure)


def test_a_word_that_no_spelling_fits_is_explained(azure: World) -> None:
    azure.service.jobs.words = {"v1": {}, "dated": {}}
    configured(azure, "gpt-4.1-mini-2025-04-14", training_type="Developer")
    done = azure.command(*TRAIN)
    assert done.code != 0
    assert "The fineTuningJob field is required; this route does not read one of the values" in one_message(done)
    assert azure.service.state.jobs == {}


@pytest.mark.parametrize(
    ("base", "sku"), [("gpt-4o-mini-2024-07-18", "Standard"), ("gpt-4.1-mini-2025-04-14", "DeveloperTier")]
)
def test_the_sku_of_a_deployment_follows_the_model(base: str, sku: str, azure: World) -> None:
    configured(azure, base)
    assert azure.command(*TRAIN).code == 0
    done = azure.command("deploy", RUN, "--yes")
    assert done.code == 0, done.err
    assert [body["sku"] for body in put_bodies(azure)] == [{"name": sku, "capacity": 50}]


def test_a_sku_that_the_model_lacks_and_a_capacity_above_the_quota_are_refused(azure: World) -> None:
    configured(azure, "gpt-4o-mini-2024-07-18")
    assert azure.command(*TRAIN).code == 0
    for words, said in (
        (("--sku", "developer"), "--sku: gpt-4o-mini deployed as DeveloperTier in swedencentral: "),
        (("--sku", "data-zone"), "the table has it in centralus"),
        (
            ("--sku", "standard", "--capacity", "251"),
            "--capacity: is 251, expected at most 250, which is free of the 250",
        ),
    ):
        done = azure.command("deploy", RUN, "--yes", *words)
        assert done.code == 2, done.err
        assert said in one_message(done)
    assert put_bodies(azure) == []


def test_a_quote_asks_the_price_list_and_falls_back_to_the_dated_file(azure: World) -> None:
    configured(azure, "gpt-oss-20b", trust="table")
    from_the_list = " ".join(azure.command(*CHECK).err.split())
    assert "epochs at 4.00 a million" in from_the_list
    assert re.search(r"prices: prices\.azure\.com on \d{4}-\d\d-\d\d, swedencentral; they change", from_the_list)
    assert "3.60 (list of 2026-08-12" in from_the_list, "the other reading stands beside it"
    azure.service.retail.meters = None
    from_the_file = " ".join(azure.command(*CHECK).err.split())
    assert "epochs at 3.60 a million" in from_the_file
    assert "prices: list of 2026-08-12, https://github.com/microsoft/skills" in from_the_file
    assert "(prices.azure.com could not be read: HTTP Error 503: " in from_the_file


def test_the_cap_holds_for_the_dearest_price_also_once_the_job_runs(azure: World) -> None:
    azure.config(
        model={"base": "gpt-oss-20b"},
        openai={"trust": "table", "training_price": 0.01},
        backend={"spend_cap": 0.001},
    )
    done = azure.command(*TRAIN)
    assert (done.code, azure.inventory()) == (2, [])
    assert "USD by the dearest of its prices; raise backend.spend_cap" in one_message(done)
    configured(azure, "gpt-oss-20b", trust="table")
    assert azure.command(*TRAIN).code == 0
    launch = azure.run.manifest().launch
    assert launch is not None
    assert (launch.training_price, launch.dearest_price) == (4.0, 4.0)
    deployed = azure.command("deploy", RUN, "--check")
    assert "hosting, the first hour: 0.35 USD" in deployed.err
