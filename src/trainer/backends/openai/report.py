"""The report that every run ends with: base and tuned model on the held-out rows, asked through the API."""

import time
from pathlib import Path

from trainer.backends.http import Say
from trainer.backends.openai.chat import chat_with
from trainer.backends.openai.held_out import quoted_comparison
from trainer.inference.client import ReplyClient
from trainer.inference.evaluation.chat_endpoint import EndpointAnswerer
from trainer.inference.evaluation.comparison import compare
from trainer.inference.evaluation.held_out import HeldOut, trained_files
from trainer.inference.evaluation.measures import ModelKey
from trainer.inference.report.run_report import OWN_PAGE, write_report
from trainer.inference.report.standings import settle_gate
from trainer.runs import Run


def compare_models(run: Run, endpoint: str | None, say: Say) -> Path:
    """Ask both models, measure the answers and write the report; returns its page.

    Raises: ConfigError, DataError, BackendError, TrainingError.
    """
    since, config = time.monotonic(), run.config()
    plan = quoted_comparison(run, config)
    trained, gone = trained_files(run)
    held_out = HeldOut(
        plan.rows, plan.total, config.data.validation_paths, plan.limits, run.manifest().seed, (),
        None if gone else trained,
    )  # fmt: skip
    clients: dict[ModelKey, ReplyClient] = {
        "base": chat_with(run, endpoint, base=True),
        "tuned": chat_with(run, endpoint, base=False),
    }
    result = compare(run, held_out, EndpointAnswerer(clients, held_out.max_new_tokens), say, since)
    page = write_report(run, result)
    run.event(result["verdict"]["sentence"], kind="evaluation", report=str(page))
    if page.stem == OWN_PAGE:
        settle_gate(run, result)
    return page
