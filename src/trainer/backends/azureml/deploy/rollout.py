"""A deployment from nothing to traffic: read `deploy` from top to bottom.

Every step finds what an earlier, interrupted command has done. A deployment that fails is deleted, since it bills; one
that works gets the traffic after it has answered as the run's own model does. The one before it stays, for going back.
"""

import contextlib
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.backends.azureml.deploy.deployment import (
    container_logs,
    delete_deployment,
    deployment_entity,
    endpoint_entity,
    last_lines,
    progress_of,
    shift_traffic,
    wait_until_ended,
)
from trainer.backends.azureml.deploy.endpoints import chat_endpoint
from trainer.backends.azureml.deploy.plan import DeploymentRequest
from trainer.backends.azureml.deploy.register import (
    FOLDER,
    code_version,
    ensure,
    model_name,
    register_bundle,
    register_environment,
    stage_code,
)
from trainer.backends.azureml.deploy.smoke import smoke_test
from trainer.backends.azureml.image import with_advice
from trainer.backends.azureml.job import BACKEND
from trainer.backends.azureml.workspace import connect, quietly
from trainer.backends.contract import DeploymentPlan, Endpoint
from trainer.backends.http import Say, failure_of, found, found_or_none, patiently
from trainer.backends.idempotent import delete_once
from trainer.errors import BackendError, ParityError
from trainer.inference.bundle import write_bundle
from trainer.runs import Run
from trainer.runs.ledger import Ledger, Thing
from trainer.runs.lock import locked

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.polling import LROPoller

ALL = 100  # percent
SDK_POLLING_SECONDS = 5  # of azure-ai-ml's own thread, which takes no other


def deploy(plan: DeploymentPlan[DeploymentRequest], run: Run, say: Say) -> Endpoint:
    """Make the planned deployment, try it through its endpoint, and give it the traffic.

    Raises: BackendError, ParityError; what bills is then deleted, or the command that deletes it is named.
    """
    # While it waits the SDK prints dots to standard output, which belongs to results.
    with locked(run.path, say), contextlib.redirect_stdout(io.StringIO()):
        rollout = _Rollout(plan.details, run, say)
        try:
            model, environment = rollout.register()
            rollout.make_endpoint()
            rollout.make_deployment(model, environment)
            rollout.wait_until_ready()
            rollout.try_it()
            return rollout.switch()
        finally:
            rollout.let_the_sdk_end()


class _Rollout:
    """The steps of one deployment."""

    def __init__(self, request: DeploymentRequest, run: Run, say: Say) -> None:
        self.request, self.run, self.say = request, run, say
        self.target = request.target
        self.ml: MLClient = connect(self.target.place)
        self.ledger = Ledger(run.path)
        self.poller: LROPoller[Any] | None = None
        self.address = f"{self.target.endpoint}/{self.target.deployment}"

    def register(self) -> tuple[str, str]:
        """References of the model and of the environment; both are there already where their content is known."""
        settings, place = self.target.settings, self.target.place
        with tempfile.TemporaryDirectory(prefix="trainer-model-") as folder:
            bundle = write_bundle(self.run, Path(folder) / FOLDER, self.request.checkpoint, self.request.with_base)
            model = register_bundle(self.ml, place, self.run, bundle, model_name(self.run, None), self.say)
        return model.reference, register_environment(self.ml, place, settings, self.ledger, self.say)

    def make_endpoint(self) -> None:
        thing = self.target.endpoint_thing()
        if self._endpoint() is not None and self.ledger.find(*thing.identity) is None:
            self.say(f"the endpoint {thing.key} exists; this deployment is added to it")
            return
        ensure(
            self.ledger,
            thing,
            lambda: None if (known := self._endpoint()) is None else str(known.id),
            lambda: self._begin_endpoint(endpoint_entity(self.target, self.run)),
            {"auth": self.target.settings.auth},
            self.say,
        )
        self._settle_endpoint()

    def make_deployment(self, model: str, environment: str) -> None:
        """A failed one of an earlier try is deleted first, as it can never answer."""
        known = self._deployment()
        if known is not None and progress_of(known) in ("Failed", "Canceled"):
            self.say(f"the deployment {self.address} has failed before; deleting it")
            self._delete()
        if known is not None and progress_of(known) == "Deleting":
            raise BackendError(f"the deployment {self.address}: is being deleted; wait a minute and deploy again")
        code = self._code()
        ensure(
            self.ledger,
            self.target.deployment_thing(self.run),
            lambda: None if (known := self._deployment()) is None else str(known.id),
            lambda: self._create_deployment(model, environment),
            {
                "mode": self.target.settings.mode,
                "machines": self.target.machines,
                "hourly": self.target.hourly,
                "currency": self.target.currency,
                "price_source": self.target.price_source,
                "model": model,
            },
            self.say,
        )
        if code is not None:
            made = self._read_deployment().code_configuration
            self.ledger.write(code, "exists", id=str(made.code) if made is not None else "")

    def _code(self) -> Thing | None:
        """The scoring script with this package, which is uploaded with the deployment; written down before it is."""
        if self.target.settings.mode != "score":
            return None
        code = Thing(BACKEND, "code", code_version(), self.target.place.arm_id)
        if (known := self.ledger.find(code.kind, code.key)) is None or not known.is_open:
            self.ledger.write(code, "intended")
        return code

    def wait_until_ready(self) -> None:
        """Raises: BackendError, with the containers' last words, when it has failed; it is then deleted."""
        what = f"the deployment {self.address}"
        try:
            state = wait_until_ended(self._read_deployment, what, self.say)
        except (BackendError, KeyboardInterrupt) as error:
            self.say(f"{what} continues by itself and bills; follow it: the same command again")
            self.say(f"or remove it: {self.target.delete_deployment()}")
            raise error
        if state != "Succeeded":
            reason = self._reason()
            logs = container_logs(self.ml, self.target.endpoint, self.target.deployment)
            self.run.event(f"{what} has failed: {reason}", level="error", kind="deploy", log=logs)
            words = with_advice(reason.rstrip("."))
            raise BackendError(f"{what}: has failed: {words}; {self._clean_up()}", *last_lines(logs))

    def try_it(self) -> None:
        """Raises: BackendError, ParityError; a deployment that is certainly another model is deleted."""
        client = chat_endpoint(self.ml, self.run, self.target.endpoint, self.target.deployment)
        try:
            result = smoke_test(self.run, client, self.target.settings.mode, self.request.checkpoint, self.say)
        except ParityError as error:
            logs = container_logs(self.ml, self.target.endpoint, self.target.deployment)
            raise ParityError(*error.problems, f"it gets no traffic; {self._clean_up()}", *last_lines(logs)) from error
        except BackendError as error:
            raise BackendError(
                f"{error}",
                f"the deployment {self.address} bills and has no traffic: deploy again to try it again, or remove it: "
                f"{self.target.delete_deployment()}",
            ) from error
        self.run.event(f"{self.address} was tried", kind="smoke test", **result.as_json())
        for line in result.lines():
            self.say(line)

    def switch(self) -> Endpoint:
        """All traffic to the new deployment; says how to go back, and what the old ones still cost."""
        endpoint = self._known_endpoint()
        old = {name: share for name, share in endpoint.traffic.items() if name != self.target.deployment}
        if endpoint.traffic.get(self.target.deployment) != ALL:
            endpoint.traffic = {**dict.fromkeys(old, 0), self.target.deployment: ALL}
            patiently(lambda: self._begin_endpoint(endpoint), f"giving {self.target.deployment} the traffic", self.say)
            endpoint = self._settle_endpoint()
        self._note_traffic(str(endpoint.scoring_uri))
        self.run.event(f"deployed as {self.address}", kind="deploy", url=str(endpoint.scoring_uri))
        for name in sorted(old):
            self._tell_old(name, old[name])
        return Endpoint(
            self.target.endpoint,
            self.target.deployment_thing(self.run),
            self.run.name,
            "Succeeded",
            self.request.model,
            self._cost(),
            "",
            str(endpoint.scoring_uri),
        )

    def _note_traffic(self, url: str) -> None:
        """In the ledger, so that a chat finds the deployment that answers; the run may have had another there."""
        self.ledger.write(self.target.deployment_thing(self.run), "exists", traffic=ALL, url=url)
        for entry in self.ledger.open():
            thing = entry.thing
            of_endpoint = thing.kind == "deployment" and thing.key.startswith(f"{self.target.endpoint}/")
            if (
                of_endpoint
                and thing.place == self.target.place.arm_id
                and thing.key != self.address
                and entry.facts.get("traffic")
            ):
                self.ledger.write(thing, "exists", traffic=0)

    def let_the_sdk_end(self) -> None:
        """Its own thread prints until it has seen the end too."""
        if self.poller is not None:
            with contextlib.suppress(Exception):  # what it has to say was asked for where it matters
                self.poller.wait(timeout=3 * SDK_POLLING_SECONDS)

    def _tell_old(self, name: str, share: int) -> None:
        place, endpoint = self.target.place, self.target.endpoint
        self.say(f"the deployment {name}, which had {share} % of the traffic, has none now and still bills")
        self.say(f"go back to it: {shift_traffic(place, endpoint, name)}")
        self.say(f"delete it:     {delete_deployment(place, endpoint, name)}")

    def _cost(self) -> str:
        hourly = self.target.hourly
        return "price not known" if hourly is None else f"{hourly:,.2f} {self.target.currency} an hour"

    def _create_deployment(self, model: str, environment: str) -> str:
        """One PUT, after the upload of the code, which is named by its content."""
        target = self.target
        with tempfile.TemporaryDirectory(prefix="trainer-code-") as folder:
            code = Path(folder) / "code"
            if target.settings.mode == "score":
                stage_code(code)
            entity = deployment_entity(target, self.run, model, environment, code, self.request.vault)
            self.say(f"creating the deployment {self.address}; it bills from now on, and takes 10 to 30 minutes")
            with quietly():
                self.poller = self.ml.online_deployments.begin_create_or_update(entity, skip_script_validation=True)
        return f"{target.place.arm_id}/onlineEndpoints/{target.endpoint}/deployments/{target.deployment}"

    def _begin_endpoint(self, endpoint: Any) -> str:
        with quietly():
            self.ml.online_endpoints.begin_create_or_update(endpoint)
        return f"{self.target.place.arm_id}/onlineEndpoints/{endpoint.name}"

    def _settle_endpoint(self) -> Any:
        """Raises: BackendError, when the endpoint has failed."""
        what = f"the endpoint {self.target.endpoint}"
        if (state := wait_until_ended(self._known_endpoint, what, self.say)) != "Succeeded":
            remove = self.target.endpoint_thing().delete_with
            raise BackendError(f"{what}: is {state}, expected Succeeded; it costs nothing; remove it: {remove}")
        return self._known_endpoint()

    def _reason(self) -> str:
        """Cause of the deployment's failure, which only the long operation's own answer says."""
        if self.poller is None:
            return "the studio says why"
        try:
            self.poller.result(timeout=3 * SDK_POLLING_SECONDS)
        except Exception as error:
            return str(failure_of(error))
        return "the studio says why"

    def _clean_up(self) -> str:
        """Delete what has failed. What was done, or the command that is left to do."""
        try:
            self._delete()
        except BackendError as error:
            remove = self.target.delete_deployment()
            return f"it still bills, as it could not be deleted ({error}); delete it: {remove}"
        return "it was deleted and bills no more"

    def _delete(self) -> None:
        """Delete the deployment, which has no traffic, and wait until it is gone. Raises: BackendError."""
        delete_once(
            self.ledger,
            self.target.deployment_thing(self.run),
            lambda: self.ml.online_deployments.begin_delete(self.target.deployment, self.target.endpoint).wait(),
            self.say,
            lambda: found_or_none(self._read_deployment) is not None,
        )

    def _endpoint(self) -> Any:
        return found(self._known_endpoint, f"looking for the endpoint {self.target.endpoint}", self.say)

    def _known_endpoint(self) -> Any:
        return self.ml.online_endpoints.get(self.target.endpoint)

    def _deployment(self) -> Any:
        return found(self._read_deployment, f"looking for the deployment {self.address}", self.say)

    def _read_deployment(self) -> Any:
        return self.ml.online_deployments.get(self.target.deployment, self.target.endpoint)
