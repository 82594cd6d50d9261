"""A deployment that is checked, quoted and agreed to with its run, and made when the run has succeeded."""

from dataclasses import dataclass

from trainer.backends.contract import DeploymentOptions, DeploymentPlan
from trainer.backends.http import Say, patiently
from trainer.backends.openai.account import DEPLOY, AccountDeployment, AccountFacts, account_of, need_control_plane
from trainer.backends.openai.deploy import (
    Choice,
    TuningDeployment,
    choose_deployment,
    ends,
    hosting_notes,
    name_for,
)
from trainer.backends.openai.endpoints import DEVELOPER_HOURS, IDLE_DAYS
from trainer.backends.openai.held_out import ComparisonPlan
from trainer.backends.openai.names import launch_of
from trainer.backends.openai.price_list import RegionPrices
from trainer.backends.openai.prices import cost
from trainer.backends.openai.site import Site
from trainer.backends.openai.skus import SKUS
from trainer.backends.quote import Item, Quote, hold_cap
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError
from trainer.runs import Run
from trainer.runs.ledger import Ledger

IDLE_HOURS = 24 * IDLE_DAYS  # nobody may be there: so long Azure keeps a deployment that answers nobody


@dataclass(frozen=True, slots=True)
class AutoDeployment:
    """The deployment that follows a run: its lines of the plan and of the quote."""

    chosen: Choice

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Lines of the plan."""
        chosen = self.chosen
        kind = f"{SKUS[chosen.sku]}, {chosen.capacity},000 tokens a minute, when the run has succeeded"
        notes = [("contradiction", doubt) for doubt in chosen.offer.doubts]
        notes += [("warning", note) for note in chosen.offer.notes]
        return [("deploys", kind), ("ends", ends(chosen.sku)), *notes]

    def items(self, comparison: ComparisonPlan | None) -> list[Item]:
        """Lines of the quote; `comparison`: base and tuned model answer once it is there."""
        found = [hosting(self.chosen.sku, self.chosen.hourly, self.chosen.dearest_hourly)]
        return [*found, comparison.quoted(self.chosen.prices)] if comparison else found

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of the quote."""
        return () if self.chosen.sku == "developer" else hosting_notes(self.chosen.prices)

    def within(self, config: RunConfig) -> RunConfig:
        """The config with the kind of deployment that was agreed to."""
        return config.model_copy(
            update={"openai": config.openai.model_copy(update={"deployment_sku": self.chosen.sku})}
        )


def hosting(sku: str, hourly: float | None, dearest: float | None) -> Item:
    """The price of a deployment that nobody deletes, as long as Azure keeps it unused."""
    if sku == "developer":
        return Item(f"deployment, which Azure deletes after {DEVELOPER_HOURS} hours: hosting", 0.0)
    price = "" if hourly is None else f" at {hourly:,.2f} an hour"
    what = f"deployment, until Azure deletes it after {IDLE_DAYS} days without an answer: {IDLE_HOURS} hours{price}"
    total, ceiling = (None if each is None else each * IDLE_HOURS for each in (hourly, dearest))
    return Item(what, total, ceiling)


def plan_auto_deployment(
    config: RunConfig, family: str, account: AccountFacts, listed: RegionPrices | None, say: Say
) -> AutoDeployment:
    """Raises: ConfigError, with what stands in the way of the deployment; BackendError, MissingDependency."""
    need_control_plane()
    if account.may_deploy is False:
        raise ConfigError(
            f"backend.auto_deploy: is set, and you may not deploy there, expected a role with {DEPLOY}; ask for it, or "
            "remove it"
        )
    site = Site(account_of(config.openai), account.region, account.quotas, listed)
    made = AutoDeployment(choose_deployment(config, family, DeploymentOptions(), site))
    if config.run.name is not None:
        name = name_for(config.run.name)
        deployment = AccountDeployment(config.openai, made.chosen.account, name)
        if patiently(deployment.read, "looking at the deployments", say) is not None:
            raise ConfigError(
                f"run.name: {config.run.name!r} would be deployed as {name!r}, which exists in "
                f"{made.chosen.account.name!r}, expected a new name; choose another run.name"
            )
    [item, *_] = made.items(None)
    if item.amount != 0 and config.backend.spend_cap is None:
        price = "a price that is not known" if item.amount is None else f"{item.amount:,.2f} USD"
        raise ConfigError(
            f"backend.spend_cap: is not set, and backend.auto_deploy bills when nobody can be asked ({item.what}: "
            f"{price}), expected a cap that covers it; set it, or openai.deployment_sku to developer"
        )
    return made


def was_made(run: Run) -> bool:
    """True if a deployment of the run has answered, or was deleted: neither is made again."""
    deleted = any(entry.thing.kind == "deployment" and entry.step == "deleted" for entry in Ledger(run.path).entries())
    return deleted or "deployed" in run.status()


def hold_agreed(run: Run, plan: DeploymentPlan[TuningDeployment]) -> None:
    """Compare what run, deployment and comparison cost by now with the cap that was agreed to. Raises: ConfigError."""
    launch, made, num_tokens = launch_of(run), plan.details, _trained_tokens(run)
    training = Item("training", cost(num_tokens, launch.training_price), cost(num_tokens, launch.dearest_price))
    sku = next(word for word, name in SKUS.items() if name == made.sku)
    first_hour, *others = plan.quote.items
    items = (training, hosting(sku, made.hourly, first_hour.dearest), *others)
    hold_cap(Quote(items, ""), run.config().backend.spend_cap, f"deploy it by hand: trainer deploy {run.path}")


def _trained_tokens(run: Run) -> int | None:
    """Trained tokens as the service counts them, else as they were quoted; None where the epochs are not known."""
    told, epochs = run.status().get("trained_tokens"), run.config().training.n_epochs
    if isinstance(told, int):
        return told
    return None if epochs == "auto" else run.manifest().num_tokens * epochs
