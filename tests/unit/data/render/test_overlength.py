import pytest

from tests.conftest import CHATML, make_tokenizer, talk
from trainer.data.render.overlength import Touched, apply_policy, in_words, longest
from trainer.data.render.rendering import IGNORE_INDEX, Example, Renderer

TURNS = [(role, f"{role[0]}{number}") for number in (1, 2, 3) for role in ("user", "assistant")]
LONG = talk(("system", "S"), *TURNS)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(make_tokenizer(CHATML, ["<|im_start|>", "<|im_end|>"]))


def text(renderer: Renderer, examples: list[Example]) -> str:
    return str(renderer.tokenizer.decode(examples[0].input_ids))


def test_what_became_of_rows_is_told_in_words() -> None:
    touched = [Touched("a:1", 20, "truncated"), Touched("a:2", 30, "dropped"), Touched("a:3", 25, "dropped")]
    assert in_words(touched, 1500) == "3 rows are longer than 1,500 tokens: 2 dropped, 1 truncated"
    assert in_words(touched[:1], 10) == "1 row is longer than 10 tokens: 1 truncated"


def test_a_row_that_fits_is_left_alone(renderer: Renderer) -> None:
    examples = renderer.render(LONG)
    assert apply_policy(LONG, examples, renderer, longest(examples), "error") == (examples, None)


@pytest.mark.parametrize(("policy", "outcome"), [("error", "error"), ("drop", "dropped")])
def test_a_row_that_is_too_long_is_named(renderer: Renderer, policy: str, outcome: str) -> None:
    examples = renderer.render(LONG)
    num_tokens = longest(examples)
    result = apply_policy(LONG, examples, renderer, num_tokens - 1, policy)  # type: ignore[arg-type]
    assert result == ([], Touched("rows.jsonl:1", num_tokens, outcome))  # type: ignore[arg-type]


def test_truncate_removes_the_oldest_turns_and_keeps_the_system_prompt_and_every_answer_whole(
    renderer: Renderer,
) -> None:
    examples = renderer.render(LONG)
    shorter, note = apply_policy(LONG, examples, renderer, longest(examples) - 1, "truncate")
    expected = talk(("system", "S"), *[(m.role, m.content or "") for m in LONG.messages[3:]])
    assert shorter == renderer.render(expected)
    assert note == Touched("rows.jsonl:1", longest(examples), "truncated")
    supervised = [label for label in shorter[0].labels if label != IGNORE_INDEX]
    assert renderer.tokenizer.decode(supervised) == "a2<|im_end|>a3<|im_end|>"


def test_truncate_that_cannot_help_is_an_error(renderer: Renderer) -> None:
    examples = renderer.render(LONG)
    result = apply_policy(LONG, examples, renderer, 10, "truncate")
    assert result == ([], Touched("rows.jsonl:1", longest(examples), "error"))
