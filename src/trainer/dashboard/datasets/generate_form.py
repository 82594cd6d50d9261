"""Form of a set that a model writes from documents: its texts as typed, and the settings that they ask for."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.datastructures import FormData

from trainer.errors import Attempts, ConfigError, TrainerError, quoted
from trainer.web.words import whole_number
from trainer.workshop.asking.endpoint import place_of
from trainer.workshop.generate.generate import Settings
from trainer.workshop.generate.kinds import KINDS

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,50}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
OPTION = re.compile(r"--([a-z]+(?:-[a-z]+)*)(?: VARIABLE)?")
LABELS = {
    "sources": "Documents",
    "name": "Name of the set",
    "kind": "Kind of rows",
    "rows_per_chunk": "Rows per chunk",
    "rows": "Rows in all",
    "endpoint": "Endpoint",
    "model": "Model",
    "key_variable": "Variable with the key",
    "language": "Language",
    "tone": "Tone",
    "system": "System prompt",
    "labels": "Labels",
    "judge": "Have each row judged",
    "validation_share": "Share held out",
    "max_tokens": "Longest answer in tokens",
    "cap": "Cap in USD",
    "price_in": "USD a million tokens read",
    "price_out": "USD a million tokens written",
}
OTHER_OPTIONS = {"key_env": "key_variable", "no_judge": "judge"}  # of the command, by the form's word for it
DEFAULTS = {"kind": "qa", "rows_per_chunk": "3", "judge": "on", "validation_share": "0.1", "max_tokens": "2048"}
MAX_CHARS = 20_000  # of one field


@dataclass(frozen=True, slots=True)
class Form:
    """The texts by field, and the ids of the documents that are ticked."""

    texts: Mapping[str, str]
    sources: tuple[str, ...] = ()

    @classmethod
    def sent(cls, form: FormData, more: Sequence[str] = ()) -> "Form":
        """The form as it was sent, with the ids of documents that came with it."""
        ticked = [text for text in form.getlist("sources") if isinstance(text, str)]
        return cls(_texts(form), tuple(dict.fromkeys([*ticked, *more])))

    @classmethod
    def kept(cls, record: Any) -> "Form":
        """The form of a record; an empty one where it is damaged."""
        found = record if isinstance(record, dict) else {}
        texts, sources = found.get("texts"), found.get("sources")
        ids = [each for each in sources if isinstance(each, str)] if isinstance(sources, list) else []
        return cls(_texts(texts if isinstance(texts, dict) else {}), tuple(ids))

    @property
    def name(self) -> str:
        """The set's name, which is part of file names. Raises: ConfigError, for a name that is none."""
        if not NAME.fullmatch(self.texts["name"]):
            found = "is missing" if not self.texts["name"] else f"is {quoted(self.texts['name'])}"
            raise ConfigError(f"--name: {found}, expected up to 51 letters, digits, '.', '_' and '-'; correct it")
        return self.texts["name"].removesuffix(".jsonl")

    def settings(self, sources: Sequence[Path], output: Path, aside: Path) -> Settings:
        """The settings of the command. Raises: ConfigError, with each problem after its option."""
        texts, problems, attempts = self.texts, list[str](), Attempts()

        def whole(name: str, default: int | None) -> Any:
            if not texts[name]:
                return default
            if (number := whole_number(texts[name], 10**9)) is None:
                problems.append(f"{_option(name)}: is {quoted(texts[name])}, expected a whole number; correct it")
            return number

        def amount(name: str, default: float | None) -> Any:
            if not texts[name]:
                return default
            try:
                number = float(texts[name])
            except ValueError:
                number = math.nan
            if not math.isfinite(number):
                problems.append(
                    f"{_option(name)}: is {quoted(texts[name])}, expected a number such as 2.50; correct it"
                )
            return number

        if not sources:
            problems.append("--sources: none is chosen, expected one or more; tick documents, or add files")
        attempts.make(lambda: self.name)
        attempts.make(self._refuse_address)
        if not texts["model"]:
            problems.append("--model: is missing, expected a model's name, on Azure that of the deployment; add it")
        if texts["key_variable"] and not VARIABLE.fullmatch(texts["key_variable"]):
            problems.append(
                "--key-env: is no name of an environment variable, expected one such as MY_KEY, never the key itself"
            )
        kind = KINDS.get(texts["kind"])
        if kind is not None and kind.needs_judge and not texts["judge"]:
            problems.append(f"--judge: is off, and the judge decides on rows of the kind {kind.name}; tick it")
        settings = Settings(
            tuple(sources),
            output,
            texts["endpoint"],
            texts["model"],
            kind=texts["kind"] or "qa",
            rows_per_chunk=whole("rows_per_chunk", 3),
            rows=whole("rows", None),
            language=texts["language"] or None,
            tone=texts["tone"] or None,
            system=texts["system"] or None,
            labels=tuple(label.strip() for label in texts["labels"].split(",") if label.strip()),
            judge=bool(texts["judge"]),
            validation_share=amount("validation_share", 0.1),
            max_tokens=whole("max_tokens", 2048),
            cap=amount("cap", None),
            price_in=amount("price_in", None),
            price_out=amount("price_out", None),
            key_variable=texts["key_variable"] or None,
            aside=aside,
        )
        if problems := [problem for error in attempts.errors for problem in error.problems] + problems:
            raise ConfigError(*problems)
        return settings

    def _refuse_address(self) -> None:
        """Raises: ConfigError, unless the endpoint is an address with TLS, or of this machine."""
        if not self.texts["endpoint"]:
            raise ConfigError("--endpoint: is missing, expected an address such as https://NAME.openai.azure.com")
        place = place_of(self.texts["endpoint"])
        if not place.url.startswith("https:") and not place.is_local:
            raise ConfigError(
                f"--endpoint: is {quoted(self.texts['endpoint'])}, expected https:// or an address of this machine, "
                "as documents are sent there; correct it"
            )

    def problems(self, error: TrainerError) -> dict[str, list[str]]:
        """The sentences of an error by the field that each is about, those about none of them under an empty name."""
        found: dict[str, list[str]] = {}
        for problem in error.problems:
            begins, _, rest = problem.partition(": ")
            option = OPTION.fullmatch(begins)
            field = _field(option[1]) if option else ""
            if begins and begins == self.texts["key_variable"]:
                field, rest = "key_variable", problem
            found.setdefault(field, []).append(in_form_words(rest if field else problem))
        return found


def in_form_words(text: str) -> str:
    """A sentence of the command in which the options are the form's fields."""
    text = OPTION.sub(lambda option: f"“{LABELS[_field(option[1])]}”" if _field(option[1]) else option[0], text)
    return text.replace("the same command", "the same form").replace("of the command line", "of the form")


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _field(option: str) -> str:
    name = option.replace("-", "_")
    name = OTHER_OPTIONS.get(name, name)
    return name if name in LABELS else ""


def _texts(found: Mapping[str, Any]) -> dict[str, str]:
    names = [name for name in LABELS if name != "sources"]
    return {name: _plain(found.get(name)) for name in names}


def _plain(value: object) -> str:
    """A text with one kind of line break and without white space around it."""
    text = value if isinstance(value, str) else ""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()[:MAX_CHARS]
