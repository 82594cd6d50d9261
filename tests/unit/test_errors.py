"""What an error says, and the exit code it ends with."""

import pytest

from trainer import errors
from trainer.errors import (
    Attempts,
    BackendError,
    ConfigError,
    DataError,
    ExitCode,
    MissingDependency,
    ParityError,
    TrainerError,
    TrainingError,
    quoted,
    similar,
)

TREE = {  # error: what else it is, and its exit code
    ConfigError: (ValueError, 2),
    DataError: (ValueError, 2),
    MissingDependency: (ImportError, 2),
    BackendError: (RuntimeError, 1),
    TrainingError: (RuntimeError, 1),
    ParityError: (RuntimeError, 1),
}


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)
def test_each_error_is_a_trainer_error_and_a_standard_one(error):
    standard, code = TREE[error]
    assert issubclass(error, TrainerError)
    assert issubclass(error, standard)
    assert error.exit_code == code


def test_the_tree_is_complete():
    assert set(TrainerError.__subclasses__()) == set(TREE)


def test_exit_codes_are_those_that_shells_and_schedulers_know():
    codes = {code.name: code.value for code in ExitCode}
    assert codes == {
        "DONE": 0,
        "RUN_FAILED": 1,
        "BAD_INPUT": 2,
        "GATE_FAILED": 3,
        "RESUMABLE": 75,
        "INTERRUPTED": 130,
    }


def test_an_error_without_a_code_of_its_own_says_that_the_run_failed():
    assert TrainerError("x").exit_code is ExitCode.RUN_FAILED


@pytest.mark.parametrize(("count", "shown"), [(0, 0), (1, 1), (19, 19), (20, 20)])
def test_up_to_20_problems_are_shown_a_line_each(count, shown):
    problems = [f"problem {number}" for number in range(count)]
    assert str(ConfigError(*problems)) == "\n".join(problems[:shown])


@pytest.mark.parametrize(("count", "hidden"), [(21, 1), (25, 5), (1020, 1000)])
def test_more_than_20_problems_are_shown_as_20_and_a_count(count, hidden):
    problems = [f"problem {number}" for number in range(count)]
    assert str(DataError(*problems)).split("\n") == [*problems[:20], f"… and {hidden} more"]


def test_all_problems_are_kept():
    problems = tuple(f"problem {number}" for number in range(25))
    assert ConfigError(*problems).problems == problems


@pytest.mark.parametrize(
    ("value", "shown"),
    [("a", "'a'"), (None, "None"), ("x" * 58, repr("x" * 58)), ("x" * 59, "'" + "x" * 58 + "…"), ("a\n", r"'a\n'")],
)
def test_a_value_is_quoted_in_at_most_60_characters(value, shown):
    assert quoted(value) == shown
    assert len(quoted(value)) <= 60


@pytest.mark.parametrize(
    ("word", "known", "said"),
    [
        ("n_epoch", ["seed", "n_epochs"], ", did you mean n_epochs?"),
        ("zzz", ["seed", "n_epochs"], ""),
        ("a", [], ""),
    ],
)
def test_the_nearest_known_word_is_suggested(word, known, said):
    assert similar(word, known) == said


def test_other_words_than_the_nearest_can_be_shown():
    assert similar("r", ["r"], shown=["lora.r", "data.r"]) == ", did you mean lora.r or data.r?"


def test_the_module_docstring_shows_the_tree():
    for error in [TrainerError, *TREE]:
        assert error.__name__ in str(errors.__doc__)


def test_attempts_that_succeed_raise_nothing_and_hand_on_what_they_return():
    attempts = Attempts()
    assert attempts.make(int, "7") == 7
    attempts.end()


def failing(error):
    raise error


def test_an_error_that_is_alone_is_raised_itself():
    attempts, alone = Attempts(), BackendError("the service is away")
    assert attempts.make(failing, alone) is None
    with pytest.raises(BackendError) as raised:
        attempts.end()
    assert raised.value is alone


MIXED = {  # what fails: what is raised, with its problems in order
    "one kind": ([BackendError("a"), BackendError("b")], BackendError, ("a", "b")),
    "several kinds": ([DataError("row 1", "row 2"), BackendError("b"), ConfigError("c")], ConfigError,
                      ("b", "c", "row 1", "row 2")),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXED)
def test_all_that_fails_is_raised_at_once_with_rows_last(name):
    fails, kind, problems = MIXED[name]
    attempts = Attempts()
    for error in fails:
        attempts.make(failing, error)
    with pytest.raises(TrainerError) as raised:
        attempts.end()
    assert (type(raised.value), raised.value.problems) == (kind, problems)


def test_a_mistake_of_ours_is_not_kept():
    with pytest.raises(ZeroDivisionError):
        Attempts().make(lambda: 1 // 0)
