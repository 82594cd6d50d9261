"""Work of the page in a process of its own: data, tokens, plan and start. JSON on standard input, JSON back.

The page's process loads no torch, and a check that is out of date is killed with all that it holds.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import ConfigError, TrainerError, file_error
from trainer.kinds import Method, executes_here

if TYPE_CHECKING:
    from trainer.backends.contract import Backend, Plan
    from trainer.backends.quote import Quote
    from trainer.config.schema import RunConfig
    from trainer.data.read.row_view import Said
    from trainer.data.rules.findings import Finding
    from trainer.runs import Run

Answer = dict[str, Any]
MAX_FINDINGS = 50
SHOWN_CHARS = 4_000  # of a message, and of a line that is no row
SHOWN_MESSAGES = 40
SAMPLE_ROWS = 3
UNCONFIRMED = "this run costs money, expected your agreement; tick the box beside its price first"


def look(request: Mapping[str, Any]) -> Answer:
    """Rows, tokens by estimate, and findings of data files, each with the row that it is about."""
    from trainer.data.read.checks import check_files
    from trainer.start.rows import num_tokens

    train, validation = ([Path(path) for path in request[role]] for role in ("train", "validation"))
    report = check_files(
        train, validation, backend=request["backend"], method=request.get("method"), max_findings=MAX_FINDINGS
    )
    return {
        "rows": report.rows,
        "validation_rows": report.validation_rows,
        "tokens": num_tokens(report.conversations),
        "method": report.method,
        "severities": report.severities,
        "counts": report.counts,
        "findings": _with_rows(report.findings),
    }


def preview(request: Mapping[str, Any]) -> Answer:
    """The tokens of the first rows without an error, trained and not, as the model of a config reads them."""
    from trainer.config.load import load_config
    from trainer.data.files.preview import explain
    from trainer.data.read.sources import check_data
    from trainer.model.lineage import refuse_model
    from trainer.training.prepare import render

    first = Path(request["folder"]) / "first.jsonl"
    first.write_bytes(b"".join(islice(_good_lines(Path(request["file"])), SAMPLE_ROWS)))
    config = load_config(
        Path(request["config"]), [f"data.train={json.dumps(str(first))}", "data.validation="], together=False
    )
    refuse_model(config)
    checked = check_data(config.data, config.training.method)
    preprocessing, data = render(config, checked)
    renderer = preprocessing.renderer
    return {
        "has_thoughts": checked.report.has_thoughts,
        "rows": [
            [[asdict(span) for span in spans] for spans in explain(renderer, row.conversation, row.examples)]
            for row in data.train
        ],
    }


def check(request: Mapping[str, Any]) -> Answer:
    """The plan of a config: its facts, its price, and each number in place of an `auto`."""
    from trainer.backends.quote import hold_cap
    from trainer.drafts.forms import texts_of

    notes: list[str] = []
    backend, plan = _plan(request, notes.append)
    hold_cap(plan.quote, plan.config.backend.spend_cap)
    numbers = None if plan.numbers is None else asdict(plan.numbers)
    if numbers is not None:
        numbers["too_long"] = len(numbers["too_long"])
    return {
        "where": backend.where,
        "rows": list(plan.rows),
        "numbers": numbers,
        "resolved": texts_of(plan.config.model_dump(mode="json")),
        "findings": _with_rows(plan.findings[:MAX_FINDINGS]),
        "bills": plan.quote.bills,
        "total": plan.quote.total,
        "currency": plan.quote.currency,
        "quote": plan.quote.lines() if plan.quote.bills else [],
        "digest": digest_of(plan.quote),
        "checks": [asdict(check) for check in plan.checks],
        "doubts": list(plan.doubts),
        "notes": notes,
    }


def start(request: Mapping[str, Any]) -> Answer:
    """Create and launch the run of a config, if its price is still the one that was agreed to.

    With `again` a run of that name, of the same settings, is the one that an earlier attempt left: so there is one run.
    """
    from trainer.backends.quote import hold_cap

    said: list[str] = []
    backend, plan = _plan(request, said.append, may_exist=bool(request.get("again")))
    if (begun := _begun(plan.config)) is not None:
        return {"run": begun.name, "notes": []}
    hold_cap(plan.quote, plan.config.backend.spend_cap)
    if plan.doubts:
        raise ConfigError(*plan.doubts)
    if plan.quote.bills and not request.get("confirmed"):
        raise ConfigError(UNCONFIRMED)
    if plan.quote.bills and digest_of(plan.quote) != request["agreed"]:
        raise ConfigError("the price has changed since it was shown, expected the same; look at it, and start again")
    run = backend.create(plan, bool(request.get("again")))
    if request.get("waits"):
        backend.enqueue(run, said.append, quote=plan.quote)
    else:
        backend.launch(plan, run, said.append)
        backend.detach(run, said.append)
    return {"run": run.name, "notes": said}


def split(request: Mapping[str, Any]) -> Answer:
    """Hold out a share of a file's rows, in two new files."""
    from trainer.data.files.split import split_file

    made = split_file(
        Path(request["file"]), Path(request["train"]), Path(request["validation"]), share=request["share"]
    )
    return {"train": made.num_train, "validation": made.num_validation}


def clean(request: Mapping[str, Any]) -> Answer:
    """A copy of a file without the rows that have an error, and those rows in another file."""
    from trainer.data.files.rejects import set_aside
    from trainer.data.read.checks import check_files

    source = Path(request["file"])
    report = check_files([source], [], backend=request["backend"], method=request.get("method"), keep_rows=True)
    made = set_aside(report, [source], Path(request["rejected"]))
    if made is None:
        raise ConfigError("no row has an error beside rows without, expected some; there is nothing to leave out")
    return {"file": str(made.clean[0].file), "rows": made.clean[0].rows, "rejected": made.rows}


def convert(request: Mapping[str, Any]) -> Answer:
    """Chat rows, or preference rows, made of a file of another layout."""
    from trainer.data.convert.files import convert_file

    method: Method = request.get("method") or "sft"
    made = convert_file(Path(request["file"]), Path(request["output"]), method=method)
    return {"layout": made.layout, "rows": made.num_written, "dropped": dict(made.dropped)}


VERBS: dict[str, Callable[[Mapping[str, Any]], Answer]] = {
    verb.__name__: verb for verb in (look, preview, check, start, split, clean, convert)
}


def digest_of(quote: "Quote") -> str:
    """Identity of a price, by which an agreement to it is known again."""
    return hashlib.sha256(json.dumps(quote.lines(), ensure_ascii=True).encode()).hexdigest()


def _plan(
    request: Mapping[str, Any], say: Callable[[str], None], may_exist: bool = False
) -> "tuple[Backend[Any], Plan[Any]]":
    from trainer.backends.choose import choose
    from trainer.config.load import load_config

    config = _rooted(load_config(Path(request["config"]), request.get("overrides", ())), str(request["root"]))
    backend = choose(config.backend.kind)
    backend.refuse_at_once(config, may_exist=False, detach=True) if not may_exist else backend.refuse_unfit(config)
    if request.get("waits"):
        return backend, backend.check_waiting(config, say, None, may_exist)
    return backend, backend.check(config, say, may_exist)


def _begun(config: "RunConfig") -> "Run | None":
    """The run of that name, where an earlier attempt has begun it on this machine; a service finds its job by itself.

    Raises: ConfigError, where it has other settings: then it is none of an earlier attempt.
    """
    from trainer.runs import find_begun, refuse_existing
    from trainer.runs.lifecycle import is_worked_on
    from trainer.runs.queue import entry_of

    found = find_begun(config) if config.run.name else None
    if found is None:
        return None
    before = found.config()
    if any(getattr(before, section) != getattr(config, section) for section in ("model", "data", "training", "lora")):
        refuse_existing(config)
    has_process = entry_of(found.path) is not None or is_worked_on(found)
    is_new = found.state in ("validating_files", "queued", "paused") and found.find_manifest() is None
    is_begun = has_process or not is_new
    return found if executes_here(config.backend.kind) and is_begun else None


def _rooted(config: "RunConfig", root: str) -> "RunConfig":
    return config.model_copy(update={"run": config.run.model_copy(update={"root": root})})


def _good_lines(path: Path) -> Iterator[bytes]:
    """The lines of the rows that have no error."""
    from trainer.data.read.data_files import numbered_lines, opened
    from trainer.data.read.rows import FileReader

    good = {row.line for row in islice(FileReader(path), SAMPLE_ROWS)}
    with opened(path) as file:
        for line in numbered_lines(file):
            if not good:
                return
            if line.number in good:
                good.discard(line.number)
                yield line.raw + b"\n"


def _with_rows(findings: "Sequence[Finding]") -> list[Answer]:
    """Findings as JSON, each with the row of its line: its messages, or the line as it is where it is no row."""
    from trainer.data.read.data_files import numbered_lines, opened

    wanted: dict[str, set[int]] = {}
    for finding in findings:
        if finding.line is not None:
            wanted.setdefault(finding.file, set()).add(finding.line)
    rows: dict[tuple[str, int], Answer] = {}
    for name, numbers in wanted.items():
        with opened(Path(name)) as file:
            for line in numbered_lines(file):
                if line.number in numbers:
                    rows[name, line.number] = _row(line.raw)
                if line.number >= max(numbers):
                    break
    return [finding.to_json() | {"row": rows.get((finding.file, finding.line or 0))} for finding in findings]


def _row(raw: bytes) -> Answer:
    """A line as its messages, each with role and text; `text` is the line itself where it has none."""
    from trainer.data.read.row_view import as_row

    row = as_row(raw, 0)
    shown = [
        {"role": f"{said.role}, {said.part}" if said.part else said.role, "text": _said(said)[:SHOWN_CHARS]}
        for said in row.said[:SHOWN_MESSAGES]
    ]
    return {"messages": shown, "text": "" if shown else row.raw[:SHOWN_CHARS]}


def _said(said: "Said") -> str:
    return "\n".join(filter(None, (said.thought, said.text, *said.calls)))


def main() -> None:
    """Carry out the request of standard input; libraries that print do not get between the lines of the answer."""
    request = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        answer = VERBS[request["verb"]](request)
    except TrainerError as error:
        answer = {"problems": list(error.problems), "kind": type(error).__name__}
    except OSError as error:
        answer = {"problems": list(file_error(error).problems), "kind": type(error).__name__}
    json.dump(answer, answers, ensure_ascii=True)
    answers.flush()


if __name__ == "__main__":
    main()
