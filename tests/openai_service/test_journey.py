"""The commands against the whole service: what a user does, and what a user is told when the service says no."""

import dataclasses
import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Done
from tests.documents import document_of
from tests.loopback import Fault, Loopback, Request, Response, status
from tests.openai_service.deviations import unexplained
from tests.openai_service.operations import ASK, DEPLOY, FOLLOW, LOST_JOB, START, TEARDOWN, UNDEPLOY, state_of
from tests.openai_service.service import OLD_VERSION
from tests.openai_service.training import HARMFUL
from tests.openai_service.world import MODEL, RUN, World, one_message, world
from tests.studio import studio
from trainer.backends.openai.client import Record
from trainer.errors import ConfigError
from trainer.runs.ledger import Ledger
from trainer.runs.queue import STARTED_BY_QUEUE, Queue

JSON = ("--format", "json")
TRAIN = ("train", "--config", "config.yaml", "--yes")


@pytest.fixture(params=["openai", "azure"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, request.param) as found:
        yield found
        assert unexplained(found.flavour, found.contract.findings) == []


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, "azure") as found:
        yield found
        assert unexplained("azure", found.contract.findings) == []


def well(done: Done) -> str:
    assert done.code == 0, done.err
    assert done.errors == []
    return done.out + done.err


def test_from_check_to_teardown(made: World) -> None:
    well(made.command("train", "--config", "config.yaml", "--check"))
    checked = document_of(made.command("train", "--config", "config.yaml", "--check", *JSON), expected="train --check")
    assert (checked["backend"], checked["plan"], checked["quote"]["currency"]) == ("openai", None, "USD")
    assert made.inventory() == []
    told = well(made.command(*TRAIN))
    assert made.run.state == "succeeded"
    first = "trainer deploy" if made.flavour == "azure" else "trainer chat"
    assert f"try it:     {first} runs/{RUN}" in told, "the command that is named works"
    assert [kind for kind, _ in made.inventory()] == ["file", "file", "job", "model"]
    assert made.difference() == ""
    shown = well(made.command("show", RUN))
    assert re.search(r"training.n_epochs +2\n", shown)
    assert [word for word in ("auto", "lora:", "quantization", "memory:", "azureml:", "warmup") if word in shown] == []
    assert [point["step"] for point in _metrics(made)] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    if made.flavour == "azure":
        assert "trainer deploy" in one_message(made.command(*ASK))
        quoted = document_of(made.command(*DEPLOY, "--check", *JSON), expected="deploy --check")
        assert quoted["name"] == "glossary-one"
        assert document_of(made.command("endpoints", *JSON))["endpoints"] == []
        assert document_of(made.command(*DEPLOY, *JSON))["endpoint"]["name"] == "glossary-one"
        (deployed,) = document_of(made.command("endpoints", *JSON))["endpoints"]
        assert (deployed["name"], deployed["run"]) == ("glossary-one", RUN)
        assert "glossary-one" in well(made.command("endpoints"))
    assert "Term 3 of train is a word for a test." in well(made.command(*ASK))
    well(made.command(*TEARDOWN))
    assert [kind for kind, _ in made.inventory()] == ([] if made.flavour == "azure" else ["job"])
    assert made.ledger() == []
    assert "nothing is deployed" in well(made.command("endpoints"))


def _metrics(made: World) -> list[dict[str, Any]]:
    import csv

    with (made.run.path / "results.csv").open(encoding="utf-8") as file:
        return [{"step": float(row["step"])} for row in csv.DictReader(file)]


def test_a_paused_job_goes_on_and_ends_once(made: World) -> None:
    well(made.command(*START))
    while state_of(made) != "running" or not next(iter(made.service.state.jobs.values())).step:
        made.service.advance(1)
    well(made.command("pause", RUN))
    made.service.advance(100)
    assert "paused" in well(made.command("runs"))
    well(made.command(*FOLLOW))
    assert (made.run.state, len(made.service.state.jobs), made.difference()) == ("succeeded", 1, "")


def test_training_goes_on_from_a_run_and_from_its_checkpoint(made: World) -> None:
    well(made.command(*TRAIN))
    tuned = next(iter(made.service.state.jobs.values())).fine_tuned_model
    for base, model in ((f"runs/{RUN}", tuned), (f"runs/{RUN}@3", f"{tuned}:ckpt-step-3")):
        name = f"again-{len(made.service.state.jobs)}"
        well(made.command(*TRAIN, "--detach", f"model.base={base}", f"run.name={name}"))
        assert [*made.service.state.jobs.values()][-1].model == model


def test_models_are_listed_with_whether_and_until_when_they_can_be_tuned(made: World) -> None:
    done = made.command("models", "--config", "config.yaml")
    rows = {line.split()[0]: line for line in done.out.splitlines()[1:]}
    assert MODEL in rows
    assert "text-embedding-3-small" not in rows
    assert len(done.err.splitlines()) == 1, "who can use the service, in a line"
    assert "text-embedding-3-small" in well(made.command("models", "--config", "config.yaml", "--all"))
    listed = document_of(made.command("models", "--config", "config.yaml", *JSON))["models"]
    assert {model["name"] for model in listed} == set(rows)
    own = next(model for model in listed if model["name"] == MODEL)
    if made.flavour == "azure":  # whose models a table describes
        types = ["Standard", "GlobalStandard", "DataZone", "Developer"]
        assert (own["methods"], own["training_types"]) == (["sft"], types)
        assert (own["tuning_until"], own["new_customers_until"]) == ("2027-04-01", "2026-10-01")
        assert re.search(rf"{MODEL} +yes +sft +{', '.join(types)} +2027-04-01 +2026-10-01 +2027-10-01 ", done.out)
    else:
        assert (own["methods"], own["training_types"], own["new_customers_until"]) == ([], [], None)
    made.service.models.base.clear()
    assert well(made.command("models", "--config", "config.yaml")).startswith("no model is listed")


@pytest.mark.parametrize(
    ("kind", "words"),
    [("azureml", "takes any model of the hub by its name"), ("local", "expected 'openai', whose service has a list")],
)
def test_a_backend_without_a_list_of_models_says_so(kind: str, words: str, made: World) -> None:
    message = one_message(made.command("models", "--config", "config.yaml", f"backend.kind={kind}"))
    assert message.startswith(f"error: backend.kind: is '{kind}', expected ")
    assert words in message
    assert made.loopback.requests == []


def test_a_check_says_where_the_resource_is_and_what_one_may_do_there(azure: World) -> None:
    told = well(azure.command("train", "--config", "config.yaml", "--check"))
    assert "demo-openai (OpenAI) in swedencentral; you may train and deploy" in told
    azure.service.arm.may_deploy = False
    told = well(azure.command("train", "--config", "config.yaml", "--check"))
    assert "you may train and not deploy, which takes a role with" in told
    azure.config(openai={"subscription": None, "resource_group": None})
    told = well(azure.command("train", "--config", "config.yaml", "--check"))
    assert "region and rights not verified" in told


def test_who_may_not_train_hears_it_before_anything_is_created(azure: World) -> None:
    azure.service.arm.may_train = False
    message = one_message(azure.command(*TRAIN))
    assert message == (
        "error: 'demo-openai': you may not train there, expected a role with "
        "Microsoft.CognitiveServices/accounts/OpenAI/fine-tunes/write; "
        "ask for Cognitive Services OpenAI Contributor or Foundry User"
    )
    assert azure.inventory() == []


def test_all_that_is_wrong_is_told_at_once(made: World) -> None:
    made.config(model={"base": "gpt-4o-minni"}, lora={"r": 8})
    rows = made.folder / "train.jsonl"
    rows.write_text(rows.read_text(encoding="utf-8").replace('"user"', '"human"', 1), encoding="utf-8")
    made.service.arm.may_train = False
    done = made.command("train", "--config", "config.yaml", "--check")
    places = [line.removeprefix("error: ").partition(":")[0] for line in done.errors]
    account = ["'demo-openai'"] if made.flavour == "azure" else []
    assert (done.code, places) == (2, ["lora.r", *account, "model.base", "train.jsonl"]), done.err
    assert made.inventory() == []


def test_a_missing_key_hides_no_wrong_row_and_no_wrong_setting(tmp_path: Path) -> None:
    with world(tmp_path, "openai") as made:
        del made.environment["OPENAI_API_KEY"]
        made.config(data={"validation": "nowhere.jsonl"}, training={"n_epochs": 51})
        done = made.command("train", "--config", "config.yaml", "--check")
        places = [line.removeprefix("error: ").partition(":")[0] for line in done.errors]
        assert (done.code, places) == (2, ["training.n_epochs", "OPENAI_API_KEY", "nowhere.jsonl"]), done.err
        assert made.loopback.requests == []


def test_a_url_that_is_not_there_is_told_beside_the_rest_and_not_as_a_missing_file(azure: World) -> None:
    azure.config(openai={"train_url_variable": "TRAIN_URL"}, data={"train": "fetched.jsonl"}, lora={"r": 8})
    done = azure.command("train", "--config", "config.yaml", "--check")
    assert [line.removeprefix("error: ") for line in done.errors] == [
        "lora.r: is set, but the service chooses how it tunes; remove it, or use another backend",
        "openai.train_url_variable: 'TRAIN_URL' is not set in the environment, expected the file's URL; set it",
    ]


def test_a_config_that_is_refused_leaves_no_file_behind(azure: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAIN_URL", "http://127.0.0.1:1/rows.jsonl")
    azure.config(openai={"train_url_variable": "TRAIN_URL"}, data={"train": "fetched.jsonl"}, lora={"r": 8})
    done = azure.command("train", "--config", "config.yaml", "--check")
    assert [line.split(":")[1].strip() for line in done.errors] == ["lora.r"], done.err
    assert not (azure.folder / "fetched.jsonl").exists()


def test_what_is_wrong_already_is_not_kept_waiting_for_a_service_that_is_away(made: World) -> None:
    made.config(lora={"r": 8})
    made.loopback.faults = [Fault("away", answer=status(503), times=10**6)]
    done = made.command("train", "--config", "config.yaml", "--check")
    assert len(done.errors) == 2, done.err
    assert done.waited_seconds < 10


REFUSALS: dict[str, tuple[Callable[[World], None], str]] = {
    "closed": (lambda made: setattr(made.service.jobs, "is_closed", True), "clos"),
    "full": (lambda made: setattr(made.service.jobs, "quota", 0), "wait, or delete old jobs"),
    "wrong key": (lambda made: setattr(made.service, "accepts_keys", False), "correct the key"),
    "retired": (lambda made: made.service.models.base.pop(MODEL) and None, "model.base"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_one_message_with_a_way_out(name: str, made: World) -> None:
    if name == "wrong key" and made.flavour == "azure":
        pytest.skip("signs in with tokens here")
    refuse, words = REFUSALS[name]
    refuse(made)
    message = one_message(made.command(*TRAIN))
    assert words in message
    files = [file.filename for file in made.service.state.files.values()]
    assert [kind for kind, _ in made.inventory()] == ["file"] * len(files)
    told = f"; uploaded and kept there: {' and '.join(files)}, delete with: trainer teardown runs/{RUN} --everything"
    assert message.endswith(told) if files else "uploaded and kept" not in message
    if files:
        well(made.command(*TEARDOWN))
        assert made.inventory() == []


@pytest.mark.parametrize("only", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_that_one_variable_names_are_trusted_everywhere(only: str, made: World) -> None:
    made.environment |= dict.fromkeys({"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"} - {only}, "")
    told = well(made.command("train", "--config", "config.yaml", "--check"))
    assert "rights not verified" not in told


def test_a_certificate_that_is_not_trusted_is_told_at_once(made: World, tmp_path: Path) -> None:
    made.environment |= dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), "")
    done = made.command("train", "--config", "config.yaml", "--check")
    message = one_message(done)
    assert "the certificate of the service is not trusted (" in message
    assert message.endswith(
        "name a file with the certificates of your network in SSL_CERT_FILE, or correct the address"
    )
    assert done.waited_seconds < 15, "not 120: only the login library tries again"


def test_only_a_lock_that_another_command_holds_is_waited_for(made: World) -> None:
    """Whatever else stands in the way of bringing a run's files up to date ends the command."""
    calls = []

    def broken(*_: object) -> list[Record]:
        calls.append(None)
        if len(calls) > 3:
            raise KeyboardInterrupt
        raise ConfigError("manifest.json: is damaged, expected a record; restore it")

    made.patches = {"trainer.backends.openai.backend.bring_home": broken}
    done = made.command(*TRAIN)
    assert (done.code, len(calls)) == (2, 1)
    assert one_message(done) == "error: manifest.json: is damaged, expected a record; restore it"


def test_ctrl_c_while_a_deployment_is_made_names_what_bills(azure: World) -> None:
    well(azure.command(*TRAIN))

    def ctrl_c(*_: object) -> None:
        raise KeyboardInterrupt

    azure.patches = {"trainer.backends.openai.deploy._wait": ctrl_c}
    done = azure.command(*DEPLOY)
    (deployment,) = azure.service.state.deployments
    assert done.code == 130
    assert f"bills: deployment {deployment} of {RUN}: " in done.err
    assert done.err.splitlines()[-1] == "interrupted"
    azure.patches = {}
    well(azure.command(*TEARDOWN))
    assert azure.difference() == ""


def test_nothing_is_told_twice(made: World) -> None:
    commands = [TRAIN, *([DEPLOY] if made.flavour == "azure" else [])]
    for words in (("train", "--config", "config.yaml", "--check"), *commands):
        lines = [line for line in made.command(*words).err.splitlines() if line.strip()]
        assert [line for line in lines if lines.count(line) > 1] == []
        assert sum(line.startswith("cost ") for line in lines) == 1


def test_harm_in_the_rows_ends_the_run_with_the_services_words(made: World) -> None:
    rows = made.folder / "train.jsonl"
    rows.write_text(rows.read_text(encoding="utf-8").replace("a word for a test", HARMFUL), encoding="utf-8")
    done = made.command(*TRAIN)
    assert (done.code, made.run.state) == (1, "failed")
    assert "failed RAI checks for harm types: [hate_fairness]" in done.err
    assert made.difference() == ""


def test_a_row_that_processing_rejects_is_named_in_the_data_file(azure: World) -> None:
    azure.service.files.disliked = "train term 4"
    message = one_message(azure.command(*TRAIN))
    assert "train.jsonl:5" in message
    assert [kind for kind, _ in azure.inventory()] == ["file", "file"]
    assert azure.difference() == ""
    well(azure.command(*TEARDOWN))
    assert azure.inventory() == azure.ledger() == []


def test_a_failed_or_forbidden_deployment_is_told_and_leaves_nothing_unsaid(azure: World) -> None:
    well(azure.command(*TRAIN))
    azure.service.arm.may_deploy = False
    assert "deployments/write" in one_message(azure.command(*DEPLOY))
    assert azure.difference() == ""
    azure.service.arm.may_deploy, azure.service.arm.fails_with = True, "715-123420"
    assert "trainer teardown" in one_message(azure.command(*DEPLOY))
    assert azure.difference() == "", "a failed deployment is there, and may bill"
    well(azure.command(*UNDEPLOY))
    assert azure.service.state.deployments == {}


def test_a_dated_api_finds_its_job_by_the_file_where_it_keeps_no_marks(azure: World) -> None:
    azure.config(openai={"api_version": OLD_VERSION})
    azure.loopback.faults = [LOST_JOB.fresh(LOST_JOB.match)]
    well(azure.command(*TRAIN))
    assert (len(azure.service.state.jobs), azure.difference()) == (1, "")
    sent = next(iter(azure.service.state.jobs.values())).asked
    assert sent["hyperparameters"] == {"n_epochs": 2, "batch_size": 4}
    well(azure.command(*TEARDOWN))
    assert azure.inventory() == azure.ledger() == []


def test_a_job_that_is_listed_late_is_found_and_not_made_again(made: World) -> None:
    made.service.jobs.lists_after_seconds = 30.0
    made.loopback.faults = [LOST_JOB.fresh(LOST_JOB.match)]
    well(made.command(*TRAIN))
    assert (len(made.service.state.jobs), made.difference()) == (1, "")


def test_a_byte_order_mark_is_sent_where_it_is_asked_for(azure: World) -> None:
    azure.config(openai={"file_bom": True})
    well(azure.command(*START))
    assert {file.content[:3] for file in azure.service.state.files.values()} == {b"\xef\xbb\xbf"}


def test_a_file_behind_an_address_is_checked_here_and_fetched_by_the_service(azure: World) -> None:
    content = (azure.folder / "train.jsonl").read_bytes()
    with Loopback(lambda request: Response(200, content)) as blob:
        azure.environment["TRAIN_URL"] = f"{blob.url}/train.jsonl?sig=canary-signature"
        azure.config(openai={"train_url_variable": "TRAIN_URL"}, data={"train": "fetched.jsonl"})
        told = well(azure.command(*TRAIN))
        assert [request.path for request in blob.requests] == ["/train.jsonl"] * 2
    assert "canary-signature" not in told + "".join(
        path.read_text(encoding="utf-8", errors="replace") for path in azure.run.path.rglob("*") if path.is_file()
    )
    assert azure.difference() == ""


def test_ctrl_c_leaves_the_job_running_and_says_how_to_follow_or_end_it(made: World) -> None:
    made.service.state.clock.a_request = 1.0  # until the job is there; then time stands still
    process = made.start(*TRAIN)
    hear(process, "job ")
    made.service.state.clock.a_request = 0.0
    told = interrupted(process)
    assert "trainer logs" in told
    assert "trainer cancel" in told
    assert [job.state not in ("cancelled", "failed") for job in made.service.state.jobs.values()] == [True]


def test_ctrl_c_before_there_is_a_job_says_that_nothing_bills(azure: World) -> None:
    process = azure.start(*TRAIN)  # its files are never processed, as time stands still
    hear(process, "waiting until")
    told = interrupted(process)
    assert "nothing bills" in told
    assert f"train --resume runs/{RUN}" in told
    well(azure.command(*FOLLOW))
    assert (len(azure.service.state.jobs), azure.difference()) == (1, "")


def hear(process: "subprocess.Popen[str]", words: str) -> None:
    """Wait for the line that begins with the words."""
    assert process.stderr is not None
    while not (line := process.stderr.readline()).startswith(words):
        assert line, "the command has ended"


def interrupted(process: "subprocess.Popen[str]") -> str:
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    return err


def test_nothing_is_asked_of_a_service_whose_quote_nobody_agreed_to(made: World) -> None:
    message = one_message(made.command("train", "--config", "config.yaml"))
    assert "--yes" in message
    assert [request for request in made.loopback.requests if _creates(request)] == []


def test_a_folder_that_holds_no_run_takes_nobodys_agreement_from_auto_resume(made: World) -> None:
    made.run.path.mkdir(parents=True)
    again = ("train", "--config", "config.yaml", "--auto-resume", "--detach")
    assert "--yes" in one_message(made.command(*again))
    assert "backend.spend_cap: is 0.00" in one_message(made.command(*again, "--yes", "backend.spend_cap=0.0001"))
    assert (made.inventory(), list(made.run.path.iterdir())) == ([], [])
    well(made.command(*again, "--yes"))
    assert [kind for kind, _ in made.inventory()] == ["file", "file", "job"]


def test_a_run_that_cannot_be_torn_down_leaves_none_of_the_others_billing(made: World) -> None:
    well(made.command(*TRAIN, "run.name=first", "--detach"))
    well(made.command(*TRAIN, "run.name=second"))
    told = one_message(made.command("teardown", "--all", "--everything", "--yes"))
    assert told.startswith("error: run 'first': its job is ")
    left = {name: Ledger(made.folder / "runs" / name).open() for name in ("first", "second")}
    assert (bool(left["first"]), left["second"]) == (True, [])


def test_a_check_with_auto_resume_resumes_nothing(made: World) -> None:
    well(made.command(*TRAIN, "--detach"))
    made.loopback.requests.clear()
    shown = well(made.command("train", "--config", "config.yaml", "--auto-resume", "--check"))
    assert "nothing has been created and nothing bills" in shown
    assert [request for request in made.loopback.requests if _creates(request)] == []


def test_a_setting_that_no_job_takes_on_is_refused_before_there_is_a_run(made: World) -> None:
    for more in ((), ("--auto-resume",)):
        told = one_message(made.command(*TRAIN, "--allow-change", "training.n_epochs", *more))
        assert told.startswith("error: --allow-change: is for backend.kind=local")
    assert (made.run.path.exists(), made.inventory()) == (False, [])


def test_a_run_of_the_service_is_never_trained_here(made: World) -> None:
    well(made.command(*TRAIN, "--detach"))
    before = {path: path.read_bytes() for path in made.run.path.rglob("*") if path.is_file()}
    here = ("train", "--config", "here.yaml", f"run.name={RUN}", "--auto-resume")
    (made.folder / "here.yaml").write_text("model: {base: 'builtin:tiny'}\ndata: {train: train.jsonl}\n")
    assert "is a run of backend.kind=openai, expected one of local" in one_message(made.command(*here))
    assert {path: path.read_bytes() for path in made.run.path.rglob("*") if path.is_file()} == before


def _creates(request: Request) -> bool:
    return request.method != "GET"


def test_a_job_that_ended_before_it_was_found_brings_its_files_home(made: World) -> None:
    made.service.jobs.lists_after_seconds = 30.0
    made.loopback.faults = [LOST_JOB.fresh(LOST_JOB.match)]
    well(made.command(*START))
    assert state_of(made) == "succeeded"
    well(made.command("runs"))
    assert (made.run.state, made.difference()) == ("succeeded", "")
    assert made.run.status()["fine_tuned_model"]


def test_a_job_that_is_listed_late_is_cancelled_and_not_forgotten(made: World) -> None:
    made.config(training={"n_epochs": 50})
    made.service.jobs.lists_after_seconds = 10.0
    lost = dataclasses.replace(LOST_JOB, answer=None, broken="reset", times=1)

    def looks(request: Request) -> bool:
        return bool(made.service.state.jobs) and request.path.endswith("/fine_tuning/jobs")

    gone = Fault("gone", looks, answer=status(403))
    made.loopback.faults = [lost, gone]
    assert "answered 403" in one_message(made.command(*START))
    made.loopback.faults = []
    well(made.command("cancel", RUN))
    assert [job.state for job in made.service.state.jobs.values()] == ["cancelled"]
    assert made.difference() == ""


@pytest.fixture
def queued(made: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A run in the queue, whose worker does not start it by itself."""
    monkeypatch.setattr(Queue, "start_worker", lambda queue: False)
    refused = made.command("train", "--config", "config.yaml", "--queue")
    assert "expected --yes" in one_message(refused)
    assert not made.run.path.exists()
    told = well(made.command(*TRAIN, "--queue"))
    assert f"{RUN} waits in the queue, place 1" in told
    assert (made.run.state, made.inventory()) == ("queued", [])
    return made


def test_a_run_that_waits_bills_nothing_and_starts_at_the_quote_that_was_agreed_to(
    queued: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (entry,) = document_of(queued.command("queue", *JSON))["entries"]
    checked = document_of(
        queued.command("train", "--config", "config.yaml", "--check", "run.name=other", *JSON), expected="train --check"
    )
    assert entry["quote"]["total"] == checked["quote"]["total"] > 0
    assert "waits in the queue, place 1 of 1" in well(queued.command("show", RUN))
    monkeypatch.setenv(STARTED_BY_QUEUE, "1")
    well(queued.command("train", "--resume", RUN))
    assert (queued.run.state, queued.difference()) == ("succeeded", "")


def test_a_run_whose_price_has_risen_while_it_waited_is_not_started(
    queued: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(queued.run.path.parent)
    agreed = json.loads(queue.file.read_text())
    agreed["entries"][0]["quote"] |= {"total": 0.001, "lines": ["training: 0.00 USD"]}
    queue.file.write_text(json.dumps(agreed))
    monkeypatch.setenv(STARTED_BY_QUEUE, "1")
    refused = one_message(queued.command("train", "--resume", RUN))
    assert re.search(r"its quote is now: .* USD.*expected no more than was agreed to: training: 0.00 USD", refused)
    assert (queued.run.state, queued.run.status()["error"], queued.inventory()) == (
        "failed",
        refused.removeprefix("error: "),
        [],
    )


def test_a_run_taken_out_of_the_queue_starts_at_the_agreed_price_and_asks_before_a_higher_one(queued: World) -> None:
    well(queued.command("queue", "remove", RUN))
    well(queued.command("resume", RUN, "--queue"))
    (entry,) = document_of(queued.command("queue", *JSON))["entries"]
    assert entry["quote"]["total"] > 0
    well(queued.command("queue", "remove", RUN))
    agreed = queued.run.status()["agreed_quote"]
    queued.run.set_status("paused", agreed_quote=agreed | {"total": 0.001, "lines": ["training: 0.00 USD"]})
    with studio(queued.run.path.parent) as served, queued.surroundings():
        refused = served.post(f"/runs/{RUN}/resume", {})
        assert "expected no more than was agreed to: training: 0.00 USD" in refused.text
        assert f"agree in a terminal: trainer resume {queued.run.path}" in refused.text
    refused = queued.command("resume", RUN)
    assert "expected --yes" in one_message(refused)
    assert "USD" in refused.err
    assert (queued.run.state, queued.inventory()) == ("paused", [])
    queued.run.set_status("paused", agreed_quote=None)
    assert "no price of it was agreed to" in one_message(queued.command("resume", RUN, "--queue"))
    well(queued.command("resume", RUN, "--yes"))
    assert (queued.run.state, queued.difference()) == ("succeeded", "")


@pytest.mark.parametrize("command", ["cancel", "remove"])
def test_a_run_that_waits_is_taken_out_without_a_word_to_the_service(command: str, queued: World) -> None:
    words = {"cancel": ("cancel", RUN), "remove": ("queue", "remove", RUN)}[command]
    well(queued.command(*words))
    assert document_of(queued.command("queue", *JSON))["entries"] == []
    assert (queued.run.state, queued.inventory()) == ({"cancel": "cancelled", "remove": "paused"}[command], [])
