"""Pages of sets that a model writes from documents: the form with its cost, the writing, and the rows to train on."""

from functools import cache
from pathlib import Path
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from trainer.dashboard.datasets.documents import MAX_UPLOAD_BYTES
from trainer.dashboard.datasets.generate_form import DEFAULTS, LABELS, Form, in_form_words
from trainer.dashboard.datasets.generating import Generations, QuotedSet, files_of, ids_of
from trainer.dashboard.new_run import preparation_of
from trainer.data.quoting import printable
from trainer.data.read.row_view import as_row
from trainer.drafts.files import in_bytes
from trainer.errors import ConfigError, TrainerError
from trainer.web.app import form_of, redirect, render, studio_of
from trainer.web.routes import Access, Route
from trainer.workshop.generate.kinds import KINDS

MAX_FORM_BYTES = MAX_UPLOAD_BYTES + 2**20
MAX_FILES = 20
REASONS = {
    "ungrounded": "their quote does not occur in the document",
    "unsupported": "the judge found no support in the document",
    "illegal": "they break a rule for rows",
    "repeated": "they repeat an earlier row",
    "unusable": "they are not what was asked for",
}


@cache
def generations(root: Path, folders: tuple[Path, ...]) -> Generations:
    """The sets of a folder of runs, from documents below the folders that pages may read."""
    return Generations(root, folders)


def show(request: Request) -> Response:
    """The form: empty, or as it was sent for the set that the address names."""
    state, again = _state(request), request.query_params.get("again", "")
    form = Form.kept(state.state(again).get("form")) if again else Form.kept({"texts": DEFAULTS})
    return _form_page(request, form)


def plan(request: Request) -> Response:
    """The form with the cost of what it asks for, or with all that is wrong with it; nothing is sent."""
    sent = form_of(request)
    form = Form.sent(sent)
    try:
        form = Form.sent(sent, _kept_documents(request))
        planned = _state(request).plan(form)
    except TrainerError as error:
        return _form_page(request, form, problems=form.problems(error))
    return _form_page(request, form, planned)


def begin(request: Request) -> Response:
    """Write the set that was agreed to, and show its progress."""
    name = _state(request).agree(str(form_of(request).get("digest", "")))
    return redirect(request, f"/data/generate/sets/{name}")


def page(request: Request) -> Response:
    """A set that is being written, or was."""
    name = request.path_params["name"]
    return render(request, "data_generated.html.jinja", title=f"{name[:60]} · Data", **_set_values(request))


def progress(request: Request) -> Response:
    """Progress of a set; a part of the page."""
    return render(request, "data_generated_part.html.jinja", **_set_values(request))


def stop(request: Request) -> Response:
    """End a set after the requests that are on their way."""
    name = request.path_params["name"]
    _state(request).stop(name)
    return redirect(request, f"/data/generate/sets/{name}")


def finish(request: Request) -> Response:
    """Write the rows of the answers that are there."""
    name = request.path_params["name"]
    _state(request).finish(name)
    return redirect(request, f"/data/generate/sets/{name}")


def use(request: Request) -> Response:
    """A draft of a new run with the rows of a set, and those that it holds out."""
    name = request.path_params["name"]
    files = files_of(_state(request).state(name))
    if "train" not in files:
        raise ConfigError(f"{name}: has no rows that are still there, expected a set that is written; write it first")
    return redirect(request, f"/new/{preparation_of(request).try_files(files)}")


def _form_page(
    request: Request, form: Form, planned: QuotedSet | None = None, problems: dict[str, list[str]] | None = None
) -> Response:
    state = _state(request)
    return render(
        request,
        "data_generate.html.jinja",
        400 if problems else 200,
        title="Rows from documents",
        form=form,
        problems=problems or {},
        planned=planned,
        documents=state.documents.all(),
        labels=LABELS,
        kinds={kind.name: in_form_words(kind.summary) for kind in KINDS.values()},
        sets=state.all(),
        most=in_bytes(MAX_UPLOAD_BYTES),
    )


def _kept_documents(request: Request) -> list[str]:
    """The ids of the documents that came with the form. Raises: ConfigError, with each that is not kept."""
    kept, problems = list[str](), list[str]()
    for file in form_of(request).getlist("files"):
        if not isinstance(file, UploadFile) or not file.filename:  # browsers send an empty one where none is chosen
            continue
        try:
            kept.append(_state(request).documents.keep(file.filename, file.file.read()))
        except TrainerError as error:
            problems += [f"--sources: {problem}" for problem in error.problems]
        except OSError as error:
            problems.append(f"--sources: {printable(file.filename)}: cannot be kept: {error.strerror}; add it again")
    if problems:
        raise ConfigError(*problems)
    return kept


def _set_values(request: Request) -> dict[str, Any]:
    name = request.path_params["name"]
    generations = _state(request)
    state = generations.state(name)
    samples = state.get("samples")
    return {
        "name": name,
        "state": state,
        "is_stopping": generations.is_stopping(name),
        "samples": [as_row(str(row).encode(), 1) for row in reversed(samples if isinstance(samples, list) else [])],
        "files": ids_of(files_of(state)),
        "reasons": REASONS,
    }


def _state(request: Request) -> Generations:
    studio = studio_of(request)
    return generations(studio.root.resolve(), tuple(root.resolve() for root in studio.file_roots))


ROUTES = (
    Route("/data/generate", show, Access.PAGE),
    Route("/data/generate", plan, Access.ACTION, MAX_FORM_BYTES, MAX_FILES),
    Route("/data/generate/begin", begin, Access.ACTION),
    Route("/data/generate/sets/{name}", page, Access.PAGE),
    Route("/data/generate/sets/{name}/progress", progress, Access.PAGE),
    Route("/data/generate/sets/{name}/stop", stop, Access.ACTION),
    Route("/data/generate/sets/{name}/finish", finish, Access.ACTION),
    Route("/data/generate/sets/{name}/use", use, Access.ACTION),
)
