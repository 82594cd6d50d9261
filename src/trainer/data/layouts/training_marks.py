"""Marks of other tools on answers and rows that are not trained, as weights of the chat format.

Axolotl, ms-swift, Together and others mark messages with a key of their own. A mark that were left out would turn
"do not train this" into training.
"""

from collections.abc import Mapping
from typing import Any

from trainer.data.quoting import quoted

TRAINED = ("loss", "train", "trainable", "training", "train_on", "learn", "is_trainable", "requires_loss")
MASKED = ("mask", "masked", "loss_mask", "ignore", "no_loss", "skip_loss", "do_not_train")
PARTLY = ("train_detail", "training_detail", "weights", "token_weights", "loss_weights")
_YES, _NO = (True, 1, "true", "True", "yes", "1"), (False, 0, "false", "False", "no", "0")


class UnclearMark(ValueError):
    """A mark that no weight says; the text says why."""


def take_weight(made: dict[str, Any], where: str) -> None:
    """Put `weight` in the place of an answer's marks. A loss mask of 1 trains, any other mask of true does not.

    Raises: UnclearMark, where the marks contradict each other or speak of a part of the answer.
    """
    for key in PARTLY:
        if made.get(key) not in (None, [], {}):
            raise UnclearMark(
                f"{where}.{key} trains a part of the answer, expected all of it or none; write weight 0 or 1"
            )
    found = {key: weight for key in (*TRAINED, *MASKED) if (weight := _weight(made, key, where)) is not None}
    if not found:
        return
    weights = {*found.values(), *([made["weight"]] if made.get("weight") in (0, 1) else [])}
    if len(weights) > 1:
        keys = " and ".join([*found, *(["weight"] if "weight" in made else [])])
        raise UnclearMark(f"{where} has {keys} that contradict each other, expected one weight; keep one of them")
    for key in found:
        del made[key]
    made["weight"] = weights.pop()


def refuse_untrained(row: Mapping[str, Any]) -> None:
    """Raises: UnclearMark, where the row as a whole is not to be trained, or counts more or less than others."""
    for key in (key for key in (*TRAINED, *MASKED) if _says(key, row.get(key)) is False):
        if key == "loss" and not isinstance(row[key], bool):
            continue  # of a row it may as well be what some model's loss was
        raise UnclearMark(
            f"says that it is not trained ({key} is {quoted(row[key])}), expected a row to train; remove it"
        )
    weight = row.get("weight")
    if isinstance(weight, int | float) and weight != 1:
        raise UnclearMark(
            f"has weight {quoted(weight)}, expected rows of one weight; put it into a file of its own, which "
            "data.train can weigh, or remove it"
        )


def _weight(made: Mapping[str, Any], key: str, where: str) -> int | None:
    """Weight by a mark; None without one. A text that is neither yes nor no is about something else."""
    value = made.get(key)
    if value is None or isinstance(value, list | dict):
        return None
    says = _says(key, value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and (says is None or (key in MASKED and key != "loss_mask")):
        raise UnclearMark(f"{where}.{key} is {quoted(value)}, expected true or false; write weight 0 or 1")
    return None if says is None else int(says)


def _says(key: str, value: object) -> bool | None:
    """True for a mark that trains; None for one that says neither."""
    if isinstance(value, list | dict) or value not in (*_YES, *_NO):
        return None
    return (value in _YES) == (key in TRAINED or key == "loss_mask")
