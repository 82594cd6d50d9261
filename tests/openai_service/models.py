"""Models: what can be tuned, until when, and what has been."""

from dataclasses import dataclass
from typing import Any

from tests.loopback import Request, Response
from tests.openai_service.state import State, TunedModel
from tests.openai_service.wire import Refused, Route, not_found

DAY = 86_400.0


@dataclass
class BaseModel:
    id: str
    can_be_tuned: bool
    created: int = 1_721_172_741
    tuning_ends: int = 1_806_537_600  # 2027-04-01
    inference_ends: int = 1_822_348_800  # 2027-10-01


def base_models() -> dict[str, BaseModel]:
    found = (
        BaseModel("gpt-4o-mini-2024-07-18", True),
        BaseModel("gpt-4.1-mini-2025-04-14", True, tuning_ends=1_807_660_800),
        BaseModel("gpt-4.1-nano-2025-04-14", True, tuning_ends=1_807_660_800),
        BaseModel("gpt-4o-2024-08-06", True),
        BaseModel("gpt-35-turbo-0613", False, tuning_ends=1_767_225_600, inference_ends=1_767_225_600),
        BaseModel("text-embedding-3-small", False),
    )
    return {model.id: model for model in found}


class Models:
    def __init__(self, state: State) -> None:
        self.state, self.base = state, base_models()

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/models", self.list),
            Route("GET", "/models/<key>", self.get),
            Route("DELETE", "/models/<key>", self.delete),
        ]

    def can_be_tuned(self, key: str) -> bool:
        """A base model until its retirement, or a model tuned from one."""
        found = self.find_base(key)
        return found is not None and found.can_be_tuned and self.state.clock.now < found.tuning_ends

    def find_base(self, key: str) -> BaseModel | None:
        tuned = self.state.models.get(key)
        while tuned and tuned.base in self.state.models:
            tuned = self.state.models[tuned.base]
        name = tuned.base if tuned else key
        return self.base.get(name) or next((m for m in self.base.values() if m.id.rpartition("-20")[0] == name), None)

    def list(self, request: Request) -> Response:
        data = [self._shown_base(model) for model in self.base.values()]
        data += [self._shown(model) for model in self.state.models.values() if not model.is_checkpoint]
        return Response(200, {"object": "list", "data": data})

    def get(self, request: Request, key: str) -> Response:
        if key in self.state.models:
            return Response(200, self._shown(self.state.models[key]))
        if key in self.base:
            return Response(200, self._shown_base(self.base[key]))
        raise not_found("model", key)

    def delete(self, request: Request, key: str) -> Response:
        if key not in self.state.models:
            raise not_found("model", key)
        if any(deployment.model == key for deployment in self.state.deployments.values()):
            raise Refused(409, "conflict", f"The model {key} is deployed; delete the deployment first.")
        del self.state.models[key]
        for checkpoint in [name for name in self.state.models if name.startswith(f"{key}:ckpt-step-")]:
            del self.state.models[checkpoint]
        return Response(200, {"id": key, "object": "model", "deleted": True})

    def _shown_base(self, model: BaseModel) -> dict[str, Any]:
        if not self.state.is_azure:
            ends = "2027-01-14" if model.can_be_tuned else None
            return {
                "id": model.id, "object": "model", "created": model.created, "owned_by": "system",
                "shutdown_date": ends,
            }  # fmt: skip
        retired = self.state.clock.now >= model.inference_ends
        return {
            "id": model.id, "object": "model", "created_at": model.created, "updated_at": model.created,
            "status": "succeeded", "lifecycle_status": "deprecated" if retired else "generally-available",
            "capabilities": {
                "fine_tune": model.can_be_tuned, "inference": True, "completion": False,
                "chat_completion": model.id.startswith("gpt"), "embeddings": not model.id.startswith("gpt"),
            },
            "deprecation": {"fine_tune": model.tuning_ends, "inference": model.inference_ends},
        }  # fmt: skip

    def _shown(self, model: TunedModel) -> dict[str, Any]:
        if not self.state.is_azure:
            owner = "demo-org"
            return {"id": model.id, "object": "model", "created": int(model.created_at), "owned_by": owner}
        base = self.find_base(model.id)
        assert base is not None
        shown = self._shown_base(base)
        made = int(model.created_at)
        return shown | {"id": model.id, "model": model.base, "fine_tune": model.job, "created_at": made}
