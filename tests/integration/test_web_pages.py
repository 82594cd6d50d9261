"""Pages of the studio over a folder of runs: what they show and change, and that no name becomes more than one."""

import html
import re
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.studio import FORM, Studio, make_run, studio, write_results
from trainer import dashboard
from trainer.runs import Run
from trainer.runs.files import append_line, read_record
from trainer.runs.queue import Queue

CANARY = "canary-outside-of-the-runs"
SCRIPT = "<script>alert(1)</script>"
NAMES = (
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' autofocus onfocus=alert(1) x='",
    '" hx-get="evil" hx-trigger="load',
    "{{ 7*7 }}{% raw %}",
    "javascript:alert(1)",
    "<hx-partial hx-target=body>",
    "a b+c%20d&e=f#g?h;i",
    "ünïcödé-名前-\u202egnp",
)


def traversals() -> list[str]:
    """Two hundred names that are none, as they stand in an address."""
    up = ("..", "%2e%2e", ".%2e", "%252e%252e", "..%00", "%c0%ae%c0%ae", "..%5c", "%e2%80%ae..", "....", ". .")
    slash = ("/", "%2f", "%252f", "%5c", "%c0%af", "//", "/./", "%2f%2f")
    to = ("outside.txt", "runs/../outside.txt", "one", "etc/passwd", "%00")
    found = [f"{first}{second}{third}" for first in up for second in slash for third in to]
    odd = [
        ".",
        "..",
        "%00",
        "one%00",
        ".ui",
        ".ui%2fsecret",
        ".queue",
        "~",
        "%7e",
        "link",
        "-",
        "%20",
        "%0d%0aX:y",
    ]
    return (odd + found)[:200]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("place")
    (folder / "outside.txt").write_text(CANARY)
    root = folder / "runs"
    make_run(root, "one")
    outside = make_run(folder, "elsewhere")
    (outside / "config.yaml").write_text(f"model:\n  base: {CANARY}\n")
    (root / "link").symlink_to(outside)
    with studio(root) as server:
        yield server


WITH_ID = sorted({route.path for route in dashboard.ROUTES if "{" in route.path})


@pytest.mark.parametrize("path", WITH_ID)
def test_nothing_that_is_sent_becomes_a_path(path, served):
    method = next(route for route in dashboard.ROUTES if route.path == path).access.methods[0]
    headers = served.acting | {"Content-Type": FORM} if method == "POST" else served.signed_in
    kept = HTTPConnection("127.0.0.1", served.port, timeout=20)
    names = re.findall(r"\{(\w+)(?::\w+)?\}", path)
    for text in traversals():
        for attacked in names:
            sent = path
            for name in names:
                sent = re.sub(rf"\{{{name}(:\w+)?\}}", text if name == attacked else "one", sent).replace("\\", "%5c")
            found = served.send(method, sent, headers, b"" if method == "POST" else None, kept)
            assert found.status in (204, 400, 403, 404, 405, 415, 422), (sent, found.status, found.text[:300])
            assert CANARY not in found.text
            assert not found.headers.get("content-type", "").startswith("text/event-stream")
    kept.close()


@pytest.mark.parametrize("name", NAMES)
def test_names_errors_and_settings_are_text_and_nothing_else(name, tmp_path):
    folder = make_run(tmp_path, name, "failed", base=f"{name}{SCRIPT}", error=f"{name}{SCRIPT}", model_until=SCRIPT)
    thing = dict.fromkeys(("backend", "kind", "key", "place", "bills", "delete_with"), SCRIPT)
    line = {"format": 1, "created_at": "2026-11-01T10:00:00+00:00", "step": "exists", "thing": thing, "facts": {}}
    append_line(folder / "ledger.jsonl", line)
    (folder / f"{name}{SCRIPT}".replace("/", "")).write_text("x")
    with studio(tmp_path) as served:
        own = f"/runs/{quote(name, safe='')}"
        tabs = [own, *(f"{own}/{tab.name}" for tab in dashboard.TABS if tab.name)]
        for path in ("/runs", f"/runs?q={quote(name)}", "/queue", *tabs):
            found = served.get(path)
            if found.status == 303:
                found = served.get(found.headers["location"])
            assert found.status == 200, (path, found.text)
            assert SCRIPT not in found.text
            assert "<script>alert" not in found.text
            assert "<img src=x" not in found.text
            assert "<svg onload" not in found.text
            assert 'hx-get="evil"' not in found.text
            assert "autofocus onfocus=alert(1) x='" not in found.text
            assert "<hx-partial" not in found.text
        assert str(html.escape(name)) in served.get("/runs").text.replace("&#34;", "&quot;").replace("&#39;", "&#x27;")


def make_many(root: Path) -> None:
    for number in range(5):
        base = "Qwen/Qwen3-4B" if number % 2 else "builtin:tiny"
        state = ("succeeded", "failed", "paused", "running", "cancelled")[number]
        created = f"2026-11-0{number + 1}T10:00:00.000+00:00"
        folder = make_run(root, f"run-{number}", state, base, created_at=created, finished_at=created)
        write_results(folder, [{"step": 1, "valid_loss": 3.0 - number / 4}, {"step": 2, "valid_loss": 4.0}])


@pytest.fixture
def many(tmp_path) -> Iterator[Studio]:
    make_many(tmp_path)
    with studio(tmp_path) as server:
        yield server


def names_in(page: str) -> list[str]:
    return re.findall(r'aria-label="Select ([^"]+)"', page)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "43210"),
        ("?sort=created", "01234"),
        ("?sort=loss", "43210"),
        ("?sort=-loss", "01234"),
        ("?sort=-name", "43210"),
        ("?sort=nothing&page=x&state=evil", "43210"),
        ("?q=qwen", "31"),
        ("?q=QWEN+failed", "1"),
        ("?state=paused", "2"),
        ("?backend=local&sort=name", "01234"),
        ("?backend=openai", ""),
        ("?page=99", "43210"),
        ("?page=99999999999999999999", "43210"),
    ],
)
def test_the_list_is_what_the_address_says(query, expected, many):
    assert names_in(many.get(f"/runs{query}").text) == [f"run-{number}" for number in expected]


def test_a_run_without_a_value_comes_last_whichever_way_the_list_is_sorted(many):
    make_run(many.server.studio.root, "new")
    for sort in ("loss", "-loss"):
        assert names_in(many.get(f"/runs?sort={sort}").text)[-1] == "new"


def test_the_list_shows_the_best_loss_and_never_invents_one(many):
    page = many.get("/runs?q=run-0").text
    assert "3.0000" in page
    assert "4.0000" not in page
    assert many.get("/runs?q=run-0").text.count("\N{EN DASH}") >= 2  # cost, and when it stops answering


def test_a_damaged_run_hides_no_other(many):
    (many.server.studio.root / "run-1" / "status.json").write_text("{")
    (many.server.studio.root / "run-2" / "config.yaml").write_text("\0")
    page = many.get("/runs").text
    assert len(names_in(page)) == 5
    assert "damaged: status.json" in page


def test_a_thousand_runs_come_in_pages(tmp_path):
    for number in range(205):
        make_run(tmp_path, f"run-{number:03}", created_at=f"2026-11-01T{number // 60:02}:{number % 60:02}:00+00:00")
    with studio(tmp_path) as served:
        first, last = served.get("/runs").text, served.get("/runs?page=3").text
    assert names_in(first)[0] == "run-204"
    assert len(names_in(first)) == 100
    assert 'href="/runs?page=2" rel="next"' in first
    assert names_in(last) == [f"run-{number:03}" for number in range(4, -1, -1)]


def test_an_empty_folder_says_how_to_begin(tmp_path):
    with studio(tmp_path / "none yet") as served:
        assert "No runs yet" in served.get("/runs").text
        assert "Nothing waits" in served.get("/queue").text


def test_a_page_connects_when_all_its_scripts_are_there_and_until_it_is_connected(many):
    page = many.get("/runs").text
    scripts = dict(re.findall(r'<script src="/static/([^"?]*)[^"]*"( defer|)></script>', page))
    assert scripts["vendor/htmx/htmx.min.js"] == "", "deferred, it begins before the extension that connects"
    assert scripts["vendor/htmx/hx-sse.min.js"] == " defer"
    connect = re.search(r"<div hx-sse:connect=[^>]*>", page)
    assert connect
    assert 'hx-trigger="load, every 5s" hx-sync="drop"' in connect[0]


def test_a_run_is_shown_with_what_it_was_made_from(many):
    page = many.get("/runs/run-1").text
    assert "Qwen/Qwen3-4B" in page
    assert "model.base" in page
    assert many.get("/runs/run-7").status == 404


def test_files_are_attachments_by_their_ids(many):
    root = many.server.studio.root
    (root / "outside.txt").write_text(CANARY)
    (root / "run-0" / "link.txt").symlink_to(root / "outside.txt")
    (root / "run-0" / "folder").symlink_to(root)
    (root / "run-0" / "report").mkdir()
    (root / "run-0" / "report" / "report.html").write_text(SCRIPT)
    page = many.get("/runs/run-0/files").text
    assert "link.txt" not in page
    assert "folder/" not in page
    listed = dict(re.findall(r'<td>([^<]+)</td>.*?href="([^"]+)" download', page))
    assert {"config.yaml", "results.csv", "report/report.html"} <= listed.keys()
    found = many.get(listed["report/report.html"])
    assert found.body.decode() == SCRIPT
    assert found.headers["content-type"] == "application/octet-stream"
    assert found.headers["content-disposition"].startswith("attachment;")
    assert many.get(f"{listed['config.yaml']}0").status == 404
    assert many.get(listed["config.yaml"].replace("run-0", "run-1")).body != many.get(listed["config.yaml"]).body


def test_pausing_asks_the_run_and_says_so(many, monkeypatch):
    monkeypatch.setattr("trainer.dashboard.run_actions.WAIT_SECONDS", 0.0)
    found = many.post("/runs/run-3/pause", **{"HX-Request": "true"})
    assert found.status == 200
    assert "was asked to stop" in found.text
    assert Run(many.server.studio.root / "run-3").asked() == "pause"
    assert "asked to pause" in many.get("/runs/run-3").text
    assert many.post("/runs/run-0/pause").status == 400


def test_cancelling_a_paused_run_ends_it(many):
    assert many.post("/runs/run-2/cancel").headers["location"] == "/runs/run-2"
    assert Run(many.server.studio.root / "run-2").state == "cancelled"


def test_deleting_removes_the_folder_and_nothing_that_bills(many):
    folder = many.server.studio.root / "run-0"
    thing = {
        "backend": "openai",
        "kind": "deployment",
        "key": "d",
        "place": "p",
        "bills": "1 an hour",
        "delete_with": "x",
    }
    line = {"format": 1, "created_at": "2026-11-01T10:00:00+00:00", "step": "exists", "thing": thing, "facts": {}}
    append_line(folder / "ledger.jsonl", line)
    assert "Still bills: deployment d: 1 an hour" in many.get("/runs/run-0").text
    refused = many.post("/runs/run-0/delete")
    assert (refused.status, folder.is_dir()) == (400, True)
    assert "may still bill" in refused.text
    append_line(folder / "ledger.jsonl", line | {"step": "deleted"})
    assert many.post("/runs/run-0/delete").headers["location"] == "/runs"
    assert not folder.exists()
    assert many.post("/runs/run-0/delete").status == 404


def test_each_action_says_what_it_costs_or_loses(many):
    page = many.get("/runs/run-2").text
    assert "Nothing bills." in page
    assert "Its checkpoints and files stay." in page
    assert "It cannot be brought back." in page
    assert "Resume run-2" in page
    assert "Pause" not in page


def test_the_order_of_the_queue_is_changed_from_the_page(tmp_path):
    for name in "abc":
        make_run(tmp_path, name, "queued")
        Queue(tmp_path).add(name)
    with studio(tmp_path) as served:
        page = served.get("/queue").text
        assert page.index(">a</a>") < page.index(">b</a>") < page.index(">c</a>")
        assert served.post("/queue/c/move", {"place": "1"}).status == 303
        assert [entry.run for entry in Queue(tmp_path).entries()] == ["c", "a", "b"]
        for wrong in ("0", "4", "-1", "x", "", "9" * 30):
            assert served.post("/queue/c/move", {"place": wrong}).status == 400
        assert served.post("/queue/a/remove").status == 303
        assert [entry.run for entry in Queue(tmp_path).entries()] == ["c", "b"]
        assert Run(tmp_path / "a").state == "paused"
        assert read_record(tmp_path / "c" / "status.json")["state"] == "queued"
