"""The page of a new run by HTTP: what is typed is kept, what is wrong stands beside its field, and one run is made."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.openai_service.world import world
from tests.studio import Studio, make_run, studio
from tests.waiting import until
from trainer.drafts.files import MAX_UPLOAD_BYTES
from trainer.drafts.forms import honored
from trainer.runs import list_runs
from trainer.start.sample import FILES, sample_rows

ID = "0123456789ab"
JSON = {"Accept": "application/json"}
SCRIPT = "<script>alert(1)</script>"
BROKEN = json.dumps({"messages": [{"role": "user", "content": SCRIPT}, {"role": "human", "content": "x"}]}) + "\n"


@pytest.fixture
def served(tmp_path, monkeypatch) -> Iterator[Studio]:
    monkeypatch.chdir(tmp_path)
    with studio(Path("runs")) as found:
        yield found


def change(served: Studio, draft: str = ID, **fields: str) -> dict[str, Any]:
    named = {name.replace("__", "."): text for name, text in fields.items()}
    return json.loads(served.post(f"/new/{draft}/set", named, **JSON).text)


def upload(served: Studio, name: str, body: bytes, role: str = "train", head: bool = False, of: int = 0) -> Any:
    path = f"/new/{ID}/upload/{role}{'/head' if head else ''}?name={quote(name, safe='')}&of={of or len(body)}"
    return served.send("POST", path, {**served.acting, "Content-Type": "application/octet-stream"}, body)


def settled(served: Studio, draft: str = ID) -> dict[str, Any]:
    state: dict[str, Any] = {}

    def is_done() -> bool:
        state.update(json.loads(served.get(f"/new/{draft}/state", **JSON).text))
        return not state["pending"]

    until(is_done, "the draft is checked", 90)
    return state


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_looking_makes_nothing_and_shows_every_field_of_the_backend(served):
    found = served.get("/new")
    assert found.status == 303
    assert re.fullmatch(r"/new/[0-9a-f]{12}", found.headers["location"])
    page = served.get(found.headers["location"]).text
    for field in honored("local"):
        assert f'name="{field.name}"' in page or field.name in ("data.train", "data.validation"), field.name
        assert f'id="{field.id}-problem"' in page, field.name
    assert "openai.training_type" not in page
    assert "Still needed: a base model and training data." in words(page)
    assert [path.name for path in Path("runs/.ui").iterdir()] == ["secret"]


def test_a_wrong_field_stays_with_its_message_beside_it_after_a_reload(served):
    state = change(served, training__n_epochs="three", model__revision=SCRIPT)
    assert state["problems"]["training-n_epochs"] == ["is 'three', expected a whole number or 'auto'"]
    page = served.get(f"/new/{ID}").text
    assert 'name="training.n_epochs"' in page
    assert re.search(r'value="three"[^>]*id="training-n_epochs"[^>]*aria-invalid="true"', page)
    assert "is &#39;three&#39;, expected a whole number" in page
    assert SCRIPT not in page
    assert "&lt;script&gt;" in page
    assert change(served, training__n_epochs="3")["problems"]["training-n_epochs"] == []


def test_a_change_of_backend_brings_its_fields_and_keeps_what_was_typed(served):
    change(served, lora__r="8")
    state = change(served, backend__kind="openai")
    assert 'name="openai.training_type"' in state["parts"]["fields"]
    assert 'name="lora.r"' not in state["parts"]["fields"]
    assert "fields" not in change(served, training__seed="1")["parts"]
    assert re.search(r'value="8"[^>]*id="lora-r"', change(served, backend__kind="local")["parts"]["fields"])


def test_without_a_script_a_button_works_and_leads_back(served):
    found = served.post(f"/new/{ID}/set", {"act": "base builtin:tiny none", "training.seed": "7"})
    assert (found.status, found.headers["location"]) == (303, f"/new/{ID}")
    page = served.get(f"/new/{ID}").text
    assert 'value="builtin:tiny"' in page
    assert 'value="7"' in page
    refused = served.post(f"/new/{ID}/set", {"act": "remove elsewhere 0"})
    assert (refused.status, "expected &#39;train&#39; or &#39;validation&#39;" in refused.text) == (400, True)


@pytest.mark.parametrize(
    ("name", "body", "of", "said"),
    [
        ("book.xlsx", b"PK\x03\x04rest", 0, "save the sheet as CSV"),
        ("rows.zip", b"PK\x03\x04rest", 0, "unpack the archive"),
        ("paper.pdf", b"%PDF-1", 0, "a PDF document"),
        ("rows.jsonl", b"{", 2 * 10**9, "expected at most 1.0 GB"),
        ("../../rows.jsonl", b"{}", 0, "the name holds a folder"),
    ],
)
def test_a_file_of_another_kind_is_refused_in_a_sentence_and_nothing_is_lost(served, name, body, of, said):
    change(served, training__seed="7")
    for found in (upload(served, name, body, head=True, of=of), *([] if of else [upload(served, name, body)])):
        assert 400 <= found.status < 500
        refused = json.loads(found.text)["refused"]
        assert said in refused
        assert "\n" not in refused
    assert 'value="7"' in served.get(f"/new/{ID}").text
    assert not list(Path("runs/.ui").glob("files/*"))


def test_more_than_a_browser_may_send_is_refused_by_its_announcement(served):
    headers = {**served.acting, "Content-Length": str(MAX_UPLOAD_BYTES + 1)}
    assert served.send("POST", f"/new/{ID}/upload/train?name=a.jsonl", headers).status == 413


def test_a_broken_row_is_shown_with_its_fix_and_a_cleaned_copy(served):
    assert upload(served, "own rows.jsonl", sample_rows(FILES[0]) + BROKEN.encode()).status == 200
    data = settled(served)["parts"]["data"]
    assert "own-rows.jsonl, line 121" in words(data)
    assert "messages[1].role is 'human'" in words(data).replace("&#39;", "'")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in data
    assert SCRIPT not in data
    copy = served.get(f"/new/{ID}/clean/train/0")
    assert copy.body == sample_rows(FILES[0])
    assert copy.headers["content-disposition"] == 'attachment; filename="own-rows.clean.jsonl"'
    assert copy.headers["x-content-type-options"] == "nosniff"
    change(served, act="clean train 0")
    change(served, act="split")
    data = settled(served)["parts"]["data"]
    assert "own-rows.clean.train.jsonl" in data
    assert "own-rows.clean.validation.jsonl" in data
    assert "mistake" not in words(data)


def test_a_table_is_converted_by_a_button(served):
    table = "question,answer\n" + "".join(f"What is part {n}?,The part {n}.\n" for n in range(20))
    assert upload(served, "table.csv", table.encode()).status == 200
    assert "Convert table.csv to chat rows" in words(settled(served)["parts"]["data"])
    change(served, act="convert train 0")
    state = settled(served)
    assert "table.chat.jsonl" in state["parts"]["data"]
    assert "20 to train on" in words(state["parts"]["card"])


def test_pairs_are_converted_and_learned_from_by_buttons(served):
    rows = [{"prompt": f"What is part {n}?", "chosen": f"The part {n}.", "rejected": "Who knows."} for n in range(20)]
    assert upload(served, "trl.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode()).status == 200
    data = words(settled(served)["parts"]["data"])
    assert "Convert trl.jsonl to chat rows" in data
    assert "Learn from both answers" in data
    change(served, act="pairs")
    assert "Convert trl.jsonl to preference rows" in words(settled(served)["parts"]["data"])
    change(served, act="convert train 0")
    state = settled(served)
    assert "trl.pairs.jsonl" in state["parts"]["data"]
    assert "0 mistakes" in words(state["parts"]["data"])
    assert "20 to train on" in words(state["parts"]["card"])
    change(served, act="split")
    assert "trl.pairs.validation.jsonl" in settled(served)["parts"]["data"]


def test_files_of_the_server_are_chosen_by_an_id_and_paths_outside_are_not_read(served):
    Path("mine.jsonl").write_bytes(sample_rows(FILES[0]))
    served.server.studio.file_roots = (Path(),)
    page = served.get(f"/new/{ID}").text
    (file_id,) = re.findall(r'value="add train (\w+)" aria-label="Use mine.jsonl', page)
    assert "mine.jsonl" in change(served, act=f"add train {file_id}")["parts"]["data"]
    state = change(served, act="name validation", place__validation="/etc/passwd")
    assert "outside of the folders" in state["problems"]["data-validation"][0]
    assert "root:" not in json.dumps(state)


def test_the_config_can_be_downloaded_and_a_run_is_not_started_before_it_was_checked(served):
    change(served, model__base="builtin:tiny", run__suffix="my words")
    found = served.get(f"/new/{ID}/config")
    assert found.text == "model:\n  base: builtin:tiny\nrun:\n  suffix: my words\n"
    assert found.headers["content-disposition"] == 'attachment; filename="my-words.yaml"'
    refused = served.post(f"/new/{ID}/set", {"act": "start "}, **JSON)
    assert "has not been checked yet" in json.loads(refused.text)["refused"]
    assert list_runs(Path("runs")) == []


def test_a_full_disk_keeps_the_page_and_says_so(served, monkeypatch):
    from trainer.runs import files

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_flushed", full)
    found = served.post(f"/new/{ID}/set", {"training.seed": "7"}, **JSON)
    assert found.status == 507
    assert json.loads(found.text)["refused"].startswith("a file: No space left on device; free space")
    assert json.loads(found.text)["unsaved"]


def test_a_first_visit_offers_the_sample_and_the_lab_and_a_later_one_the_runs(served):
    page = served.get("/runs").text
    assert 'action="/try"' in page
    assert page.count("<li><b>") == 12
    found = served.post("/try")
    assert re.fullmatch(r"/new/[0-9a-f]{12}", found.headers["location"])
    draft = served.get(found.headers["location"]).text
    assert "builtin:tiny" in draft
    assert FILES[0] in draft
    assert "Still needed" not in draft
    make_run(Path("runs"), "one")
    assert 'action="/try"' not in served.get("/runs").text


@pytest.mark.slow
def test_a_run_that_costs_money_starts_once_at_the_price_that_was_agreed_to(tmp_path):
    with world(tmp_path, "openai") as made, made.surroundings(), studio(Path("runs")) as served:
        served.server.studio.file_roots = (Path(),)
        change(served, backend__kind="openai", openai__service="openai", model__base="gpt-4o-mini-2024-07-18")
        for role in ("train", "validation"):
            change(served, **{"act": f"name {role}", f"place__{role}": f"{role}.jsonl"})
        change(served, training__n_epochs="3", run__name="paid", evaluation__enabled="false")
        state = settled(served)
        card = state["parts"]["card"]
        assert "USD" in words(card)
        assert 'name="confirm"' in card
        (agreed,) = re.findall(r'value="start (\w+)"', card)
        for fields, said in (
            ({"act": f"start {agreed}"}, "expected your agreement"),
            ({"act": f"start {'0' * 64}", "confirm": "yes"}, "the price has changed"),
        ):
            refused = served.post(f"/new/{ID}/set", fields, **JSON)
            assert said in json.loads(refused.text)["refused"]
        assert made.inventory() == []
        for _ in range(2):
            found = served.post(f"/new/{ID}/set", {"act": f"start {agreed}", "confirm": "yes"}, **JSON)
            assert json.loads(found.text) == {"go": "/runs/paid"}
        assert len(made.service.state.jobs) == 1


@pytest.mark.slow
def test_an_expired_credential_is_one_sentence_and_nothing_is_lost(tmp_path, monkeypatch):
    with world(tmp_path, "openai") as made, made.surroundings(), studio(Path("runs")) as served:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-expired")
        served.server.studio.file_roots = (Path(),)
        change(served, backend__kind="openai", openai__service="openai", model__base="gpt-4o-mini-2024-07-18")
        change(served, act="name train", place__train="train.jsonl")
        state = settled(served)
        assert "401" in words(state["parts"]["top"]), words(state["parts"]["top"])
        assert "sk-expired" not in json.dumps(state)
        assert "Check again" in state["parts"]["card"]
        monkeypatch.setenv("OPENAI_API_KEY", made.environment["OPENAI_API_KEY"])
        change(served, act="again")
        assert "USD" in words(settled(served)["parts"]["card"])
