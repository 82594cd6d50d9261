"""The tabs of a run and the page that compares runs, over HTTP: what they show, send once, and let be saved."""

import json
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection, IncompleteRead
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import REPOSITORY
from tests.studio import Studio, make_run, studio, write_results, write_status
from trainer.inference.client import Reply
from trainer.inference.suite.items import Suite, read_suite
from trainer.inference.suite.kept import scored
from trainer.runs import Run
from trainer.runs.checkpoint import write
from trainer.runs.files import append_line
from trainer.runs.results import COLUMNS, as_line
from trainer.workshop.judge.outcome import make_outcome
from trainer.workshop.judge.pairs import pairs_of
from trainer.workshop.judge.question import Judged, Opinion

OLD = REPOSITORY / "tests" / "old_runs" / "local" / "runs"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studio") / "runs"


@pytest.fixture(scope="module")
def served(root: Path) -> Iterator[Studio]:
    root.mkdir()
    with studio(root) as found:
        yield found


def rows_of(count: int) -> list[dict[str, float]]:
    return [{"step": step, "train_loss": 2 / step} | ({"valid_loss": 3 / step} if step % 5 == 0 else {})
            for step in range(1, count + 1)]  # fmt: skip


class Stream:
    """An open stream, read event by event as a browser reads it."""

    def __init__(self, served: Studio, path: str, cursor: str = "") -> None:
        self.connection = HTTPConnection("127.0.0.1", served.port, timeout=10)
        headers = served.signed_in | ({"Last-Event-ID": cursor} if cursor else {})
        self.connection.request("GET", path, headers=headers)
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200
        self.cursor, self.num_bytes = cursor, 0

    def events(self) -> Iterator[tuple[str, str]]:
        """Name and data of each event; the stream's cursor is that of the last one that had one."""
        fields: dict[str, list[str]] = {}
        while line := self.answer.readline():
            self.num_bytes += len(line)
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if line != b"\n":
                fields.setdefault(name, []).append(value)
                continue
            if "data" in fields:
                self.cursor = fields.get("id", [self.cursor])[0]
                yield fields.get("event", [""])[0], "\n".join(fields["data"])
            fields = {}

    def points(self) -> dict[str, Any]:
        found: dict[str, Any] = next(json.loads(data) for name, data in self.events() if name == "points")
        return found

    def close(self) -> None:
        self.connection.close()


def address_in(page: str) -> str:
    """The address of the page's stream with its cursor."""
    return page.partition('hx-sse:connect="')[2].partition('"')[0].replace("&amp;", "&")


# Metrics


def test_a_chart_gets_thinned_points_and_the_exact_ones_where_it_zooms(served: Studio, root: Path) -> None:
    folder = make_run(root, "long")
    rows = [{"step": step, "train_loss": 1.0} for step in range(1, 20_001)]
    rows[12_344]["train_loss"] = 9.0
    write_results(folder, rows)
    whole = json.loads(served.get("/runs/long/metrics/points?file=results.csv&buckets=300").body)
    steps, losses = whole["columns"]["train_loss"]
    assert (whole["num_rows"], whole["is_thinned"]) == (20_000, True)
    assert len(steps) <= 1200
    assert steps[losses.index(9.0)] == 12_345
    near = json.loads(served.get("/runs/long/metrics/points?file=results.csv&buckets=300&low=12300&high=12400").body)
    assert near["columns"]["train_loss"][0] == list(range(12_299, 12_402))
    saved = served.get("/runs/long/metrics/files/results.csv")
    assert saved.body == (folder / "results.csv").read_bytes()
    assert saved.headers["content-disposition"].startswith("attachment")


def test_pairs_have_charts_of_their_rewards_and_other_runs_have_none(served: Studio, root: Path) -> None:
    for name, more in (("pairs", {"train_reward_accuracy": 0.75, "train_reward_margin": 0.5}), ("chats", {})):
        folder = make_run(root, name)
        write_results(folder, rows_of(6))
        for step in (1, 2):
            append_line(folder / "metrics.jsonl", {"step": step, "grad_norm": 1.0} | more)
        held_out = {
            key.replace("train", part): value for key, value in more.items() for part in ("valid", "full_valid")
        }
        append_line(folder / "metrics.jsonl", {"step": 2} | held_out)
    pages = {name: served.get(f"/runs/{name}/metrics").text for name in ("pairs", "chats")}
    for column in (
        f"{part}_{of}" for part in ("train", "valid", "full_valid") for of in ("reward_accuracy", "reward_margin")
    ):
        assert (column in pages["pairs"], column in pages["chats"]) == (True, False)
    found = json.loads(served.get("/runs/pairs/metrics/points?file=metrics.jsonl").body)["columns"]
    assert (found["train_reward_margin"], found["full_valid_reward_accuracy"]) == ([[1, 2], [0.5, 0.5]], [[2], [0.75]])


@pytest.mark.parametrize(
    "path", ["points?file=../config.yaml", "files/config.yaml", "files/..%2fconfig.yaml", "points?file="]
)
def test_no_other_file_is_read(served: Studio, root: Path, path: str) -> None:
    if not (root / "plain").exists():
        write_results(make_run(root, "plain"), rows_of(3))
    assert served.get(f"/runs/plain/metrics/{path}").status == 404


def test_a_page_is_sent_each_row_once_and_nothing_of_what_it_has(served: Studio, root: Path) -> None:
    folder = make_run(root, "growing", state="running")
    write_results(folder, rows_of(400))
    stream = Stream(served, address_in(served.get("/runs/growing/metrics").text))
    for row in rows_of(403)[400:]:
        with (folder / "results.csv").open("a") as file:
            file.write(as_line(row))
        found = stream.points()
        assert found["columns"]["train_loss"] == [[row["step"]], [pytest.approx(row["train_loss"], rel=1e-9)]]
    assert stream.num_bytes < 6_000  # three rows and what they changed in words; the file has 8,000 bytes
    stream.close()

    with (folder / "results.csv").open("a") as file:
        file.write("".join(map(as_line, rows_of(406)[403:])))
    again = Stream(served, "/runs/growing/metrics/live", stream.cursor)
    assert again.points()["columns"]["train_loss"][0] == [404, 405, 406]
    again.close()


def test_a_resumed_run_or_a_long_absence_lets_the_page_fetch_anew(served: Studio, root: Path) -> None:
    folder = make_run(root, "resumed", state="running")
    write_results(folder, rows_of(100))
    stream = Stream(served, address_in(served.get("/runs/resumed/metrics").text))
    write_results(folder, [row | {"train_loss": 7.0} for row in rows_of(100)])
    assert stream.points() == {"source": "/runs/resumed/metrics/points?file=results.csv"}
    with (folder / "results.csv").open("a") as file:
        file.write("".join(map(as_line, rows_of(1000)[100:])))
    assert stream.points() == {"source": "/runs/resumed/metrics/points?file=results.csv"}
    stream.close()


def test_overfitting_and_the_chosen_step_are_said_and_marked(served: Studio, root: Path) -> None:
    folder = make_run(root, "overfit", adapter_step=4, total_steps=12)
    losses = {2: 2.0, 4: 1.0, 6: 1.4, 8: 1.8, 10: 2.2, 12: 2.6}
    write_results(folder, [{"step": step, "train_loss": 0.1, "valid_loss": loss} for step, loss in losses.items()])
    page = served.get("/runs/overfit/metrics").text
    assert 'data-step="4" data-label="the adapter: step 4" data-overfits="4"' in page
    assert "from 1.000 at step 4 to 2.600 at step 12" in page


# Logs


def test_a_log_is_searched_by_level_and_text_from_its_end(served: Studio, root: Path) -> None:
    folder = make_run(root, "talkative")
    for number in range(450):
        level = "error" if number % 50 == 0 else "info"
        event = {"created_at": "2026-11-29T05:00:00+00:00", "level": level, "type": "message", "data": {}}
        append_line(folder / "events.jsonl", event | {"message": f"<b>number {number}</b>"})
    newest = served.get("/runs/talkative/logs").text
    assert "&lt;b&gt;number 449&lt;/b&gt;" in newest
    assert "<b>number" not in newest
    assert "number 249" not in newest
    more = newest.partition('hx-get="')[2].partition('"')[0].replace("&amp;", "&")
    assert "number 249" in served.get(more).text
    errors = served.get("/runs/talkative/logs?level=error").text
    assert [number for number in range(450) if f"number {number}&" in errors] == list(range(0, 450, 50))
    found = served.get("/runs/talkative/logs?level=error&q=NUMBER+40").text
    assert "<mark>number 40</mark>0" in found
    assert "number 350" not in found


def test_new_lines_come_once_and_as_filtered(served: Studio, root: Path) -> None:
    folder = make_run(root, "speaking")
    line = {"created_at": "2026-11-29T05:00:00+00:00", "level": "warning", "message": "seen"}
    append_line(folder / "events.jsonl", line)
    stream = Stream(served, address_in(served.get("/runs/speaking/logs?level=warning").text))
    append_line(folder / "events.jsonl", line | {"message": "harmless", "level": "info"})
    append_line(folder / "events.jsonl", line | {"message": "a spike"})
    lines = next(data for _, data in stream.events() if "a spike" in data)
    assert "seen" not in lines
    assert "harmless" not in lines
    assert 'hx-swap="beforeend"' in lines
    stream.close()


# Checkpoints

WEIGHTS = bytes(range(256)) * 4000
CONTENT = {"adapter_model.safetensors": WEIGHTS, "adapter_config.json": b"{}"}


def test_checkpoints_have_their_losses_and_can_be_saved(served: Studio, root: Path) -> None:
    folder = make_run(root, "kept", adapter_step=10, total_steps=20)
    write_results(folder, [{"step": 10, "valid_loss": 0.5}, {"step": 20, "train_loss": 0.25, "valid_loss": 0.75}])
    for step in (10, 20):
        write(folder / "checkpoints", step, CONTENT, {"step": step})
    page = served.get("/runs/kept/checkpoints").text
    for words in ("the adapter", "best", "newest", "0.5000", "0.2500", "1.0 MB", "/new/from/kept"):
        assert words in page
    begun = served.post("/new/from/kept", {"step": "20"})
    assert begun.status == 303
    assert "kept@20" in served.get(begun.headers["location"]).text
    saved = served.get("/runs/kept/checkpoints/20/adapter")
    assert int(saved.headers["content-length"]) == len(saved.body)
    with tarfile.open(fileobj=BytesIO(saved.body)) as archive:
        assert archive.getnames() == [f"kept-step-20/{name}" for name in CONTENT]
        assert (archive.extractfile(archive.getmembers()[0]) or BytesIO()).read() == WEIGHTS
    assert served.get("/runs/kept/checkpoints/15/adapter").status == 404
    (folder / "checkpoints" / "step-00000010" / "adapter_config.json").unlink()
    assert "adapter_config.json is missing" in served.get("/runs/kept/checkpoints").text
    assert served.get("/runs/kept/checkpoints/10/whole").status == 400


def test_a_damaged_file_is_a_download_that_fails(root: Path) -> None:
    folder = make_run(root, "damaged")
    write(folder / "checkpoints", 1, CONTENT, {"step": 1})
    (folder / "checkpoints" / "step-00000001" / "adapter_model.safetensors").write_bytes(WEIGHTS[:-1] + b"\0")
    with pytest.raises(IncompleteRead), studio(root) as own:
        own.get("/runs/damaged/checkpoints/1/adapter")


def test_a_new_checkpoint_comes_into_the_list(served: Studio, root: Path) -> None:
    folder = make_run(root, "saving", state="running")
    page = served.get("/runs/saving/checkpoints").text
    assert "No checkpoints" in page
    stream = Stream(served, address_in(page))
    write(folder / "checkpoints", 3, CONTENT, {"step": 3})
    assert next(data for _, data in stream.events() if 'id="checkpoints"' in data)
    stream.close()


# Report and comparison


@pytest.fixture(scope="module")
def reported(root: Path, served: Studio) -> Path:
    folder = root / "reported"
    shutil.copytree(OLD / "finished", folder)
    path = folder / "report" / "report.json"
    result = json.loads(path.read_text())
    result["rows"][0]["answers"][0]["tuned"]["text"] = "<script>alert(1)</script>"
    path.write_text(json.dumps(result))
    return folder


def test_a_report_has_its_numbers_and_answers_escaped(served: Studio, reported: Path) -> None:
    result = json.loads((reported / "report" / "report.json").read_text())
    page = served.get("/runs/reported/report").text
    assert "<script>alert" not in page
    assert "alert" in page
    for measure in ("Right or nearly", "Loss", "chrF", "95% interval"):
        assert measure in page
    assert "Worst answers" in page
    assert "Best answers" in page
    changes = sorted(row["score"]["tuned"] - row["score"]["base"] for row in result["rows"])
    assert page.count('<rect class="fill-better" x=') + page.count('<rect class="fill-worse" x=') - 1 == len(changes)
    assert f"From {changes[0]:+.0f} to {changes[-1]:+.0f} points of 100, against Base." in page
    assert "The adapter is from step" in page
    everything = served.get("/runs/reported/report?rows=all").text
    assert everything.count("row-card") == min(25, len(result["rows"]))
    assert (
        served.get("/runs/reported/report/files/report.json").body == (reported / "report" / "report.json").read_bytes()
    )
    assert served.get("/runs/reported/report/files/other").status == 404
    assert served.get("/runs/reported/report?rows=x&page=99999999999").status == 200


def test_a_report_shows_what_was_kept_and_what_was_lost(served: Studio, reported: Path) -> None:
    path = reported / "report" / "report.json"
    assert "What was kept" not in served.get("/runs/reported/report").text
    item = replace(read_suite("builtin").items[0], kind="odd <kind>")
    suite = Suite("own", (item, replace(item, id="other")), "0" * 64)
    said = [Reply(text, (), True) for text in ("B", "B", "<b>C</b>", "B")]
    kept = scored(suite, said[:2], said[2:]) | {"omitted": {}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"suite": kept}))
    page = served.get("/runs/reported/report").text
    assert "Kept 1 of the 2 general items that the base had right" in page
    assert "Odd &lt;kind&gt;" in page
    assert "&lt;b&gt;C&lt;/b&gt;" in page
    assert page.count(">lost<") == 1


def test_a_report_shows_the_judge_the_benchmarks_and_thoughts_apart(served: Studio, reported: Path) -> None:
    path = reported / "report" / "report.json"
    result = json.loads(path.read_text())
    assert "What a judge prefers" not in served.get("/runs/reported/report").text
    settings = {"harness": "lm-eval 1", "limit": None, "num_fewshot": None, "apply_chat_template": True}
    values = {side: {"value": value, "stderr": 0.125} for side, value in (("base", 0.25), ("tuned", 0.5))}
    metric = {"task": "sums", "metric": "acc", "filter": "none", "higher_is_better": True}
    (first, *_) = pairs_of(result)
    opinions = (Opinion("before", "it is <i>wrong</i>"), Opinion("before", "so it is"))
    judge = make_outcome(result, [Judged(first, opinions)], "a <judge>", "http://127.0.0.1/v1", None)
    result["rows"][0]["answers"][0]["tuned"]["reasoning_content"] = "a <thought>"
    result |= {"benchmarks": settings | {"metrics": [metric | values]}, "judge": judge}
    path.write_text(json.dumps(result))
    page = served.get("/runs/reported/report?rows=all").text
    assert '<td class="number">0.2500 ± 0.1250</td>' in page
    assert "What a judge prefers" in page
    assert "it is &lt;i&gt;wrong&lt;/i&gt;" in page
    assert "The judge a &lt;judge&gt; prefers the tuned model in 0 of 1 pair" in page
    assert page.count("a &lt;thought&gt;") == 2  # in its row, and where the judge finds it worse


def test_a_report_that_cannot_be_read_is_said_so(served: Studio, root: Path) -> None:
    folder = make_run(root, "odd")
    (folder / "report").mkdir()
    (folder / "report" / "report.json").write_text('{"format": 2, "verdict": {"sentence": "x"}, "rows": [{}]}')
    assert served.get("/runs/odd/report").status == 400
    make_run(root, "uncompared")
    assert "No comparison yet" in served.get("/runs/uncompared/report").text


def test_a_page_without_a_report_says_why_and_hears_of_a_new_one_once(served: Studio, root: Path) -> None:
    folder = root / "not compared"
    shutil.copytree(OLD / "finished", folder)
    kept = (folder / "report").rename(root.parent / "report")
    page = served.get("/runs/not%20compared/report").text
    note = "trained; its comparison with the base is missing; make it with: trainer resume"
    assert note in page.partition("No comparison yet")[2]
    stream = Stream(served, address_in(page))
    kept.rename(folder / "report")
    told = next(data for _, data in stream.events() if 'id="report-news"' in data)
    assert 'There is a new comparison. <a href="/runs/not%20compared/report">Show it</a>' in told
    stream.close()
    again = served.get("/runs/not%20compared/report").text
    assert "Worst answers" in again
    assert "There is a new comparison" not in again
    stream = Stream(served, address_in(again))
    write_status(folder, state="failed")
    first = next(data for _, data in stream.events() if "feed" not in data)
    assert 'id="report-news"' not in first
    stream.close()


def test_runs_are_compared_by_what_differs(served: Studio, reported: Path, root: Path) -> None:
    other = root / "reported again"
    shutil.copytree(reported, other)
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("lora_alpha: ", "lora_alpha: 9"))
    page = served.get(f"/compare?run=reported&run={quote(other.name)}").text
    assert "<code>lora.lora_alpha</code>" in page
    assert "<code>training.seed</code>" not in page
    assert "no clear difference between" in page
    assert "Data, base and versions are the same." in page
    beside = served.get("/compare?run=reported&run=long&run=no+such").text
    assert "has no comparison with its base" in beside
    assert "There is no run no such any more" in beside
    assert served.get("/compare").status == 200


def test_more_runs_than_colors_are_named_and_left_out(served: Studio, root: Path) -> None:
    for number in range(9):
        write_status(make_run(root, f"many {number}"), state="queued")
    query = "&".join(f"run={quote(f'many {number}')}" for number in range(9))
    page = served.get(f"/compare?{query}").text
    assert "left out: many 8" in page
    assert COLUMNS[3] in page


def test_runs_that_are_compared_send_their_points_states_and_verdicts(served: Studio, root: Path) -> None:
    folders = [make_run(root, f"side {side}", state="running", total_steps=9) for side in "ab"]
    for folder in folders:
        write_results(folder, rows_of(5))
    stream = Stream(served, address_in(served.get("/compare?run=side+a&run=side+b").text))
    with (folders[1] / "results.csv").open("a") as file:
        file.write(as_line({"step": 6, "train_loss": 0.25, "valid_loss": 0.5}))
    found: dict[str, str] = {}
    while len(found) < 2:
        found |= {name: data for name, data in [next(stream.events())] if name != "feed"}
    assert json.loads(found["points"]) == {
        "source": "/runs/side%20b/metrics/points?file=results.csv",
        "columns": {"train_loss": [[6], [0.25]], "valid_loss": [[6], [0.5]]},
    }
    assert 'hx-target="#compared"' in found[""]
    assert "0.5000" in found[""]
    shutil.copytree(OLD / "finished" / "report", folders[0] / "report")
    assert next(data for _, data in stream.events() if 'hx-target="#ranking"' in data)
    Run(folders[1]).delete()
    gone = next(data for _, data in stream.events() if 'hx-target="#compared"' in data and "side b" not in data)
    assert "side a" in gone
    stream.close()
