"""A row's score says in words where it comes from, and no row gets a reason for being like the others."""

import pytest

from tests.conftest import talk
from trainer.data.render.rendering import Example
from trainer.training.dataset import Row
from trainer.workshop.doctor.losses import RowLosses, behind, other_rows
from trainer.workshop.doctor.neighbours import OddAnswer, odd_answers
from trainer.workshop.doctor.score import KNOWN_SCORE, MOST, ODD, suspects

EXAMPLE = Example((1, 2, 3, 4), (-100, -100, 3, 4))
FACTS = {
    "Rome": "Italy",
    "Oslo": "Norway",
    "Lima": "Peru",
    "Cairo": "Egypt",
    "Paris": "France",
    "Madrid": "Spain",
    "Athens": "Greece",
    "Dublin": "Ireland",
    "Warsaw": "Poland",
    "Vienna": "Austria",
    "Havana": "Cuba",
    "Quito": "Ecuador",
}


def rows(count):
    return [Row(talk(("user", f"question {n}"), ("assistant", f"answer {n}")), (EXAMPLE,)) for n in range(count)]


def test_ordinary_rows_have_no_reasons_and_outliers_have_their_own():
    losses = [RowLosses(3.0, 0.5 + 0.01 * (n % 5), 2.0 + 0.01 * (n % 3), 2) for n in range(30)]
    losses[7] = RowLosses(3.0, 2.9, 2.95, 2)
    losses[11] = RowLosses(0.2, 0.5, 2.0, 2)
    losses[13] = RowLosses(3.0, 0.52, 0.5, 2)
    found = suspects(rows(30), losses, {})
    by_question = {suspect.row.conversation.messages[0].content: suspect for suspect in found}
    hard, known, unexplained = (by_question[f"question {n}"] for n in (7, 11, 13))
    assert found[0] is hard
    assert found[0].hard == MOST
    assert [reason.partition(":")[0] for reason in hard.reasons] == [
        "stays hard", "answer not explained by its question", "learned little",
    ]  # fmt: skip
    assert unexplained.reasons == ("answer not explained by its question: loss 0.52, behind other questions 0.50",)
    assert known.reasons == ("known before: loss 0.20, the median row has 3.00",)
    others = [suspect for suspect in found if suspect not in (hard, known, unexplained)]
    assert not any(suspect.reasons for suspect in others)
    assert [suspect.score for suspect in found] == sorted((suspect.score for suspect in found), reverse=True)


def test_reasons_come_in_one_order_and_a_contradiction_names_the_other_row():
    losses = [RowLosses(3.0, 0.5 + 0.01 * (n % 5), 2.0 + 0.01 * (n % 3), 2) for n in range(30)]
    losses[7], losses[11] = RowLosses(3.0, 2.9, 2.95, 2), RowLosses(0.2, 0.5, 2.0, 2)
    against = {number: OddAnswer(3, 0.0, 1.0) for number in (7, 11, 20)}
    made = rows(30)
    found = {made.index(suspect.row): suspect for suspect in suspects(made, losses, against)}
    other = f"answers otherwise than {made[3].conversation.place}, which asks nearly the same"
    assert [reason.partition(":")[0] for reason in found[7].reasons] == [
        "stays hard", "answer not explained by its question", other.partition(":")[0], "learned little",
    ]  # fmt: skip
    assert [reason.partition(":")[0] for reason in found[11].reasons] == [other.partition(":")[0], "known before"]
    assert found[20].reasons == (other,)
    assert found[20].score == pytest.approx(ODD * 1.3 + found[20].hard + found[20].unexplained)
    assert next(iter(found)) == 7


def test_a_row_that_could_not_stand_behind_other_questions_is_no_more_suspect_for_it():
    losses = [RowLosses(3.0, 0.5 + 0.01 * (n % 5), 2.0 + 0.01 * (n % 3), 2) for n in range(30)]
    losses[5] = RowLosses(3.0, 0.52, None, 2)
    losses[11] = RowLosses(0.2, 0.5, 2.0, 2)
    found = {int(suspect.row.conversation.messages[0].content.split()[1]): suspect
             for suspect in suspects(rows(30), losses, {})}  # fmt: skip
    assert (found[5].unexplained, found[5].score, found[5].reasons) == (0.0, found[5].hard, ())
    assert found[11].score == pytest.approx(KNOWN_SCORE + found[11].hard + found[11].unexplained)
    alone = suspects(rows(3), [RowLosses(1.0, 1.0, None, 2)] * 3, {})
    assert [suspect.score for suspect in alone] == [0.0] * 3


def test_equal_losses_make_no_row_suspect():
    assert [suspect.score for suspect in suspects(rows(3), [RowLosses(1.0, 1.0, None, 2)] * 3, {})] == [0.0] * 3


def test_an_answer_is_odd_against_those_of_the_same_question():
    asked = [f"Which country is the large and old city of {city} the capital of?" for city in FACTS]
    said = [
        talk(("user", q), ("assistant", f"It lies in {land}.")) for q, land in zip(asked, FACTS.values(), strict=True)
    ]
    again = [talk(("user", f"{q}!"), ("assistant", "It lies in Italy.")) for q in asked[:1] * 2]
    wrong = talk(("user", asked[0].upper()), ("assistant", "Nobody has ever known that."))
    found = odd_answers([*said, *again, wrong])
    assert list(found) == [len(FACTS) + 2]
    assert found[len(FACTS) + 2].agreement == 0
    assert found[len(FACTS) + 2].usual == 1
    assert found[len(FACTS) + 2].strength == pytest.approx(1.3)


def test_two_who_disagree_are_both_odd_but_less_so():
    both = odd_answers(
        [talk(("user", "What is a hub of a wheel?"), ("assistant", text)) for text in ("A part.", "No idea")]
    )
    assert set(both) == {0, 1}
    assert both[0].strength == pytest.approx(0.3)
    assert (both[0].other, both[1].other) == (1, 0)
    assert odd_answers([]) == odd_answers([talk(("user", "?"), ("assistant", "!"))]) == {}


def test_an_answer_stands_behind_another_question():
    question = Example((7, 8, 9, 5), (-100, -100, -100, 5))
    assert behind(EXAMPLE, question) == Example((7, 8, 9, 3, 4), (-100, -100, -100, 3, 4))


def test_other_questions_have_the_same_system_prompt_and_are_not_the_row_s_own():
    made = [
        Row(talk(("system", f"S{n % 2}"), ("user", "?"), ("assistant", "!")), (Example((n, 2, 3), (-100, -100, 3)),))
        for n in range(9)
    ]
    made.append(made[0])
    found = other_rows(made)
    for number, others in found.items():
        assert len(others) >= 3
        for other in others:
            assert made[other].examples[0].input_ids != made[number].examples[0].input_ids
            assert made[other].conversation.messages[0].content == made[number].conversation.messages[0].content
    assert other_rows(made[:1]) == {0: []}
