"""What processes of one run know of each other, as far as one alone can show it."""

import pytest
import torch

from trainer.training.ranks import OutOfMemoryElsewhere, Ranks


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, OutOfMemoryElsewhere])
def test_what_ran_out_of_memory_has_no_result(error: type[Exception]) -> None:
    def compute() -> int:
        raise error

    assert Ranks().tried(compute) is None
    assert Ranks().tried(lambda: 7) == 7
    Ranks().will_come()  # alone there is nobody to wait for


def test_other_errors_are_nobody_elses() -> None:
    with pytest.raises(RuntimeError, match="another"):
        Ranks().tried(lambda: (_ for _ in ()).throw(RuntimeError("another")))
