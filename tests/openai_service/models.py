"""Models: what can be tuned, until when, and what has been."""

from dataclasses import dataclass
from typing import Any

from tests.loopback import Request, Response
from tests.openai_service.state import State, TunedModel
from tests.openai_service.wire import Refused, Route, not_found

DAY = 86_400.0


ALL_TYPES = ("Standard", "GlobalStandard", "Developer")  # in any region; a data zone adds its own
DATA_ZONE = ("eastus2",)
ALL_SKUS = ("Standard", "GlobalStandard", "DeveloperTier", "DataZoneStandard")
FLAGS = {"fine_tune": "Standard", "global_fine_tune": "GlobalStandard", "devtier_fine_tune": "Developer"}
IN_A_DATA_ZONE = FLAGS | {"datazone_fine_tune": "DataZone"}


@dataclass
class BaseModel:
    """`lists_flags`: the list says how it is tuned; the open models' flags are all false, although they are tuned."""

    id: str
    training_types: tuple[str, ...]
    created: int = 1_721_172_741
    tuning_ends: int | None = 1_806_537_600  # 2027-04-01
    inference_ends: int | None = 1_822_348_800  # 2027-10-01
    format: str = "OpenAI"
    skus: tuple[str, ...] = ALL_SKUS
    lists_flags: bool = True
    methods: tuple[str, ...] = ("supervised", "dpo")

    @property
    def can_be_tuned(self) -> bool:
        return bool(self.training_types)

    @property
    def is_chat(self) -> bool:
        return not self.id.startswith("text-embedding")


def _open(name: str, publisher: str) -> BaseModel:
    anywhere, hosted = ("GlobalStandard",), ("GlobalStandard",)
    return BaseModel(name, anywhere, 1_754_352_000, None, None, publisher, hosted, False, ("supervised",))


def base_models() -> dict[str, BaseModel]:
    no_developer = ("Standard", "GlobalStandard", "DataZoneStandard")
    found = (
        BaseModel("gpt-4o-mini-2024-07-18", ALL_TYPES, skus=no_developer, methods=("supervised",)),
        BaseModel("gpt-4.1-mini-2025-04-14", ALL_TYPES, tuning_ends=1_807_660_800),
        BaseModel("gpt-4.1-nano-2025-04-14", ALL_TYPES, tuning_ends=1_807_660_800),
        BaseModel("gpt-4o-2024-08-06", ALL_TYPES, skus=no_developer),
        BaseModel("o4-mini-2025-04-16", ALL_TYPES, tuning_ends=1_807_833_600, methods=("reinforcement",)),
        BaseModel("gpt-35-turbo-0613", (), tuning_ends=1_767_225_600, inference_ends=1_767_225_600),
        BaseModel("text-embedding-3-small", ()),
        _open("gpt-oss-20b-11", "Microsoft"),
        _open("Llama-3.3-70B-Instruct", "Meta"),
        _open("Qwen3-32B", "Alibaba"),
        _open("Ministral-3B", "Mistral AI"),
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
        """Whether a base model, until its retirement, or a model tuned from one is tuned by any method."""
        found = self.find_base(key)
        if found is None or not found.can_be_tuned or (found.format != "OpenAI" and not self.state.is_azure):
            return False
        return found.tuning_ends is None or self.state.clock.now < found.tuning_ends

    def types_of(self, model: BaseModel) -> tuple[str, ...]:
        """How a model is trained in the resource's region."""
        in_a_zone = self.state.region in DATA_ZONE and model.can_be_tuned
        return (*model.training_types, "DataZone") if in_a_zone else model.training_types

    def find_base(self, key: str) -> BaseModel | None:
        tuned = self.state.models.get(key)
        while tuned and tuned.base in self.state.models:
            tuned = self.state.models[tuned.base]
        name = tuned.base if tuned else key
        return self.base.get(name) or next((m for m in self.base.values() if m.id.rpartition("-20")[0] == name), None)

    def list(self, request: Request) -> Response:
        data = [
            self._shown_base(model) for model in self.base.values() if self.state.is_azure or model.format == "OpenAI"
        ]
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
        retired = model.inference_ends is not None and self.state.clock.now >= model.inference_ends
        known = IN_A_DATA_ZONE if self.state.region in DATA_ZONE else FLAGS
        flags = {flag: model.lists_flags and kind in self.types_of(model) for flag, kind in known.items()}
        ends = {"fine_tune": model.tuning_ends, "inference": model.inference_ends}
        return {
            "id": model.id, "object": "model", "created_at": model.created, "updated_at": model.created,
            "status": "succeeded", "lifecycle_status": "deprecated" if retired else "generally-available",
            "capabilities": {
                **flags, "inference": True, "completion": False, "chat_completion": model.is_chat,
                "embeddings": not model.is_chat,
            },
            "deprecation": {name: day for name, day in ends.items() if day is not None},
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
