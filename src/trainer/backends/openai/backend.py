"""Fine-tuning by OpenAI or Azure OpenAI: what each verb of the backend does with a run."""

import time
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

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
    Plan,
    ServiceModel,
    device_of,
    job_facts,
    refuse_changes_of,
    say_detached,
)
from trainer.backends.http import Say
from trainer.backends.idempotent import LISTED_LOOK_UPS
from trainer.backends.openai import deploy, endpoints, preflight
from trainer.backends.openai.auto_deploy import hold_agreed, was_made
from trainer.backends.openai.chat import chat_with
from trainer.backends.openai.client import FineTuningService, Record
from trainer.backends.openai.deploy import TuningDeployment
from trainer.backends.openai.jobs import ENDED, end_above_cap, ensure_job, job_body, job_of, may_exist, note_job, order
from trainer.backends.openai.mirror import bring_home, is_told
from trainer.backends.openai.models import list_models, tunable, who_can_use_it, with_table
from trainer.backends.openai.names import launch_of, metadata
from trainer.backends.openai.teardown import remove_deployments, teardown
from trainer.backends.openai.upload import ensure_file, wait_until_processed
from trainer.backends.quote import hold_agreed_price, hold_cap
from trainer.config.schema import RunConfig
from trainer.data.quoting import listed
from trainer.errors import BackendError, ConfigError, DataError, ExitCode, TrainerError
from trainer.extras import not_installed
from trainer.inference.client import ChatClient
from trainer.kinds import is_service
from trainer.runs import Run
from trainer.runs.ledger import Ledger, Thing
from trainer.runs.lifecycle import withdraw
from trainer.runs.lock import RunInUse, locked
from trainer.runs.manifest import Manifest
from trainer.runs.run import Outcome

UNDER_WAY = ("pausing", "cancelling")  # asked for before: the second asking is refused
FIRST_WAIT_SECONDS, MOST_WAIT_SECONDS, GROWTH = 1.0, 60.0, 1.25


class OpenAIService(Backend[Manifest], Deploys[TuningDeployment]):
    """Fine-tuning by OpenAI or Azure OpenAI."""

    where = "at the fine-tuning service"
    consequences: ClassVar[Mapping[Control, str]] = {
        "pause": "The service stops the job with a checkpoint. What it has trained is billed; resuming continues it.",
        "resume": "The service continues the job, or an interrupted launch. It bills as quoted when the run was made.",
        "cancel": "Ends the job for good. What it has trained until then is billed; its checkpoints stay.",
        "delete": "Deletes the folder here with metrics, logs and report, and at the service the run's deployments, "
        "model, job and files. They cannot be brought back.",
    }
    keeps_adapter = False
    auto_deploys = True

    def check(self, config: RunConfig, say: Say, may_exist: bool = False) -> Plan[Manifest]:
        return preflight.check(config, say)

    def models(self, config: RunConfig, every: bool, say: Say) -> Sequence[ServiceModel]:
        service = FineTuningService(config.openai)
        listed = list_models(service)
        say(f"{service.place}: {who_can_use_it(config)}")
        shown = listed if every else tunable(listed)
        return [with_table(model) for model in shown] if service.is_azure else shown

    def create(self, plan: Plan[Manifest], may_exist: bool) -> Run:
        run = super().create(plan, may_exist)
        if plan.doubts:  # whoever creates the run has settled them; its deployment meets them again
            run.set_status(run.state, settled=list(plan.doubts))
        return run

    def launch(self, plan: Plan[Manifest], run: Run, say: Say, changes: Changes = UNCHANGED) -> None:
        with locked(run.path, say):
            _start(plan, run, say)

    def follow(self, run: Run, say: Say) -> Outcome:
        service, wait = FineTuningService(run.config().openai), FIRST_WAIT_SECONDS
        while True:
            try:
                fresh = _bring_home(service, run, say)
            except RunInUse:  # another command holds the run's lock: it brings the files up to date as well
                fresh = []
            for event in filter(is_told, fresh):
                say(str(event["message"]))
            end_above_cap(service, run, say)
            if run.state in ENDED or run.state == "paused":
                break
            wait = FIRST_WAIT_SECONDS if fresh else min(wait * GROWTH, MOST_WAIT_SECONDS)
            time.sleep(wait)
        if run.state == "succeeded" and launch_of(run).comparison_quoted:
            _compare(run, None, say)
        failed = self._deploy_at_end(run, say)
        return _outcome_of(run, failed)

    def detach(self, run: Run, say: Say) -> None:
        say_detached(run, say)
        if run.config().backend.auto_deploy:
            say("its model is deployed once it has succeeded and that command, or train --resume, follows it")

    def refresh(self, run: Run, say: Say) -> None:
        _bring_home(FineTuningService(run.config().openai), run, say)

    def attend(self, run: Run, say: Say) -> None:
        self.refresh(run, say)
        self._deploy_at_end(run, say)

    def pause(self, run: Run, say: Say, wait_seconds: float = 60.0) -> None:
        self._order(run, "pause", "paused", say)

    def resume(self, run: Run, say: Say, changes: Changes = UNCHANGED) -> None:
        refuse_changes_of(run, changes)
        withdraw(run, "paused")
        service = FineTuningService(run.config().openai)
        job = job_of(service, run)
        if job is None:
            self._launch_again(run, say)
            return
        _bring_home(service, run, say)
        match run.state:
            case "failed" | "cancelled":
                raise ConfigError(
                    f"run {run.name!r}: its job is {run.state}, expected an unfinished one; start a new run"
                )
            case "paused":
                if refused := order(service, job, "resume", say):
                    raise BackendError(f"run {run.name!r}: the service does not resume its job: {refused}; try again")
                _bring_home(service, run, say)

    def cancel(self, run: Run, say: Say, wait_seconds: float = 60.0) -> None:
        self._order(run, "cancel", "cancelled", say)

    def delete(self, run: Run, say: Say) -> None:
        teardown(run, everything=True, say=say)

    def facts(self, run: Run) -> Mapping[str, object]:
        status = run.status()
        tokens = status.get("trained_tokens")
        return {
            "service": device_of(run),
            **job_facts(run),
            "model": status.get("fine_tuned_model"),
            "answers until": status.get("model_until"),
            "deployment": _pending_deployment(run),
            "billed": f"{tokens:,} tokens trained" if isinstance(tokens, int) else None,
        }

    def register(self, run: Run, settings: RunConfig, name: str | None, say: Say) -> str:
        model = run.status().get("fine_tuned_model")
        if not is_service(run.backend) or not model:
            raise ConfigError(
                f"run {run.name!r}: has no model of the service, expected a run of the openai backend that has "
                "succeeded; no adapter of one's own can be registered there"
            )
        return f"{model} (kept by the service since the run has succeeded)"

    def plan_deployment(
        self, run: Run, settings: RunConfig, options: DeploymentOptions, say: Say
    ) -> DeploymentPlan[TuningDeployment]:
        return deploy.plan_deployment(run, settings, options, say)

    def deploy(self, plan: DeploymentPlan[TuningDeployment], run: Run, say: Say) -> Endpoint:
        with locked(run.path, say):
            endpoint = _deploy(plan, run, say)
        if plan.details.compares:
            _compare(run, endpoint.name, say)
        return endpoint

    def endpoints(self, run: Run, say: Say) -> Sequence[Endpoint]:
        return list(endpoints.endpoints(run, say))

    def known_endpoints(self, run: Run) -> Sequence[Endpoint]:
        return list(endpoints.known_endpoints(run))

    def key(self, run: Run, deployment: Thing) -> EndpointKey:
        return endpoints.key_of(run, deployment)

    def remove(self, run: Run, deployment: Thing, say: Say) -> None:
        with locked(run.path, say):
            remove_deployments(run, say, deployment)

    def teardown(self, run: Run, everything: bool, say: Say) -> None:
        with locked(run.path, say):
            teardown(run, everything, say)

    def client(self, run: Run, endpoint: str | None, base: bool) -> ChatClient:
        return chat_with(run, endpoint, base)

    def _deploy_at_end(self, run: Run, say: Say) -> str:
        """Make the deployment that was agreed to with the run, once; the reason why it failed, or nothing."""
        try:
            with locked(run.path, say):
                if _pending_deployment(run) is None:
                    return ""
                try:
                    plan = self.plan_deployment(run, run.config(), DeploymentOptions(), say)
                    _refuse_unsettled(plan.doubts, run)
                    hold_agreed(run, plan)
                    endpoint = _deploy(plan, run, say)
                except TrainerError as error:
                    run.event(f"the deployment failed: {error}", level="warning")
                    run.set_status(run.state, deployment_error=str(error))
                    return str(error)
        except RunInUse:  # another command that follows the run makes it
            return ""
        say(f"deployment {endpoint.name}: {endpoint.state}; remove it: trainer teardown {run.path}")
        if plan.details.compares:
            _compare(run, endpoint.name, say)
        return ""

    def _launch_again(self, run: Run, say: Say) -> None:
        """Resume a launch that was interrupted."""
        if run.state == "cancelled":
            raise ConfigError(f"run {run.name!r}: is cancelled, expected an unfinished run; start a new run")
        with locked(run.path, say):
            if run.find_manifest() is not None:
                _continue_launch(run, say)
            else:
                config = run.config()
                plan = self.check(config, say)
                # rows, prices and the service's lists may be others than those agreed to
                hold_cap(plan.quote, config.backend.spend_cap)
                hold_agreed_price(plan.quote, run)
                _refuse_unsettled(plan.doubts, run)
                _start(plan, run, say)

    def _order(self, run: Run, verb: str, aim: Literal["paused", "cancelled"], say: Say) -> None:
        """Ask the service to bring the job to the state `aim`, where it is not there already."""
        if withdraw(run, aim):
            say(f"{run.name} waited in the queue and is {run.state}")
            return
        service = FineTuningService(run.config().openai)
        job = job_of(service, run, times=LISTED_LOOK_UPS)
        if job is None:
            if verb == "cancel":
                with locked(run.path, say):
                    run.set_status("cancelled")
                say(f"{run.name}: is cancelled; it had no job yet")
                return
            raise ConfigError(
                f"run {run.name!r}: has no job yet, expected a running one; resume with: train --resume {run.path}"
            )
        _bring_home(service, run, say)
        if run.state == aim:
            say(f"{run.name}: is {aim} already")
            return
        if run.state in ENDED:
            raise ConfigError(f"run {run.name!r}: is {run.state}, expected one that has not ended")
        refused = order(service, job, verb, say)
        _bring_home(service, run, say)
        if refused and run.state not in (aim, *ENDED) and run.status()["service_status"] not in UNDER_WAY:
            raise BackendError(
                f"run {run.name!r}: the service does not {verb} its job now: {refused}; wait, and try again"
            )
        say(f"{run.name}: the service was asked to {verb}; its job is {run.status().get('service_status')}")


def _pending_deployment(run: Run) -> str | None:
    """The deployment that was agreed to with a run, while it is not made."""
    if run.state != "succeeded" or not run.config().backend.auto_deploy or was_made(run):
        return None
    return f"agreed to with the run, and not made yet: trainer resume {run.path}"


def _refuse_unsettled(doubts: Sequence[str], run: Run) -> None:
    """Raises: ConfigError, with what nobody has settled when the run was created."""
    settled = run.status().get("settled") or []
    if new := [doubt for doubt in doubts if doubt not in settled]:
        raise ConfigError(*new)


def _deploy(plan: DeploymentPlan[TuningDeployment], run: Run, say: Say) -> Endpoint:
    """Make the deployment and note that it answers; the caller holds the run's lock."""
    endpoint = deploy.deploy(plan.details, run, say)
    named = plan.details.settings.openai.base_deployment
    base = {} if named is None else {"base_deployment": named}
    run.set_status(run.state, deployed=endpoint.name, deployment_error=None, **base)
    return endpoint


def _start(plan: Plan[Manifest], run: Run, say: Say) -> None:
    """Write down what the run is made from, and launch it; the caller holds the run's lock."""
    if run.find_manifest() is None:
        run.write_manifest(plan.details)
    _continue_launch(run, say)


def _continue_launch(run: Run, say: Say) -> None:
    """Upload what is not uploaded, and create the job if it does not exist.

    Raises: BackendError, DataError; a run whose job certainly does not exist is then failed.
    """
    config, manifest, launch = run.config(), run.manifest(), launch_of(run)
    service = FineTuningService(config.openai)
    try:
        files = {}
        for upload in launch.uploads:
            files[upload.role] = ensure_file(service, run, config, upload, say)
        for upload in launch.uploads:
            wait_until_processed(service, config, upload, files[upload.role], say)
        body = job_body(config, manifest.base.name, files, metadata(run))
        job = ensure_job(service, run, body, launch.bills, say)
    except (BackendError, DataError) as error:
        if may_exist(service, run):
            raise
        told = type(error)(*error.problems[:-1], f"{error.problems[-1]}{_kept_files(run)}")
        run.set_status("failed", error=str(told))
        raise told from error.__cause__
    note_job(run, job)
    say(f"job {job['id']}: {job.get('status')}")


def _kept_files(run: Run) -> str:
    """The uploaded files, and the command that deletes them."""
    things = [entry.thing for entry in Ledger(run.path).open() if entry.thing.kind == "file"]
    if not things:
        return ""
    return f"; uploaded and kept there: {listed([thing.key for thing in things])}, delete with: {things[0].delete_with}"


def _bring_home(service: FineTuningService, run: Run, say: Say) -> list[Record]:
    """Bring the run's files up to date once; a run without a job has nothing to bring."""
    with locked(run.path, say):
        job = job_of(service, run)
        return [] if job is None else bring_home(service, run, job, say)


def _compare(run: Run, endpoint: str | None, say: Say) -> None:
    """Compare base and tuned model, once; whatever goes wrong in it does not undo the run."""
    if run.comparison():
        return
    try:
        from trainer.backends.openai.report import compare_models

        with locked(run.path, say):
            say(f"report: {compare_models(run, endpoint, say)}")
    except ModuleNotFoundError as error:
        reason = not_installed(error, "comparing it with its base") or error
        message = f"the run is complete and was not compared: {reason}"
    except TrainerError as error:
        message = f"the run is complete; its comparison with the base failed: {error}"
    else:
        return
    run.event(message, level="warning")
    say(message)


def _outcome_of(run: Run, not_deployed: str = "") -> Outcome:
    """The exit code and sentence of a run whose job has ended or rests."""
    status = run.status()
    match status["state"]:
        case "succeeded" if not_deployed:
            again = f"try again: train --resume {run.path}"
            return Outcome(
                ExitCode.RUN_FAILED, f"{status.get('summary')}; its deployment failed: {not_deployed}; {again}"
            )
        case "succeeded":
            sentence = run.verdict_sentence()
            deploys = run.config().openai.service == "azure"
            try_it = f"trainer deploy {run.path}, and then trainer chat {run.path}" if deploys else ""
            try_it = f"trainer chat {run.path}" if endpoints.newest(run) else try_it
            return Outcome(ExitCode.DONE, "; ".join(filter(None, [status.get("summary"), sentence])), try_it)
        case "paused":
            return Outcome(ExitCode.RESUMABLE, f"run {run.name!r} is paused; resume with: train --resume {run.path}")
        case "cancelled":
            return Outcome(ExitCode.RUN_FAILED, f"run {run.name!r} was cancelled")
    return Outcome(ExitCode.RUN_FAILED, f"run {run.name!r} failed: {status.get('error')}")
