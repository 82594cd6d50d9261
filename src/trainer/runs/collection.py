"""The folder that holds the runs: a new one, one by its name, and all there are."""

import errno
import os
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import ConfigError, similar
from trainer.runs import files
from trainer.runs import manifest as manifests
from trainer.runs.lifecycle import way_on
from trainer.runs.ownership import MARKER, SIGN, beside, foreign, in_short, is_run, sweep
from trainer.runs.run import CONFIG, Run, now

if TYPE_CHECKING:
    from trainer.config.schema import RunConfig

LONGEST_NAME = 255  # of a file, everywhere


def create_run(config: "RunConfig", fill: Callable[[Run], object] = lambda run: None) -> Run:
    """Make the run's folder with its config in it, and what `fill` adds; it appears whole or not at all.

    Raises: ConfigError, when a run of that name exists or the folder cannot be written.
    """
    refuse_existing(config)
    root = Path(config.run.root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        sweep(root)
        made = root / beside(config.run.name or "run", "new")
        made.mkdir(mode=_mode_below(root))
        try:
            _begin(Run(made), config)
            fill(Run(made))
            return Run(_named(made, config))
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    except OSError as error:
        raise ConfigError(
            f"run.root: {str(root)!r} cannot be written: {error.strerror}; choose another folder"
        ) from None


def _mode_below(root: Path) -> int:
    """A run holds rows of the data: it is its owner's, but where the folder of runs is kept for a group."""
    return 0o777 if root.stat().st_mode & 0o020 else 0o700


def _begin(run: Run, config: "RunConfig") -> None:
    from trainer.config.load import dump_config

    files.write_whole(run.path / MARKER, f"{SIGN}\n")
    run.set_status("validating_files", created_at=now(), backend=config.backend.kind)
    run.checkpoints.mkdir(exist_ok=True)
    files.write_whole(run.path / "config.yaml", dump_config(config))


def find_begun(config: "RunConfig") -> Run | None:
    """The run of the config's name, None where there is no such folder, or one without a config.

    Raises: ConfigError, when the folder holds something else, or a run of another backend.
    """
    run = _of_its_name(config)
    return run if (run.path / CONFIG).is_file() else None


def find_or_adopt(config: "RunConfig") -> Run | None:
    """The run of the config's name, None where there is no such folder.

    Of a run that was killed while its folder was made, or whose files a mount has not shown yet, the rest is made.

    Raises: ConfigError, as `find_begun`.
    """
    run = _of_its_name(config)
    if not run.path.exists():
        return None
    if not (run.path / CONFIG).is_file():
        _begin(run, config)
    return run


def _of_its_name(config: "RunConfig") -> Run:
    """The folder of the config's name, whether it is there or not. Raises: ConfigError."""
    assert config.run.name is not None
    run, kind = Run(Path(config.run.root) / config.run.name), config.backend.kind
    if run.path.exists() and (not run.path.is_dir() or (not is_run(run.path) and foreign(run.path))):
        raise ConfigError(f"run.name: {str(run.path)!r} holds something else than a run; choose another name")
    if (found := run.status().get("backend", kind)) != kind:
        raise ConfigError(
            f"run.name: {str(run.path)!r} is a run of backend.kind={found}, expected one of {kind}; choose another "
            f"name, or resume that run with: train --resume {run.path}"
        )
    return run


def refuse_existing(config: "RunConfig") -> None:
    """Raises: ConfigError, when a run of the given name exists already, or its root is no folder."""
    root = Path(config.run.root)
    if root.exists() and not root.is_dir():
        raise ConfigError(f"run.root: {str(root)!r} is a file, expected a folder; choose another")
    if config.run.name is not None and os.path.lexists(path := root / config.run.name):
        raise ConfigError(
            f"run.name: {config.run.name!r} exists in {str(root)!r}, expected a new name; "
            f"choose another{_instead(path)}"
        )


def _instead(path: Path) -> str:
    """Other ways out where a folder's name is taken."""
    if path.is_symlink() or not path.is_dir():
        return ""
    if (path / CONFIG).is_file() and is_run(path):
        return f", or {way_on(Run(path)) or f'remove that run with: trainer delete {path}'}"
    if not foreign(path):
        return f", or remove what is left of a run that never began with: trainer delete {path}"
    return ""


def _named(made: Path, config: "RunConfig") -> Path:
    """Give a run's folder its name. Of several processes that want the same name, one gets it. Raises: OSError."""
    root = Path(config.run.root)
    if config.run.name is not None:
        return _renamed(made, root / config.run.name)
    stem = default_name(config)
    for name in (stem, *(f"{stem}-{number}" for number in range(2, 1000))):
        try:
            return _renamed(made, root / name)
        except FileExistsError:
            continue
    raise ConfigError(f"run.root: no free name for {stem!r} in {str(root)!r}; give run.name")


def default_name(config: "RunConfig") -> str:
    """Date and time, base and suffix: the name of a run that is given none."""
    base = config.model.base.rstrip("/").rsplit("/", 1)[-1].replace(":", "-").replace("@", "-")
    return "-".join(filter(None, [datetime.now().astimezone().strftime("%Y%m%d-%H%M%S"), base, config.run.suffix]))


def _renamed(made: Path, path: Path) -> Path:
    """Raises: FileExistsError, and OSError."""
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    try:
        made.rename(path)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        raise
    files.flush_folder(path.parent)
    return path


def list_folders(root: Path) -> list[Path]:
    """The folders of the runs below `root`, in no order."""
    return [path.parent for path in root.glob("[!.]*/config.yaml") if is_run(path.parent)]


def list_runs(root: Path) -> list[Run]:
    """The runs below `root`, oldest first."""
    runs = map(Run, list_folders(root))
    return sorted(runs, key=lambda run: (str(run.status().get("created_at", "")), run.name))


def run_below(name: str, root: Path) -> Run | None:
    """The run whose folder directly below `root` has exactly this name, which anybody may have sent; else None."""
    if not name or name.startswith(".") or any(char in name for char in "/\\\0") or len(name) > LONGEST_NAME:
        return None
    path = root / name
    return Run(path) if not path.is_symlink() and (path / CONFIG).is_file() and is_run(path) else None


def find_run(name: str, root: Path) -> Run:
    """A run by its name below `root`, or by its folder.

    Raises: ConfigError, when there is none, with the nearest name there is, or a newer version wrote it.
    """
    places = _places(name, root)
    for path in places:
        if (path / CONFIG).is_file() and is_run(path):
            manifests.refuse_newer(path / manifests.NAME)
            return Run(_plain(path))
    for path in places:
        if is_run(path):
            raise ConfigError(
                f"run {name!r}: was stopped while its folder was made, expected one that has begun; "
                f"start it again after: trainer delete {path}"
            )
        if (path / CONFIG).is_file():
            raise ConfigError(
                f"run {name!r}: {str(path)!r} holds {in_short(foreign(path)) or 'a config'} and no sign of being a "
                "run, expected a folder that train made; list the runs with: trainer runs"
            )
    raise _not_found(name, root)


def find_folder(name: str, root: Path) -> Run:
    """A run, or what may be left of one that never began: `delete` looks at what is in it.

    Raises: ConfigError, when there is no such folder.
    """
    places = _places(name, root)
    for path in (*filter(is_run, places), *places):
        return Run(_plain(path))
    raise _not_found(name, root)


def _places(name: str, root: Path) -> list[Path]:
    return [path for path in (root / name, Path(name)) if path.is_dir()]


def _not_found(name: str, root: Path) -> ConfigError:
    known = [run.name for run in list_runs(root)]
    return ConfigError(
        f"run {name!r}: not found in {str(root)!r}{similar(Path(name).name, known)}; list the runs with: trainer runs"
    )


def _plain(path: Path) -> Path:
    """The path with a name at its end, which `.` and `..` are not."""
    return path.resolve() if path.name in ("", "..") else path
