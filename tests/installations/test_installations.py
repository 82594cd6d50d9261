"""Each extra alone walks its own journey outside a checkout, and all else says in one sentence what to install."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any
from urllib.request import HTTPCookieProcessor, Request, build_opener, urlopen

import pytest

from tests.environments import REPOSITORY, CannotInstall
from tests.installations.environments import installation
from tests.openai_service import demo
from tests.smoke.test_base_installation import NEED, WORK, settings
from tests.unit.workshop.test_document_formats import docx, paragraph, pdf
from trainer.runs import Run, create_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

KEY = "key-of-the-tests"
TRAINING = (
    "train", "--config", "configs/tiny.yaml", "run.name=tuned", "training.n_epochs=1", "data.train=data/starter.jsonl",
    "evaluation.max_rows=2", "evaluation.max_new_tokens=4",
)  # fmt: skip


class User:
    """Somebody with an installation, in a folder with a copy of the configs and data and two runs."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        for name in ("configs", "data"):
            shutil.copytree(REPOSITORY / name, folder / name)
        for name, state in (("done", "succeeded"), ("begun", "paused")):
            create_run(settings(folder / "runs", name)).set_status(state)
        (folder / "runs" / "done" / "adapter").mkdir()
        (folder / "runs" / "done" / "adapter" / "adapter_model.safetensors").touch()

    def call(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [self.programs / program, *arguments], cwd=self.folder, env=self.environment,
            capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done

    @property
    def environment(self) -> dict[str, str]:
        unwanted = ("PYTHONPATH", "TRAINER_RUNS", "VIRTUAL_ENV", "AZURE_", "OPENAI_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
        return kept | {"NO_COLOR": "1", "HF_HUB_OFFLINE": "1", "TRAINER_API_KEY": KEY}

    def ask_served(self, question: str) -> dict[str, Any]:
        """The answer of `trainer serve tuned` over HTTP; the server ends with Ctrl-C and says so by its exit code."""
        command = [self.programs / "trainer", "serve", "tuned", "--port", "0"]
        pipes = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, cwd=self.folder, env=self.environment, text=True, **pipes) as server:
            try:
                assert server.stderr is not None
                lines = iter(server.stderr.readline, "")
                address = next(found[0] for line in lines if (found := re.findall(r"http://[\d.]+:\d+/v1", line)))
                body = {"model": "tuned", "messages": [{"role": "user", "content": question}], "max_tokens": 4}
                request = Request(f"{address}/chat/completions", json.dumps(body).encode(), {
                    "Authorization": f"Bearer {KEY}", "Content-Type": "application/json"})  # fmt: skip
                with urlopen(request, timeout=120) as response:
                    answer: dict[str, Any] = json.load(response)
            finally:
                server.send_signal(signal.SIGINT)
                server.communicate(timeout=60)
        assert server.returncode in (0, 130)
        return answer


@pytest.fixture
def user(wheel, tmp_path):
    def make(extra: str) -> User:
        try:
            return User(installation(extra, wheel), tmp_path)
        except CannotInstall as error:
            pytest.skip(str(error))

    return make


@pytest.mark.parametrize("extra", ["base", "azure", "openai"])
def test_what_needs_no_extra_works_and_the_rest_names_its_extra(extra, user, wheel):
    someone = user(extra)
    for name, words in NEED.items():
        command, wanted = words
        if wanted == extra:
            continue
        done = someone.call(*command)
        assert done.returncode == 2, (name, done.stderr)
        sentence = rf"error: .* needs .*, which (is|are) not installed; run: pip install '{wheel}\[{wanted}\]'\n"
        assert re.fullmatch(sentence, done.stderr), (name, done.stderr)
    for name, words in WORK.items():
        done = someone.call(*words)
        assert done.returncode == 0, (name, done.stderr)


def test_the_openai_extra_walks_from_the_quote_to_the_teardown(user, capsys):
    someone = user("openai")
    assert demo.main(someone.programs / "python", someone.folder) == 0
    shown = capsys.readouterr().out
    assert "left at the service: nothing" in shown
    assert (someone.folder / demo.RUN / "report" / "report.html").is_file()
    assert "not installed" not in shown


def test_the_azure_extra_reads_the_data_and_gets_to_the_sign_in(user):
    command, _ = NEED["train on Azure ML"]
    done = user("azure").call(*command)
    assert done.returncode == 2
    assert "pip install" not in done.stderr
    assert "sign in, for example with: az login" in done.stderr


def test_the_azure_extra_walks_from_the_check_to_the_teardown(wheel, tmp_path):
    pytest.importorskip("azure.ai.ml")
    from tests.integration.azure_twin.blobs import Missing
    from tests.integration.azure_twin.journey import Journey
    from tests.integration.azure_twin.twin import working_twin
    from tests.integration.test_azure_journey import from_a_model_to_nothing

    try:
        programs = installation("azure", wheel)
        with working_twin(tmp_path / "twin") as twin:
            journey = Journey(twin, tmp_path / "user", print, programs)
            assert "torch, peft are not installed here" in " ".join(journey.check().split())
            assert twin.arm.inventory() == []
            journey.train()
            assert journey.run.state == "succeeded"
            assert (journey.run.adapter / "adapter_model.safetensors").is_file()
            assert (journey.run.report / "report.html").is_file()
            journey.look()
            from_a_model_to_nothing(twin, journey)
    except (CannotInstall, Missing) as error:
        pytest.skip(str(error))


def test_the_workshop_extra_cleans_data_without_torch(user):
    someone = user("workshop")
    source, copy = someone.folder / "data" / "glossary_train.jsonl", someone.folder / "clean.jsonl"
    words = ("data", "clean", source, "--validation", "data/glossary_validation.jsonl", "--fix", "--output", copy)
    done = someone.call("trainer", *map(str, words))
    assert done.returncode == 0, done.stderr
    assert copy.read_bytes() == source.read_bytes()


def test_the_sources_extra_reads_data_from_elsewhere_without_torch(user):
    someone = user("sources")
    made = (
        "import pathlib, zstandard; p = pathlib.Path; "
        "p('rows.jsonl.zst').write_bytes(zstandard.compress(p('data/starter.jsonl').read_bytes()))"
    )
    assert someone.call("python", "-c", made).returncode == 0
    done = someone.call("trainer", "data", "check", "rows.jsonl.zst")
    assert done.returncode == 0, done.stderr
    for address, said in {"az://rows@nobody/x.jsonl": "nobody is signed in", "hf://org/rows": "the hub"}.items():
        refused = someone.call("trainer", "data", "check", address)
        (error,) = refused.stderr.splitlines()
        assert (refused.returncode, said in error) == (2, True), error


def test_the_documents_extra_reads_documents_of_every_format(user):
    someone = user("documents")
    folder = someone.folder / "docs"
    folder.mkdir()
    contents = {
        "a.docx": docx(paragraph("Word.")),
        "b.pdf": pdf(["Print."]),
        "c.html": b"<p>Web.</p>",
        "d.md": b"# Mark",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    program = "from trainer.workshop.documents.read import read_documents as r; print([c.text for c in r(['docs'])])"
    done = someone.call("python", "-c", program)
    assert done.stdout.strip() == "['Word.', 'Print.', 'Web.', '# Mark']", done.stderr


def test_the_local_extra_trains_compares_exports_and_names_the_extra_for_serving(user, wheel):
    someone = user("local")
    for words in (
        TRAINING, ("trainer", "data", "preview", "data/starter.jsonl", "--config", "configs/tiny.yaml"),
        ("trainer", "show", "tuned"), ("trainer", "chat", "tuned", "What is a cassette?", "--max-tokens", "4"),
        ("trainer", "export", "tuned", "--output", "exported"),
    ):  # fmt: skip
        done = someone.call(*words)
        assert done.returncode == 0, done.stderr
    assert (someone.folder / "runs" / "tuned" / "report" / "report.html").is_file()
    refused = someone.call("trainer", "serve", "tuned")
    assert (refused.returncode, refused.stderr.splitlines()[-1]) == (
        2, f"error: serve needs starlette, uvicorn, which are not installed; run: pip install '{wheel}[serve]'",
    )  # fmt: skip


def test_the_lm_eval_extra_runs_a_task_on_base_and_tuned_model(user):
    """A task of the user's own, whose rows are a file: nothing is fetched."""
    someone = user("lm-eval")
    folder = someone.folder / "tasks"
    folder.mkdir()
    sums = [{"question": f"{a} plus 2 is", "choices": [str(a + 2), str(a + 3)], "gold": 0} for a in range(9)]
    (folder / "sums.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in sums))
    (folder / "sums.yaml").write_text(json.dumps({
        "task": "sums", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "sums.jsonl")}},
        "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{question}}",
        "doc_to_choice": "choices", "doc_to_target": "gold", "metric_list": [{"metric": "acc"}]}))  # fmt: skip
    assert someone.call(*TRAINING).returncode == 0
    run = Run(someone.folder / "runs" / "tuned")
    before = run.comparison()
    words = ("trainer", "evaluate", "tuned", "--tasks", "sums", "--tasks-path", "tasks", "--limit", "8")
    done = someone.call(*words, "--format", "json")
    assert done.returncode == 0, done.stderr
    after = run.comparison()
    (metric,) = after.pop("benchmarks")["metrics"]
    assert after == before
    assert json.loads(done.stdout)["metrics"] == [metric]
    assert (metric["task"], metric["metric"], metric["questions"]) == ("sums", "acc", 8)
    for key in ("base", "tuned"):  # of eight answers, each right or wrong
        share = metric[key]["value"]
        assert share * 8 == round(share * 8)
        assert metric[key]["stderr"] == pytest.approx((share * (1 - share) / 7) ** 0.5)
    assert "Published benchmarks" in (run.report / "report.html").read_text(encoding="utf-8")
    unknown = someone.call("trainer", "evaluate", "tuned", "--tasks", "sum,hellaswagg", "--tasks-path", "tasks")
    assert (unknown.returncode, "--tasks: has 'hellaswagg', did you mean hellaswag?" in unknown.stderr) == (2, True)


def test_the_ui_extra_shows_every_page(user):
    from trainer.dashboard import NAVIGATION, TABS

    someone = user("ui")
    command = [someone.programs / "trainer", "ui", "--no-open", "--port", "0"]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=someone.folder, env=someone.environment, text=True, **pipes) as server:
        try:
            assert server.stdout is not None
            link = server.stdout.readline().strip()
            browser = build_opener(HTTPCookieProcessor())
            browser.open(link, timeout=60).close()
            tabs = ["/runs/done", *(f"/runs/done/{tab.name}" for tab in TABS if tab.name)]
            for path in (*(entry.path for entry in NAVIGATION), *tabs):
                with browser.open(link.partition("/?")[0] + path, timeout=60) as page:
                    assert "</html>" in page.read().decode(), path
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=60)
    assert server.returncode in (0, 130)


def test_the_serve_extra_trains_and_serves(user):
    someone = user("serve")
    done = someone.call(*TRAINING)
    assert done.returncode == 0, done.stderr
    answer = someone.ask_served("What is a cassette?")
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["usage"]["completion_tokens"] > 0
