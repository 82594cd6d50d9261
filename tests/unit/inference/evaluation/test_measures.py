"""What is measured of an answer."""

import pytest

from trainer.inference.evaluation.measures import MEASURES, outcome, rouge_l, text_measures, words


def test_the_reference_itself_has_full_marks() -> None:
    assert text_measures("Ein Bär läuft.", "Ein Bär läuft.") == pytest.approx(
        {"exact": 1.0, "chrf": 100.0, "rouge_l": 100.0}
    )


def test_an_empty_answer_has_none() -> None:
    assert text_measures("", "A hub.") == {"exact": 0.0, "chrf": 0.0, "rouge_l": 0.0}


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("the cat sat on the mat", "the cat lay on a mat", 100 * 4 / 6),  # the, cat, on, mat
        ("mat the on cat", "the cat on", 100 * 2 * 2 / 7),  # order counts
        ("The CAT!", "the cat", 100.0),
        ("собака бежит", "собака спит", 50.0),
        ("我喜欢猫", "我喜欢狗", 75.0),
        ("a", "b", 0.0),
    ],
)
def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence(
    answer: str, reference: str, expected: float
) -> None:
    assert rouge_l(answer, reference) == pytest.approx(expected)
    assert rouge_l(reference, answer) == pytest.approx(expected)


def test_chrf_grows_with_what_is_shared() -> None:
    reference = "Spokes radiate from the hub."
    scores = [text_measures(answer, reference)["chrf"] for answer in ("xyz", "hub", "from the hub", reference)]
    assert scores == sorted(set(scores))


def test_words_of_every_script_are_found() -> None:
    assert words("Größe: 5-Loch, 自転車 ok") == ["größe", "5", "loch", "自", "転", "車", "ok"]


@pytest.mark.parametrize(
    ("right", "score", "expected"),
    [
        ((0, 1), (90, 88), "better"),  # what is right is better, whatever it scores
        ((1, 0), (90, 95), "worse"),
        ((2, 2), (50, 55), "better"),
        ((0, 0), (50, 54.9), "same"),
        ((0, 0), (50, 45), "worse"),
        ((0, 0), (16, 29), "same"),  # both are what a wrong answer scores
        ((0, 0), (16, 35), "better"),
        ((0, 0), (35, 16), "worse"),
        ((0, 0), (0, 0), "same"),
    ],
)
def test_a_row_is_better_where_more_is_right_or_its_score_is_beyond_that_of_wrong_answers(
    right: tuple[float, float], score: tuple[float, float], expected: str
) -> None:
    assert outcome(right, score, noise=30.0) == expected


@pytest.mark.parametrize(
    ("key", "value", "sign", "text"),
    [
        ("loss", 1.0666, False, "1.067"),
        ("exact", 0.825, False, "82%"),
        ("exact", -0.05, True, "-5 pp"),
        ("chrf", 71.26, True, "+71.3"),
        ("length", 1234.4, False, "1,234"),
    ],
)
def test_figures_for_people(key: str, value: float, sign: bool, text: str) -> None:
    assert MEASURES[key].text(value, sign=sign) == text
