"""docs/data_rules.md, made from the rules themselves."""

from collections.abc import Iterator

from trainer.data.rules.catalog import GROUPS
from trainer.data.rules.rule import Backend, Rule

HEADER = """# Rules for data

Made from the code by `trainer data rules`. A finding reads `file:line:column: CODE: where what was found, what is
expected; what to do`. An **error** means that the row cannot be trained as written, a **warning** that the result is
likely not what its author wants. Errors end `trainer data check FILE` with exit code 2 and stop a run before it starts.
"""
COLUMNS = "| rule | local, azureml | openai | in short |\n|---|---|---|---|"


def markdown() -> str:
    """Each rule with its severity, its reason, what to do and an example."""
    return "\n".join([HEADER, *_groups()])


def _groups() -> Iterator[str]:
    for title, rules in GROUPS.items():
        yield f"## {title}\n\n{COLUMNS}"
        yield "\n".join(map(_table_row, rules)) + "\n"
        yield from map(_section, rules)


def _table_row(rule: Rule) -> str:
    cells = (f"[{rule.code}](#{rule.code.lower()})", _severity(rule, "local"), _severity(rule, "openai"), rule.title)
    return f"| {' | '.join(cells)} |"


def _severity(rule: Rule, backend: Backend) -> str:
    return "not checked" if rule.only not in (None, backend) else rule.severity(backend)


def _section(rule: Rule) -> str:
    return f"### {rule.code}\n\n{rule.explanation}\n\nTo do: {rule.fix}.\n\n```text\n{rule.example}\n```\n"
