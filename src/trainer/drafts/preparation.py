"""A new run from the first word typed to its start: what a draft holds, what is wrong with it, and what it would do."""

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from trainer.config.load import load_config
from trainer.drafts.checks import Answer, Checks, Inquiry
from trainer.drafts.chosen import ROLES, ChosenFile, ChosenFiles, path_of
from trainer.drafts.files import Uploads, in_words
from trainer.drafts.forms import FormField, by_field, kind_of, shown_for, texts_of
from trainer.drafts.speed import expected_seconds
from trainer.drafts.store import Draft, Drafts
from trainer.errors import ConfigError, DataError
from trainer.kinds import Kind, executes_here, is_service, learns_from_pairs
from trainer.runs import list_runs
from trainer.runs.ownership import is_run
from trainer.start.config_text import TINY, Contents, config_text
from trainer.start.rows import look_at
from trainer.start.sample import FILES, sample_rows

OWN_FOLDER = ".ui"
NEEDED = {"model": "a base model", "model.base": "a base model", "data": "training data", "data.train": "training data"}


@dataclass(frozen=True, slots=True)
class Outlook:
    """A draft with everything that is known of it now; `is_pending` while a process still works on an answer."""

    draft: Draft
    kind: Kind
    fields: tuple[FormField, ...]
    problems: Mapping[str, Sequence[str]]
    needs: Sequence[str]
    chosen: Mapping[str, Sequence[ChosenFile]]
    config: str
    command: str
    rows: Answer | None = None
    plan: Answer | None = None
    tokens: Answer | None = None
    resolved: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None
    waits: bool = False  # in the queue, once it is started
    run: str | None = None  # that it has become
    is_pending: bool = False

    @property
    def num_problems(self) -> int:
        return sum(map(len, self.problems.values()))

    @property
    def row_errors(self) -> int:
        """Rows that cannot be trained as written."""
        severities = (self.rows or {}).get("severities", {})
        return int(severities.get("error", 0))

    @property
    def num_rows(self) -> int:
        """Rows to train on; 0 while they are not known."""
        return int((self.rows or {}).get("rows", 0))

    @property
    def is_ready(self) -> bool:
        """True where the run can be started as it is."""
        return self.plan is not None and "problems" not in self.plan and not self.problems and not self.plan["doubts"]


class Preparation:
    """The drafts of one runs folder. `roots` are the folders of this machine whose files may be chosen."""

    def __init__(self, root: Path, roots: Sequence[Path]) -> None:
        self.root = root
        self.drafts = Drafts(root / OWN_FOLDER / "drafts")
        self.uploads = Uploads(root / OWN_FOLDER / "files", [*roots, root])
        self.files = ChosenFiles(self.drafts, self.uploads)
        self.checks = Checks()
        self._previews: set[str] = set()

    def outlook(self, draft_id: str) -> Outlook:
        """Everything known of the draft; what is not known yet is worked on."""
        draft = self.drafts.read(draft_id)
        found = self.problems(draft)
        needs = list(dict.fromkeys(NEEDED[name] for name in found if name in NEEDED and _is_missing(found[name])))
        problems = {name: said for name, said in found.items() if not (name in NEEDED and _is_missing(said))}
        kind = kind_of(draft.texts)
        chosen = {role: self.files.of(draft, role) for role in ROLES}
        rows = self._rows(draft, kind, chosen, problems)
        has_rows = rows is not None and "problems" not in rows and not rows["severities"]["error"]
        can_check = not problems and not needs and has_rows
        if not can_check:
            self.checks.drop(f"{draft_id} plan")
        waits = self.waits(draft)
        plan = self.checks.answer(f"{draft_id} plan", self._check(draft, chosen, waits)) if can_check else None
        tokens = self._tokens(draft, kind, chosen) if can_check and draft_id in self._previews else None
        if plan is not None and "problems" in plan:
            for name, said in by_field(plan["problems"], str(self.drafts.config(draft_id))).items():
                problems[name] = [*problems.get(name, ()), *said]
        return Outlook(
            draft, kind, shown_for(draft.texts), problems, needs, chosen,
            config=self._config_text(draft),
            command=self.command(draft),
            rows=rows, plan=plan, tokens=tokens,
            resolved=(plan or {}).get("resolved", {}),
            seconds=expected_seconds(self.root, plan),
            waits=waits,
            run=draft.run if draft.run is not None and is_run(self.root / draft.run) else None,
            is_pending=(rows is None and bool(chosen["train"])) or (can_check and plan is None)
            or (can_check and draft_id in self._previews and tokens is None),
        )  # fmt: skip

    def set(self, draft_id: str, changes: Mapping[str, str]) -> Draft:
        """Keep what was typed, right or wrong."""
        if "data.train" in changes or "data.validation" in changes:
            self._previews.discard(draft_id)
        before = self.drafts.read(draft_id)
        after = self.drafts.set(draft_id, changes)
        return after if kind_of(before.texts) == kind_of(after.texts) else self._proposed_anew(before, after)

    def set_base(self, draft_id: str, base: str, quantization: str = "none") -> None:
        """Choose a base with what `trainer init` proposes for it, in the fields that nobody has changed."""
        before = self.drafts.read(draft_id)
        after = self.set(draft_id, {"model.base": base})
        self._proposed_anew(before, after, {"model.quantization": quantization} if quantization != "none" else {})

    def copy(self, draft_id: str) -> str:
        """Another draft with the same texts, but for the name of the run; returns its id."""
        made = self.drafts.new_id()
        texts = self.drafts.read(draft_id).texts
        self.drafts.set(made, {name: text for name, text in texts.items() if name != "run.name"})
        return made

    def _proposed_anew(self, before: Draft, after: Draft, more: Mapping[str, str] = MappingProxyType({})) -> Draft:
        """Put the proposals for another base or backend in the place of those that nobody has changed."""
        old = {"model.quantization": "nf4"} | self._proposed(before, before.texts.get("model.base", ""))
        new = self._proposed(after, after.texts.get("model.base", "")) | dict(more)
        untouched = {name for name in old | new if after.texts.get(name, "") in ("", old.get(name, ""))}
        return self.drafts.set(after.id, {name: new.get(name, "") for name in untouched})

    def show_tokens(self, draft_id: str) -> None:
        """Render the first rows, now and after each change."""
        self._previews.add(draft_id)

    def shows_tokens(self, draft_id: str) -> bool:
        """True where the tokens were asked for."""
        return draft_id in self._previews

    def check_again(self, draft_id: str) -> None:
        """Forget the answer of the check: a service may have come back, and memory is free again."""
        draft = self.drafts.read(draft_id)
        chosen = {role: self.files.of(draft, role) for role in ROLES}
        self.checks.forget(self._check(draft, chosen, self.waits(draft)))

    def try_sample(self) -> str:
        """A draft of the builtin base and the sample rows, as `trainer init` would begin; returns its id."""
        draft_id, paths = self.drafts.new_id(), {}
        for role, name in zip(ROLES, FILES, strict=True):
            paths[role] = self.uploads.keep(name, sample_rows(name)).path
        texts = self._proposed(Draft(draft_id), TINY) | {f"data.{role}": path for role, path in paths.items()}
        self.drafts.set(draft_id, texts | {"model.base": TINY, "run.suffix": "glossary"})
        return draft_id

    def try_files(self, files: Mapping[str, Path]) -> str:
        """A draft on files of this machine, by role, with the method of their rows; returns its id."""
        draft_id = self.drafts.new_id()
        for role, path in files.items():
            self.files.add(draft_id, role, in_words(path.resolve()))
        with contextlib.suppress(DataError):  # the draft's page says what is wrong with the file
            if learns_from_pairs(method := look_at(files["train"]).method):
                self.set(draft_id, {"training.method": method})
        return draft_id

    def command(self, draft: Draft) -> str:
        """The command that does the same as the page."""
        root = "" if str(self.root) == "runs" else f" --root {self.root}"
        return f"train --config {file_name(draft)}{root}"

    def problems(self, draft: Draft) -> dict[str, list[str]]:
        """Mistakes of the settings themselves, and paths that this page may not read."""
        file = self.drafts.config(draft.id)
        found: dict[str, list[str]] = {}
        try:
            if file.is_file():
                load_config(file)
            else:
                found = {"model": ["missing"], "data": ["missing"]}
        except ConfigError as error:
            found = by_field(error.problems, str(file))
        for setting in shown_for(draft.texts):
            for line in draft.texts.get(setting.name, "").splitlines():
                if self.uploads.is_outside(path_of(line.strip()).partition("@")[0]):
                    said = f"{path_of(line.strip())!r} is outside of the folders that this page may read, expected a "
                    found.setdefault(setting.name, []).append(
                        f"{said}file or folder below {' or '.join(map(str, self.uploads.roots))}; copy it there"
                    )
        return found

    def _rows(
        self, draft: Draft, kind: Kind, chosen: Mapping[str, Sequence[ChosenFile]], problems: Mapping[str, Any]
    ) -> Answer | None:
        if not chosen["train"] or problems.keys() & {"data.train", "data.validation"}:
            self.checks.drop(f"{draft.id} rows")
            return None if not problems.keys() & {"data.train", "data.validation"} else {"problems": []}
        paths = {role: [file.path for file in chosen[role]] for role in ROLES}
        method = draft.texts.get("training.method") or "sft"
        request = {"verb": "look", **paths, "backend": kind, "method": method if method in ("sft", "dpo") else None}
        files = tuple(Path(path) for role in ROLES for path in paths[role])
        return self.checks.answer(f"{draft.id} rows", Inquiry(request, files, kind))

    def _check(self, draft: Draft, chosen: Mapping[str, Sequence[ChosenFile]], waits: bool) -> Inquiry:
        files = tuple(Path(file.path) for role in ROLES for file in chosen[role])
        return Inquiry(self.request(draft) | {"verb": "check", "waits": waits}, files, kind_of(draft.texts))

    def _tokens(self, draft: Draft, kind: Kind, chosen: Mapping[str, Sequence[ChosenFile]]) -> Answer | None:
        if is_service(kind):
            return {"problems": ["the service renders the rows itself, and does not show its tokens"]}
        request = self.request(draft) | {"verb": "preview", "file": chosen["train"][0].path}
        request["folder"] = str(self.drafts.folder)
        return self.checks.answer(f"{draft.id} tokens", Inquiry(request, (Path(chosen["train"][0].path),), kind))

    def request(self, draft: Draft) -> dict[str, Any]:
        """The part of an inquiry that all about the draft's config have."""
        return {"config": str(self.drafts.config(draft.id)), "root": str(self.root)}

    def waits(self, draft: Draft) -> bool:
        """True where a run of this machine would wait in its queue, as another one trains here."""
        return executes_here(kind_of(draft.texts)) and is_busy(self.root, besides=draft.name)

    def _config_text(self, draft: Draft) -> str:
        file = self.drafts.config(draft.id)
        return file.read_text(encoding="utf-8") if file.is_file() else ""

    def _proposed(self, draft: Draft, base: str) -> dict[str, str]:
        """The settings of training and storage that `trainer init` writes for a base, as texts."""
        if not base.strip():
            return {}
        kind = kind_of(draft.texts)
        text = config_text(
            Contents(file="new.yaml", base=base, backend=kind, train="-", validation="-", rows=100, held_out=10)
        )
        sections = yaml.safe_load(text)
        kept = {name: value for name, value in sections.items() if name in ("training", "model")}
        return {name: value for name, value in texts_of(kept).items() if name != "model.base" and value != "auto"}


def file_name(draft: Draft) -> str:
    """A name for the draft's config, after the run's own or its suffix."""
    wanted = draft.texts.get("run.name", "").strip() or draft.texts.get("run.suffix", "").strip()
    return f"{harmless_name(wanted) or 'new-run'}.yaml"


def is_busy(root: Path, besides: str | None = None) -> bool:
    """True while a run of this machine trains, or is about to, other than the one named `besides`."""
    active = ("queued", "running", "validating_files")
    others = (run for run in list_runs(root) if run.name != besides)
    return any(executes_here(run.backend) and run.state in active for run in others)


def harmless_name(text: str) -> str:
    """The text in what a name of a run or a file may hold."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:100]


def _is_missing(said: Sequence[str]) -> bool:
    return all(sentence.startswith("missing") for sentence in said)
