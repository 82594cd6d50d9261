"""From a base and a file of rows to a config that can be checked and trained: start reading here."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from trainer.backends.openai.models import find_base as find_service_base
from trainer.config.problems import describe
from trainer.config.schema import RunConfig
from trainer.data.convert.files import Conversion, convert_file, default_output
from trainer.data.files.new_files import new_files
from trainer.data.files.split import Split, split_file
from trainer.data.layouts.columns import Columns
from trainer.data.quoting import counted, printable
from trainer.data.read.checks import DataReport, check_files
from trainer.data.read.data_files import opened
from trainer.data.rules.catalog import ROWS_NEEDED
from trainer.errors import Attempts, ConfigError, DataError
from trainer.kinds import Method, is_service
from trainer.model.base_folder import refuse_base
from trainer.model.lineage import find_parent
from trainer.start.config_text import PROPOSED_BASES, TINY, Backend, Contents, config_text
from trainer.start.rows import held_out_beside, look_at, num_tokens, plain_stem
from trainer.start.sample import FILES, sample_rows

SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Wish:
    """Wishes of a user for a new project; without `data` the sample is written."""

    base: str
    data: Path | None
    backend: Backend = "local"
    output: Path | None = None
    validation: Path | None = None
    hold_out: bool = True
    columns: Columns | None = None
    system: str | None = None
    service: Literal["azure", "openai"] = "azure"


@dataclass(frozen=True, slots=True)
class ProjectFiles:
    """The files of a beginning: what is there, and what will be made."""

    config: Path
    train: Path
    validation: Path | None
    convert_to: Path | None = None
    split_to: tuple[Path, Path] | None = None
    method: Method = "sft"


@dataclass(frozen=True, slots=True)
class Started:
    """Files made, with everything found out about them."""

    contents: Contents
    report: DataReport
    num_tokens: int
    written: tuple[Path, ...]
    conversion: Conversion | None
    split: Split | None
    why_whole: str | None  # why no rows are held out although some could be


def begin(wish: Wish) -> Started:
    """Make what is missing, check the rows, and write the config last.

    Raises: ConfigError and DataError, with all that is wrong; nothing is written then.
    """
    places = plan(wish)
    with _all_or_nothing() as written:
        if wish.data is None:
            for name in FILES:
                _write(places.config.with_name(name), sample_rows(name), written)
        conversion = None
        if places.convert_to is not None:
            assert wish.data is not None
            conversion = convert_file(
                wish.data, places.convert_to, columns=wish.columns, system=wish.system, method=places.method
            )
            written.append(places.convert_to)
        report = _checked(places.train, places.validation, wish.backend)
        split, why_whole = _split(places, report.rows, written)
        train, validation = (split.train, split.validation) if split else (places.train, places.validation)
        contents = Contents(
            file=str(places.config),
            base=wish.base,
            backend=wish.backend,
            train=str(train),
            validation=None if validation is None else str(validation),
            rows=split.num_train if split else report.rows,
            held_out=split.num_validation if split else report.validation_rows,
            service=wish.service,
            method=report.method,
        )
        _write(places.config, config_text(contents).encode(), written)
    tokens = num_tokens([*report.conversations, *report.validation])
    return Started(contents, report, tokens, tuple(written), conversion, split, why_whole)


def plan(wish: Wish) -> ProjectFiles:
    """Choose the files to make. Raises: ConfigError, DataError, with everything that is wrong with the wish."""
    attempts = Attempts()
    attempts.make(refuse_unfit, wish.base, wish.backend)
    for path in filter(None, (wish.data, wish.validation)):
        attempts.make(_refuse_unreadable, path)
    convert = () if attempts.errors else attempts.make(_conversions, wish)
    places = _project_files(wish, *(convert or ()))
    for problem in _taken(wish, places):
        attempts.errors.append(ConfigError(problem))
    attempts.end()
    return places


def refuse_unfit(base: str, backend: Backend) -> None:
    """Raises: ConfigError, for a base of which no library and no network is needed to see that it cannot be tuned."""
    values = {"model": {"base": base}, "data": {"train": "rows"}}
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(*describe(error, values, lambda path: "--base")) from None
    try:
        if is_service(backend):
            _refuse_for_a_service(base)
        elif find_parent(config) is None:
            refuse_base(base)
    except ConfigError as error:
        raise ConfigError(*(problem.replace("model.base:", "--base:", 1) for problem in error.problems)) from None


def _refuse_for_a_service(base: str) -> None:
    is_run = (Path(base.partition("@")[0]) / "config.yaml").is_file()
    if not is_run and ("/" in base or base == TINY):
        raise ConfigError(
            f"--base: {base!r} is no model of a fine-tuning service, expected one that it tunes, such as "
            f"{PROPOSED_BASES['openai']}; name one, or choose --backend local"
        )
    find_service_base(base)


def _refuse_unreadable(path: Path) -> None:
    with opened(path, "a file of rows"):
        pass
    if not str(path).isprintable():
        raise ConfigError(f"{printable(str(path))}: the name cannot be written into a config; rename the file")


def _conversions(wish: Wish) -> tuple[Method, ...]:
    """The kind of rows to write anew, of other layouts or with a given system prompt; empty where all may stay."""
    if wish.data is None:
        return ()
    rows = look_at(wish.data, wish.columns)
    if rows.unclear:
        raise DataError(f"{printable(str(wish.data))}: each row {rows.unclear}")
    return () if rows.is_native and wish.system is None and wish.columns is None else (rows.method,)


def _project_files(wish: Wish, convert: Method | None = None) -> ProjectFiles:
    if wish.data is None:
        config = wish.output or Path("glossary.yaml")
        return ProjectFiles(config, config.with_name(FILES[0]), config.with_name(FILES[1]))
    stem = plain_stem(wish.data)
    config = wish.output or wish.data.with_name(f"{stem}.yaml")
    convert_to = None if convert is None else default_output(wish.data, convert)
    train = convert_to or wish.data
    validation = wish.validation or (held_out_beside(wish.data) if wish.hold_out else None)
    split_to = None
    if validation is None and wish.hold_out:
        split_to = wish.data.with_name(f"{stem}.train.jsonl"), wish.data.with_name(f"{stem}.validation.jsonl")
    return ProjectFiles(config, train, validation, convert_to, split_to, convert or "sft")


def _taken(wish: Wish, places: ProjectFiles) -> Iterator[str]:
    """Files in the way of new ones, and folders that do not exist."""
    made: dict[Path | None, str] = {places.config: "name another with --output"}
    if wish.data is None:
        made |= dict.fromkeys((places.train, places.validation), "train on it with --data, or name another folder")
    if places.convert_to is not None:
        made[places.convert_to] = "take it with --data, or remove it"
    if places.split_to is not None:
        made |= dict.fromkeys(places.split_to, "take both with --data and --validation, or remove them")
    for path, remedy in made.items():
        if path is None:
            continue
        if path.exists():
            yield f"{printable(str(path))}: exists already, expected a new file; {remedy}"
        elif not path.parent.is_dir():
            name = printable(str(path.parent))
            yield f"{printable(str(path))}: the folder {name} does not exist, expected one; create it"


def _checked(train: Path, validation: Path | None, backend: Backend) -> DataReport:
    """The rows, which hold no error. Raises: DataError, with every error."""
    report = check_files([train], [validation] if validation else [], backend=backend)
    if errors := report.errors:
        words = ["trainer", "data", "check", str(train), *(["--validation", str(validation)] if validation else [])]
        if is_service(backend):
            words += ["--backend", backend]
        found = "has an error" if len(errors) == 1 else f"has {len(errors):,} errors"
        raise DataError(
            f"{printable(str(train))}: {found}, expected none; fix the rows, or part them from the good ones with: "
            f"{printable(shlex.join([*words, '--reject', 'rejected.jsonl']))}",
            *map(str, errors),
        )
    return report


def _split(places: ProjectFiles, num_rows: int, written: list[Path]) -> tuple[Split | None, str | None]:
    """Rows to train on and rows held out, or why there are none."""
    if places.split_to is None:
        return None, None
    if num_rows - max(1, round(SHARE * num_rows)) < ROWS_NEEDED:
        return None, f"{counted(num_rows, 'row')} are too few to hold some out"
    try:
        split = split_file(places.train, *places.split_to, share=SHARE)
    except (ConfigError, DataError) as error:
        if any(path.exists() for path in places.split_to):
            raise
        return None, str(error)
    written.extend(places.split_to)
    return split, None


@contextmanager
def _all_or_nothing() -> Iterator[list[Path]]:
    """A list of new files, which are removed where something goes wrong."""
    written: list[Path] = []
    try:
        yield written
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def _write(path: Path, content: bytes, written: list[Path]) -> None:
    with new_files([path], [], force=False) as (file,):
        file.write(content)
    written.append(path)
