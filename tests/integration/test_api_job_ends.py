"""What surrounds a job: webhooks at its end, the cap before it begins, and everything under kills and crowds."""

import base64
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.api_process import KEY, api_process
from tests.api_server import CALLERS, TINY, ApiServer, api_server, key_of, settings_of
from tests.integration.test_api_jobs import OFFERS, chat_rows
from tests.waiting import until
from trainer.api import admission, spending, webhooks
from trainer.api.admission import OFFICE, admit, ensure_admission
from trainer.api.attendant import attending
from trainer.api.job import Job, job_by_id, job_ids, new_id, shared_file
from trainer.api.job_body import JobBody
from trainer.api.job_start import start_job
from trainer.api.keys import Caller, Key, digest_of
from trainer.api.settings import Webhook
from trainer.backends.contract import Plan
from trainer.backends.quote import Item, Quote
from trainer.errors import ConfigError
from trainer.runs import flock
from trainer.runs.ledger import Ledger, Thing
from trainer.runs.queue import Queue

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes....").decode()
BAD = b'{"messages": [{"role": "human", "content": "x"}]}\n'


@contextmanager
def still(root: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Iterator[ApiServer]:
    """A server whose jobs are validated by the test alone, and whose queue nobody works."""
    office = flock.take(shared_file(root, OFFICE))
    assert office is not None
    monkeypatch.setattr(Queue, "start_worker", lambda queue: False)
    with api_server(root, **({"bases": OFFERS} | settings)) as served:
        yield served
    os.close(office)


class Listener(ThreadingHTTPServer):
    """An address that takes webhooks; the first `num_refused` are answered with an error."""

    def __init__(self, num_refused: int = 0, status: int = 503) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.taken: list[tuple[bytes, dict[str, str]]] = []
        self.num_refused, self.status = num_refused, status
        self.url = f"http://127.0.0.1:{self.server_address[1]}/hook"

    @contextmanager
    def serving(self) -> Iterator["Listener"]:
        thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class _Taking(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Listener)
        body = self.rfile.read(int(self.headers["content-length"]))
        server.taken.append((body, {name.lower(): text for name, text in self.headers.items()}))
        self.send_response(server.status if len(server.taken) <= server.num_refused else 200)
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.mark.parametrize("status", [503, 302])
def test_the_end_of_a_job_is_told_signed_until_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("TRAINER_WEBHOOK_SECRET", SECRET)
    monkeypatch.setattr(webhooks, "FIRST_WAIT_SECONDS", 0.05)
    with Listener(2, status).serving() as first, Listener().serving() as second:
        hooks = (
            Webhook(url=first.url),
            Webhook(url=second.url, events=("fine_tuning.job.cancelled",), key="ann"),
        )
        with still(tmp_path, monkeypatch, webhooks=hooks) as served:
            client = served.client()
            good = client.files.create(file=("a.jsonl", chat_rows(0, 12)), purpose="fine-tune").id
            bad = client.files.create(file=("b.jsonl", chat_rows(0, 12) + BAD), purpose="fine-tune").id
            failed = client.fine_tuning.jobs.create(model=TINY, training_file=bad).id
            admit(tmp_path, _job(tmp_path, failed))
            until(lambda: len(first.taken) == 3, "two refusals and a success", 30)
            cancelled = client.fine_tuning.jobs.create(model=TINY, training_file=good).id
            client.fine_tuning.jobs.cancel(cancelled)
            until(lambda: len(first.taken) == 4 and second.taken, "the second end", 30)
            time.sleep(0.3)  # nothing is told again
        told = [client.webhooks.unwrap(body, headers, secret=SECRET) for body, headers in [*first.taken, *second.taken]]
    assert [(event.type, event.data.id) for event in told] == [  # type: ignore[union-attr]
        *[("fine_tuning.job.failed", failed)] * 3,
        *[("fine_tuning.job.cancelled", cancelled)] * 2,
    ]
    ids = [headers["webhook-id"] for _, headers in first.taken]
    assert (len(set(ids[:3])), len(set(ids))) == (1, 2)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(first.taken[0][0] + b" ", first.taken[0][1], secret=SECRET)


@pytest.mark.parametrize("secret", ["", "a word", "whsec_not base64!", "whsec_"])
def test_a_server_whose_webhooks_have_no_secret_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setenv("TRAINER_WEBHOOK_SECRET", secret)
    settings = settings_of(tmp_path, webhooks=(Webhook(url="https://example.com"),))
    found = "holds something else" if secret else "is not set"
    words = f"^webhooks: TRAINER_WEBHOOK_SECRET {found}, expected whsec_ and base64; make one with: "
    with pytest.raises(ConfigError, match=words), attending(settings, print):
        pass


def _job(root: Path, id_: str) -> Job:
    job = job_by_id(root, id_)
    assert job is not None
    return job


def _new_job(root: Path, caller: Caller = CALLERS[0], num_rows: int = 12) -> Job:
    from trainer.api.files import add_file

    source = root / "rows.jsonl"
    source.write_bytes(chat_rows(0, num_rows))
    file = add_file(root, caller.name, "rows.jsonl", "fine-tune", source)
    body = JobBody(model=TINY, training_file=file.id, hyperparameters={"n_epochs": 1})  # type: ignore[arg-type]
    return start_job(settings_of(root, bases=OFFERS), caller, body, new_id())


def _quote(amount: float | None, currency: str = "USD") -> Quote:
    return Quote([Item("2.0 h (estimate) x 1 machine", amount)], "of a test", currency)


def test_jobs_reserve_from_the_cap_before_they_begin_and_never_more(tmp_path: Path) -> None:
    jobs = [_new_job(tmp_path) for _ in range(12)]

    def reserve(job: Job) -> bool:
        try:
            return spending.reserve(tmp_path, job, _quote(10.0), 12.5, 100.0) == 12.5
        except spending.OverCap:
            return False

    with ThreadPoolExecutor(12) as pool:
        kept = list(pool.map(reserve, jobs))
    assert sum(kept) == 8
    assert [reserve(job) for job in jobs] == kept, "asked again, each has what it had"
    first = next(job for job, has in zip(jobs, kept, strict=True) if has)
    spending.give_back(tmp_path, first)  # it never reached the service
    assert sum(map(reserve, jobs)) == 8, "what was given back is another's"


def test_of_an_ended_job_its_cost_stays_reserved_and_nothing_of_one_that_was_refused(tmp_path: Path) -> None:
    def kept_of(job: Job) -> float:
        return float(json.loads(shared_file(tmp_path, spending.FILE).read_text())[job.id]["amount"])

    priced = Thing("azureml", "job", "a-job", "a-place", "4.00 USD an hour until it ends")
    refused, billing, unpriced = jobs = [_new_job(tmp_path) for _ in range(3)]
    for job in jobs:
        spending.reserve(tmp_path, job, _quote(10.0), 12.5, 100.0)
        hourly = {} if job is unpriced else {"hourly": 4.0, "currency": "USD"}
        Ledger(job.run.path).write(priced, "intended", **hourly)
        spending.give_back(tmp_path, job)
    assert [kept_of(job) for job in jobs] == [12.5] * 3, "as long as it may bill"
    Ledger(refused.run.path).write(priced, "refused", reason="no quota")
    times = {"started_at": "2026-01-01T00:00:00+00:00", "ended_at": "2026-01-01T05:00:00+00:00"}
    for job in (billing, unpriced):
        Ledger(job.run.path).write(replace(priced, bills=""), "exists", **times)
    for job in jobs:
        spending.give_back(tmp_path, job)
    assert [kept_of(job) for job in jobs] == [0.0, 20.0, 12.5], "all where it is not known"


@pytest.mark.parametrize(
    ("quote", "cap", "words"),
    [
        (
            _quote(10.0),
            None,
            "this server has no cap that agrees to it; its quote is: 2.0 h (estimate) x 1 machine: 10.00",
        ),
        (_quote(None), 100.0, "at a price that is not known"),
        (
            _quote(10.0),
            5.0,
            "this job may cost 10.00 USD, and of this server's cap of 5.00 5.00 are left; its quote is",
        ),
    ],
    ids=["no cap", "no price", "no room"],
)
def test_a_job_that_no_cap_agrees_to_fails_with_its_quote_and_begins_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quote: Quote, cap: float | None, words: str
) -> None:
    monkeypatch.setattr(Queue, "start_worker", lambda queue: False)
    planned = admission._planned

    def billing(job: Job) -> tuple[Any, Plan[Any]]:
        backend, plan = planned(job)
        return backend, replace(plan, quote=quote)

    monkeypatch.setattr(admission, "_planned", billing)
    office = flock.take(shared_file(tmp_path, OFFICE))
    settings = settings_of(tmp_path, cap=cap)
    ensure_admission(settings)
    job = _new_job(tmp_path)
    admit(tmp_path, job)
    os.close(office or 0)
    error = job.admission()["error"]
    assert (error["code"], words in error["message"]) == ("spending_cap_exceeded", True), error
    assert (job.run.state, Queue(tmp_path).entries()) == ("failed", [])


def test_a_job_beyond_its_keys_tokens_fails_and_ended_ones_count_as_far_as_they_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "start_worker", lambda queue: False)
    office = flock.take(shared_file(tmp_path, OFFICE))
    first = _new_job(tmp_path)
    admit(tmp_path, first)
    tokens = first.admission()["tokens"]
    caller = Caller("ann", max_tokens=2 * tokens)
    ensure_admission(settings_of(tmp_path, keys=[Key(caller, digest_of(key_of("ann")))]))
    second, third = _new_job(tmp_path), _new_job(tmp_path)
    for job in (second, third):
        admit(tmp_path, job)
    assert (second.run.state, third.run.state) == ("queued", "failed")
    assert third.admission()["error"]["code"] == "token_quota_exceeded"
    first.run.set_status("cancelled")  # before a step
    fourth = _new_job(tmp_path)
    admit(tmp_path, fourth)
    assert fourth.run.state == "queued"
    os.close(office or 0)


def create_until_made(address: list[str], number: int, file: str) -> str:
    """One job, as a client makes it that repeats its request until it has an answer."""
    while True:
        try:
            client = openai.OpenAI(api_key=KEY, base_url=address[0], max_retries=0, timeout=60)
            made = client.fine_tuning.jobs.create(
                model=TINY, training_file=file, metadata={"number": str(number)},
                extra_headers={"Idempotency-Key": f"job-{number}"},
            )  # fmt: skip
        except openai.APIConnectionError:
            time.sleep(0.1)
        else:
            return made.id


@pytest.mark.parametrize(
    ("num_clients", "num_jobs"),
    [pytest.param(8, 40, id="few"), pytest.param(50, 500, id="many", marks=pytest.mark.slow)],
)
def test_a_server_that_is_killed_in_the_middle_of_a_crowd_loses_no_job_and_makes_none_twice(
    tmp_path: Path, num_clients: int, num_jobs: int
) -> None:
    office = flock.take(shared_file(tmp_path, OFFICE))  # so that nothing is validated meanwhile
    address = [""]
    with ThreadPoolExecutor(num_clients) as pool:
        with api_process(tmp_path) as server:
            address[0] = server.address
            client = openai.OpenAI(api_key=KEY, base_url=server.address)
            file = client.files.create(file=("rows.jsonl", chat_rows(0, 12)), purpose="fine-tune").id
            made = [pool.submit(create_until_made, address, number, file) for number in range(num_jobs)]
            until(lambda: len(job_ids(tmp_path)) > num_jobs // 3, "a third of the jobs", 300, pause=0.01)
            server.kill()
        before = len(job_ids(tmp_path))
        with api_process(tmp_path) as server:
            address[0] = server.address
            answers = [future.result() for future in made]
            client = openai.OpenAI(api_key=KEY, base_url=server.address)
            listed = {job.id: (job.metadata or {})["number"] for job in client.fine_tuning.jobs.list(limit=100)}
    os.close(office or 0)
    assert num_jobs // 3 < before < num_jobs, "the server was killed in the middle"
    assert listed == {id_: str(number) for number, id_ in enumerate(answers)}
    assert len(set(answers)) == num_jobs == len(job_ids(tmp_path))


@pytest.mark.slow
def test_jobs_that_processes_validate_and_train_end_once_although_all_are_killed(tmp_path: Path) -> None:
    """The real processes of two jobs, supervised, with the server and the validation killed in between."""
    offer = tmp_path / "server.yaml"
    overrides = ["lora.r=4", "training.learning_rate=0.005", "evaluation.enabled=false"]
    offer.write_text(f"bases: {{tiny: {{base: 'builtin:tiny', overrides: {json.dumps(overrides)}}}}}\n")
    root = tmp_path / "runs"
    with api_process(root, "api", "--config", str(offer)) as server:
        client = openai.OpenAI(api_key=KEY, base_url=server.address)
        file = client.files.create(file=("rows.jsonl", chat_rows(0, 20)), purpose="fine-tune").id
        ids = [client.fine_tuning.jobs.create(model="tiny", training_file=file).id for _ in range(2)]
        until(lambda: flock.is_taken(shared_file(root, OFFICE)), "a process that validates", 60)
        _kill_who_validates(root)
        server.kill()
    with api_process(root, "api", "--config", str(offer)) as server:
        client = openai.OpenAI(api_key=KEY, base_url=server.address)
        found = client.fine_tuning.jobs.retrieve
        until(lambda: all(found(id_).status == "succeeded" for id_ in ids), "the end of both jobs", 400, pause=0.5)
        for job in map(found, ids):
            assert len(job.result_files) >= 2
            assert job.fine_tuned_model == f"ft:tiny:default::{job.id.removeprefix('ftjob-')}"
            messages = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=100)]
            assert sum(message.startswith("training ") for message in messages) == 1
    assert len(job_ids(root)) == 2


def _kill_who_validates(root: Path) -> None:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"trainer.api.admission" in words and str(root).encode() in words:
            os.kill(int(folder.name), 9)
