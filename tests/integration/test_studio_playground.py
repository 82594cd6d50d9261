"""The playground of a real studio with a real model in a process of its own: answers, votes, rows, and its end."""

import html
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.browser import browsed
from tests.manifests import data_file, manifest
from tests.studio import Studio, make_run, stream, studio
from tests.waiting import until
from trainer.dashboard.datasets.files import DataSets, id_of
from trainer.dashboard.datasets.page import data_pages
from trainer.dashboard.playground.forms import answer_message, next_message, open_calls
from trainer.dashboard.playground.local_model import LocalModels
from trainer.dashboard.playground.page import playground_of
from trainer.inference.client import Sampling
from trainer.inference.local import TunedModel
from trainer.runs import Run

QUESTION = {"role": "user", "content": "What is number 5?"}
FORM = {
    "source": "local",
    "models": "both",
    "system": "You count.",
    "messages": json.dumps([QUESTION]),
    "tools": "",
    "max_tokens": "20",
    "temperature": "0",
    "top_p": "1",
    "seed": "0",
}


@pytest.fixture(scope="module")
def served(tuned: Run) -> Iterator[Studio]:
    root = tuned.path.parent
    with studio(root) as server:
        yield server
    playground_of(root.resolve()).models.close()


@pytest.fixture(scope="module")
def loaded(served: Studio, tuned: Run) -> Studio:
    """The studio once the run's model answers."""
    assert served.post(f"/playground/{tuned.name}/load").status == 200
    until(lambda: 'data-state="ready"' in served.get(f"/playground/{tuned.name}/model").text, "loading", 90)
    return served


@dataclass(frozen=True)
class AskedRound:
    """A question that was begun, and all that its stream sent."""

    id: str
    sides: dict[str, str]  # the model of each letter; empty while that is hidden
    begun: str
    events: list[tuple[str, str]]  # name and data

    def texts(self) -> list[str]:
        said = [json.loads(data) for name, data in self.events if name == "said"]
        return ["".join(piece["text"] for piece in said if piece["side"] == letter).strip() for letter in self.sides]

    def last(self, target: str) -> str:
        """The part of the page as the stream sent it last."""
        return [data for _, data in self.events if data.startswith(f'<hx-partial hx-target="#{target}"')][-1]


def asked(served: Studio, name: str, **changes: str) -> AskedRound:
    begun = served.post(f"/playground/{name}/rounds", FORM | changes)
    assert begun.status == 200, begun.text
    address = re.search(r'hx-sse:connect="([^"]+/rounds/(\w+)/answers)" hx-sse:close="over"', begun.text)
    assert address
    connection = HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.request("GET", address[1], headers=served.signed_in)
    answer = connection.getresponse()
    assert answer.getheader("content-type", "").startswith("text/event-stream")
    events = []
    for block in answer.read().decode().split("\n\n")[:-1]:
        fields = [line.partition(": ")[::2] for line in block.split("\n")]
        events.append((dict(fields).get("event", ""), "\n".join(value for field, value in fields if field == "data")))
    connection.close()
    assert events[-1] == ("over", "")
    return AskedRound(address[2], sides_in(begun.text), begun.text, events)


def sides_in(html: str) -> dict[str, str]:
    return dict(re.findall(r'data-side="(\w)" data-which="(\w*)"', html))


def test_the_page_is_prefilled_from_the_training_rows_and_loads_nothing(served: Studio, tuned: Run) -> None:
    page = served.get(f"/playground/{tuned.name}").text
    assert re.search(r'<textarea name="system"[^>]*data-trained="You count\."[^>]*>You count\.</textarea>', page)
    assert " style=" not in page
    assert "<script>" not in page
    assert tuned.name in served.get("/playground").text


@pytest.mark.parametrize(("tab", "page"), [("playground", "/playground/"), ("deployments", "/deployments/run/")])
def test_a_run_leads_to_it(tab: str, page: str, served: Studio, tuned: Run) -> None:
    assert f'href="/runs/{tuned.name}/{tab}"' in served.get(f"/runs/{tuned.name}").text
    led = served.get(f"/runs/{tuned.name}/{tab}")
    assert (led.status, led.headers["location"]) == (303, f"{page}{tuned.name}")
    assert served.get(led.headers["location"]).status == 200


def test_both_models_answer_as_they_do_in_the_terminal(loaded: Studio, tuned: Run) -> None:
    model = TunedModel(tuned)
    messages = [{"role": "system", "content": "You count."}, QUESTION]
    made = asked(loaded, tuned.name)
    assert made.sides == {"a": "base", "b": "tuned"}
    expected = [client.answer(messages, Sampling(max_tokens=20)) for client in (model.base, model.tuned)]
    assert made.texts() == expected
    for letter, text in zip("ab", expected, strict=True):
        card = made.last(f"side-{letter}")
        assert text in html.unescape(card)
        assert re.search(r'aria-busy="false">[^$]*<span class="small soft timing"[^>]*>[0-9.]+ s, first word', card)
        assert "Continue with this" in card
    with stream(loaded, f"/playground/{tuned.name}/rounds/{made.id}/answers") as again:
        assert expected[0] in html.unescape(again.next()["data"]), "it is not asked for again"


def test_a_vote_is_blind_and_counts_once(loaded: Studio, tuned: Run) -> None:
    made = asked(loaded, tuned.name, blind="on")
    assert made.sides == {"a": "", "b": ""}
    assert tuned.name not in re.sub(r"/playground/[^/]+/", "", made.begun + json.dumps(made.events))
    assert "Continue" not in made.last("side-a")
    assert "Which answer is better?" in made.last("after")
    at = f"/playground/{tuned.name}/rounds/{made.id}"
    assert loaded.post(f"{at}/continue", {"side": "a"}).status == 400, "it would tell which is whose"
    assert loaded.post(f"{at}/vote", {"choice": "tuned"}).status == 400
    told = loaded.post(f"{at}/vote", {"choice": "a"}).text
    sides = sides_in(told)
    assert sorted(sides.values()) == ["base", "tuned"]
    assert ("1 of 1 votes" if sides["a"] == "tuned" else "0 of 1 votes") in told
    assert "has one already" in loaded.post(f"{at}/vote", {"choice": "b"}).text
    kept = [json.loads(line) for line in (tuned.path.parent / ".ui" / "votes" / f"{tuned.name}.jsonl").open()]
    assert [(vote["question"], vote["choice"]) for vote in kept] == [(QUESTION["content"], sides["a"])]
    open_round = asked(loaded, tuned.name)
    assert loaded.post(f"/playground/{tuned.name}/rounds/{open_round.id}/vote", {"choice": "a"}).status == 400


def test_a_conversation_goes_on_with_an_answer_and_ends_with_the_question_that_is_stopped(
    loaded: Studio, tuned: Run
) -> None:
    made, here = asked(loaded, tuned.name), f"/playground/{tuned.name}"
    on = loaded.post(f"{here}/rounds/{made.id}/continue", {"side": "b"}).text
    said = json.loads(html.unescape(re.search(r'name="messages" value="([^"]*)"', on)[1]))  # type: ignore[index]
    assert said == [QUESTION, {"role": "assistant", "content": made.texts()[1]}]
    assert "Next question" in on
    code = loaded.post(f"{here}/code", FORM | {"messages": json.dumps(said), "question": "And 6?"}).text
    assert code.count("And 6?") == 2
    assert html.unescape(code).index(made.texts()[1]) < code.index("And 6?")
    assert loaded.post(f"{here}/rounds", FORM | {"messages": json.dumps(said), "question": " "}).status == 400
    assert 'value="[]"' in loaded.get(f"{here}/conversation").text

    begun = loaded.post(f"{here}/rounds", FORM | {"messages": json.dumps(said), "question": "And 6?"}).text
    at = re.search(r'hx-sse:connect="([^"]+)/answers"', begun)
    assert at
    assert loaded.post(f"{at[1]}/stop").status == 204
    with stream(loaded, f"{at[1]}/answers") as reader:
        cards = [reader.next()["data"] for _ in range(2)]
    assert all("stopped</span>" in card and 'aria-busy="false"' in card for card in cards)


def test_results_of_tools_are_asked_for_one_after_the_other(loaded: Studio, tuned: Run) -> None:
    calls = [{"name": "add", "arguments": '{"a": 1}'}, {"name": "take", "arguments": "{}"}]
    said = [QUESTION, answer_message([QUESTION], " ", calls)]
    assert [call["id"] for call in open_calls(said)] == ["call_1", "call_2"]
    found = loaded.post(f"/playground/{tuned.name}/rounds", FORM | {"messages": json.dumps(said), "question": "3"}).text
    assert "Result of take, in place of the tool" in found
    assert "add({&#34;a&#34;: 1})" in found
    assert next_message([*said, next_message(said, "3")], "4") == {
        "role": "tool", "tool_call_id": "call_2", "content": "4",
    }  # fmt: skip


def test_a_good_answer_becomes_a_row_if_the_rules_take_it(loaded: Studio, tuned: Run) -> None:
    said = [QUESTION, {"role": "assistant", "content": "Number 5 is the one after 4."}]
    fields = FORM | {"messages": json.dumps(said), "set": "better"}
    kept = loaded.post(f"/playground/{tuned.name}/rows", fields)
    assert kept.status == 200, kept.text
    page = loaded.get(re.search(r'href="(/data/[^"]+)"', kept.text)[1]).text  # type: ignore[index]
    assert "Number 5 is the one after 4." in page
    (file,) = (tuned.path.parent / ".ui" / "files").glob("*-better.jsonl")
    assert [json.loads(line) for line in file.open()] == [
        {"messages": [{"role": "system", "content": "You count."}, *said]}
    ]
    empty = loaded.post(
        f"/playground/{tuned.name}/rows",
        fields | {"messages": json.dumps([QUESTION, {"role": "assistant", "content": ""}])},
    )
    assert empty.status == 400
    assert "EMPTY" in empty.text or "content" in empty.text
    before = json.dumps([QUESTION])
    for bent in ({"set": "../up"}, {"before": "1"}, {"before": before, "calls": "[1]"}, {"tools": "[1]"}):
        assert loaded.post(f"/playground/{tuned.name}/rows", fields | bent).status == 400, bent
    assert len(file.read_text().splitlines()) == 1


def test_a_thought_is_collapsed_beside_its_answer_and_kept_with_it(loaded: Studio, tuned: Run) -> None:
    said = [QUESTION, {"role": "assistant", "content": "Number 5.", "reasoning_content": "Let me <count>."}, QUESTION]
    here = f"/playground/{tuned.name}"
    made = asked(loaded, tuned.name, messages=json.dumps(said))
    begun = loaded.post(f"{here}/rounds/{made.id}/continue", {"side": "b"}).text
    assert '<details class="thought"><summary>Thought</summary><div>Let me &lt;count&gt;.</div></details>' in begun
    assert '<details class="thought" id="thought-b" hidden>' in made.last("side-b"), "this model thinks nothing"
    fields = {"before": json.dumps([QUESTION]), "answer": "Five.", "thought": " Count. ", "set": "thoughtful"}
    kept = loaded.post(f"{here}/rows", FORM | fields)
    assert kept.status == 200, kept.text
    (file,) = (tuned.path.parent / ".ui" / "files").glob("*-thoughtful.jsonl")
    answer = json.loads(file.read_text())["messages"][-1]
    assert answer == {"role": "assistant", "content": "Five.", "reasoning_content": "Count."}


def test_the_key_of_the_process_reaches_no_page_and_no_command_line(loaded: Studio, tuned: Run) -> None:
    model = playground_of(tuned.path.parent.resolve()).models.loaded
    assert model is not None
    code = loaded.post(f"/playground/{tuned.name}/code", FORM).text
    assert "trainer serve" in code
    pages = [loaded.get(path).text for path in (f"/playground/{tuned.name}", f"/playground/{tuned.name}/model")]
    command = Path(f"/proc/{model.process.pid}/cmdline").read_bytes().decode()
    assert all(model.key not in text for text in (*pages, code, command, repr(model)))
    wrong = HTTPConnection("127.0.0.1", model.port or 0, timeout=10)
    wrong.request("GET", "/v1/models", headers={"Authorization": "Bearer another"})
    assert wrong.getresponse().status == 401


def test_what_is_wrong_is_said_beside_the_form(loaded: Studio, tuned: Run) -> None:
    refused = loaded.post(f"/playground/{tuned.name}/rounds", FORM | {"temperature": "9"})
    assert refused.status == 400
    assert "temperature: is '9', expected a number from 0 to 2; correct it" in html.unescape(refused.text)
    long = "word " * 3000
    made = asked(loaded, tuned.name, messages=json.dumps([{"role": "user", "content": long}]))
    for letter in "ab":
        assert re.search(r'class="said bad-ink"[^>]*>[^<]*tokens', made.last(f"side-{letter}"))


def test_a_run_without_a_model_says_what_to_do(served: Studio, tuned: Run) -> None:
    make_run(tuned.path.parent, "unfinished", state="paused")
    page = served.get("/playground/unfinished").text
    assert "has no adapter (its state is paused), expected a finished run" in page
    assert served.post("/playground/unfinished/load").status == 400
    assert served.get("/playground/no-such-run").status == 404


@pytest.mark.slow
def test_a_person_asks_votes_continues_and_keeps_an_answer(loaded: Studio, tuned: Run) -> None:
    with browsed(loaded) as page:
        page.goto(f"{loaded.server.address}/playground/{tuned.name}")
        page.fill("#question", "What is number 8?")
        page.press("#question", "Control+Enter")
        page.wait_for_selector(".answer[aria-busy=false] >> nth=1")
        assert page.locator(".answer h3").all_inner_texts() == ["Base: builtin:tiny", f"Tuned: {tuned.name}"]
        assert page.locator(".answer[data-which=tuned] .said").inner_text().startswith("Number")
        page.fill("textarea[name=system]", "You sing.")
        assert "may answer at random" in page.locator("#system-note").inner_text()
        page.fill("input[name=temperature]", "0.5")
        assert page.locator("#changes").inner_text() == "Changed: temperature 0 → 0.5."
        page.fill("textarea[name=system]", "You count.")
        page.check("input[name=blind]")
        page.click("#ask")
        page.get_by_role("button", name="Answer A").wait_for()
        assert page.locator(".answer h3").all_inner_texts() == ["Answer A", "Answer B"]
        page.get_by_role("button", name="No difference").click()
        page.wait_for_selector(".answer[data-which=tuned]")
        page.locator("#tally", has_text="for neither").wait_for()
        page.get_by_role("button", name="Add to a data set").first.click()
        page.fill("[name=answer]", "Number 8 is the one after 7.")
        page.fill("[name=set]", "browser")
        page.get_by_role("button", name="Add the row").click()
        page.wait_for_selector("#kept a")
        page.get_by_role("button", name="Continue with this").first.click()
        page.locator("#history li >> nth=1").wait_for()
        assert page.locator("#history li").count() == 2
        assert page.locator("#answers").is_hidden()
        assert page.evaluate("document.activeElement.id") == "question"
        page.fill("#question", "And number 9?")
        page.click("#view-code")
        assert "And number 9?" in page.locator("#code pre").first.inner_text()
    (file,) = (tuned.path.parent / ".ui" / "files").glob("*-browser.jsonl")
    assert json.loads(file.read_text())["messages"][-1]["content"] == "Number 8 is the one after 7."


def test_a_damaged_run_hides_no_other(tmp_path: Path) -> None:
    for name in ("sound", "damaged"):
        make_run(tmp_path, name)
    (tmp_path / "damaged" / "config.yaml").write_text("model: [")
    with studio(tmp_path) as served:
        for path in ("/playground", "/deployments", "/data"):
            found = served.get(path)
            assert found.status == 200, found.text
        assert "sound" in served.get("/playground").text
        for path in ("/playground/damaged", "/deployments/run/damaged"):
            assert served.get(path).status in (200, 400)


def test_a_run_that_a_newer_version_wrote_hides_no_data_and_its_playground_says_so(tmp_path: Path) -> None:
    root, rows, own = tmp_path / "runs", tmp_path / "rows.jsonl", tmp_path / "runs" / ".ui" / "files"
    rows.write_text("{}\n")
    own.mkdir(parents=True)
    (own / "000000000000-kept.jsonl").write_text("{}\n")
    Run(make_run(root, "sound")).write_manifest(manifest(data=(data_file(str(rows), "train"),)))
    newer = make_run(root, "newer") / "manifest.json"
    newer.write_text(json.dumps({"format": 999}))
    with studio(root) as served:
        listed = served.get("/data")
        assert (listed.status, "rows.jsonl" in listed.text) == (200, True), listed.text
        assert str(newer) in listed.text
        assert "is of format 999" in listed.text
        assert served.get(f"/data/{id_of(rows)}?run=").status == 200
        asked = served.get("/playground/newer")
        assert (asked.status, asked.text.count("is of format 999")) == (200, 1), asked.text
    data_pages(root.resolve()).reports.end()
    assert own / "000000000000-kept.jsonl" in DataSets(root).used(), "the newer run may have read it"


def test_every_page_of_a_run_with_a_damaged_status_shows_it(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "odd")
    written = json.loads((folder / "status.json").read_bytes())
    (folder / "results.csv").write_text("step,train_loss,train_mean_token_accuracy,valid_loss\n1,2.0,0.5,1.5\n")
    (folder / "status.json").write_text(json.dumps({name: [1] for name in written}))
    tabs = ["", "/metrics", "/checkpoints", "/logs", "/report", "/files"]
    with studio(tmp_path) as served:
        for path in [*(f"/runs/odd{tab}" for tab in tabs), "/runs", "/deployments/run/odd"]:
            found = served.get(path)
            assert (found.status, "odd" in found.text) == (200, True), (path, found.text)
        assert [served.get(path).status for path in ("/queue", "/playground", "/deployments")] == [200] * 3
        assert "Damaged: status.json" in served.get("/runs/odd").text


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.slow
def test_one_model_at_a_time_which_ends_when_nobody_asks(tuned: Run, tmp_path: Path) -> None:
    models = LocalModels(idle_seconds=1.0)
    try:
        first = models.load(tuned)
        copy = Run(tmp_path / "copy")
        subprocess.run(["cp", "-r", str(tuned.path), str(copy.path)], check=True)
        second = models.load(copy)
        until(lambda: first.process.poll() is not None, "the end of the first model", 30)
        assert models.of(tuned) is None
        assert models.of(copy) is second
        until(lambda: second.state == "ready" or second.process.poll() is not None, "loading", 90)
        until(lambda: second.process.poll() is not None, "the end of an idle model", 30)
        assert models.loaded is None
    finally:
        models.close()


@pytest.mark.slow
def test_the_model_ends_with_a_server_that_was_killed(tuned: Run) -> None:
    program = (
        "import sys, time; from pathlib import Path; from trainer.runs import Run\n"
        "from trainer.dashboard.playground.local_model import LocalModels\n"
        "print(LocalModels().load(Run(Path(sys.argv[1]))).process.pid, flush=True); time.sleep(60)"
    )
    server = subprocess.Popen([sys.executable, "-c", program, str(tuned.path)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    pid = int(server.stdout.readline())
    time.sleep(1.0)
    assert not is_gone(pid)
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    until(lambda: is_gone(pid), "the end of the model's process", 30)
