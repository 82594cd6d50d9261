"""The checkpoints of a run: what each measured, and what can be done with it."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from trainer.dashboard.run import NEW_RUN, Tab, path_of, run_of, run_page, run_stream
from trainer.dashboard.run_metrics import RESULTS, measurements
from trainer.errors import ConfigError
from trainer.runs import Run
from trainer.runs.archive import ADAPTER, archive_of
from trainer.runs.checkpoint import STATE, Checkpoint, list_checkpoints
from trainer.runs.files import read_record, stamp
from trainer.web.app import render_text, studio_of
from trainer.web.problems import Problem
from trainer.web.routes import Access, Route
from trainer.web.streaming import EventStream, RenderedPart, digest_of

PART = "checkpoints"
DEPLOYMENTS = "/deployments"


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint as the table shows it."""

    step: int
    epoch: float | None
    train_loss: float | None
    valid_loss: float | None
    full_valid_loss: float | None
    num_bytes: int
    marks: Sequence[str]  # why it is kept, or chosen
    problem: str | None
    has_adapter: bool
    model: str | None  # the service's name of it


def kept_of(run: Run) -> list[Kept]:
    """The run's checkpoints, the newest first; their files are looked at by size."""
    found = list_checkpoints(run.checkpoints)
    status = run.status()
    points = {name: dict(zip(*measurements.of(run.path / RESULTS).points(name), strict=True)) for name in LOSSES}
    total, epochs, permanent = status.get("total_steps"), None, None
    try:
        training = run.config().training
        epochs, permanent = training.n_epochs, training.save_permanent_steps
    except ConfigError:
        pass
    best = min((step for step in points["valid_loss"]), key=points["valid_loss"].__getitem__, default=None)
    return [
        _kept(
            checkpoint,
            {name: values.get(checkpoint.step) for name, values in points.items()},
            epochs * checkpoint.step / total if isinstance(epochs, int) and isinstance(total, int) and total else None,
            list(
                filter(
                    None,
                    (
                        "the adapter" if checkpoint.step == status.get("adapter_step") else "",
                        "best" if checkpoint.step == best else "",
                        "newest" if checkpoint == found[-1] else "",
                        "permanent" if permanent and checkpoint.step % permanent == 0 else "",
                    ),
                )
            ),
        )
        for checkpoint in reversed(found)
    ]


LOSSES = ("train_loss", "valid_loss", "full_valid_loss")


def _kept(checkpoint: Checkpoint, losses: dict[str, float | None], epoch: float | None, marks: Sequence[str]) -> Kept:
    try:
        problem = checkpoint.problem(reads=False)
        contents = checkpoint.contents() if problem is None else {}
    except (ConfigError, OSError, ValueError) as error:
        problem, contents = str(error), {}
    model = (
        read_record(checkpoint.path / STATE).get("model")
        if problem is None and not contents.keys() & {*ADAPTER}
        else None
    )
    return Kept(
        checkpoint.step,
        epoch,
        losses["train_loss"],
        losses["valid_loss"],
        losses["full_valid_loss"],
        sum(size for size, _ in contents.values()),
        marks,
        problem,
        set(ADAPTER) <= contents.keys(),
        model if isinstance(model, str) else None,
    )


def _part(request: Request, run: Run) -> RenderedPart:
    """The table, which changes when a checkpoint comes or goes."""
    pages = {link.path for link in studio_of(request).navigation}

    def render() -> str:
        return render_text(
            request,
            "run_checkpoint_rows.html.jinja",
            kept=kept_of(run),
            here=path_of(run, "checkpoints"),
            name=run.name,
            new_run=f"{NEW_RUN}/from/{quote(run.name, safe='')}" if NEW_RUN in pages else "",
            deploy=f"{DEPLOYMENTS}/run/{quote(run.name, safe='')}?checkpoint=" if DEPLOYMENTS in pages else "",
            is_active=run.state in ("running", "queued", "validating_files"),
        )

    def look() -> Hashable:
        folders = [checkpoint.path for checkpoint in list_checkpoints(run.checkpoints)]
        return [(path.name, stamp(path)) for path in folders], run.state

    return RenderedPart(PART, (PART, run.path), look, render)


def show(request: Request) -> Response:
    """The table."""
    run = run_of(request)
    part = _part(request, run)
    return run_page(
        request,
        run,
        TAB,
        "run_checkpoints.html.jinja",
        stream=path_of(run, "checkpoints", "live"),
        cursor=digest_of(html := part.render()),
        table=html,
    )


def live(request: Request) -> EventStream:
    """The table anew when it changes."""
    run = run_of(request)
    return run_stream(request, run, _part(request, run))


def download(request: Request) -> Response:
    """A checkpoint, or its adapter alone, as a tar file that is made while it is sent."""
    run, step = run_of(request), request.path_params["step"]
    found = next((each for each in list_checkpoints(run.checkpoints) if str(each.step) == step), None)
    if found is None:
        raise Problem(
            404, f"run {run.name!r}: has no checkpoint of step {step[:20]!r}; reload the list of its checkpoints"
        )
    archive = archive_of(found, run.name, adapter_only=request.path_params["part"] == "adapter")
    ascii_name = archive.name.encode("ascii", "replace").decode().replace("?", "_").replace('"', "_")
    return StreamingResponse(
        archive.blocks(),
        media_type="application/x-tar",
        headers={
            "content-length": str(archive.num_bytes),
            "content-disposition": f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(archive.name)}",
        },
    )


TAB = Tab("Checkpoints", "checkpoints")
ROUTES = (
    Route("/runs/{name}/checkpoints", show, Access.PAGE),
    Route("/runs/{name}/checkpoints/live", live, Access.STREAM),
    Route("/runs/{name}/checkpoints/{step}/{part}", download, Access.DOWNLOAD),
)
