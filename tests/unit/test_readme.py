"""What the handwritten pages say is true: commands parse, configs load, paths exist, and nothing is left out."""

import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from tests.configs import OF_RUNS
from tests.first_contact import STEP
from trainer.backends.azureml.sizes import find_machine
from trainer.backends.azureml.survey import unknown_driver
from trainer.cli.main import train_app, trainer_app
from trainer.config import load_config
from trainer.data.read.rows import read_conversations
from trainer.errors import ExitCode

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "trainer"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    "README.md",
    "AGENTS.md",
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/azure-openai-lab.md",
    "docs/azureml.md",
    "docs/ci.md",
    "docs/first-contact.md",
    "docs/generate.md",
    "docs/guide.md",
    "docs/migrate.md",
    "docs/openai.md",
    "docs/packing.md",
    "docs/troubleshooting.md",
]
PROGRAMS: dict[str, Any] = {
    "train": typer.main.get_command(train_app),
    "trainer": typer.main.get_command(trainer_app),
}


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The contents of the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def inline_code(text: str) -> list[str]:
    """What stands in backticks outside of fenced blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))


def section(title: str, page: str = "README.md") -> str:
    """A page's text below a heading, up to the next one of the same depth."""
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", text_of(page), flags=re.DOTALL | re.MULTILINE)
    return str(text)


def command_lines(text: str) -> list[str]:
    """Every line of a shell block, and every command in backticks."""
    lines = [line for block in blocks(text, "sh") for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    return lines + [code for code in inline_code(text) if code.startswith(("train -", "trainer ", "make "))]


def words_of(*programs: str) -> list[tuple[str, ...]]:
    """The command lines of all pages that call one of `programs`, as words."""
    lines = [tuple(shlex.split(line, comments=True)) for page in PAGES for line in command_lines(text_of(page))]
    return sorted({words for words in lines if words and words[0] in programs})


def all_commands(path: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that call it."""
    inner = getattr(command, "commands", None)
    for name in inner or ():
        yield from all_commands((*path, name), inner[name])
    if inner is None or command.invoke_without_command:
        yield path, command


EXISTING = {path: command for program, group in PROGRAMS.items() for path, command in all_commands((program,), group)}


def parsed(words: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The command that `words` call, and its parameters. Nothing is executed; what is wrong is raised."""
    path = next((path for path in EXISTING if words[: len(path)] == path), None)
    assert path is not None, f"{' '.join(words)}: there is no such command"
    return path, EXISTING[path].make_context(" ".join(path), list(words[len(path) :])).params


COMMANDS = words_of("train", "trainer")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_parses_and_its_settings_exist(words: tuple[str, ...]) -> None:
    path, parameters = parsed(words)
    config = parameters.get("config")
    if path[-1] == "train" and config is not None and config != Path("FILE"):
        load_config(ROOT / config, parameters["overrides"] or [])


def test_nothing_is_agreed_to_without_a_cap_where_nobody_watches() -> None:
    """What scripts and agents are told to run."""
    lines = [line for page in ("AGENTS.md", "docs/ci.md") for line in command_lines(text_of(page))]
    agreeing = [line for line in lines if "--yes" in line]
    assert agreeing
    assert [line for line in agreeing if "backend.spend_cap=" not in line] == []


def test_agents_are_told_of_every_command_that_asks_before_it_costs_money() -> None:
    asking = {path for path, command in EXISTING.items() for option in command.params
              if "--yes" in option.opts and "costs money" in option.help}  # fmt: skip
    rows = section("Which commands can cost money", "AGENTS.md").splitlines()
    named = {parsed(tuple(shlex.split(code)))[0] for row in rows if not row.startswith("| All others")
             for code in inline_code(row) if code.startswith("trainer ")}  # fmt: skip
    assert {("trainer", "sweep"), ("trainer", "data", "generate")} <= asking
    assert {path for path in asking if path[-1] != "train"} - named == set()


def test_the_commands_of_the_example_job_exist_and_one_is_a_gate() -> None:
    job = yaml.safe_load(text_of("docs/examples/fine-tune.yml"))["jobs"]["fine-tune"]
    lines = [line for step in job["steps"] for line in step.get("run", "").splitlines()]
    found = [parsed(tuple(shlex.split(line.partition(" > ")[0]))) for line in lines if line.startswith("train")]
    assert len(found) == 5
    for path, parameters in found:
        if path[-1] == "train":
            load_config(ROOT / parameters["config"], parameters["overrides"] or [])
    assert [parameters["gate"] for path, parameters in found if path[-1] == "compare"] == ["not-worse"]


@pytest.mark.parametrize(
    "words", [("train", "--confg", "x.yaml"), ("trainer", "data", "chek", "x.jsonl"), ("trainer", "show")], ids=" ".join
)
def test_a_wrong_command_would_be_found(words: tuple[str, ...]) -> None:
    with pytest.raises(Exception, match=r"No such option|no such command|Missing parameter"):
        parsed(words)


def test_every_command_stands_in_the_command_table() -> None:
    table = [code for code in inline_code(section("All commands")) if code.startswith(("train ", "trainer "))]
    assert {parsed(tuple(shlex.split(code)))[0] for code in table} == EXISTING.keys()


def test_every_option_in_the_text_exists() -> None:
    existing = {option for command in EXISTING.values() for parameter in command.params for option in parameter.opts}
    named = {option for code in inline_code(README) for option in re.findall(r"(?<!\S)--[a-z-]+", code)}
    assert len(named) >= 10
    assert named <= existing


def test_the_example_row_can_be_trained(tmp_path: Path) -> None:
    (block,) = blocks(README, "json")
    path = tmp_path / "rows.jsonl"
    path.write_text(block, encoding="utf-8")
    report = read_conversations(path)
    assert [str(finding) for finding in report.findings] == []
    assert len(report.conversations) == 1


def test_every_exit_code_is_explained() -> None:
    paragraph = re.search(r"^Exit codes: .*?\n\n", section("All commands"), flags=re.DOTALL | re.MULTILINE)
    assert paragraph is not None
    assert {int(number) for number in re.findall(r"\b\d+\b", paragraph[0])} == {code.value for code in ExitCode}


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), flags=re.MULTILINE))
    named = {words[1] for words in words_of("make")}
    assert len(named) >= 6
    assert named <= targets


@pytest.mark.parametrize("block", blocks(README, "yaml"))
def test_a_config_in_the_text_loads(block: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(block, encoding="utf-8")
    load_config(path)


@pytest.mark.parametrize("page", [*PAGES, "data/README.md"])
def test_every_relative_link_leads_somewhere(page: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text_of(page)) if "://" not in link]
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def paths_in(page: str) -> set[str]:
    """Paths of the repository and, as the architecture page writes them, of the package; not those inside of runs."""
    top = {path.name for path in (*ROOT.iterdir(), *PACKAGE.iterdir())} - {"runs"}
    named = {code for code in inline_code(text_of(page)) if re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?", code)}
    named |= {code for code in inline_code(text_of(page)) if code in top}
    return {path for path in named if path.partition("/")[0] in top and not path.startswith(".venv")}


def test_every_path_in_the_text_exists() -> None:
    paths = {path for page in PAGES for path in paths_in(page)}
    assert len(paths) >= 40
    assert [path for path in sorted(paths) if not (ROOT / path).exists() and not (PACKAGE / path).exists()] == []


def test_every_config_stands_in_the_config_table() -> None:
    rows = re.findall(r"^\| `(configs/[^`]+)` \|", section("The first real run"), flags=re.MULTILINE)
    assert sorted(rows) == sorted(str(path.relative_to(ROOT)) for path in OF_RUNS)


def test_the_files_of_a_run_are_those_that_its_class_names() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", section("The run directory", "docs/guide.md"), flags=re.MULTILINE)
    described = (PACKAGE / "runs" / "run.py").read_text(encoding="utf-8").split('"""')[1]
    assert sorted(rows) == sorted(re.findall(r"[a-z]+(?:\.[a-z]+|/)(?=\s{2,})", described))


def test_a_check_of_a_driver_reads_as_the_command_prints_it() -> None:
    config = load_config(ROOT / "configs" / "first-contact.yaml")
    printed = unknown_driver(find_machine(str(config.azureml.instance_type)))
    shown = {page: re.findall(r"^not looked at +driver +(.+)$", text_of(page), re.MULTILINE) for page in PAGES}
    expected = {"docs/azureml.md": [printed], "docs/first-contact.md": [printed]}
    assert {page: lines for page, lines in shown.items() if lines} == expected


def test_the_first_contact_costs_what_its_page_says_and_at_most_ten_dollars() -> None:
    page = text_of("docs/first-contact.md")
    quoted = 0.0
    for command, output in STEP.findall(page):
        for found in re.finditer(r"^cost .*?: (\d+\.\d\d) USD$", output, re.MULTILINE | re.DOTALL):
            quoted += 0.0 if command.endswith("--check") else float(found[1])
    configs = {name for command, _ in STEP.findall(page) for name in re.findall(r"configs/[\w-]+\.yaml", command)}
    caps = sum(load_config(ROOT / name).backend.spend_cap or math.inf for name in configs)
    said = re.search(r"cost (\d+\.\d\d) dollars.*?spend caps sum up to (\d+)", page, re.DOTALL)
    assert said is not None
    assert (float(said[1]), float(said[2])) == (pytest.approx(quoted), caps)
    assert quoted + caps <= 10
