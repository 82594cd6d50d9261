"""A job whose epochs the service has chosen, and that comes to more than the run may cost."""

from trainer.backends.http import Say
from trainer.backends.openai.client import Service
from trainer.backends.openai.jobs import order
from trainer.backends.openai.names import launch_of
from trainer.backends.openai.prices import cost, prices_of
from trainer.backends.openai.statuses import ENDED
from trainer.runs import Run


def end_above_cap(service: Service, run: Run, say: Say) -> None:
    """Cancel the job if its price, now that its epochs are known, is above the run's cap. Raises: BackendError."""
    status = run.status()
    if status["state"] in ENDED or not status.get("job") or not (reason := above_cap(run)):
        return
    say(reason)
    run.event(reason, level="warning")
    order(service, str(status["job"]), "cancel", say)


def above_cap(run: Run) -> str:
    """Why the job costs more than it may; empty as long as nothing shows that it does."""
    config = run.config()
    cap, epochs = config.backend.spend_cap, config.training.n_epochs
    if cap is None or epochs == "auto":
        return ""
    prices = prices_of(launch_of(run).family, config.openai)
    amount = cost(run.manifest().num_tokens * epochs, prices.training)
    if amount is None or amount <= cap:
        return ""
    return (
        f"the service has chosen {epochs} epochs, which come to {amount:,.2f} USD, and backend.spend_cap is {cap:,.2f}"
        ": the job is cancelled; raise the cap, or set training.n_epochs, and start a new run"
    )
