"""The files of a run: their sizes, and each as a download. A browser names them by ids out of this list."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from trainer.dashboard.run import Tab, path_of, run_of, run_page
from trainer.runs import Run
from trainer.web.problems import Problem
from trainer.web.routes import Access, Route

SHOWN_FILES = 2000


@dataclass(frozen=True, slots=True)
class RunFile:
    """A regular file below a run's folder."""

    name: str  # from the folder on
    path: Path
    num_bytes: int
    changed_at: float

    @property
    def id(self) -> str:
        return sha256(self.name.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def files_of(run: Run) -> Iterator[RunFile]:
    """Every file of the run in the order of their names; links, and what is behind them, are left out."""
    for folder, folders, names in os.walk(run.path, followlinks=False):
        folders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            try:
                about = path.lstat()
            except OSError:
                continue
            if not path.is_symlink() and path.is_file():
                yield RunFile(str(path.relative_to(run.path)), path, about.st_size, about.st_mtime)


def show(request: Request) -> Response:
    """The list."""
    run = run_of(request)
    found = list(files_of(run))
    return run_page(
        request,
        run,
        TAB,
        "run_files.html.jinja",
        files=found[:SHOWN_FILES],
        num_hidden=max(0, len(found) - SHOWN_FILES),
        num_files=len(found),
        num_bytes=sum(file.num_bytes for file in found),
        here=path_of(run, "files"),
    )


def download(request: Request) -> Response:
    """A file as an attachment, whatever it holds. Raises: Problem, for an id that the list does not have."""
    run = run_of(request)
    file = next((file for file in files_of(run) if file.id == request.path_params["id"]), None)
    if file is None:
        raise Problem(404, f"run {run.name!r}: has no such file any more; reload the list of its files")
    return attachment(file.path)


def attachment(path: Path) -> Response:
    """A file that the browser saves and never opens as a page of this server."""
    name = path.name.encode("utf-8", "replace").decode()
    return FileResponse(path, media_type="application/octet-stream", filename=name)


TAB = Tab("Files", "files")
ROUTES = (
    Route("/runs/{name}/files", show, Access.PAGE),
    Route("/runs/{name}/files/{id}", download, Access.DOWNLOAD),
)
