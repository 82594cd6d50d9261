"""Findings of one model on rows that break no other rule: `trainer data check --config`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from trainer.config.schema import RunConfig
from trainer.data.conversations import Conversation
from trainer.data.read.checks import DataReport
from trainer.data.rules.catalog import RULES
from trainer.data.rules.findings import Finding, first_in_file_order
from trainer.training.prepare import load_preprocessing
from trainer.training.render import Refused, Rendering, num_workers, render


def with_model_findings(config: RunConfig, report: DataReport, limit: int | None) -> DataReport:
    """`report`, which holds its rows, with what the config's model has against them; at most `limit` findings.

    Raises: MissingDependency, ConfigError.
    """
    preprocessing = load_preprocessing(config, report.has_thoughts)
    rendering = Rendering(preprocessing.renderer, preprocessing.max_length, preprocessing.config.data.on_overlength)
    files = [*(source.path for source in config.data.train_sources), *config.data.validation_paths]
    return with_row_findings(report, rendering, files, limit)


def with_row_findings(report: DataReport, rendering: Rendering, files: Sequence[str], limit: int | None) -> DataReport:
    """`report`, which holds its rows, with what rendering each of them tells; at most `limit` findings are kept."""
    rows = [*report.conversations, *report.validation]
    made = render(rows, rendering, num_workers(len(rows)))
    places = {row.place: row for row in rows}
    found = [_refused(problem) for problem in made.problems]
    for note in made.touched:
        if note.outcome == "error":
            found.append(_too_long(places[note.place], note.num_tokens, rendering.max_length))
    if rendering.renderer.template.thoughts_apart:
        found += _thoughts(rows)
    findings, left_out = first_in_file_order([*report.findings, *found], files, limit)
    return replace(report, findings=findings, left_out=report.left_out + left_out)


def _refused(problem: Refused) -> Finding:
    found, _, fix = problem.reason.rpartition("; ")
    return _finding(
        problem.file, problem.line, "TEMPLATE", "", found or fix, "", fix if found else RULES["TEMPLATE"].fix
    )


def _too_long(row: Conversation, num_tokens: int, max_length: int) -> Finding:
    fix = RULES["LENGTH"].fix
    found = f"has {num_tokens:,} tokens" + " with its longer answer" * bool(row.non_preferred)
    return _finding(row.file, row.line, "LENGTH", "", found, f"at most {max_length}", fix)


def _thoughts(rows: Sequence[Conversation]) -> Iterator[Finding]:
    """Of a template that has a place for thoughts which is not <think>."""
    for row in rows:
        for index, message in enumerate(row.messages):
            if message.trained and "<think>" in (message.content or ""):
                where, fix = f"{row.where(index)}.content", RULES["THOUGHT_FORM"].fix
                found, accepted = (
                    "holds <think>, which this model's template writes as part of the answer",
                    "no thought",
                )
                yield _finding(row.file, row.line, "THOUGHT_FORM", where, found, accepted, fix)


def _finding(file: str, line: int, code: str, where: str, found: str, accepted: str, fix: str) -> Finding:
    return Finding(file, line, code, RULES[code].local, where, found, accepted, fix)
