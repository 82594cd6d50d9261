"""The azureml backend: the training of the local backend, as a job of Azure Machine Learning.

A verb connects, holds the run's lock where it writes into its folder, and calls the part that does it.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from trainer.backends.arm import region_name
from trainer.backends.azureml import follow, sizes
from trainer.backends.azureml.datastore import open_datastore
from trainer.backends.azureml.deploy.endpoints import client, endpoints, key_of, known_endpoints
from trainer.backends.azureml.deploy.plan import DeploymentRequest, plan_deployment
from trainer.backends.azureml.deploy.register import register
from trainer.backends.azureml.deploy.rollout import deploy
from trainer.backends.azureml.deploy.teardown import remove_deployment, teardown
from trainer.backends.azureml.job import (
    JobPlan,
    JobRequest,
    attempt_of,
    newest_job,
    prefix_of,
    recall,
    remember,
    run_stem,
    with_remaining_time,
)
from trainer.backends.azureml.preflight import preflight
from trainer.backends.azureml.submit import submit
from trainer.backends.azureml.survey import Region
from trainer.backends.azureml.workspace import Place, check_packages, connect, find_place, word_of
from trainer.backends.contract import (
    UNCHANGED,
    Backend,
    Changes,
    Control,
    DeploymentOptions,
    DeploymentPlan,
    Deploys,
    Endpoint,
    EndpointKey,
    MachineSize,
    Plan,
    ServiceModel,
    job_facts,
    refuse_changes_of,
    say_detached,
)
from trainer.backends.http import Say, found, patiently
from trainer.backends.idempotent import delete_once
from trainer.backends.quote import hold_agreed_price, hold_cap
from trainer.config.schema import RunConfig
from trainer.errors import BackendError, ConfigError, TrainerError
from trainer.inference.client import ChatClient
from trainer.runs import Run
from trainer.runs.ledger import Ledger, Thing
from trainer.runs.lifecycle import withdraw
from trainer.runs.lock import holder, locked
from trainer.runs.run import Outcome

if TYPE_CHECKING:
    from azure.ai.ml import MLClient


class AzureML(Backend[JobRequest], Deploys[DeploymentRequest]):
    """Runs that execute in a workspace."""

    where = "on Azure Machine Learning"
    resumable = ("paused", "failed", "cancelled")
    consequences: ClassVar[Mapping[Control, str]] = {
        "resume": "Submits the job again, from its newest checkpoint. It bills by the hour as quoted, within the time "
        "that is left of what was agreed to.",
        "cancel": "Ends the job. Its hours until then are billed; its checkpoints stay, and resuming starts there.",
        "delete": "Deletes the folder here with adapter, checkpoints, metrics, logs and report, and the run's files in "
        "the datastore. They cannot be brought back.",
    }

    def check(self, config: RunConfig, say: Say, may_exist: bool = False) -> Plan[JobRequest]:
        """Everything that can be verified without creating anything. Raises: ConfigError, DataError, BackendError."""
        return preflight(config, say)

    def models(self, config: RunConfig, every: bool, say: Say) -> Sequence[ServiceModel]:
        """Raises: ConfigError, always: what can be trained here is not a list."""
        raise ConfigError(
            "backend.kind: is 'azureml', expected 'openai', whose service has a list of models; this one takes any "
            "model of the hub by its name"
        )

    def sizes(self, config: RunConfig, refresh: bool, say: Say) -> Sequence[MachineSize]:
        """The machines whose GPU is known; with `refresh` the region's own list is kept first."""
        if refresh:
            check_packages()
            place = find_place(config.azureml)
            workspace = patiently(lambda: connect(place).workspaces.get(place.workspace), "reading the workspace", say)
            region = Region(place, region_name(workspace.location), say)
            unknown = sizes.refresh(region.sizes(), f"{place}, {region.name}")
            say(f"the GPU sizes that {place}, {region.name} offers are kept in {sizes.cache_file()}")
            if unknown:
                say(f"of these nothing tells the GPU, so that no plan counts on them: {', '.join(unknown)}")
        return [sizes.as_size(machine) for machine in sizes.machines()]

    def launch(self, plan: Plan[JobRequest], run: Run, say: Say, changes: Changes = UNCHANGED) -> None:
        """Create the run's job. Raises: BackendError; the same run's `resume` then continues it."""
        with locked(run.path, say):
            self._begin(plan, run, say)

    def follow(self, run: Run, say: Say) -> Outcome:
        """Take over what the job writes until it ends, and then its result. Ctrl-C leaves the job running."""
        with locked(run.path, say):
            place, plan = _recalled(run)
            client = connect(place)
            watch = follow.Watch(run, client, place, plan, say)
            return follow.watch_to_the_end(watch, lambda: self._resubmit(run, client, place, plan, say))

    def detach(self, run: Run, say: Say) -> None:
        """The job runs without us."""
        say_detached(run, say)

    def refresh(self, run: Run, say: Say) -> None:
        """The same once, without another job. A run that another command follows is up to date already."""
        self._look(run, say, may_resubmit=False)

    def attend(self, run: Run, say: Say) -> None:
        """The same once: a run that lost its machine gets another job, as in `follow`."""
        self._look(run, say, may_resubmit=True)

    def pause(self, run: Run, say: Say, wait_seconds: float = 60.0) -> None:
        """Azure ML cannot; only a run that waits in the queue is paused. Raises: ConfigError."""
        if withdraw(run, "paused"):
            say(f"{run.name} waited in the queue and is {run.state}; resume it with: trainer resume {run.path}")
            return
        raise ConfigError(
            f"run {run.name!r}: a job of Azure ML cannot be paused, expected to be left running or cancelled; "
            f"trainer cancel {run.path} keeps its checkpoints, and trainer resume {run.path} resumes from them"
        )

    def resume(self, run: Run, say: Say, changes: Changes = UNCHANGED) -> None:
        """Finish an interrupted launch, attach to a job that still runs, or submit one that ended too early again."""
        refuse_changes_of(run, changes)
        withdraw(run, "paused")
        if run.state == "succeeded":
            raise ConfigError(
                f"run {run.name!r}: is succeeded, expected an unfinished run; "
                f"to train it further start a new run with model.base={run.path}"
            )
        with locked(run.path, say):
            if (recalled := recall(run)) is None:
                config = run.config()
                planned = preflight(config, say)
                hold_cap(planned.quote, config.backend.spend_cap)  # prices may be others than those agreed to
                hold_agreed_price(planned.quote, run)
                self._begin(planned, run, say)
                return
            place, plan = recalled
            client, entry = connect(place), newest_job(run)
            if entry is None or entry.step == "refused":
                submit(run, client, place, plan, 1 if entry is None else attempt_of(entry, plan), say)
            elif entry.step == "deleted":
                submit(run, client, place, with_remaining_time(run, plan), attempt_of(entry, plan) + 1, say)
            elif entry.step == "intended":
                submit(run, client, place, plan, attempt_of(entry, plan), say)
            else:
                self._attach(run, client, place, plan, say)

    def cancel(self, run: Run, say: Say, wait_seconds: float = 60.0) -> None:
        """End the job; its checkpoints stay."""
        if withdraw(run, "cancelled"):
            say(f"{run.name} waited in the queue and is {run.state}")
            return
        entry, recalled = newest_job(run), recall(run)
        if entry is None or recalled is None:
            with locked(run.path, say):
                run.set_status("cancelled")
            say(f"{run.name} had no job yet")
            return
        place, plan = recalled
        client, name = connect(place), entry.thing.key
        job = found(lambda: client.jobs.get(name), f"looking for the job {name!r}", say)
        if job is not None and not follow.is_final(word_of(job.status)):
            patiently(lambda: client.jobs.begin_cancel(name), f"cancelling the job {name!r}", say)
        if holder(run.path) is None:
            with locked(run.path, say):
                run.event(f"cancelling job {name}", kind="job", job=name)
                if job is None:  # its creation was interrupted, and never reached the service
                    Ledger(run.path).write(entry.thing, "refused", reason="cancelled")
                    run.set_status("cancelled")
                else:
                    follow.wait_for_end(follow.Watch(run, client, place, plan, say))
        say(f"{run.name} is {run.state}; resume from its checkpoints with: trainer resume {run.path}")

    def delete(self, run: Run, say: Say) -> None:
        """Remove the run's files from the datastore and its jobs from the studio's lists."""
        if (recalled := recall(run)) is None:
            return
        place, plan = recalled
        client, ledger = connect(place), Ledger(run.path)
        store = open_datastore(client, run.config().azureml.datastore, prefix_of(plan.stem), say)
        with locked(run.path, say):
            say(f"{store.delete_all()} files of {run.name} are deleted from {place.workspace}")
            for entry in ledger.open():
                if entry.thing.kind == "job":
                    delete_once(ledger, entry.thing, partial(client.jobs.archive, entry.thing.key), say)

    def facts(self, run: Run) -> Mapping[str, object]:
        return job_facts(run) | _place_facts(run) | dict(super().facts(run))

    def register(self, run: Run, settings: RunConfig, name: str | None, say: Say) -> str:
        """Keep the run's adapter as a model of the workspace; its name and version."""
        return register(run, settings, name, say)

    def plan_deployment(
        self, run: Run, settings: RunConfig, options: DeploymentOptions, say: Say
    ) -> DeploymentPlan[DeploymentRequest]:
        """Everything about a deployment that can be verified without making it."""
        return plan_deployment(run, settings, options, say)

    def deploy(self, plan: DeploymentPlan[DeploymentRequest], run: Run, say: Say) -> Endpoint:
        """Put the run's model behind a managed online endpoint."""
        return deploy(plan, run, say)

    def endpoints(self, run: Run, say: Say) -> Sequence[Endpoint]:
        """Everything that the run has deployed."""
        return endpoints(run, say)

    def known_endpoints(self, run: Run) -> Sequence[Endpoint]:
        """The same, by the ledger."""
        return known_endpoints(run)

    def key(self, run: Run, deployment: Thing) -> EndpointKey:
        """The key of the deployment's endpoint, or a token for it, as of now."""
        return key_of(deployment)

    def remove(self, run: Run, deployment: Thing, say: Say) -> None:
        """Delete one deployment; its endpoint, which costs nothing, stays."""
        remove_deployment(run, deployment, say)

    def teardown(self, run: Run, everything: bool, say: Say) -> None:
        """Delete the run's deployments, and with `everything` all that the ledger holds."""
        teardown(run, everything, say)

    def client(self, run: Run, endpoint: str | None, base: bool) -> ChatClient:
        """A deployed model to talk to."""
        return client(run, endpoint, base)

    def _look(self, run: Run, say: Say, may_resubmit: bool) -> None:
        if holder(run.path) is not None or recall(run) is None or newest_job(run) is None:
            return
        with locked(run.path, say):
            place, plan = _recalled(run)
            client = connect(place)
            watch = follow.Watch(run, client, place, plan, say)
            follow.advance(watch, lambda: may_resubmit and self._resubmit(run, client, place, plan, say), tell=False)

    def _begin(self, plan: Plan[JobRequest], run: Run, say: Say) -> None:
        """The first job of a run, which has failed if its job was refused; `resume` settles what is in doubt."""
        request = plan.details
        job = request.plan(run_stem(run))
        remember(run, request.place, job)
        try:
            submit(run, connect(request.place), request.place, job, 1, say)
        except TrainerError as error:
            entry = newest_job(run)
            if entry is None or not entry.is_open:
                run.set_status("failed", error=str(error))
            run.event(str(error), level="error")
            raise BackendError(f"{error}\nonce that is put right: trainer resume {run.path}") from error

    def _attach(self, run: Run, client: "MLClient", place: Place, plan: JobPlan, say: Say) -> None:
        """To the newest job, or to a new one where it has ended without result."""
        entry = newest_job(run)
        assert entry is not None
        name = entry.thing.key
        job = found(lambda: client.jobs.get(name), f"reading the job {name!r}", say)
        if job is None:
            say(f"job {name} is gone; submitting the run again, from its newest checkpoint")
            Ledger(run.path).write(entry.thing, "deleted")
            submit(run, client, place, with_remaining_time(run, plan), attempt_of(entry, plan) + 1, say)
            return
        status = word_of(job.status)
        if not follow.is_final(status):
            say(f"job {name} is {status}; continuing with it")
            run.set_status(follow.state_of(status, run.state), job_status=status)
        elif follow.Watch(run, client, place, plan, say).step(tell=False) and run.state != "succeeded":
            say(f"job {name} is {status}; submitting the run again, from its newest checkpoint")
            submit(run, client, place, with_remaining_time(run, plan), attempt_of(entry, plan) + 1, say)

    def _resubmit(self, run: Run, client: "MLClient", place: Place, plan: JobPlan, say: Say) -> bool:
        """A new job for a run that lost its machine, as often as its config allows."""
        entry = newest_job(run)
        assert entry is not None
        attempt, most = attempt_of(entry, plan), run.config().azureml.max_attempts
        if not follow.was_preempted(str(run.status().get("error", ""))) or attempt >= most:
            return False
        say(f"the machine was taken away; submitting the run again, attempt {attempt + 1} of {most}")
        submit(run, client, place, with_remaining_time(run, plan), attempt + 1, say)
        return True


def _recalled(run: Run) -> tuple[Place, JobPlan]:
    """Raises: ConfigError, for a run without a job."""
    recalled = recall(run)
    if recalled is None or newest_job(run) is None:
        raise ConfigError(
            f"run {run.name!r}: has no job yet, its launch was interrupted; resume with: trainer resume {run.path}"
        )
    return recalled


def _place_facts(run: Run) -> dict[str, object]:
    """The workspace and the machine, where the run's records tell them."""
    try:
        recalled = recall(run)
    except (LookupError, TypeError):
        return {}
    if recalled is None:
        return {}
    place, plan = recalled
    return {"workspace": f"{place.workspace} in {place.resource_group}", "machine": plan.instance_type}
