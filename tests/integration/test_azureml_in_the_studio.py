"""Azure ML through the page, against its twin: from a form to an answer and back to nothing that bills.

The twin has no machines here. What a job would write into storage, a run that was trained in this process has written.
"""

import io
import json
import re
import shutil
import time
from collections.abc import Iterator
from html import unescape
from http.client import HTTPConnection
from pathlib import Path

import pytest
from rich.console import Console

pytest.importorskip("azure.ai.ml")
from azure.ai.ml.constants._common import LROConfigurations

from tests.browser import browsed
from tests.entra import CREDENTIAL
from tests.integration.azure_twin.commands import World, write_config
from tests.integration.azure_twin.fixtures import azure, here
from tests.integration.azure_twin.journey import CLUSTER, MACHINE, QUESTION, SERVER
from tests.integration.azure_twin.operations import START, answering
from tests.integration.azure_twin.twin import Twin
from tests.integration.test_new_run_page import ID, JSON, change, settled, words
from tests.loopback import Fault, status
from tests.studio import Studio, make_run, stream, studio, write_status
from tests.waiting import until
from trainer.backends.azureml import workspace
from trainer.backends.azureml.copies import FILES
from trainer.backends.azureml.job import prefix_of, recall
from trainer.backends.azureml.node import write_files
from trainer.config.load import dump_config, load_config
from trainer.config.schema import RunConfig
from trainer.runs import Run, create_run
from trainer.runs.ledger import Ledger
from trainer.training.fit import fit
from trainer.training.prepare import prepare
from trainer.web import attendance

pytestmark = pytest.mark.filterwarnings("ignore")
__all__ = ["azure", "here"]

T4S, DS = "Standard NCASv3_T4 Family", "standardDSv2Family"
RECORDS = ("status.json", "results.csv", "metrics.jsonl", "events.jsonl")
AWAY = Fault("503", answer=status(503), times=10**6)


@pytest.fixture
def served(here: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    """The page beside a workspace with a cluster, in a folder with rows."""
    variables = {"PATIENCE": "2", "TIMEOUT": "30", "POLLING": "0.2"}
    for name, seconds in variables.items():
        monkeypatch.setenv(f"TRAINER_{name}_SECONDS", seconds)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(LROConfigurations, "POLL_INTERVAL", 0.2)  # of the SDK's own thread, else 5
    monkeypatch.setattr(attendance, "MIN_SECONDS", 0.1)
    monkeypatch.chdir(tmp_path)
    workspace.credential.cache_clear()
    here.arm.add_compute(CLUSTER, MACHINE)
    with studio(Path("runs")) as found:
        found.wait_seconds = 300.0
        found.server.studio.file_roots = (Path(),)
        yield found
    workspace.credential.cache_clear()


def shown(served: Studio, path: str) -> str:
    """The words of a page."""
    found = served.get(path)
    assert found.status == 200, found.text
    return unescape(words(found.text))


def bad(served: Studio, path: str) -> list[str]:
    """What a page says is wrong, a notice each."""
    return [unescape(words(text)) for text in re.findall(r'<p class="notice bad">(.*?)</p>', served.get(path).text)]


def looked_at(served: Studio, run: Run, state: str) -> None:
    """A person looks at the page of a run until it has a state."""
    with stream(served, f"/runs/{run.name}/live?cursor="):
        until(lambda: run.state == state, f"{run.name} is {state}", 60)


def drafted(served: Studio, **settings: str) -> None:
    change(served, backend__kind="azureml", model__base="builtin:tiny", run__name="paid", **settings)
    for role in ("train", "validation"):
        change(served, **{"act": f"name {role}", f"place__{role}": f"glossary_{role}.jsonl"})


def digest_in(page: str) -> str:
    (found,) = re.findall(r'name="digest" value="(\w+)"', page)
    return str(found)


def ended(served: Studio, path: str) -> None:
    """Wait until a part of a page asks for itself no more."""
    until(lambda: 'hx-trigger="every 1s"' not in served.get(path).text, f"the end at {path}", 120)


def trained_elsewhere(folder: Path, config: Path) -> Run:
    """A finished run of that config, with the list of its files, as a job has it on its machine."""
    given = ["backend.kind=local", "training.n_epochs=1", "run.name=paid", f"run.root={folder / 'node'}"]
    prepared = prepare(load_config(config, given), lambda message: None)
    run = create_run(prepared.config)
    fit(prepared, run, Console(file=io.StringIO()))
    write_files(run)
    return run


def stored(here: Twin, run: Run, there: Run, *names: str) -> None:
    """The files of the job's run in storage: all, or those of that name."""
    recalled = recall(run)
    assert recalled is not None
    for path in [*there.path.rglob("*"), there.path.parent / FILES]:
        if path.is_file() and (not names or path.name in names):
            name = prefix_of(recalled[1].stem) + path.relative_to(there.path.parent).as_posix()
            here.blobs.write(here.arm.containers["workspaceblobstore"], name, path.read_bytes())


def printed(here: Twin, job: str, text: str) -> None:
    """What the job has printed so far."""
    container, name = here.arm.containers["workspaceartifactstore"], f"ExperimentRun/dcid.{job}/user_logs/std_log.txt"
    here.blobs.write(container, name, text.encode())
    here.plane.logs_of = lambda asked: {"user_logs/std_log.txt": here.blobs.readable(container, name)}


@pytest.mark.slow
def test_a_form_becomes_a_job_an_endpoint_an_answer_and_nothing(here: Twin, served: Studio, tmp_path: Path) -> None:
    write_config(tmp_path)
    drafted(served, azureml__compute=CLUSTER, azureml__price_per_hour="4",
            azureml__deployment__instance_type=SERVER, azureml__deployment__price_per_hour="0.3")  # fmt: skip
    card = settled(served)["parts"]["card"]
    assert "at 4.000 USD an hour: 2.00 USD" in words(card)
    assert "I agree to 2.00 USD" in words(card)
    (agreed,) = re.findall(r'value="start (\w+)"', card)
    refused = served.post(f"/new/{ID}/set", {"act": f"start {agreed}"}, **JSON)
    assert "expected your agreement" in json.loads(refused.text)["refused"]
    assert here.arm.inventory() == []
    found = served.post(f"/new/{ID}/set", {"act": f"start {agreed}", "confirm": "yes"}, **JSON)
    assert json.loads(found.text) == {"go": "/runs/paid"}
    run = Run(tmp_path / "runs" / "paid")
    (job,) = (path.removeprefix("jobs/") for path in here.arm.billing())
    assert f"Still bills: job {job}: 4.00 USD an hour for 1 x {MACHINE}" in shown(served, "/runs/paid")
    assert "Cost so far about 0.00 USD" in shown(served, "/runs/paid")

    followed(here, served, run, job, trained_elsewhere(tmp_path, tmp_path / "azure.yaml"))
    deployed_asked_and_removed(here, served, run)
    assert here.arm.billing() == []
    assert "6.00 USD" in shown(served, "/runs"), "what was used stays in the list"


def followed(here: Twin, served: Studio, run: Run, job: str, there: Run) -> None:
    """The page shows state, log, measurements and cost of the job while it runs, and its result."""
    body, last = here.arm.resources[f"jobs/{job}"]["properties"], (there.path / "status.json").read_bytes()
    body["status"] = "Running"
    (there.path / "status.json").write_text(json.dumps(json.loads(last) | {"state": "running"}), encoding="utf-8")
    stored(here, run, there, *RECORDS)
    printed(here, job, "the node says hello\n")
    begun = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 3600))
    here.plane.times = {job: [begun, None]}
    looked_at(served, run, "running")
    until(lambda: (run.path / "output.log").exists(), "its log", 60)
    assert "the node says hello" in shown(served, "/runs/paid/logs?log=output.log")
    assert "Cost so far about 4.0" in shown(served, "/runs/paid")
    assert re.search(r"4\.0\d USD still bills", shown(served, "/runs"))
    bills = shown(served, "/deployments/bills")
    assert f"job {job}" in bills
    assert "4.00 USD an hour" in shown(served, "/deployments")
    assert re.search(r"4\.0\d USD cancelled I have read the list: the job ends before the training is done", bills)
    assert '"valid_loss"' in served.get("/runs/paid/metrics/points").text
    assert re.search(r"Best valid loss \d", shown(served, "/runs/paid"))

    (there.path / "status.json").write_bytes(last)
    stored(here, run, there)
    body["status"] = "Completed"
    end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1800))
    here.plane.times = {job: [begun, end]}
    looked_at(served, run, "succeeded")
    assert re.search(r"Cost so far about (6\.00|5\.99) USD", shown(served, "/runs/paid"))
    assert "Still bills" not in shown(served, "/runs/paid")
    assert (run.adapter / "adapter_model.safetensors").is_file()


def deployed_asked_and_removed(here: Twin, served: Studio, run: Run) -> None:
    page = f"/deployments/run/{run.name}"
    here.scoring.answer = answering(run)
    here.arm.limits = {DS: 0}
    refused = served.post(f"{page}/plan", {"name": "glossary", "instance_type": SERVER})
    assert f"of {DS} 0 of 0 are free in eastus" in unescape(words(refused.text))
    here.arm.limits = {}
    here.service.faults = [AWAY.fresh(lambda request: True)]
    begun = time.monotonic()
    away = unescape(words(served.post(f"{page}/plan", {"name": "glossary", "instance_type": SERVER}).text))
    answer = "the service answered 503: Code503: refused with 503 for a test; wait and try again"
    assert away == f"reading the workspace: {answer}"
    assert time.monotonic() - begun < 30, "nobody waits for minutes for a price"
    here.service.faults = []

    plan = served.post(f"{page}/plan", {"name": "glossary", "instance_type": SERVER}).text
    assert f"each hour of 1 x {SERVER}: 0.30 USD" in words(plan)
    assert [path for path in here.arm.billing() if "deployments" in path] == []
    here.arm.start_deployment = lambda path: lambda: "Failed"
    served.post(f"{page}/deploy", {"digest": digest_in(plan)})
    ended(served, f"{page}/progress")
    said = shown(served, page)
    assert "has failed: ResourceNotReady: User container has crashed or terminated" in said
    assert "it was deleted and bills no more" in said
    assert "Nothing bills" in shown(served, "/deployments/bills")
    assert served.post(f"{page}/deploy", {"digest": digest_in(plan)}).status == 400, "a plan is agreed to once"
    here.arm.start_deployment = None
    plan = served.post(f"{page}/plan", {"name": "glossary", "instance_type": SERVER}).text
    served.post(f"{page}/deploy", {"digest": digest_in(plan)})
    ended(served, f"{page}/progress")
    assert "glossary answers." in shown(served, page)

    entry = Ledger(run.path).find("deployment")
    assert entry is not None
    name = entry.thing.key
    listed = shown(served, "/deployments")
    assert f"{name} {run.name} exists, by the ledger" in listed
    assert "0.30 USD 0.00 USD never: it bills until it is removed" in listed
    asked = unescape(words(served.post("/deployments/refresh").text))
    assert f"{name} {run.name} Succeeded, 100 % of the traffic" in asked
    html = served.get(page).text
    assert "key-" not in re.sub(r"key-\d", "", html), "its key is hidden until somebody asks"
    (form,) = re.findall(rf'action="{page}/key">(.*?)</form>', html, re.DOTALL)
    key = served.post(f"{page}/key", dict(re.findall(r'name="(run|kind|key|place)" value="([^"]*)"', form)))
    assert here.arm.keys["onlineEndpoints/glossary"]["primaryKey"] in key.text
    assert key.headers["cache-control"] == "no-store"

    answered(here, served, run, name)
    bills = served.get("/deployments/bills").text
    assert "it stops answering" in words(bills)
    served.post("/deployments/bills/remove", {"digest": digest_in(bills)})
    ended(served, "/deployments/bills/progress")
    removed = shown(served, "/deployments/bills")
    assert "Nothing bills" in removed
    assert f"removed deleted: deployment {name}, endpoint glossary" in removed
    assert Ledger(run.path).billing() == []
    assert [path for path in here.arm.inventory() if path.startswith("onlineEndpoints")] == []


def answered(here: Twin, served: Studio, run: Run, name: str) -> None:
    """The playground asks through the endpoint, and shows a call that does."""
    page = f"/playground/{run.name}"
    assert f'value="endpoint:{name}"' in served.get(page).text
    form = {"source": f"endpoint:{name}", "messages": json.dumps([{"role": "user", "content": QUESTION}]), "seed": "1",
            "models": "both", "max_tokens": "20", "temperature": "0", "top_p": "1"}  # fmt: skip
    begun = re.search(r'hx-sse:connect="([^"]+)"', served.post(f"{page}/rounds", form).text)
    assert begun
    connection = HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.request("GET", begun[1], headers=served.signed_in)
    sent = unescape(connection.getresponse().read().decode())
    connection.close()
    base, answer = (re.findall(rf'id="said-{side}"[^>]*>([^<]*)</div>', sent)[-1] for side in "ab")
    assert answer.strip()
    assert f"has the tuned model only; compare them here with: trainer chat runs/{run.name} --compare" in base
    code = unescape(words(served.post(f"{page}/code", form).text))
    assert "curl https://glossary.eastus.inference.ml.azure.com/score" in code
    here.service.faults = [AWAY.fresh(lambda request: True)]
    refused = served.post(f"{page}/rounds", form)
    assert (refused.status, "wait and try again" in refused.text) == (400, True)
    listed = unescape(words(served.post("/deployments/refresh").text))
    assert listed.count("looking for the endpoint glossary") == 1
    assert f"{name} {run.name} exists, by the ledger" in listed
    here.service.faults = []


@pytest.mark.slow
def test_what_a_workspace_lacks_stands_beside_its_field_and_nothing_is_lost(
    here: Twin, served: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(tmp_path)
    drafted(served, azureml__compute="gone", training__seed="7")
    state = settled(served)
    assert state["problems"]["azureml-compute"] == [
        f"'gone' was not found in the workspace, expected one of: {CLUSTER}"
    ]
    assert state["status"] == "Not ready: 1 problem with settings, 0 mistakes in rows."
    here.arm.limits = {T4S: 0}
    change(served, azureml__compute=CLUSTER)
    (problem,) = settled(served)["problems"]["azureml-instance_count"]
    assert f"of {T4S} 0 of 0 are free in eastus" in problem
    here.arm.limits = {}
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "expired")
    change(served, act="again")
    assert unescape(words(settled(served)["parts"]["top"])) == (
        "reading the workspace: EnvironmentCredential: Authentication failed: AADSTS7000215: invalid secret; sign in, "
        "for example with: az login"
    )
    monkeypatch.setenv("AZURE_CLIENT_SECRET", CREDENTIAL["AZURE_CLIENT_SECRET"])
    change(served, act="again")
    state = settled(served)
    assert state["status"] == "Checked: ready to start."
    page = served.get(f"/new/{ID}").text
    assert re.search(r'value="7"[^>]*id="training-seed"', page)
    assert here.arm.inventory() == []


def test_a_job_that_fails_or_cannot_be_asked_is_one_sentence_on_its_page(
    here: Twin, served: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(here, tmp_path / "user")
    shutil.copytree(tmp_path / "user", tmp_path, dirs_exist_ok=True)
    done = world.command(*START)
    assert done.code == 0, done.err
    shutil.copytree(world.run.path, tmp_path / "runs" / world.run.name)
    run = Run(tmp_path / "runs" / world.run.name)
    (job,) = (path.removeprefix("jobs/") for path in here.arm.billing())
    body = here.arm.resources[f"jobs/{job}"]["properties"]
    body["status"] = "Running"
    page = f"/runs/{run.name}"
    looked_at(served, run, "running")
    for fault, said in (
        (AWAY, "the service answered 503: Code503: refused with 503 for a test; wait and try again"),
        (Fault("401", answer=status(401), times=10**6), "sign in again, or correct the key"),
    ):
        here.service.faults = [fault.fresh(lambda request: True)]
        with stream(served, f"{page}/live?cursor="):
            until(lambda said=said: said in shown(served, page), said, 60)  # type: ignore[misc]
        refused = served.post(f"{page}/cancel", **JSON)
        assert refused.status >= 400
        assert said in unescape(refused.text), refused.text
        assert run.state == "running", "what was known of it stays"
    here.service.faults = []
    looked_at(served, run, "running")

    here.end_job(job, "UserError", "The machine is on fire.", {"user_logs/std_log.txt": "Traceback\nValueError: hot\n"})
    looked_at(served, run, "failed")
    assert bad(served, page) == ["UserError: The machine is on fire; its output ends: ValueError: hot"]
    assert "Still bills" not in shown(served, page)
    assert "Nothing bills" in shown(served, "/deployments")
    assert "It bills by the hour as quoted" in shown(served, page), "resuming says what it costs"

    assert served.post(f"{page}/resume").status == 303
    assert here.arm.billing() == [f"jobs/{job}-2"]
    assert f"Still bills: job {job}-2: 0.50 USD an hour for 1 x {MACHINE}" in shown(served, page)
    bills = served.get("/deployments/bills").text
    assert "the job ends before the training is done" in words(bills)
    served.post("/deployments/bills/remove", {"digest": digest_in(bills)})
    ended(served, "/deployments/bills/progress")
    assert "removed" in shown(served, "/deployments/bills")
    assert (here.arm.billing(), Ledger(run.path).billing(), run.state) == ([], [], "cancelled")


@pytest.mark.slow
def test_a_run_of_this_machine_is_deployed_asked_for_its_key_and_removed_in_a_browser(
    here: Twin, served: Studio, tuned: Run, tmp_path: Path
) -> None:
    """To the workspace of another run, as a person clicks."""
    run = Run(tmp_path / "runs" / "tuned")
    shutil.copytree(tuned.path, run.path)
    there = make_run(tmp_path / "runs", "elsewhere")
    write_status(there, **(Run(there).status() | {"backend": "azureml"}))
    config = run.config().model_dump() | {"backend": {"kind": "azureml"}, "azureml": {"compute": CLUSTER}}
    (there / "config.yaml").write_text(dump_config(RunConfig.model_validate(config)), encoding="utf-8")
    here.scoring.answer = answering(run)
    with browsed(served) as page:
        page.goto(f"{served.server.address}/deployments/run/tuned")
        page.fill("input[name=name]", "counting")
        page.get_by_role("button", name="Check and show the price").click()
        page.get_by_text("expected a machine such as").wait_for()
        page.fill("input[name=instance_type]", SERVER)
        page.get_by_role("button", name="Check and show the price").click()
        page.get_by_text(f"each hour of 1 x {SERVER}: 0.30 USD").wait_for()
        assert page.input_value("input[name=name]") == "counting"
        assert here.arm.inventory() == []
        page.get_by_role("button", name="Agree to this cost and deploy").click()
        page.get_by_text("counting answers.").wait_for()
        page.reload()
        assert "key-" not in page.inner_text("main")
        page.get_by_role("button", name="Show the key").click()
        page.get_by_text(here.arm.keys["onlineEndpoints/counting"]["primaryKey"]).wait_for()
        page.get_by_role("link", name="Remove it…").click()
        page.get_by_label("I have read the list").check()
        page.get_by_role("button", name="Remove it").click()
        page.get_by_text("endpoint counting").wait_for()
    assert (here.arm.billing(), Ledger(run.path).billing()) == ([], [])
