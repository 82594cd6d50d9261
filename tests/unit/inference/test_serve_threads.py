"""Work of a server in a thread: its result or its error comes back, whatever kind of error that is."""

import asyncio

import pytest

from trainer.inference.serve.service import in_thread


@pytest.mark.parametrize(
    ("raised", "expected", "words"),
    [
        (ValueError("bad"), ValueError, "bad"),
        (SystemExit(3), RuntimeError, "SystemExit: 3"),
        (KeyboardInterrupt(), RuntimeError, "KeyboardInterrupt"),
        (GeneratorExit(), RuntimeError, "GeneratorExit"),
        (StopIteration(1), RuntimeError, "StopIteration: 1"),
    ],
)
def test_whatever_ends_the_work_reaches_who_waits_for_it(
    raised: BaseException, expected: type[Exception], words: str
) -> None:
    def work() -> None:
        raise raised

    with pytest.raises(expected, match=words):
        asyncio.run(asyncio.wait_for(in_thread(work), 5))


def test_a_result_comes_back() -> None:
    assert asyncio.run(in_thread(lambda: 7)) == 7
