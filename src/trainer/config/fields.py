"""What fields of the config are made of: strict numbers, names, and the closed section they stand in."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError, PydanticKnownError


def _not_a_bool(value: Any) -> Any:
    """Refuse `yes` and `true` where a number is meant: pydantic would read them as 1.0."""
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value


def of_form(pattern: str, expected: str) -> AfterValidator:
    """A text that matches the whole pattern; `expected` tells its form to people."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise PydanticCustomError("form", "{expected}", {"expected": expected})
        return value

    return AfterValidator(check)


# Whole numbers are strict. Other numbers are not: YAML 1.1 reads `2e-4` as the text '2e-4'.
Count = Annotated[int, Field(strict=True, ge=1)]
NonNegativeCount = Annotated[int, Field(strict=True, ge=0)]
# The validator stands last: between a type and its bounds it would keep the bounds out of the JSON Schema.
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_not_a_bool)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_not_a_bool)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False), BeforeValidator(_not_a_bool)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True, min_length=1)]
Name = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Auto = Literal["auto"]


class Section(BaseModel):
    """A part of the tree: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
