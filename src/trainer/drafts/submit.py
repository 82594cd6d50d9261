"""The start of a draft's run: once, at the price that was shown, whatever cuts it short."""

import threading
from collections import defaultdict
from pathlib import Path

from trainer.config.load import load_config
from trainer.drafts.checks import Inquiry, ask
from trainer.drafts.chosen import done
from trainer.drafts.preparation import Preparation, harmless_name
from trainer.errors import ConfigError
from trainer.runs.collection import default_name
from trainer.runs.ownership import is_run

# By folder of runs: of two drafts of one machine, the second one sees that the first one trains, and waits for it.
_one_submit: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)


def start_run(preparation: Preparation, draft_id: str, agreed: str, confirmed: bool = False) -> str:
    """Create and launch the run, once, however often it is asked for; returns its name.

    `agreed` is the digest of the price that was shown, `confirmed` True where its box is ticked.

    Raises: ConfigError, DataError, with what stands in the way.
    """
    drafts, root = preparation.drafts, preparation.root
    with _one_submit[root.resolve()]:
        draft = drafts.read(draft_id)
        if draft.run is not None and is_run(root / draft.run):
            return draft.run
        if wrong := preparation.problems(draft):
            raise ConfigError(
                *(f"{name or 'the config'}: {said}" for name, all_said in wrong.items() for said in all_said)
            )
        config = load_config(drafts.config(draft_id))
        if draft.name is None or config.run.name not in (None, draft.name):
            name = config.run.name or f"{harmless_name(default_name(config))[:90]}-{draft_id[:4]}"
            draft, again = drafts.set(draft_id, {}, name=name), False
        else:
            again = is_run(root / draft.name)
        waits = preparation.waits(draft)
        wishes = {"agreed": agreed, "confirmed": confirmed, "again": again, "waits": waits}
        request = preparation.request(draft) | wishes | {"verb": "start"}
        answer = done(ask(Inquiry(request | {"overrides": [f"run.name={draft.name}"]}, kind=config.backend.kind)))
        return str(drafts.set(draft_id, {}, run=str(answer["run"])).run)
