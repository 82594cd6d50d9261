"""What the SDK does by itself: a client at its defaults creates a job, and the same faults come in between."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from openai import OpenAI, OpenAIError

from tests.loopback import Fault, Loopback, Request
from tests.openai_service.service import KEY, Service
from tests.openai_service.world import HANG_SECONDS, MODEL, TIMEOUT_SECONDS


def jobs_created(fault: Fault, rows: bytes) -> tuple[int, str]:
    """How many jobs one call of the SDK makes, and what the caller learns of them."""
    service = Service("openai")
    with Loopback(service) as loopback, _no_waits():
        loopback.hang_seconds = HANG_SECONDS
        client = OpenAI(api_key=KEY, base_url=f"{loopback.url}/v1", timeout=TIMEOUT_SECONDS)
        file = client.files.create(file=("train.jsonl", rows), purpose="fine-tune")
        loopback.faults = [fault.fresh(is_creation)]
        try:
            job = client.fine_tuning.jobs.create(model=MODEL, training_file=file.id)
        except (OpenAIError, ValueError) as error:
            told = type(error).__name__
        else:
            told = "a job" if getattr(job, "id", None) in service.state.jobs else f"no job: {type(job).__name__}"
    return len(service.state.jobs), told


def is_creation(request: Request) -> bool:
    return request.method == "POST" and request.path.endswith("/fine_tuning/jobs")


@contextmanager
def _no_waits() -> Iterator[None]:
    with mock.patch("openai._base_client.BaseClient._calculate_retry_timeout", return_value=0.0):
        yield
