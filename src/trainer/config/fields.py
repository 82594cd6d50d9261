"""Types for the fields of the config: strict numbers, names, and the closed section they stand in."""

import os
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError, PydanticKnownError


def _not_a_bool(value: Any) -> Any:
    """Refuse `yes` and `true` where a number is meant: pydantic would read them as 1.0."""
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value


def shown_form(pattern: str) -> Any:
    """A strict text whose pattern stands in the JSON Schema, for editors; `of_form` beside it speaks to people."""
    return Field(strict=True, json_schema_extra={"pattern": f"^{pattern}$"})


def of_form(pattern: str, expected: str) -> AfterValidator:
    """A text that matches the whole pattern; `expected` tells its form to people."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value, re.DOTALL):
            raise PydanticCustomError("form", "{expected}", {"expected": expected})
        return value

    return AfterValidator(check)


# Every number has an upper bound, far above what anybody means and below what breaks: a number of steps or rows counts
# things that exist, an amount is of money, hours or gibibytes.
MOST = 1_000_000_000
MAX_SEED = 2**32 - 1  # numpy's generator takes no larger one
MAX_EPOCHS = 10_000
MAX_TOKENS = 2**24  # no model reads more, and the packs of a step are counted in as many
MAX_RATE = 10.0  # one update with a larger rate moves every weight by more than any weight is
MAX_MULTIPLIER = 50_000.0  # the same as a multiple of 2e-4
MAX_BETA = 2.0  # of the fine-tuning service's own document
MAX_SMOOTHING = 0.5  # with half of the preferences reversed the rows say nothing
MAX_RANK = 65_536  # no layer is wider than that
MAX_WEIGHT = 1_000.0  # rows of a file that stand this often in an epoch are more epochs
# Whole numbers are strict. Other numbers are not: YAML 1.1 reads `2e-4` as the text '2e-4'.
Count = Annotated[int, Field(strict=True, ge=1, le=MOST)]
NonNegativeCount = Annotated[int, Field(strict=True, ge=0, le=MOST)]
Seed = Annotated[int, Field(strict=True, ge=0, le=MAX_SEED)]
Epochs = Annotated[int, Field(strict=True, ge=1, le=MAX_EPOCHS)]
Length = Annotated[int, Field(strict=True, ge=1, le=MAX_TOKENS)]
Rank = Annotated[int, Field(strict=True, ge=1, le=MAX_RANK)]
# The validator stands last: between a type and its bounds it would keep the bounds out of the JSON Schema.
Positive = Annotated[float, Field(gt=0, le=MOST, allow_inf_nan=False), BeforeValidator(_not_a_bool)]
NonNegative = Annotated[float, Field(ge=0, le=MOST, allow_inf_nan=False), BeforeValidator(_not_a_bool)]
Rate = Annotated[float, Field(gt=0, le=MAX_RATE, allow_inf_nan=False), BeforeValidator(_not_a_bool)]
Multiplier = Annotated[float, Field(gt=0, le=MAX_MULTIPLIER, allow_inf_nan=False), BeforeValidator(_not_a_bool)]
Beta = Annotated[float, Field(gt=0, le=MAX_BETA, allow_inf_nan=False), BeforeValidator(_not_a_bool)]
Weight = Annotated[float, Field(gt=0, le=MAX_WEIGHT, allow_inf_nan=False), BeforeValidator(_not_a_bool)]
WeightOrZero = Annotated[float, Field(ge=0, le=MAX_WEIGHT, allow_inf_nan=False), BeforeValidator(_not_a_bool)]
Smoothing = Annotated[float, Field(ge=0, lt=MAX_SMOOTHING, allow_inf_nan=False), BeforeValidator(_not_a_bool)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False), BeforeValidator(_not_a_bool)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True, min_length=1), of_form(r"[^\0]*", "text without a null character")]
# A shell leaves the tilde of `run.root=~/runs` as it is: a folder of that name invites to `rm -r ~`.
Folder = Annotated[Text, AfterValidator(os.path.expanduser)]
NAME, SUFFIX = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", r"[A-Za-z0-9_-]{1,40}"
Name = Annotated[
    str,
    shown_form(NAME),
    of_form(NAME, "a name of up to 100 letters, digits, dots, - and _ that begins with a letter or digit"),
]
Suffix = Annotated[
    str,
    shown_form(SUFFIX),
    of_form(SUFFIX, "a word of up to 40 letters, digits, - and _"),
]
Auto = Literal["auto"]


class Section(BaseModel):
    """A part of the tree: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
