"""Azure ML's words for a job, and what they and the node's own record mean for the run."""

from typing import Any

from trainer.runs.run import State

STATES: dict[str, State] = {
    "NotStarted": "queued",
    "Queued": "queued",
    "Starting": "queued",
    "Provisioning": "queued",
    "Preparing": "queued",
    "Scheduled": "queued",
    "Running": "running",
    "Finalizing": "running",
    "NotResponding": "running",
    "CancelRequested": "running",
    "Paused": "paused",
    "Completed": "succeeded",
    "Failed": "failed",
    "Canceled": "cancelled",
}
FINAL = frozenset({"Completed", "Failed", "Canceled"})
PREEMPTED = ("preempt", "pre-empt", "evict")  # in the code or message of a job that lost its machine


def word_of(status: object) -> str:
    """The service's word for a status, which the SDK wraps in an enumeration."""
    return str(getattr(status, "value", status))


def state_of(status: str, before: State) -> State:
    """The run's state; a word of tomorrow leaves it as it was."""
    return STATES.get(status, before)


def is_final(status: str) -> bool:
    """Whether the job can change no more."""
    return status in FINAL


def end_of(status: str, node: dict[str, Any], reason: str) -> tuple[State, str]:
    """State and reason of a run whose job has ended. `node`: the last status.json that the node wrote.

    A job that lost its machine leaves the node's record at `running`, and can be resumed: so can a run that stopped by
    itself with a checkpoint.
    """
    there = node.get("state")
    if status == "Canceled":
        return "cancelled", reason
    if status == "Completed":
        if there == "succeeded":
            return "succeeded", ""
        return "failed", f"the job is completed, and the run on its node is {there or 'not there'}; see output.log"
    if there == "failed":
        return "failed", str(node.get("error") or reason)
    if was_preempted(reason):
        return "paused", f"the machine was taken away: {reason}"
    if there == "paused" or (there == "running" and node.get("step")):
        return "paused", reason or "the job ended before the run did"
    return "failed", reason or "the job failed before training began; see output.log"


def was_preempted(reason: str) -> bool:
    """Whether the words of a failed job say that its machine was taken away."""
    return any(word in reason.lower() for word in PREEMPTED)
