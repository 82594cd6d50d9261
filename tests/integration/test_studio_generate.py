"""Rows from documents in a real studio: form, cost, agreement, progress and a set to train on, against a writer."""

import json
import re
import threading
from collections.abc import Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from tests.loopback import Fault, Loopback, Request, Response, status
from tests.studio import Answer, Studio, drafted, studio
from tests.waiting import until
from tests.writer import Writer, source_of, write_qa
from trainer.dashboard.datasets import generating
from trainer.dashboard.datasets.files import id_of
from trainer.dashboard.datasets.generate_page import generations
from trainer.runs.files import read_record, write_json

TOPICS = {
    "hubs": "A hub holds the axle of the wheel. The front hub of a city bike takes 36 spokes. Grease it once a year.",
    "rims": "A rim is the outer ring of a wheel. Aluminium rims weigh about 500 grams. Check them for <cracks>.",
    "tyres": "Tyres are inflated to 4 bar in summer. In winter a softer tyre grips better. Worn ones show a thread.",
    "chains": "A chain lasts about 3000 kilometres. Clean it with a dry cloth. A drop of oil on each link is enough.",
}
PRICED = {"price_in": "1", "price_out": "4"}


class SlowWriter(Writer):
    """A writer that answers while `open` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.open.set()

    def __call__(self, request: Request) -> Response:
        self.open.wait(20)
        return super().__call__(request)


@pytest.fixture
def writer() -> Iterator[SlowWriter]:
    made = SlowWriter()
    yield made
    made.open.set()


@pytest.fixture
def service(writer: SlowWriter) -> Iterator[Loopback]:
    with Loopback(writer) as service:
        yield service


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINER_PATIENCE_SECONDS", "2")
    monkeypatch.setattr(generating, "NOTE_SECONDS", 0.0)
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, text in TOPICS.items():
        (folder / f"{name}.txt").write_text(text)
    (tmp_path / "secret.txt").write_text("Nobody may read this text.")
    return folder


@pytest.fixture
def served(tmp_path: Path, docs: Path, writer: SlowWriter) -> Iterator[Studio]:
    with studio(tmp_path / "runs") as server:
        server.server.studio.file_roots = (docs,)
        yield server
        writer.open.set()
        for name in sets(server).all():
            sets(server).wait(name)


def sets(served: Studio) -> generating.Generations:
    found = served.server.studio
    return generations(found.root.resolve(), tuple(root.resolve() for root in found.file_roots))


def fields(docs: Path, service: Loopback, **others: str) -> list[tuple[str, str]]:
    texts = {"name": "handbook", "kind": "qa", "rows_per_chunk": "3", "judge": "on", "endpoint": service.url,
             "model": "writer-1", "validation_share": "0.25", "max_tokens": "2048"} | others  # fmt: skip
    return [*texts.items(), *(("sources", id_of(docs / f"{name}.txt")) for name in TOPICS)]


def digest_of(answer: Answer) -> str:
    assert answer.status == 200, answer.text
    found = re.search(r'name="digest" value="([0-9a-f]{64})"', answer.text)
    assert found, answer.text
    return found[1]


def begun(served: Studio, docs: Path, service: Loopback, **others: str) -> str:
    """The address of a set that is being written."""
    digest = digest_of(served.post("/data/generate", fields(docs, service, **others)))
    answer = served.post("/data/generate/begin", {"digest": digest})
    assert answer.status == 303, answer.text
    return answer.headers["location"]


def ended(served: Studio, address: str) -> str:
    """The page of a set that is no longer written."""
    sets(served).wait(address.rpartition("/")[2])
    page = served.get(address).text
    assert "every 1s" not in page
    return re.sub(r"\s+", " ", unescape(page))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def record(served: Studio) -> Mapping[str, Any]:
    return read_record(served.server.studio.root / ".ui" / "generate" / "handbook.json")


def test_a_handbook_becomes_a_set_to_train_on(
    served: Studio, docs: Path, service: Loopback, writer: SlowWriter
) -> None:
    writer.doubts = lambda item: "it guesses" if "oil" in item["answer"] else ""
    form = served.get("/data/generate").text
    assert form.count('name="sources"') == 4
    assert "secret" not in form
    assert str(docs) not in form
    assert 'href="/data/generate"' in served.get("/data").text
    shown = served.post("/data/generate", fields(docs, service, system="You are <b>Spokewise</b>.", **PRICED))
    text = unescape(shown.text)
    assert "4 files, 4 chunks" in text
    assert "4 chunks: about 8 requests" in text
    assert "prices: those of the form" in text
    assert "Agree to this cost and write the rows" in text
    assert "You are <b>Spokewise</b>." not in shown.text
    assert not service.requests, "nothing is sent before the agreement"
    address = served.post("/data/generate/begin", {"digest": digest_of(shown)}).headers["location"]
    page = ended(served, address)
    assert record(served)["state"] == "ready", record(served)
    for title, number in (("Rows", "8"), ("Held out", "3")):
        assert re.search(rf"<dt>{title}</dt><dd>{number}</dd>", page), title
    assert "1: the judge found no support in the document" in page
    own = served.server.studio.root / ".ui" / "files"
    files = {path.name[13:]: path for path in own.iterdir()}
    assert files.keys() == {"handbook.jsonl", "handbook.validation.jsonl"}
    assert f'href="/data/{id_of(files["handbook.jsonl"])}">Look at the rows' in page
    assert "handbook.jsonl" in served.get("/data").text
    assert lines(files["handbook.jsonl"])[0]["messages"][0]["content"] == "You are <b>Spokewise</b>."
    assert len(lines(Path(record(served)["provenance"]))) == 12
    used = served.post(f"{address}/use")
    assert (used.status, used.headers["location"][:5]) == (303, "/new/")
    draft = drafted(served, used)
    chosen = {role: (served.server.studio.root.parent / draft[f"data.{role}"]).name for role in ("train", "validation")}
    assert chosen == {"train": files["handbook.jsonl"].name, "validation": files["handbook.validation.jsonl"].name}
    assert "training.method" not in draft


def test_what_is_wrong_stands_beside_its_field_and_every_text_stays(
    served: Studio, docs: Path, service: Loopback
) -> None:
    typed = fields(docs, service, name="../up", endpoint="http://models.example", rows_per_chunk="many",
                   tone="warm <i>", cap="much", key_variable="sk-1234 5678", model="")  # fmt: skip
    answer = served.post("/data/generate", typed)
    assert answer.status == 400
    text = unescape(answer.text)
    for field in ("name", "endpoint", "rows_per_chunk", "cap", "key_variable", "model"):
        assert re.search(rf'name="{field}"[^>]*aria-invalid="true"', answer.text), field
    assert "expected https:// or an address of this machine" in text
    assert "never the key itself" in text
    assert 'value="warm &lt;i&gt;"' in answer.text
    assert answer.text.count("checked") == 5
    assert "--" not in re.sub(r"<!--|-->", "", text.partition("<main")[2])
    again = served.post("/data/generate", fields(docs, service, rows_per_chunk="40", validation_share="1"))
    assert "Is 40, expected 1 to 20; correct it" in again.text
    assert "Is 1, expected 0 or more, and less than 1" in again.text
    for endpoint in ("ftp://x", "https://[", "https://x:port"):
        wrong = served.post("/data/generate", fields(docs, service, endpoint=endpoint))
        assert (wrong.status, "begins with https" in wrong.text) == (400, True)
    missing = served.post("/data/generate", fields(docs, service, key_variable="NO_SUCH_KEY"))
    assert "NO_SUCH_KEY: is not set" in missing.text
    both = unescape(served.post("/data/generate", fields(docs, service, price_in="1")).text)
    assert "Is given without “USD a million tokens written”" in both
    assert not service.requests


@pytest.mark.parametrize("source", ["../secret.txt", "secret.txt", "0123456789abcdef"])
def test_only_documents_of_the_list_are_read(served: Studio, docs: Path, service: Loopback, source: str) -> None:
    (docs / "linked.txt").symlink_to(docs.parent / "secret.txt")
    assert "linked" not in served.get("/data/generate").text
    outside = [("sources", source), ("sources", id_of(docs.parent / "secret.txt"))]
    answer = served.post("/data/generate", [*fields(docs, service), *outside])
    assert answer.status == 400
    assert "there is no such document any more" in answer.text


def multipart(typed: list[tuple[str, str]], files: Mapping[str, bytes]) -> tuple[str, bytes]:
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{text}'.encode() for name, text in typed]
    parts += [
        f'Content-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode() + content
        for name, content in files.items()
    ]
    body = b"".join(b"--edge\r\n" + part + b"\r\n" for part in parts) + b"--edge--\r\n"
    return "multipart/form-data; boundary=edge", body


def test_a_document_that_comes_with_the_form_is_kept_and_ticked(served: Studio, docs: Path, service: Loopback) -> None:
    typed = [(name, text) for name, text in fields(docs, service) if name != "sources"]

    def sent(files: Mapping[str, bytes]) -> Answer:
        kind, body = multipart(typed, files)
        return served.send("POST", "/data/generate", served.acting | {"Content-Type": kind}, body)

    answer = sent({"bells.md": b"# Bells\n\nA bell is mounted on the handlebar and is rung with the thumb.\n"})
    assert "1 file, 1 chunk" in answer.text, answer.text
    (kept,) = (served.server.studio.root / ".ui" / "documents").iterdir()
    assert re.fullmatch(r"[0-9a-f]{12}-bells\.md", kept.name)
    assert re.search(rf'value="{id_of(kept)}" checked', answer.text)
    for name, content, words in (("virus.exe", b"MZ", "no format that is read"), ("empty.txt", b"", "is empty"),
                                 ("..", b"x", "expected a file's name alone")):  # fmt: skip
        refused = sent({name: content})
        assert (refused.status, words in unescape(refused.text)) == (400, True), refused.text
    assert len(list(kept.parent.iterdir())) == 1


def test_nothing_is_written_without_a_recent_look_at_the_cost(
    served: Studio, docs: Path, service: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert served.post("/data/generate/begin", {"digest": "0" * 64}).status == 400
    digest = digest_of(served.post("/data/generate", fields(docs, service, **PRICED)))
    monkeypatch.setattr(generating, "PLAN_SECONDS", -1.0)
    assert "no longer known" in served.post("/data/generate/begin", {"digest": digest}).text
    monkeypatch.undo()
    (docs / "hubs.txt").write_text(TOPICS["hubs"] * 60)  # dearer than what was agreed to
    served.post("/data/generate/begin", {"digest": digest})
    assert "have changed since the cost was shown" in ended(served, "/data/generate/sets/handbook")
    assert not service.requests
    assert served.post("/data/generate/begin", {"digest": digest}).status == 400, "an agreement holds once"


def test_progress_is_shown_and_stop_keeps_every_answer(
    served: Studio, docs: Path, service: Loopback, writer: SlowWriter
) -> None:
    hold = threading.Event()
    writer.refuses = lambda body: hold.set() or writer.open.clear() if sum(writer.paid.values()) == 3 else None
    address = begun(served, docs, service, **PRICED)
    until(lambda: record(served).get("progress"), "the first chunk", 20)
    assert hold.wait(20)
    shown = served.get(f"{address}/progress").text
    assert 'hx-trigger="every 1s"' in shown
    assert re.search(r"<dd>1 of 4</dd>", shown)
    assert re.search(r"<dt>Cost so far</dt><dd>0\.00\d\d USD</dd>", shown)
    assert '<dl class="said">' in shown
    assert "<cracks>" not in served.get(address).text
    busy = served.post("/data/generate", fields(docs, service, **PRICED))
    assert (busy.status, "is being written" in busy.text) == (400, True)
    assert served.post(f"{address}/stop").status == 303
    assert "Ending after the requests" in served.get(address).text
    writer.open.set()
    page = ended(served, address)
    assert "Every answer is kept" in page
    assert record(served)["state"] == "stopped"
    form = served.get("/data/generate?again=handbook").text
    assert form.count("checked") == 5
    writer.refuses = lambda body: None
    page = ended(served, begun(served, docs, service, **PRICED))
    assert record(served)["state"] == "ready", page
    assert set(writer.paid.values()) == {1}
    assert sum(writer.paid.values()) == 8


def test_a_cap_ends_it_and_the_rows_that_are_there_can_be_written(
    served: Studio, docs: Path, service: Loopback, writer: SlowWriter
) -> None:
    page = ended(served, begun(served, docs, service, cap="0.014", **PRICED))
    assert "could bring the cost above 0.0140 USD, so it was not sent. Every answer is kept" in page
    paid = sum(writer.paid.values())
    assert 2 <= paid < 8
    assert not list((served.server.studio.root / ".ui" / "files").glob("*"))
    assert served.post("/data/generate/sets/handbook/finish").status == 303
    assert "Look at the rows" in ended(served, "/data/generate/sets/handbook")
    page = ended(served, begun(served, docs, service, **PRICED))
    assert sum(writer.paid.values()) == 8, "the answers of before are not paid again"
    names = {path.name[13:] for path in (served.server.studio.root / ".ui" / "files").iterdir()}
    assert {"handbook.jsonl", "handbook.v2.jsonl"} <= names


def test_pairs_of_answers_become_a_draft_that_learns_from_pairs(
    served: Studio, docs: Path, service: Loopback, writer: SlowWriter
) -> None:
    def write(source: str, number: int) -> dict[str, Any]:
        item = write_qa(source, number)
        pair = {"better": item.pop("answer"), "weaker": "It depends on it."}
        return item | pair

    def prefer(item: Mapping[str, Any]) -> dict[str, Any]:
        return {"preferred": "second" if item["first"] == "It depends on it." else "first"}

    writer.write, writer.verdicts = write, prefer
    off = unescape(served.post("/data/generate", fields(docs, service, kind="preference", judge="")).text)
    assert "Is off, and the judge decides on rows of the kind preference; tick it" in off
    address = begun(served, docs, service, kind="preference")
    assert "Look at the rows" in ended(served, address)
    assert drafted(served, served.post(f"{address}/use"))["training.method"] == "dpo"


def test_an_endpoint_that_refuses_ends_it_in_a_sentence_of_the_form(
    served: Studio, docs: Path, service: Loopback
) -> None:
    service.faults.append(Fault("key", answer=status(401), times=9))
    page = ended(served, begun(served, docs, service))
    assert "the variable of the environment that holds its key: “Variable with the key”" in page
    assert len(service.requests) == 1


def test_a_chunk_that_fails_is_counted_and_named(
    served: Studio, docs: Path, service: Loopback, writer: SlowWriter
) -> None:
    filtered = Response(400, {"error": {"code": "content_filter", "message": "The prompt <b>triggered</b> a policy."}})
    writer.refuses = lambda body: filtered if "rim" in source_of(body) else None
    address = begun(served, docs, service)
    page = ended(served, address)
    assert "docs/rims.txt" in page
    assert "content_filter" in page
    assert "<b>triggered" not in served.get(address).text


def test_a_server_that_ended_in_the_middle_leaves_a_record_to_go_on_from(
    served: Studio, docs: Path, service: Loopback, writer: SlowWriter
) -> None:
    service.faults.append(Fault("down", lambda request: sum(writer.paid.values()) >= 3, answer=status(401), times=9))
    address = begun(served, docs, service, **PRICED)
    ended(served, address)
    service.faults.clear()
    path = served.server.studio.root / ".ui" / "generate" / "handbook.json"
    gone = {key: value for key, value in read_record(path).items() if key not in ("ended_at", "reason")}
    gone |= {"state": "writing", "process": gone["process"] | {"pid": 2**22 + 1}}
    write_json(path, gone)  # as kill -9 leaves it
    generations.cache_clear()
    page = ended(served, address)
    assert "The server that wrote it has ended" in page
    assert "the same form resumes, and nothing is paid twice" in page
    assert "handbook" in served.get("/data/generate").text
    assert served.post(f"{address}/stop").status == 303
    ended(served, begun(served, docs, service, **PRICED))
    assert record(served)["state"] == "ready"
    assert set(writer.paid.values()) == {1}


def test_what_is_no_set_is_refused(served: Studio) -> None:
    folder = served.server.studio.root / ".ui" / "generate"
    folder.mkdir(parents=True)
    write_json(folder / ".other.json", {"state": "ready", "started_at": "2026-11-01T10:00:00+00:00"})
    for name in ("none", "..", ".other", "%2e%2e%2fx", "a" * 300):
        for path in ("", "/progress"):
            assert served.get(f"/data/generate/sets/{name}{path}").status in (400, 404)
        for path in ("stop", "finish", "use"):
            assert served.post(f"/data/generate/sets/{name}/{path}").status in (400, 404)
    assert served.get("/data/generate?again=none").status == 400
