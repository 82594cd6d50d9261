"""What may import what, what a command loads, and what no source file contains."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
QUESTION = re.compile(r"\s*(What|Whether|Where|Which|How|Who|When|Why)\b")
HEAVY = {"torch", "transformers", "peft", "trl", "datasets", "accelerate", "numpy", "jsonschema"}


@pytest.mark.apart
def test_imports_run_one_way():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.apart
@pytest.mark.parametrize("module", ["trainer", "trainer.cli.main", "trainer.config", "trainer.runs"])
def test_what_every_command_imports_is_light(module):
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "trainer" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.apart
def test_help_loads_nothing_that_only_work_needs():
    code = "import sys, trainer.cli.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"pydantic", "yaml", "http", "ssl", "socket", "importlib.metadata"} & {*done.stdout.split()} == set()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def called(node: ast.AST, name: str) -> bool:
    """Whether `node` calls a plain or dotted name."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
        return False
    last = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
    return last == name.rpartition(".")[2] and ast.unparse(node.func) == name


def imported(node: ast.AST) -> list[str]:
    """The packages that a statement imports."""
    match node:
        case ast.Import(names):
            return [alias.name.partition(".")[0] for alias in names]
        case ast.ImportFrom(module=str(module), level=0):
            return [module.partition(".")[0]]
    return []


def keyword_is_not(node: ast.AST, name: str, allowed: object) -> bool:
    """Whether `node` passes the keyword as anything but the one literal."""
    if not isinstance(node, ast.keyword) or node.arg != name:
        return False
    return not (isinstance(node.value, ast.Constant) and node.value.value is allowed)


def asks(node: ast.AST) -> bool:
    """A docstring, of a field too, that opens with a question word: it repeats the question that the name asks."""
    match node:
        case ast.Expr(value=ast.Constant(value=str() as text)):
            return QUESTION.match(text) is not None
    return False


FORBIDDEN: dict[str, Callable[[ast.AST], bool]] = {
    "trust_remote_code other than False": lambda node: keyword_is_not(node, "trust_remote_code", False),
    "trust_remote_code as a key": lambda node: (
        isinstance(node, ast.Dict)
        and any(isinstance(key, ast.Constant) and key.value == "trust_remote_code" for key in node.keys)
    ),
    "shell other than False": lambda node: keyword_is_not(node, "shell", False),
    "yaml.load": lambda node: called(node, "yaml.load") or called(node, "yaml.unsafe_load"),
    "torch.load": lambda node: called(node, "torch.load"),
    "os.system": lambda node: called(node, "os.system"),
    "pickle": lambda node: bool({"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"} & set(imported(node))),
    "eval": lambda node: called(node, "eval") or called(node, "builtins.eval"),
    "exec": lambda node: called(node, "exec") or called(node, "builtins.exec"),
    "print": lambda node: called(node, "print"),
    "docstring that opens with a question word": asks,
}

EXAMPLES = {
    "trust_remote_code other than False": "f(trust_remote_code=flag)",
    "trust_remote_code as a key": "f(**{'trust_remote_code': True})",
    "shell other than False": "run('ls', shell=True)",
    "yaml.load": "import yaml\nyaml.load(text)",
    "torch.load": "state = torch.load(path, weights_only=True)",
    "os.system": "os.system('ls')",
    "pickle": "from pickle import loads",
    "eval": "x = eval('1')",
    "exec": "exec('x = 1')",
    "print": "print('x')",
    "docstring that opens with a question word": 'class A:\n    x: int\n    """\n    How many."""\n',
}
ALLOWED = "model.eval()\nf(trust_remote_code=False)\nrun(['ls'], shell=False)\nyaml.safe_load(text)\nout.print('x')\n"
ALLOWED += 'def f():\n    """Return what is left."""\n    x = "Which"\n    """Whatever is left."""\n'


def found(rule: str, tree: ast.Module) -> Iterator[int]:
    """The lines that break the rule."""
    for node in ast.walk(tree):
        if FORBIDDEN[rule](node):
            yield getattr(node, "lineno", 0)


@pytest.mark.parametrize("rule", FORBIDDEN)
def test_no_source_file_contains(rule):
    assert SOURCES
    places = [f"{path.relative_to(ROOT)}:{line}" for path in SOURCES for line in found(rule, parsed(path))]
    assert places == []


@pytest.mark.parametrize("rule", FORBIDDEN)
def test_each_rule_finds_its_example_and_nothing_in_what_is_allowed(rule):
    assert len(list(found(rule, ast.parse(EXAMPLES[rule])))) == 1
    assert list(found(rule, ast.parse(ALLOWED))) == []


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_file_defines_a_test(path):
    tree = parsed(path)
    functions = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert any(name.startswith("test_") for name in functions)


def test_this_file_is_among_the_checked_ones():
    assert Path(__file__) in TESTS


def test_test_files_have_names_of_their_own():
    names = [path.name for path in TESTS]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []


def modules() -> dict[str, Path]:
    """The package's modules by their dotted names."""
    source = ROOT / "src"
    return {
        ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__"): path for path in SOURCES
    }


def imports_of(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a module imports anywhere, inside of functions too, but for types alone."""
    tree = parsed(path)
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module in known:
            full = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {name if name in known else node.module for name in full}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
    return found


def test_no_modules_import_each_other_in_a_circle():
    known = modules()
    left = {name: imports_of(path, known) - {name} for name, path in known.items()}
    while free := {name for name, needed in left.items() if not needed & left.keys()}:
        left = {name: needed for name, needed in left.items() if name not in free}
    assert left == {}


KINDS = {"local", "azureml", "openai"}
TELL_KINDS_APART = {"trainer.backends.choose", "trainer.kinds"}


def test_a_class_shares_its_name_only_with_the_document_that_shows_it():
    names = [
        (node.name, "cli/documents" in path.as_posix())
        for path in SOURCES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []


def compares_a_kind(node: ast.AST) -> bool:
    """Whether a comparison or a match holds a backend against the name of a kind."""
    if isinstance(node, ast.Compare):
        literals = {str(inner.value) for inner in ast.walk(node) if isinstance(inner, ast.Constant)}
        return bool(KINDS & literals) and any(word in ast.unparse(node.left) for word in ("kind", "backend"))
    return isinstance(node, ast.Match) and ast.unparse(node.subject).endswith((".backend", "backend.kind"))


def test_one_place_tells_the_kinds_of_backends_apart():
    told = [
        f"{name}:{node.lineno}"
        for name, path in modules().items()
        for node in ast.walk(parsed(path))
        if name not in TELL_KINDS_APART and compares_a_kind(node)
    ]
    assert told == []
