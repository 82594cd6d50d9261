"""Why a token is trained or not, as the previews show it."""

from tests.conftest import talk
from tests.families import family_tokenizer
from trainer.data.preview import explain
from trainer.data.rendering import Renderer


def kinds(family: str, *answers: str, untrained: list[int]) -> list[list[tuple[str, str]]]:
    renderer = Renderer(family_tokenizer(family))
    turns = [turn for answer in answers for turn in (("user", "Hi"), ("assistant", answer))]
    conversation = talk(*turns, untrained=untrained)
    spans = explain(renderer, conversation, renderer.render(conversation))
    return [[(span.kind, span.text) for span in row if span.kind != "prompt"] for row in spans]


def test_answers_of_weight_0_are_told_from_what_the_model_reads() -> None:
    assert kinds("qwen-2.5", "Bye", "Hello", untrained=[1]) == [
        [("untrained", "Bye<|im_end|>"), ("answer", "Hello"), ("end", "<|im_end|>")]
    ]


def test_an_answer_of_weight_0_need_not_be_trainable() -> None:
    assert kinds("qwen-2.5", "\nBye", "Hello", untrained=[1]) == [[("answer", "Hello"), ("end", "<|im_end|>")]]
