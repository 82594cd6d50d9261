"""Copies of checkpoints to another resource, and the jobs that resource has had."""

from typing import Any

from tests.loopback import Request, Response
from tests.openai_service.arm import TARGET_REGION, Arm
from tests.openai_service.jobs import Jobs
from tests.openai_service.state import State
from tests.openai_service.wire import Refused, Route, not_found

COPYING_SECONDS = 5.0


class Copies:
    """`fails`: each new copy ends so. `num_jobs`: of the other resource."""

    def __init__(self, state: State, jobs: Jobs, arm: Arm) -> None:
        self.state, self.jobs, self.arm = state, jobs, arm
        self.fails, self.num_jobs = False, 1

    def routes(self) -> list[Route]:
        path = "/fine_tuning/jobs/<job>/checkpoints/<checkpoint>/copy"
        return [Route("POST", path, self.create), Route("GET", path, self.get)]

    def list_there(self) -> Response:
        data = [{"id": f"ftjob-there-{number}", "status": "succeeded"} for number in range(self.num_jobs)]
        return Response(200, {"object": "list", "data": data, "has_more": False})

    def create(self, request: Request, job: str, checkpoint: str) -> Response:
        kept, body = self._find(request, job, checkpoint), request.json()
        if (body["destinationResourceId"], body["region"]) != (self.arm.other.id, TARGET_REGION):
            raise Refused(403, "Forbidden", "The identity has no access to the destination resource.")
        now = self.state.clock.now
        self.state.copies[checkpoint] = ("Failed" if self.fails else "Completed", now + COPYING_SECONDS)
        self.state.num_copied += 1
        if not self.fails:
            self.arm.other.copied.add(kept["fine_tuned_model_checkpoint"])
        return self._shown(job, kept)

    def get(self, request: Request, job: str, checkpoint: str) -> Response:
        return self._shown(job, self._find(request, job, checkpoint))

    def _find(self, request: Request, job: str, checkpoint: str) -> dict[str, Any]:
        if request.headers.get("aoai-copy-ft-checkpoints") != "preview":
            raise Refused(400, "invalid_request", "This operation is in preview.")
        found = next((each for each in self.jobs.find(job).checkpoints if each["id"] == checkpoint), None)
        if found is None:
            raise not_found("checkpoint", checkpoint)
        return found

    def _shown(self, job: str, checkpoint: dict[str, Any]) -> Response:
        if checkpoint["id"] not in self.state.copies:
            raise not_found("copy of checkpoint", checkpoint["id"])
        end, ready_at = self.state.copies[checkpoint["id"]]
        status = end if self.state.clock.now >= ready_at else "InProgress"
        details = [{"destinationResourceId": self.arm.other.id, "region": TARGET_REGION, "status": status}]
        name = checkpoint["fine_tuned_model_checkpoint"]
        return Response(200, {"checkpointedModelName": name, "fineTuningJobId": job, "copiedAccountDetails": details})
