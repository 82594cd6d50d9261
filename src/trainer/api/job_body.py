"""The body that creates a job, as OpenAI's document has it; fields that nobody knows are refused."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

MOST_METADATA, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512


def _without_auto(value: Any) -> Any:
    return None if value == "auto" else value


def _small(value: dict[str, str] | None) -> dict[str, str] | None:
    if value and (len(value) > MOST_METADATA or any(len(key) > LONGEST_KEY for key in value)):
        raise PydanticCustomError("form", "expected at most 16 keys of up to 64 characters")
    if value and any(len(text) > LONGEST_VALUE for text in value.values()):
        raise PydanticCustomError("form", "expected values of up to 512 characters")
    return value


Left = BeforeValidator(_without_auto)  # to us
Number = Annotated[float | None, Field(strict=True, gt=0, allow_inf_nan=False), Left]


class JobPart(BaseModel):
    """A part of the body."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Numbers(JobPart):
    """Hyperparameters; None is `auto`."""

    n_epochs: Annotated[int | None, Field(strict=True, ge=1, le=50), Left] = None
    batch_size: Annotated[int | None, Field(strict=True, ge=1, le=256), Left] = None
    learning_rate_multiplier: Number = None


class DpoNumbers(Numbers):
    """Those of preference training."""

    beta: Annotated[float | None, Field(strict=True, gt=0, le=2, allow_inf_nan=False), Left] = None


class Supervised(JobPart):
    """Supervised fine-tuning."""

    hyperparameters: Numbers | None = None


class Dpo(JobPart):
    """Direct preference optimization."""

    hyperparameters: DpoNumbers | None = None


class MethodBody(JobPart):
    """A method with its settings."""

    type: Literal["supervised", "dpo"]
    supervised: Supervised | None = None
    dpo: Dpo | None = None

    @model_validator(mode="after")
    def _own_settings(self) -> Self:
        if (self.dpo if self.type == "supervised" else self.supervised) is not None:
            raise PydanticCustomError("form", "holds settings of another method than its type says")
        return self

    @property
    def numbers(self) -> Numbers | None:
        chosen = self.supervised or self.dpo
        return None if chosen is None else chosen.hyperparameters


class Wandb(JobPart):
    """A project of Weights & Biases."""

    project: Annotated[str, Field(min_length=1, max_length=200)]
    name: str | None = None
    entity: str | None = None
    tags: list[str] = []


class Integration(JobPart):
    """A tracker that gets the metrics too."""

    type: Literal["wandb"]
    wandb: Wandb


class JobBody(JobPart):
    """A new job."""

    model: str
    training_file: str
    validation_file: str | None = None
    hyperparameters: Numbers | None = None
    method: MethodBody | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)] | None = None
    metadata: Annotated[dict[str, str] | None, AfterValidator(_small)] = None
    integrations: Annotated[list[Integration], Field(max_length=1)] | None = None

    @model_validator(mode="after")
    def _numbers_once(self) -> Self:
        if self.hyperparameters is not None and self.method is not None and self.method.numbers is not None:
            raise PydanticCustomError("form", "hyperparameters stand both beside method and in it; remove one of them")
        if self.hyperparameters is not None and self.method is not None and self.method.type == "dpo":
            raise PydanticCustomError("form", "hyperparameters of dpo belong into method.dpo")
        return self

    @property
    def kind(self) -> Literal["supervised", "dpo"]:
        return self.method.type if self.method else "supervised"

    @property
    def numbers(self) -> dict[str, Any]:
        """Hyperparameters that were asked for, from either place."""
        given = self.hyperparameters or (self.method.numbers if self.method else None)
        return given.model_dump(exclude_none=True) if given else {}
