"""Data pages: all files, one file's findings, statistics and rows, and corrected rows as a new version of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from trainer.dashboard.datasets.cleaning import Cleanings
from trainer.dashboard.datasets.edits import Edits, checked_row
from trainer.dashboard.datasets.files import DataSet, DataSets, id_of
from trainer.dashboard.datasets.reports import Report, Reports
from trainer.dashboard.datasets.rows import PAGE_ROWS, RowReader, page_of
from trainer.dashboard.new_run import preparation_of
from trainer.data.json_scanner import JsonProblem
from trainer.data.read.row_view import ShownRow, as_row
from trainer.data.strict_json import parse
from trainer.errors import ConfigError, DataError
from trainer.inference.report.data_page import histograms, share_charts
from trainer.kinds import is_service
from trainer.runs import find_run
from trainer.web.app import form_of, redirect, render, studio_of
from trainer.web.routes import Access, Link, Route
from trainer.web.words import whole_number
from trainer.workshop.clean.kinds import KINDS

MAX_ROW_BYTES = 8 * 1024 * 1024
SHOWN_FINDINGS = 50


@dataclass
class DataPages:
    """State of one server's data pages."""

    sets: DataSets
    reports: Reports
    edits: Edits
    cleanings: Cleanings
    reader: RowReader = field(default_factory=RowReader)


@cache
def data_pages(root: Path, folders: tuple[Path, ...] = ()) -> DataPages:
    """The data pages over a folder of runs, and the folders whose files may be read."""
    return DataPages(DataSets(root, folders), Reports(root), Edits(root), Cleanings(root))


def index(request: Request) -> Response:
    """All files."""
    files, notes = _state(request).sets.with_notes()
    return render(request, "data.html.jinja", title="Data", files=files, notes=notes)


def page(request: Request) -> Response:
    """A file: its report, which may still be made, and its rows."""
    state, file = _state(request), _file(request)
    values = _report_values(request, state, file) | _row_values(request, state, file)
    return render(request, "data_file.html.jinja", title=file.name, **values)


def report(request: Request) -> Response:
    """A file's report; a part of the page."""
    state, file = _state(request), _file(request)
    return render(request, "data_report.html.jinja", **_report_values(request, state, file))


def rows(request: Request) -> Response:
    """A page of rows; a part of the page."""
    state, file = _state(request), _file(request)
    return render(request, "data_rows.html.jinja", **_row_values(request, state, file))


def row(request: Request) -> Response:
    """One row with its findings, to be corrected."""
    state, file = _state(request), _file(request)
    line = _line(request)
    found = state.reader.row_at(file, line)
    if found is None:
        raise ConfigError(f"{file.name}:{line}: there is no row, expected a line that holds one; choose another")
    edits = state.edits.of(file)
    text = edits[line] if edits.get(line) else found.raw
    return _row_page(request, state, file, found, _for_editing(text or found.raw), [])


def save(request: Request) -> Response:
    """Keep a corrected row for the next version; what the rules refuse stays on the page with the reasons."""
    state, file, line, form = _state(request), _file(request), _line(request), form_of(request)
    found = state.reader.row_at(file, line)
    if found is None:
        raise ConfigError(f"{file.name}:{line}: there is no row, expected a line that holds one; choose another")
    text, action = str(form.get("row", "")), str(form.get("action", "save"))
    if action == "undo":
        state.edits.undo(file, line)
    elif action == "leave out":
        state.edits.set(file, line, None)
    else:
        known = _known_report(state, file)
        try:
            made, _ = checked_row(text, file.name, line, known.get("method") if known else None)
        except DataError as error:
            return _row_page(request, state, file, found, text, list(error.problems), 400)
        if made == _compact(found.raw):
            state.edits.undo(file, line)
        else:
            state.edits.set(file, line, made)
    return redirect(request, f"/data/{file.id}?page={_page_of(state, file, line)}#line-{line}")


def _page_of(state: DataPages, file: DataSet, line: int) -> int:
    (index, *_) = state.reader.indices(file, [line]) or [0]
    return index // PAGE_ROWS + 1


def write(request: Request) -> Response:
    """Write the corrected rows as a new version beside the file, and show it."""
    state, file = _state(request), _file(request)
    return redirect(request, f"/data/{id_of(state.edits.write_version(file))}")


def discard(request: Request) -> Response:
    """Forget all corrections, or those that were made before the file changed."""
    state, file = _state(request), _file(request)
    forget = state.edits.discard_earlier if form_of(request).get("which") == "earlier" else state.edits.discard
    forget(file)
    return redirect(request, f"/data/{file.id}")


def clean(request: Request) -> Response:
    """The clean step of a file: what is legal and yet bad, and a copy without it."""
    state, file = _state(request), _file(request)
    others = [other for other in state.sets.all() if other.id != file.id]
    return render(request, "data_clean.html.jinja", title=f"Clean {file.name}", others=others,
                  **_cleaning_values(state, file))  # fmt: skip


def cleaning(request: Request) -> Response:
    """Progress and result of a cleaning; a part of the page."""
    state, file = _state(request), _file(request)
    return render(request, "data_cleaning.html.jinja", **_cleaning_values(state, file))


def begin_cleaning(request: Request) -> Response:
    """Look for faults; or, on the button of the result, write the copy without them."""
    state, file, form = _state(request), _file(request), form_of(request)
    held_out = [state.sets.find(str(name)) for name in form.getlist("held_out") if name]
    remove = [str(code) for code in form.getlist("remove")]
    state.cleanings.begin(file, held_out, remove, form.get("action") == "write")
    return redirect(request, f"/data/{file.id}/clean")


def _cleaning_values(state: DataPages, file: DataSet) -> dict[str, Any]:
    found = state.cleanings.state(file)
    chosen = (found or {}).get("held_out", [])
    return {
        "file": file,
        "cleaning": found,
        "chosen": chosen,
        "titles": {code: kind.title for code, kind in KINDS.items()},
    }


def use(request: Request) -> Response:
    """A draft of a new run on this file, and on a held-out one where the form names it."""
    state, file, form = _state(request), _file(request), form_of(request)
    files = {"train": file.path}
    if form.get("held_out"):
        files["validation"] = state.sets.find(str(form["held_out"])).path
    return redirect(request, f"/new/{preparation_of(request).try_files(files)}")


def _row_page(
    request: Request,
    state: DataPages,
    file: DataSet,
    found: ShownRow,
    text: str,
    problems: Sequence[str],
    status: int = 200,
) -> Response:
    edits = state.edits.of(file)
    known = _known_report(state, file)
    findings = [finding for finding in (known or {}).get("findings", ()) if finding["line"] == found.line]
    return render(
        request,
        "data_row.html.jinja",
        status,
        title=f"{file.name}:{found.line}",
        file=file,
        row=found,
        text=text,
        problems=problems,
        findings=findings,
        is_edited=found.line in edits,
        is_left_out=edits.get(found.line, "") is None,
    )


def _for_editing(text: str) -> str:
    """A row as JSON that a person can read; a line that is no JSON as it is."""
    value = parse(text)
    return text if isinstance(value, JsonProblem) else json.dumps(value, indent=2, ensure_ascii=False)


def _compact(text: str) -> str | None:
    value = parse(text)
    return None if isinstance(value, JsonProblem) else json.dumps(value, ensure_ascii=False)


def _report_values(request: Request, state: DataPages, file: DataSet) -> dict[str, Any]:
    """The report of the file against the held-out file and with the model that the address names, or the usual ones."""
    others = [other for other in state.sets.all() if other.id != file.id]
    held_out, run = _choices(request, state, file, others)
    against, config = [held_out] if held_out else [], _config(state, run)
    quick = state.reports.get(file, against)  # first: the tokens take a library to load
    counted = state.reports.get(file, against, config) if quick and config else None
    known = counted or quick
    train = (known.get("statistics") or {}).get("train") if known else None
    return {
        "file": file,
        "others": others,
        "held_out": held_out,
        "models": list(dict.fromkeys(use.run for use in file.uses)),
        "run": run,
        "report": known,
        "is_counting": bool(quick and config and counted is None),
        "charts": histograms(train) if train else [],
        "shares": share_charts(train) if train else [],
        "query": urlencode({"held_out": held_out.id if held_out else "", "run": run}),
        "shown_findings": SHOWN_FINDINGS,
    }


def _choices(
    request: Request, state: DataPages, file: DataSet, others: Sequence[DataSet]
) -> tuple[DataSet | None, str]:
    """The held-out file and the run whose model counts tokens: those of the address, else those of the newest use."""
    given, use = request.query_params, next((use for use in file.uses if use.role == "train"), None)
    run = given.get("run", use.run if use else "")
    if "held_out" in given:
        return next((other for other in others if other.id == given["held_out"]), None), run
    with_it = [
        other for other in others if use and any(u.run == use.run and u.role == "validation" for u in other.uses)
    ]
    return (with_it[0] if with_it else None), run


def _config(state: DataPages, run: str) -> Path | None:
    """The config of a run whose base is loaded on machines like this one; None where a service keeps it."""
    if not run:
        return None
    found = find_run(run, state.sets.root)
    return None if is_service(found.backend) else found.path / "config.yaml"


def _known_report(state: DataPages, file: DataSet) -> Report | None:
    """The newest report that is there for a file as it is, whatever it was compared with."""
    return state.reports.newest(file)


def _row_values(request: Request, state: DataPages, file: DataSet) -> dict[str, Any]:
    given = request.query_params
    text, only = given.get("search", "").strip()[:200], given.get("only", "")
    known = _known_report(state, file)
    findings: dict[int, list[dict[str, Any]]] = {}
    for finding in (known or {}).get("findings", ()):
        if finding["line"] is not None and Path(finding["file"]) == file.path:
            findings.setdefault(finding["line"], []).append(finding)
    edits = state.edits.of(file)
    wanted: list[int] | None = None
    if only:
        lines = sorted(edits) if only == "edited" else [line for line in sorted(findings) if _has(findings[line], only)]
        wanted = state.reader.indices(file, lines)
    if text:
        matching = state.reader.search(file, text)
        within = None if wanted is None else set(wanted)
        wanted = [index for index in matching if within is None or index in within]
    number = whole_number(given.get("page", ""), 10**9) or 1
    shown = page_of(state.reader, file, number, wanted)
    corrected = {line: None if made is None else as_row(made.encode(), line) for line, made in edits.items()}
    return {
        "file": file,
        "page": shown,
        "findings_of": findings,
        "edits": corrected,
        "earlier": state.edits.earlier(file),
        "search": text,
        "only": only,
        "codes": sorted({finding["code"] for found in findings.values() for finding in found}),
        "row_query": urlencode({"search": text, "only": only}),
    }


def _has(findings: Sequence[dict[str, Any]], only: str) -> bool:
    return any(only in ("findings", finding["code"], finding["severity"]) for finding in findings)


def _state(request: Request) -> DataPages:
    studio = studio_of(request)
    return data_pages(studio.root.resolve(), tuple(studio.file_roots))


def _file(request: Request) -> DataSet:
    return _state(request).sets.find(request.path_params["id"])


def _line(request: Request) -> int:
    return whole_number(request.path_params["line"], 10**12) or 0


LINK = Link("Data", "/data")
ROUTES = (
    Route("/data", index, Access.PAGE),
    Route("/data/{id}", page, Access.PAGE),
    Route("/data/{id}/report", report, Access.PAGE),
    Route("/data/{id}/rows", rows, Access.PAGE),
    Route("/data/{id}/rows/{line}", row, Access.PAGE),
    Route("/data/{id}/rows/{line}/correct", save, Access.ACTION, MAX_ROW_BYTES),
    Route("/data/{id}/versions", write, Access.ACTION),
    Route("/data/{id}/discard", discard, Access.ACTION),
    Route("/data/{id}/clean", clean, Access.PAGE),
    Route("/data/{id}/clean/begin", begin_cleaning, Access.ACTION),
    Route("/data/{id}/clean/progress", cleaning, Access.PAGE),
    Route("/data/{id}/use", use, Access.ACTION),
)
