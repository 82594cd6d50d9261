"""Page of a new run: one form beside a card that says what will happen. Every change is kept, right or wrong."""

import atexit
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from trainer.dashboard.datasets.files import id_of
from trainer.dashboard.run import run_of
from trainer.dashboard.run_actions import free_device
from trainer.drafts.bases import ThisMachine, earlier_runs, suggestions, this_machine
from trainer.drafts.chosen import ROLES
from trainer.drafts.files import MAX_UPLOAD_BYTES
from trainer.drafts.forms import FormField, fields
from trainer.drafts.preparation import Outlook, Preparation, file_name
from trainer.drafts.submit import start_run
from trainer.drafts.work import UNCONFIRMED
from trainer.errors import ConfigError, TrainerError, file_error
from trainer.extras import NEEDED_BY, absent, install
from trainer.kinds import is_service, learns_from_pairs
from trainer.web.app import form_of, redirect, render, render_text, studio_of
from trainer.web.routes import Access, Link, Route
from trainer.web.words import whole_number

LINK = Link("New run", "/new")
PARTS = ("top", "data", "review", "card")
DECIDING = ("backend.kind", "openai.service", "training.method")  # which fields there are
ON_THEIR_OWN = ("backend.kind", "model.base", "data.train", "data.validation")  # shown in their own way
MAX_FORM_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Group:
    """Fields of one heading: those that one sees, and those to unfold."""

    title: str
    first: Sequence[FormField]
    more: Sequence[FormField]


def begin(request: Request) -> Response:
    """A draft without a file; nothing is made until something is typed."""
    return redirect(request, f"/new/{preparation_of(request).drafts.new_id()}")


def sample(request: Request) -> Response:
    """A draft that could be started at once: the builtin base on the sample rows."""
    preparation = preparation_of(request)
    return redirect(request, f"/new/{preparation.try_sample()}")


def further(request: Request) -> Response:
    """A draft that trains a run's adapter further, or that of the checkpoint in `step`."""
    preparation, run = preparation_of(request), run_of(request)
    draft_id = preparation.drafts.new_id()
    step = str(form_of(request).get("step", ""))
    preparation.set_base(draft_id, f"{run.path}@{step}" if whole_number(step, 10**12) is not None else str(run.path))
    return redirect(request, f"/new/{draft_id}")


def show(request: Request) -> Response:
    """The whole page."""
    preparation = preparation_of(request)
    outlook = preparation.outlook(request.path_params["draft"])
    others = [draft for draft in preparation.drafts.unfinished() if draft.id != outlook.draft.id]
    return render(request, "new_run.html.jinja", title="New run", others=others, **_values(preparation, outlook))


def state(request: Request) -> Response:
    """The parts of the page as they are now."""
    return _state(request, request.path_params["draft"], with_fields=False)


def change(request: Request) -> Response:
    """Keep the fields that were sent, then carry out the button that was pressed, if one was."""
    preparation = preparation_of(request)
    draft_id, form = request.path_params["draft"], form_of(request)
    changes = _texts(form)
    act, _, rest = str(form.get("act", "")).partition(" ")
    try:
        preparation.set(draft_id, changes)
        for name in filter(lambda name: name.startswith("weight."), form):
            preparation.files.set_weight(draft_id, _number(name[7:]), str(form[name]))
        if act == "start":
            return _start(request, draft_id, rest, form)
        if act == "copy":
            return _go(request, f"/new/{preparation.copy(draft_id)}")
        if act:
            _act(preparation, draft_id, act, rest.split(" ", 2), form)
    except TrainerError as error:
        if not _by_script(request):
            raise
        return JSONResponse({"refused": str(error)}, error_status(error))
    except OSError as error:
        if not _by_script(request):
            raise file_error(error) from error
        return JSONResponse({"refused": str(file_error(error)), "unsaved": True}, 507)
    if not _by_script(request):
        return redirect(request, f"/new/{draft_id}")
    return _state(request, draft_id, with_fields=bool({*DECIDING} & changes.keys()) or act == "base")


async def upload(request: Request) -> Response:
    """A file as it arrives."""
    preparation = preparation_of(request)
    name, size = request.query_params.get("name", ""), request.headers.get("content-length", "")
    try:
        draft_id, role = preparation.drafts.read(request.path_params["draft"]).id, _role(request.path_params["role"])
        kept = await preparation.uploads.store(name, whole_number(size, 10**15), request.stream())
        await run_sync(preparation.files.add, draft_id, role, kept.path)
    except TrainerError as error:
        return JSONResponse({"refused": str(error)}, error_status(error))
    return JSONResponse({"kept": kept.name})


async def upload_head(request: Request) -> Response:
    """Judge a file by its name, its size and its first bytes, before the rest is sent."""
    size = request.query_params.get("of", "")
    try:
        head = await request.body()
        preparation_of(request).uploads.refuse(
            request.query_params.get("name", ""), whole_number(size, 10**15) or 0, head
        )
    except TrainerError as error:
        return JSONResponse({"refused": str(error)}, error_status(error))
    return JSONResponse({})


def clean(request: Request) -> Response:
    """A copy of a file without the rows that have an error, as a download."""
    preparation = preparation_of(request)
    at = request.path_params
    made = preparation.files.clean_copy(at["draft"], _role(at["role"]), _number(at["number"]))
    return FileResponse(made.path, filename=made.name, media_type="application/octet-stream")


def config(request: Request) -> Response:
    """The config as a download."""
    preparation = preparation_of(request)
    outlook = preparation.outlook(request.path_params["draft"])
    name = file_name(outlook.draft)
    return Response(
        outlook.config,
        media_type="application/yaml",
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )


def _act(preparation: Preparation, draft_id: str, act: str, words: Sequence[str], form: FormData) -> None:
    """Carry out a button. Raises: ConfigError, DataError."""
    match act, *words:
        case "base", base, *rest:
            preparation.set_base(draft_id, base, *rest)
        case "add", role, file_id:
            preparation.files.add(draft_id, _role(role), preparation.uploads.find(file_id).path)
        case "name", role if place := str(form.get(f"place.{role}", "")).strip():
            preparation.files.add(draft_id, _role(role), place)
        case "remove", role, number:
            preparation.files.remove(draft_id, _role(role), _number(number))
        case "convert", role, number:
            preparation.files.convert(draft_id, _role(role), _number(number))
        case "pairs", *_:
            preparation.set(draft_id, {"training.method": "dpo"})
        case "clean", role, number:
            preparation.files.use_clean_copy(draft_id, _role(role), _number(number))
        case "split", *_:
            preparation.files.hold_out(draft_id)
        case "tokens", *_:
            preparation.show_tokens(draft_id)
        case "again", *_:
            preparation.check_again(draft_id)
        case "delete", *_:
            preparation.drafts.delete(draft_id)


def _start(request: Request, draft_id: str, agreed: str, form: FormData) -> Response:
    preparation = preparation_of(request)
    outlook = preparation.outlook(draft_id)
    if outlook.plan is None and outlook.draft.name is None:
        raise ConfigError("the run has not been checked yet, expected its plan and price first; wait for the card")
    if (outlook.plan or {}).get("bills") and not form.get("confirm"):
        raise ConfigError(UNCONFIRMED)
    free_device(request, outlook.kind)
    name = start_run(preparation, draft_id, agreed, confirmed=bool(form.get("confirm")))
    return _go(request, f"/runs/{name}")


def _go(request: Request, address: str) -> Response:
    return JSONResponse({"go": address}) if _by_script(request) else redirect(request, address)


def _state(request: Request, draft_id: str, with_fields: bool) -> Response:
    preparation = preparation_of(request)
    outlook = preparation.outlook(draft_id)
    values = _values(preparation, outlook)
    parts = (*PARTS, "fields") if with_fields else PARTS
    return JSONResponse(
        {
            "parts": {part: render_text(request, f"new_run_{part}.html.jinja", **values) for part in parts},
            "problems": {field.id: list(outlook.problems.get(field.name, ())) for field in outlook.fields},
            "resolved": {field.id: _resolved(outlook, field) for field in outlook.fields},
            "pending": outlook.is_pending,
            "status": _status(outlook),
        }
    )


def _values(preparation: Preparation, outlook: Outlook) -> dict[str, Any]:
    names = {field.name for field in outlook.fields}
    return {
        "outlook": outlook,
        "draft": outlook.draft,
        "plan": outlook.plan if outlook.plan is not None and "problems" not in outlook.plan else None,
        "groups": _groups(outlook.fields),
        "by_name": {field.name: field for field in fields()},
        "resolved": lambda field: _resolved(outlook, field),
        "elsewhere": {place: said for place, said in outlook.problems.items() if place not in names},
        "suggested": lambda: suggestions(outlook.kind, _machine()),
        "earlier": lambda: earlier_runs(preparation.root),
        "machine": _machine(),
        "own_files": preparation.uploads.own(),
        "server_files": preparation.uploads.of_server(),
        "missing_packages": {kind: _missing(kind) for kind in NEEDED_BY},
        "file_name": file_name(outlook.draft),
        "named": preparation.uploads.named,
        "data_id": lambda path: id_of(Path(path)),
        "message_number": _message_number,
        "num_findings": sum((outlook.rows or {}).get("severities", {}).values()),
        "shows_tokens": preparation.shows_tokens(outlook.draft.id),
        "method": _method(outlook),
    }


def error_status(error: TrainerError) -> int:
    """The status of a refusal; each of them is the caller's to mend."""
    return 422 if isinstance(error, ConfigError) else 400


@cache
def _preparation(root: Path, place: Path, roots: tuple[Path, ...]) -> Preparation:
    """The preparation of the runs below `root`, which is at `place`; its processes end with this one."""
    made = Preparation(root, roots)
    atexit.register(made.checks.end)
    return made


def preparation_of(request: Request) -> Preparation:
    """That of the server that answers."""
    studio = studio_of(request)
    return _preparation(studio.root, studio.root.resolve(), tuple(root.resolve() for root in studio.file_roots))


@cache
def _machine() -> ThisMachine:
    return this_machine()


def _texts(form: FormData) -> dict[str, str]:
    """The settings among the fields; boxes of one name are a list, a line each."""
    names = {field.name for field in fields()}
    sent = list(dict.fromkeys(name for name, _ in form.multi_items() if name in names))
    return {name: "\n".join(str(text) for text in form.getlist(name) if text) for name in sent}


def _groups(shown: Sequence[FormField]) -> list[Group]:
    groups = []
    for title, members in groupby(shown, key=lambda field: field.group):
        plain = [field for field in members if field.name not in ON_THEIR_OWN]
        first, more = [field for field in plain if field.is_first], [field for field in plain if not field.is_first]
        groups.append(Group(title, first, more))
    return groups


def _resolved(outlook: Outlook, field: FormField) -> str:
    """The value that an empty or `auto` text has in the plan, where it is another than the text says."""
    value = outlook.resolved.get(field.name, "")
    typed = outlook.draft.texts.get(field.name, "").strip()
    return value if value and typed in ("", "auto") and value not in ("auto", field.default) else ""


def _status(outlook: Outlook) -> str:
    """The card in a sentence, for those who hear the page."""
    if outlook.is_ready:
        return "Checked: ready to start."
    if outlook.is_pending:
        return "Checking."
    if outlook.num_problems or outlook.row_errors:
        problems, mistakes = outlook.num_problems, outlook.row_errors
        return (
            f"Not ready: {problems} {'problem' if problems == 1 else 'problems'} with settings, "
            f"{mistakes} {'mistake' if mistakes == 1 else 'mistakes'} in rows."
        )
    return f"Still needed: {' and '.join(outlook.needs)}." if outlook.needs else "Not ready."


def _method(outlook: Outlook) -> str:
    """The method in a few words."""
    texts = outlook.draft.texts
    in_pairs = learns_from_pairs(texts.get("training.method"))
    name = "DPO on preference rows" if in_pairs else "supervised fine-tuning"
    if is_service(outlook.kind):
        return f"{name}, by the service"
    return f"{name} with {'QLoRA' if texts.get('model.quantization') in ('nf4', 'int8') else 'LoRA'}"


def _message_number(where: str) -> int | None:
    """The message that a finding's place is in."""
    found = re.match(r"(?:input\.)?messages\[(\d+)\]", where)
    return int(found[1]) if found else None


def _missing(kind: str) -> str:
    """The command that installs what a backend lacks here; empty where it lacks nothing."""
    extra, modules = NEEDED_BY[kind]
    return install(extra) if absent(modules) else ""


def _by_script(request: Request) -> bool:
    return request.headers.get("accept", "").startswith("application/json")


def _role(text: str) -> str:
    if text not in ROLES:
        raise ConfigError(f"{text[:40]!r}: is no kind of data, expected 'train' or 'validation'; reload the page")
    return text


def _number(text: str) -> int:
    if (number := whole_number(text, 10**4)) is None:
        raise ConfigError(f"{text[:40]!r}: is no number of a file, expected one of the list; reload the page")
    return number


ROUTES = (
    Route("/new", begin, Access.PAGE),
    Route("/new/from/{name}", further, Access.ACTION),
    Route("/try", sample, Access.ACTION),
    Route("/new/{draft}", show, Access.PAGE),
    Route("/new/{draft}/state", state, Access.PAGE),
    Route("/new/{draft}/set", change, Access.ACTION, max_bytes=MAX_FORM_BYTES),
    Route("/new/{draft}/upload/{role}", upload, Access.UPLOAD, max_bytes=MAX_UPLOAD_BYTES),
    Route("/new/{draft}/upload/{role}/head", upload_head, Access.UPLOAD),
    Route("/new/{draft}/clean/{role}/{number}", clean, Access.DOWNLOAD),
    Route("/new/{draft}/config", config, Access.DOWNLOAD),
)
