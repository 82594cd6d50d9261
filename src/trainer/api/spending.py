"""The server's cap: what jobs that bill have reserved of it, in one file that changes under a lock.

A job reserves the most that it can cost before it starts, and its run gets that as its own cap. What it has cost less
is given back when it has ended; of a job that the service never took, all of it.
"""

from pathlib import Path
from typing import Any

from trainer.api.job import Job, alone, shared_file
from trainer.backends.quote import Quote
from trainer.errors import ConfigError
from trainer.runs import files
from trainer.runs.ledger import Ledger
from trainer.runs.summary import cost_so_far

FILE, LOCK = "spending.json", "spending"


class OverCap(ConfigError):
    """A job that bills, and no cap, or no room under it, agrees to that."""


def reserve(root: Path, job: Job, quote: Quote, ceiling: float | None, cap: float | None) -> float | None:
    """Keep room under the cap for a job, and return how much; None where it bills nothing.

    `ceiling` is where its backend ends it. Asked again for the same job, it keeps what it has.

    Raises: OverCap, with the quote; ConfigError, where the record of earlier jobs is damaged.
    """
    if not quote.bills:
        return None
    said = f"its quote is: {'; '.join(quote.lines())}"
    if cap is None:
        raise OverCap(f"this job bills, and this server has no cap that agrees to it; {said}; its owner may set one")
    if quote.ceiling is None:
        raise OverCap(f"this job bills at a price that is not known, to which no cap can agree; {said}")
    amount = max(quote.ceiling, ceiling or 0.0)
    with alone(root, LOCK):
        kept = _read(root)
        if job.id not in kept:
            _hold(kept, amount, quote.currency, cap, said)
            kept[job.id] = {"amount": amount, "currency": quote.currency, "owner": job.owner}
            files.write_json(shared_file(root, FILE), kept)
        return float(kept[job.id]["amount"])


def _hold(kept: dict[str, Any], amount: float, currency: str, cap: float, said: str) -> None:
    """Raises: OverCap, where the amount does not fit beside what is reserved."""
    if others := {entry["currency"] for entry in kept.values()} - {currency}:
        raise OverCap(f"the cap is spent in {', '.join(sorted(others))}, expected {currency}; {said}")
    left = cap - sum(entry["amount"] for entry in kept.values())
    if amount > left:
        raise OverCap(
            f"this job may cost {amount:,.2f} {currency}, and of this server's cap of {cap:,.2f} {max(left, 0.0):,.2f} "
            f"are left; {said}; wait for other jobs to end, or ask its owner"
        )


def give_back(root: Path, job: Job) -> None:
    """Of a job that has ended, keep only what it has cost, also where that is more; nothing while it may still bill.

    Raises: ConfigError, where a record is damaged.
    """
    if job.id not in _read(root):
        return
    entries = [entry for entry in Ledger(job.run.path).entries() if entry.thing.kind == "job"]
    if any(entry.is_open and entry.thing.bills for entry in entries):
        return
    has_begun = any(entry.step != "refused" or entry.hours for entry in entries)
    cost = cost_so_far(job.run, entries, job.run.status())[0] if has_begun else 0.0
    with alone(root, LOCK):
        kept = _read(root)
        if cost is not None and job.id in kept and cost != kept[job.id]["amount"]:
            kept[job.id]["amount"] = cost
            files.write_json(shared_file(root, FILE), kept)


def _read(root: Path) -> dict[str, Any]:
    """Amounts that are reserved, by job. Raises: ConfigError: a damaged record must not free what was spent."""
    path = shared_file(root, FILE)
    try:
        found = files.read_json(path)
        if found is None:
            return {}
        return {str(job): entry | {"amount": float(entry["amount"])} for job, entry in found.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{path}: is damaged ({error}), expected the amounts that jobs have reserved; correct it"
        ) from None
