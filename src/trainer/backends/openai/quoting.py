"""What a run will cost: tokens x epochs x price, and the comparison at its end."""

from trainer.backends.openai.bases import Base
from trainer.backends.openai.data import Checked
from trainer.backends.openai.limits import Exam
from trainer.backends.openai.prices import Prices, cost, prices_of
from trainer.backends.quote import Item, Quote
from trainer.config.schema import RunConfig
from trainer.training.plan import auto_epochs


def quote_run(config: RunConfig, base: Base, checked: Checked, exam: Exam | None) -> Quote:
    """The run's quote; `exam` is the comparison that is made when it has succeeded."""
    prices = prices_of(base.family, config.openai)
    items = [_training(config, checked, prices)]
    if exam is not None:
        items.append(comparison_item(exam, prices))
    return Quote(tuple(items), prices.source, running=_running(config, prices), notes=tuple(_notes(config, checked)))


def epochs_of(config: RunConfig, checked: Checked) -> int:
    """The epochs of the config, or those that the service's published rule comes to."""
    given = config.training.n_epochs
    return auto_epochs(len(checked.report.conversations)) if given == "auto" else given


def comparison_item(exam: Exam, prices: Prices) -> Item:
    """Base and tuned model answering the held-out rows, each answer as long as it may become."""
    reading = (cost(exam.num_input, prices.input), cost(exam.num_input, prices.base_input))
    writing = (cost(exam.num_output, prices.output), cost(exam.num_output, prices.base_output))
    amounts = [*reading, *writing]
    amount = None if None in amounts else sum(value for value in amounts if value is not None)
    return Item(
        f"comparison: {exam.num_answers:,} answers by base and tuned model, at most {exam.num_input:,} tokens read and "
        f"{exam.num_output:,} written by each",
        amount,
    )


def _training(config: RunConfig, checked: Checked, prices: Prices) -> Item:
    epochs, tokens = epochs_of(config, checked), checked.train.num_tokens
    chosen = "" if config.training.n_epochs != "auto" else " (the service's own rule)"
    price = "" if prices.training is None else f" at {prices.training:,.2f} a million"
    what = f"training: {tokens:,} tokens ({checked.train.how}) x {epochs} epochs{chosen}{price}"
    return Item(what, cost(tokens * epochs, prices.training))


def _running(config: RunConfig, prices: Prices) -> tuple[str, ...]:
    if config.openai.service != "azure":
        return ("nothing goes on billing: a tuned model needs no deployment here and is paid by the token",)
    hosting = "price not known" if prices.hosting is None else f"{prices.hosting:,.2f} USD an hour"
    return (f"nothing goes on billing by itself; a deployment, made by trainer deploy, costs {hosting}",)


def _notes(config: RunConfig, checked: Checked) -> list[str]:
    notes = ["not billed: waiting, failed jobs, safety checks; a cancelled job is billed for what it has trained"]
    if config.training.n_epochs == "auto":
        notes.append("the service decides the epochs; set training.n_epochs to fix the price")
    if checked.train.num_images:
        notes.append(f"{checked.train.num_images:,} images are not in the count: their tokens depend on their sizes")
    return notes
