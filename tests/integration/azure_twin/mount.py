"""Folders whose files are in blob storage: where an address leads, and a folder that storage follows."""

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from azure.core.exceptions import ResourceNotFoundError

from tests.integration.azure_twin.arm import Arm
from tests.integration.azure_twin.blobs import Blobs

# Every opening and renaming of a Python process, its libraries' included, passes such a hook before it happens.
REFUSING = """
import errno
import os
import sys


def refuse(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if not (flags & os.O_APPEND or "+" in (mode or "") or "a" in (mode or "")):
            return
        paths = [path]
    elif event in ("os.rename", "os.link", "os.symlink", "os.truncate"):
        paths = arguments[:2]
    else:
        return
    for path in paths:
        if isinstance(path, (str, bytes, os.PathLike)):
            real = os.path.realpath(os.fsdecode(path))
            if any(real.startswith(mount + os.sep) for mount in {mounts!r}):
                raise OSError(errno.EPERM, os.strerror(errno.EPERM), real)


sys.addaudithook(refuse)
"""


def refusing(mounts: Iterable[Path], folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """The environment of a machine whose mounts take whole files only: nothing there is renamed or appended to."""
    site = Path(environment["PYTHONPATH"].split(os.pathsep)[0]) if "PYTHONPATH" in environment else folder
    site.mkdir(parents=True, exist_ok=True)
    with (site / "sitecustomize.py").open("a") as file:
        file.write(REFUSING.replace("{mounts!r}", repr([str(mount.resolve()) for mount in mounts])))
    return environment | {"PYTHONPATH": environment.get("PYTHONPATH", str(site))}


@dataclass(frozen=True)
class Place:
    container: str
    prefix: str  # without a slash at its end where it may be a file

    def below(self, path: str) -> "Place":
        return Place(self.container, self.prefix.rstrip("/") + "/" + path if self.prefix else path)


def place_of(arm: Arm, uri: str) -> Place:
    """Where a datastore's, a job's, an asset's or a plain address leads. Raises: KeyError, for what does not exist."""
    if match := re.match(r"https://[^/]+\.blob\.core\.windows\.net/([^/?]+)/?([^?]*)", uri):
        return Place(match[1], match[2])
    if match := re.match(r"azureml://(?:.*/)?datastores/([^/]+)/paths/(.*)", uri):
        return Place(arm.containers[match[1]], match[2])
    if match := re.match(r"azureml://(?:.*/)?jobs/([^/]+)/outputs/([^/]+)(?:/paths)?/?(.*)", uri):
        outputs = arm.resources[f"jobs/{match[1]}"]["properties"]["outputs"]
        return place_of(arm, outputs[match[2]]["uri"].rstrip("/") + "/" + match[3])
    if match := re.match(
        r"(?:azureml:)?/subscriptions/.*/workspaces/[^/]+/(data|models)/([^/]+)/versions/([^/]+)$", uri
    ):
        properties = arm.resources[f"{match[1]}/{match[2]}/versions/{match[3]}"]["properties"]
        return place_of(arm, properties["dataUri" if match[1] == "data" else "modelUri"])
    if match := re.match(r"azureml:(.+):([^:/]+)$", uri):
        for kind, field in (("data", "dataUri"), ("models", "modelUri")):
            if (path := f"{kind}/{match[1]}/versions/{match[2]}") in arm.resources:
                return place_of(arm, arm.resources[path]["properties"][field])
    raise KeyError(uri)


class Mount:
    """A folder that begins as its place in storage is, and that storage follows, file by file.

    `fresh`: it begins empty, as a folder for logs does.
    """

    def __init__(self, blobs: Blobs, place: Place, folder: Path, fresh: bool = False) -> None:
        self.blobs, self.place, self.folder = blobs, Place(place.container, place.prefix.rstrip("/") + "/"), folder
        folder.mkdir(parents=True, exist_ok=True)
        if not fresh:
            blobs.download(self.place.container, self.place.prefix, folder)
        self._seen = self._files()

    def sync(self) -> None:
        """Bring what has changed since to storage, file by file."""
        now = self._files()
        for name in self._seen.keys() - now.keys():
            with contextlib.suppress(ResourceNotFoundError):
                self.blobs.delete(self.place.container, self.place.prefix + name)
        for name, version in sorted(now.items(), key=lambda item: item[1]):
            if self._seen.get(name) != version:
                try:
                    data = (self.folder / name).read_bytes()
                except FileNotFoundError:
                    continue
                self.blobs.write(self.place.container, self.place.prefix + name, data)
        self._seen = now

    def _files(self) -> dict[str, tuple[int, int]]:
        found = {}
        # Unlike a path's own walk, os.walk passes over folders that vanish: checkpoints are rotated meanwhile.
        for path in (Path(parent, name) for parent, _, names in os.walk(self.folder) for name in names):
            try:
                if path.is_file() and not path.is_symlink():
                    about = path.stat()
                    found[path.relative_to(self.folder).as_posix()] = (about.st_mtime_ns, about.st_size)
            except FileNotFoundError:
                continue
        return found
